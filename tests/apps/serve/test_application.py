"""The service: answers equal the runtime's, callers are kept apart, and what is refused."""

import io
import json
import re
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import cv2
import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

import prunus
from prunus.apps.common.media import PORTRAIT
from prunus.apps.serve.application import Limits, application
from prunus.export.foreign.add import About, add_card

LOCAL = "http://127.0.0.1:8000"


@contextmanager
def served(model, limits=None, token=""):
    with TestClient(application(model, limits, token), base_url=LOCAL) as client:
        yield client


@pytest.fixture(scope="module")
def pose():
    with prunus.load("pose", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def portrait():
    return PORTRAIT.read_bytes()


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def refused(answer, status):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "hint"} and "Traceback" not in answer.text
    return error["message"]


def test_a_picture_gets_what_the_runtime_says(pose, portrait):
    expected = pose(cv2.imdecode(np.frombuffer(portrait, np.uint8), cv2.IMREAD_COLOR)).to_dict()
    with served(pose) as client:
        answer = client.post("/predict", content=portrait)
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.json() == expected and len(expected["people"]) == 1


def test_a_mask_comes_as_shares_or_as_a_picture(portrait):
    picture = cv2.imdecode(np.frombuffer(portrait, np.uint8), cv2.IMREAD_COLOR)
    png = cv2.imencode(".png", picture)[1].tobytes()
    with prunus.load("segmentation", threads=1) as segment, served(segment) as client:
        expected = segment(picture)
        assert client.post("/predict", content=png).json() == expected.to_dict()
        drawn = client.post("/predict", content=png, headers={"Accept": "image/png"})
        wrong = client.post("/predict", content=png, headers={"Accept": "text/html"})
    found = cv2.imdecode(np.frombuffer(drawn.content, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found, expected.mask.classes)
    assert "image/png" in refused(wrong, 406)


def test_a_codec_gets_sound_at_its_rate_alone():
    sound = (0.1 * np.sin(np.arange(8000) * 0.1)).astype(np.float32)

    def wav(rate):
        file = io.BytesIO()
        soundfile.write(file, sound, rate, format="WAV", subtype="FLOAT")
        return file.getvalue()

    with prunus.load("codec", threads=1) as codec, served(codec) as client:
        expected = codec(sound)
        assert client.post("/predict", content=wav(16000)).json() == expected.to_dict()
        heard = client.post("/predict", content=wav(16000), headers={"Accept": "audio/*;q=0.9"})
        assert "expected 16000" in refused(client.post("/predict", content=wav(8000)), 400)
        cut = refused(client.post("/predict", content=wav(16000)[:9000]), 400)
    got, rate = soundfile.read(io.BytesIO(heard.content), dtype="float32")
    assert rate == 16000 and np.abs(got - expected.sound).max() < 1e-4
    assert "cut off" in cut and "/tmp" not in cut


def test_32_callers_get_their_own_answers_from_joined_runs(batched):
    with prunus.load(batched, threads=1) as model, served(model, Limits(wait_s=0.2)) as client:
        together = threading.Barrier(32)

        def ask(k):
            rows = np.full((1 + k % 3, 5), k, np.float32)
            together.wait(60)
            answer = client.post("/predict", content=npz(x=rows))
            return answer.status_code, rows, np.load(io.BytesIO(answer.content))["y"]

        with ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(ask, range(32)))
        told = client.get("/metrics").text
    for status, rows, found in answers:
        assert status == 200
        np.testing.assert_array_equal(found, 3 * rows)
    values = dict(line.rsplit(" ", 1) for line in told.splitlines() if line[0] != "#")
    assert float(values["prunus_run_inputs_sum"]) == 32 > float(values["prunus_run_inputs_count"])
    assert float(values['prunus_requests_total{status="200"}']) == 32
    assert float(values["prunus_in_hand"]) == 0


@pytest.mark.parametrize("shape", [(3, 8, 8), (257,), (4, 5), ()])
def test_a_network_without_a_batch_axis_runs_once_for_each_request(onnx_file, shape):
    """The lengths of its first axes are those of the data, and the outputs have others."""
    path = onnx_file(
        "net", [("Mul", "x w", "file"), ("ReduceSum", "file", "total", {"keepdims": 0})],
        {"x": ("float32", list(shape))},
        {"file": ("float32", list(shape)), "total": ("float32", [])}, {"w": np.float32(3)},
    )  # fmt: skip
    with prunus.load(path, threads=1) as model, served(model, Limits(wait_s=0.2)) as client:

        def ask(k):
            return client.post("/predict", content=npz(x=np.full(shape, k, np.float32)))

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(8)))
        told = client.get("/metrics").text
        wrong = client.post("/predict", content=npz(x=np.zeros((2, *shape), np.float32)))
    assert "axes instead of" in refused(wrong, 400)
    for k, answer in enumerate(answers):
        assert answer.status_code == 200, answer.text
        found = np.load(io.BytesIO(answer.content))
        np.testing.assert_array_equal(found["file"], np.full(shape, 3 * k, np.float32))
        assert found["total"] == 3 * k * np.prod(shape)
    values = dict(line.rsplit(" ", 1) for line in told.splitlines() if line[0] != "#")
    assert float(values["prunus_run_inputs_sum"]) == float(values["prunus_run_inputs_count"]) == 8


def test_pictures_of_different_callers_share_runs(onnx_file, tmp_path):
    weights = np.array([[1, 0, 0], [0, 0, 1]], np.float32).reshape(2, 3, 1, 1)  # red, blue
    path = onnx_file(
        "seg", [("Conv", "x w", "logits")], {"x": ("float32", [4, 3, 16, 16])},
        {"logits": ("float32", [4, 2, 16, 16])}, {"w": weights},
    )  # fmt: skip
    before = {"colour": "rgb", "mean": [0, 0, 0], "std": [255, 255, 255], "fit": "stretch"}
    about = About(task="segmentation", before=before, after={"classes": ["red", "blue"]})
    add_card(path, tmp_path / "card.onnx", about)
    pictures = []
    for k in range(16):  # columns up to k are red, the others blue
        picture = np.zeros((16, 16, 3), np.uint8)
        picture[:, :k, 2] = picture[:, k:, 0] = 255
        pictures.append(picture)
    with prunus.load(tmp_path / "card.onnx", threads=1) as model:
        assert model.batch == 4
        expected = [model(picture).to_dict() for picture in pictures]
        with served(model, Limits(wait_s=0.2)) as client, ThreadPoolExecutor(16) as pool:
            bodies = [cv2.imencode(".png", picture)[1].tobytes() for picture in pictures]
            answers = list(pool.map(lambda b: client.post("/predict", content=b).json(), bodies))
            told = client.get("/metrics").text
    assert answers == expected and len({str(answer) for answer in answers}) == 16
    assert float(re.search(r"^prunus_run_inputs_count (\S+)", told, re.M)[1]) < 16


def _bomb():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(1 << 24))
    return file.getvalue()


def _hidden_bomb():
    """Unpack to 64 MiB, and declare what the input needs."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bytes(1 << 26))
    return file.getvalue().replace((1 << 26).to_bytes(4, "little"), (168).to_bytes(4, "little"))


def _crowded():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for k in range(1100):
            archive.writestr(f"x{k}.npy", b"")
    return file.getvalue()


def _bzip2():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("x.npy", bytes(100))
    return file.getvalue()


def _lying():
    """Declare 4 TiB in the header of an array."""
    head = io.BytesIO()
    declared = {"descr": "<f4", "fortran_order": False, "shape": (1 << 40,)}
    np.lib.format.write_array_header_1_0(head, declared)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x.npy", head.getvalue() + bytes(16))
    return file.getvalue()


X = np.zeros((2, 5), np.float32)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"", 415, "0 bytes"),
        (b"hello", 415, "begins like none"),
        (b"\x89PNG\r\n\x1a\n", 415, "image/jpeg"),
        (npz(x=X)[:60], 400, "complete .npz"),
        (npz(x=X)[:-30], 400, "complete .npz"),
        (npz(z=X), 400, "'z'"),
        (npz(x=X, z=X), 400, "'z'"),
        (npz(), 415, "begins like none"),
        (npz(x=X.astype(np.float64)), 400, "float64"),
        (npz(x=np.zeros((2, 6), np.float32)), 400, "shape"),
        (npz(x=np.zeros((5, 5), np.float32)), 400, "5 items"),
        (npz(x=np.zeros((0, 5), np.float32)), 400, "0 items"),
        (npz(x=np.float32(1)), 400, "shape"),
        (npz(x=np.array([{}], object)), 400, "complete .npz"),
        (_bomb(), 400, "16777216 bytes"),
        (_hidden_bomb(), 400, "complete .npz"),
        (_crowded(), 400, "too many arrays"),
        (_bzip2(), 400, "numpy's own compression"),
        (_lying(), 400, "header declares"),
    ],
)  # fmt: skip
def test_bad_arrays_get_one_clear_refusal(batched, body, status, said):
    with prunus.load(batched, threads=1) as model, served(model) as client:
        assert said in refused(client.post("/predict", content=body), status)
        assert client.post("/predict", content=npz(x=X)).status_code == 200


def test_bad_pictures_get_one_clear_refusal(pose, portrait):
    with served(pose) as client:
        for body in (
            portrait[:2000],
            b"\xff\xd8\xff" + bytes(100),
            b"\x89PNG\r\n\x1a\n" + bytes(9),
        ):
            assert "not a complete picture" in refused(client.post("/predict", content=body), 400)
        assert "takes image/jpeg" in refused(client.post("/predict", content=npz(x=X)), 415)
        assert client.get("/predict").status_code == 405
        assert client.post("/predict", content=portrait).status_code == 200


def test_a_token_is_asked_for(batched):
    with prunus.load(batched, threads=1) as model, served(model, token="s3cret") as client:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
            answer = client.post("/predict", content=npz(x=X), headers=given)
            assert "token" in refused(answer, 401)
            assert answer.headers["www-authenticate"] == "Bearer"
            refused(client.get("/metrics", headers=given), 401)
        right = {"Authorization": "Bearer s3cret", "Host": "camera.example"}
        assert client.post("/predict", content=npz(x=X), headers=right).status_code == 200
        assert client.get("/health").json() == {"status": "ok"}


def test_without_a_token_web_sites_are_refused(batched):
    with prunus.load(batched, threads=1) as model, served(model) as client:
        for said in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
            refused(client.post("/predict", content=npz(x=X), headers=said), 403)
            refused(client.get("/metrics", headers=said), 403)
        own = {"Origin": LOCAL}
        assert client.post("/predict", content=npz(x=X), headers=own).status_code == 200


def test_large_bodies_are_refused_however_they_come(batched):
    with (
        prunus.load(batched, threads=1) as model,
        served(model, Limits(body_bytes=1000)) as client,
    ):
        assert "at most 1000" in refused(client.post("/predict", content=bytes(1001)), 413)
        parts = (bytes(400) for _ in range(1000))  # chunked: no length is declared
        assert "at most 1000" in refused(client.post("/predict", content=parts), 413)
        assert client.post("/predict", content=npz(x=X)).status_code == 200


class Gated:
    """A model that answers when the test lets it."""

    name, takes, batch, gives = "gated", ("picture",), 1, prunus.api.PoseResult

    def __init__(self):
        self.began, self.gate = threading.Event(), threading.Event()

    def items(self, data):
        return 1

    def together(self, inputs):
        self.began.set()
        self.gate.wait(60)
        return [prunus.api.PoseResult((), ()) for _ in inputs]


def test_more_requests_than_the_queue_holds_are_refused(portrait):
    model = Gated()
    with served(model, Limits(in_hand=1)) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/predict", content=portrait)
        assert model.began.wait(60)
        answer = client.post("/predict", content=portrait)
        model.gate.set()
        assert "in hand" in refused(answer, 429) and answer.headers["retry-after"] == "1"
        assert first.result(60).json() == {"people": []}
        assert client.post("/predict", content=portrait).status_code == 200


def test_a_fault_of_ours_is_told_without_its_insides(portrait, caplog):
    model = Gated()
    model.together = lambda inputs: 1 / 0
    with served(model) as client:
        assert "division" not in refused(client.post("/predict", content=portrait), 500)
    assert "ZeroDivisionError" in caplog.text


def test_the_description_names_what_the_model_takes_and_gives(batched, pose):
    with served(pose, token="s3cret") as client:
        told, page = client.get("/openapi.json").json(), client.get("/").text
    predict = told["paths"]["/predict"]["post"]
    assert told["openapi"] == "3.1.0" and told["info"]["version"] == prunus.__version__
    assert set(predict["requestBody"]["content"]) == {"image/jpeg", "image/png"}
    assert set(predict["responses"]["200"]["content"]) == {"application/json"}
    assert predict["security"] and "Bearer" in page and "street.jpg" in page
    with prunus.load(batched, threads=1) as model, served(model) as client:
        told = client.get("/openapi.json").json()
        assert "<script" not in client.get("/", headers={"Host": "<script>"}).text
    assert "application/x-npz" in json.dumps(told["paths"]["/predict"]["post"]["requestBody"])
    assert "components" not in told
