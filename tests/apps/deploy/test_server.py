"""NVIDIA Triton itself, on this machine, with the folders that `prunus deploy triton` writes.

The server is that of the package nvidia-pytriton (`make triton-deps`): it has the Python back end
alone, so that graphs of the ONNX Runtime back end are judged by their configuration only.
"""

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

import prunus as library
from prunus.apps.cli.main import main
from prunus.apps.common.media import PORTRAIT
from prunus.apps.serve.bodies import read_body

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
FOLDER = Path(os.environ.get("PRUNUS_TRITON", ROOT / ".triton"))
CLIENTS = 16


@pytest.fixture(scope="module")
def example():
    """Return the example of the page, as names."""
    pytest.importorskip("tritonclient.http")
    page = (ROOT / "docs" / "serving.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    [code] = [block for block in blocks if "tritonclient" in block]
    names = {}
    exec(compile(code, "serving.md", "exec"), names)
    return names


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return (server, folder of its back ends, folder of its libraries)."""
    python = FOLDER / "bin" / "python"
    if not python.is_file():
        pytest.skip("needs Triton's server: make triton-deps")
    code = "import sys, importlib.util as u; v = sys.version_info; s = u.find_spec('pytriton'); "
    code += "print(f'{v[0]}.{v[1]}', s.origin)"
    told = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout
    version, origin = told.split()
    server = Path(origin).parent / "tritonserver"
    # Triton looks for the stub of a version of Python beside the back end's library.
    ends = tmp_path_factory.mktemp("backends")
    shutil.copytree(server / "backends" / "python", ends / "python")
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, ends / "python")
    for program in (server / "bin" / "tritonserver", ends / "python" / stub.name):
        program.chmod(0o755)
    return server / "bin" / "tritonserver", ends, Path(origin).parents[1] / "nvidia_pytriton.libs"


@pytest.fixture(scope="module")
def started(installed, tmp_path_factory):
    """Return a context of a server: its address, and what ends it at once."""
    program, ends, libraries = installed
    logs = tmp_path_factory.mktemp("logs")

    @contextlib.contextmanager
    def start(repository, *models, port=0):
        port, metrics = port or _free_port(), _free_port()
        command = [
            program, "--model-repository", repository, "--backend-directory", ends,
            "--http-address", "127.0.0.1", "--http-port", port, "--allow-grpc", "false",
            "--metrics-address", "127.0.0.1", "--metrics-port", metrics,
            "--model-control-mode", "explicit", *(f"--load-model={name}" for name in models),
        ]  # fmt: skip
        environment = os.environ | {"LD_LIBRARY_PATH": str(libraries)}
        environment.pop("PYTHONPATH", None)
        log = logs / f"{port}-{metrics}.txt"
        with log.open("w") as told, subprocess.Popen(
            list(map(str, command)), env=environment, stdout=told, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        ) as process:  # fmt: skip
            ready = threading.Event()
            reader = threading.Thread(target=_watch, args=(process.stderr, told, ready))
            reader.start()
            try:
                assert ready.wait(120) and process.poll() is None, log.read_text()
                yield f"127.0.0.1:{port}", process.kill
            finally:
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(60)
                # The processes of its models may outlive a server that was killed.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                reader.join()
        assert "Traceback" not in log.read_text() and "arm-up" not in log.read_text()

    return start


def _free_port():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        return other.getsockname()[1]


def _watch(lines, log, ready):
    for line in lines:
        log.write(line)
        log.flush()
        if "Started Metrics Service" in line or line.startswith("error:"):
            ready.set()
    ready.set()


@pytest.fixture(scope="module")
def repository(installed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "repository"
    words = ["pose", "segmentation", "codec", "-o", str(folder), "--threads", "1"]
    assert main(["deploy", "triton", *words, "--environment", str(FOLDER.absolute())]) == 0
    return folder


@pytest.fixture(scope="module")
def url(started, repository):
    with started(repository, "pose", "segmentation", "codec-encode", "codec-decode") as (url, _):
        yield url


@contextlib.contextmanager
def _client(url):
    import tritonclient.http as triton

    with triton.InferenceServerClient(url, network_timeout=120.0) as client:
        yield client


def _at_once(url, ask, inputs):
    """Ask from a thread each, all of them together; return the answers in order."""
    together = threading.Barrier(len(inputs))

    def one(given):
        with _client(url) as client:
            together.wait(60)
            return ask(client, given)

    with ThreadPoolExecutor(len(inputs)) as pool:
        return list(pool.map(one, inputs))


def _pictures(count):
    """Return PNG files of the portrait moved sideways, each by another width."""
    whole = cv2.resize(cv2.imread(str(PORTRAIT)), (160, 160))
    moved = [np.roll(whole, 2 * k, axis=1) for k in range(count)]
    return [cv2.imencode(".png", picture)[1].tobytes() for picture in moved]


def _sound(seed):
    return (0.1 * np.random.default_rng(seed).standard_normal(4000 + 77 * seed)).astype(np.float32)


def test_16_clients_get_the_people_of_their_own_pictures(url, example):
    pictures = _pictures(CLIENTS)
    found = _at_once(url, example["people"], pictures)
    with library.load("pose", threads=1) as pose:
        expected = [pose(read_body(picture, pose)).to_dict() for picture in pictures]
    assert found == expected
    assert len({json.dumps(one) for one in found}) == CLIENTS


def test_tensors_are_the_runtimes(url, example):
    body = example["tensor"]("body", np.array([[PORTRAIT.read_bytes()]], np.object_))
    with library.load("pose", threads=1) as pose, library.load("selfie", threads=1) as segment:
        [person] = pose(read_body(PORTRAIT.read_bytes(), pose)).people
        mask = segment(read_body(PORTRAIT.read_bytes(), segment)).mask
    with _client(url) as client:
        found = client.infer("pose", [body])
        np.testing.assert_array_equal(found.as_numpy("keypoints"), person.keypoints[None, None])
        np.testing.assert_array_equal(found.as_numpy("boxes")[0, 0], np.float32(person.box))
        found = client.infer("segmentation", [body])
        np.testing.assert_array_equal(found.as_numpy("classes")[0], mask.classes)
        np.testing.assert_array_equal(found.as_numpy("foreground")[0], mask.foreground)


def test_16_streams_at_once_are_kept_apart(url, example):
    sounds = [_sound(seed) for seed in range(CLIENTS)]

    def ask(client, given):
        number, sound = given
        pieces = [{"audio": piece} for piece in np.split(sound, [1, 900, 2500])]
        codes = list(example["through"](client, "codec-encode", number, pieces))
        heard = example["through"](client, "codec-decode", f"s{number}", codes)
        return codes, np.concatenate([piece["audio"] for piece in heard])

    found = _at_once(url, ask, list(enumerate(sounds, 1)))
    with library.load("codec", threads=1) as codec:
        for sound, (codes, heard) in zip(sounds, found, strict=True):
            speech = codec.estimator.encode(sound)
            for name, expected in speech.codes.items():
                whole = np.concatenate([piece[name] for piece in codes], -1)
                np.testing.assert_array_equal(whole, expected)
            np.testing.assert_array_equal(heard[: len(sound)], codec.estimator.decode(speech))


def test_clients_share_the_batch_of_a_network(started, tmp_path, batched, colour_model, example):
    words = ["-o", str(tmp_path / "r"), "--environment", str(FOLDER.absolute()), "--wait", "500"]
    assert main(["deploy", "triton", str(batched), str(colour_model(batch=4)), *words]) == 0
    rows = [np.full((1 + k % 2, 5), k, np.float32) for k in range(CLIENTS)]

    def ask(client, row):
        return client.infer("batched", [example["tensor"]("x", row)]).as_numpy("y")

    def paint(client, k):
        picture = np.zeros((8 + k, 9, 3), np.uint8)
        picture[..., 1 + k % 2] = 255  # green or red
        body = np.array([[cv2.imencode(".png", picture)[1].tobytes()]], np.object_)
        return client.infer("class_ids-4", [example["tensor"]("body", body)]).as_numpy("classes")

    with started(tmp_path / "r", "batched", "class_ids-4") as (url, _):
        for k, found in enumerate(_at_once(url, paint, range(CLIENTS))):
            assert found.shape == (1, 8 + k, 9) and np.unique(found).tolist() == [2 - k % 2]
        for row, found in zip(rows, _at_once(url, ask, rows), strict=True):
            np.testing.assert_array_equal(found, 3 * row)
        with _client(url) as client:
            [told] = client.get_inference_statistics("batched")["model_stats"]
            [painted] = client.get_inference_statistics("class_ids-4")["model_stats"]
    warm = 1  # Triton counts its own request
    rows_in = sum(map(len, rows))
    assert told["inference_count"] - warm == rows_in
    assert told["execution_count"] - warm < CLIENTS  # 24 rows, up to four in a run
    assert painted["inference_count"] - warm == CLIENTS > painted["execution_count"]
    assert max(int(one["batch_size"]) for one in told["batch_stats"]) == 4


def test_the_load_generator_speaks_to_it(url, tmp_path):
    words = ["--server", url, "--rate", "30", "--seconds", "1", "--clients", "16"]
    assert main(["bench", "segmentation", *words, "-o", str(tmp_path / "load.json")]) == 0
    told = json.loads((tmp_path / "load.json").read_text())
    [load] = told["loads"]
    assert load["refused"] == {} and load["answered"] > 0 < told["busiest"]
    with _client(url) as client:
        [counted] = client.get_inference_statistics("segmentation")["model_stats"]
    assert counted["inference_stats"]["success"]["count"] > 32


GOOD = [[b"\xff\xd8\xff"]]


@pytest.mark.parametrize(
    ("model", "name", "array", "said"),
    [
        ("pose", "body", np.array(GOOD * 2, np.object_), "batch-size must be <= 1"),
        ("pose", "body", np.array([b"x"], np.object_), "unexpected shape"),
        ("pose", "body", np.zeros((1, 1), np.float32), "data-type"),
        ("pose", "body", np.array(GOOD, np.object_), "not a complete picture"),
        ("pose", "body", np.array([[b""]], np.object_), "Got a body of 0 bytes"),
        ("pose", "picture", np.array(GOOD, np.object_), "unexpected inference input 'picture'"),
        ("codec-encode", "audio", np.zeros((1, 320), np.float32), "unexpected shape"),
        ("codec-encode", "audio", np.float32([np.nan]), "Sample 0 of the sound is nan"),
        ("codec-decode", "codes", np.zeros((3, 1), np.int64), "expected 2 inputs but got 1"),
        ("nothing", "x", np.zeros(1, np.float32), "unknown model"),
    ],
)
def test_wrong_requests_are_refused(url, example, model, name, array, said):
    from tritonclient.utils import InferenceServerException

    stream = {"sequence_id": 999, "sequence_start": True, "sequence_end": True}
    words = stream if "codec" in model else {}
    with _client(url) as client, pytest.raises(InferenceServerException, match=said):
        client.infer(model, [example["tensor"](name, array)], **words)


def test_a_server_that_dies_under_load_answers_the_same_again(started, repository, example):
    from tritonclient.utils import InferenceServerException

    [picture] = _pictures(1)
    sound, port = {"audio": _sound(3)}, _free_port()
    models = ("segmentation", "codec-encode")
    body = example["tensor"]("body", np.array([[picture]], np.object_))
    answers, failures, half = [], [], threading.Event()

    def ask(url):
        with _client(url) as client:
            while not failures:
                try:
                    answers.append(client.infer("segmentation", [body]).as_numpy("classes"))
                except Exception as error:  # whatever breaks off
                    failures.append(error)
                if len(answers) >= 8 * CLIENTS:
                    half.set()

    with ThreadPoolExecutor(CLIENTS) as pool:
        with started(repository, *models, port=port) as (url, kill):
            with _client(url) as client:
                begun = example["through"](client, "codec-encode", 5, itertools.repeat(sound))
                next(begun)
            asking = [pool.submit(ask, url) for _ in range(CLIENTS)]
            assert half.wait(120)
            kill()
        for one in asking:
            one.result(120)
    assert failures and len(answers) >= 8 * CLIENTS
    with started(repository, *models, port=port) as (url, _), _client(url) as client:
        answers.append(client.infer("segmentation", [body]).as_numpy("classes"))
        given = [example["tensor"](name, array) for name, array in sound.items()]
        with pytest.raises(InferenceServerException, match="must specify the START flag"):
            client.infer("codec-encode", given, sequence_id=5)
        codes = list(example["through"](client, "codec-encode", 5, [sound]))
    with library.load("segmentation", threads=1) as segment:
        expected = segment(read_body(picture, segment)).mask.classes
    assert all((one[0] == expected).all() for one in answers)
    with library.load("codec", threads=1) as codec:
        wanted = codec.estimator.encode(sound["audio"]).codes
    assert all((codes[0][name] == wanted[name]).all() for name in wanted)
