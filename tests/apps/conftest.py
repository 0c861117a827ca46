"""Small pictures and videos, and the command line as a function."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from prunus.apps.cli.main import main
from prunus.apps.common.media import MEDIA
from prunus.runtime.pictures.opencv import load_cv2

cv2 = load_cv2()  # first of all: FFmpeg inside it keeps the loudness that it begins with


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def prunus(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run(*words: object) -> Ran:
        capfd.readouterr()
        code = main([str(word) for word in words])
        return Ran(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def spoken():
    """Return 4 s of voice-like sound at 16 kHz with a little noise: (64000,) float32."""
    from prunus.apps.io.sources.sound import SyntheticVoice

    sound = np.concatenate(list(SyntheticVoice("4", 16000).blocks(16000)))
    noise = np.random.default_rng(0).standard_normal(len(sound))
    return (sound + 0.002 * noise).astype(np.float32)


class RecordedPage:
    """A page that somebody always watches: keeps what it is told, and may answer with controls."""

    name, watched = "a page", True

    def __init__(self) -> None:
        self.head: dict = {}
        self.controls = None
        self.told: list[tuple[np.ndarray | None, dict, np.ndarray]] = []
        self.settings: dict[int, dict] = {}  # set before frame 0, 1, ... is told

    def introduce(self, head, controls) -> None:
        self.head, self.controls = head, controls
        controls.set(self.settings.get(-1, {}))

    def tell(self, clean, data) -> None:
        self._now = (clean, data)
        self.controls.set(self.settings.get(len(self.told), {}))

    def write(self, frame, drawn) -> None:
        self.told.append((*self._now, drawn.copy()))

    def close(self) -> None:
        pass


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> RecordedPage:
    """Return what ``--sink web:1`` opens."""
    from prunus.apps.web import server

    recorded = RecordedPage()
    monkeypatch.setattr(server, "open_web", lambda text: recorded)
    return recorded


@pytest.fixture(scope="session")
def portrait() -> Path:
    return MEDIA / "portrait.jpg"


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory, portrait: Path) -> Path:
    """Return 12 frames of 256x256 pixels at 10 frames per second; frame i is i pixels further."""
    path = tmp_path_factory.mktemp("video") / "walk.mp4"
    picture = cv2.resize(cv2.imread(str(portrait)), (256, 256))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (256, 256))
    for i in range(12):
        writer.write(np.roll(picture, i, axis=1))
    writer.release()
    return path


def _frames_of(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        done, frame = capture.read()
        if not done:
            capture.release()
            return frames
        frames.append(frame)


@pytest.fixture(scope="session")
def frames_of() -> Callable[[Path], list[np.ndarray]]:
    return _frames_of


def _write_masks_model(path: Path, decoder: str, batch: int, **fit) -> Path:
    """Write a network that sees colours: bright red is class 1, bright green class 2, else 0."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from prunus.runtime.card.artifact import CARD_KEY
    from prunus.runtime.card.card import ModelCard, Weights
    from prunus.runtime.card.tensors import TensorSpec
    from prunus.runtime.tasks.segmentation.card import MaskPostprocess, ScenePreprocess

    sure = decoder == "probability"
    shape = (batch, 1, 64, 64) if sure else (batch, 64, 64)
    dtype, code = ("float32", TensorProto.FLOAT) if sure else ("uint8", TensorProto.UINT8)
    axes = ("batch", "class", "row", "column") if sure else ("batch", "row", "column")
    pixels = ("batch", "row", "column", "rgb")
    names = ("background", "person") if sure else ("other", "red", "green")
    colours = ((0, 0, 0), (255, 0, 0), (0, 255, 0))[: len(names)]
    card = ModelCard(
        task="segmentation", model="colours", variant="x", paper="", licence="Apache-2.0",
        exporter="test", weights=Weights("none", "hand-made", "Apache-2.0", True),
        inputs=(TensorSpec("image", "uint8", (batch, 64, 64, 3), pixels),),
        outputs=(TensorSpec("out", dtype, shape, axes),),
        preprocess=ScenePreprocess(64, 64, **fit),
        postprocess=MaskPostprocess(decoder, names, colours, 1, 1),
    )  # fmt: skip
    if sure:  # red / 255
        weight, bias = np.array([[1 / 255], [0], [0]]), np.zeros(1)
        last = [helper.make_node("Transpose", ["scores"], ["out"], perm=[0, 3, 1, 2])]
    else:
        weight, bias = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]]), np.array([127.5, 0, 0])
        last = [
            helper.make_node("ArgMax", ["scores"], ["number"], axis=3, keepdims=0),
            helper.make_node("Cast", ["number"], ["out"], to=code),
        ]
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["real", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["scores"]),
        *last,
    ]
    constants = {"weight": weight, "bias": bias}
    graph = helper.make_graph(
        nodes, "colours",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, 64, 64, 3])],
        [helper.make_tensor_value_info("out", code, shape)],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {CARD_KEY: card.to_json()})
    onnx.save(model, path)
    return path


@pytest.fixture
def batched(onnx_file, tmp_path):
    """Return a file of y = 3 x whose card calls the first axis, of four places, a batch."""
    import onnx

    from prunus.export.common.pipeline import write_model
    from prunus.runtime.card.foreign import foreign_card

    shape = ("float32", [4, 5])
    path = onnx_file("net", [("Mul", "x w", "y")], {"x": shape}, {"y": shape}, {"w": np.float32(3)})
    card = foreign_card(path)
    named = {
        role: tuple(replace(s, axes=("batch", "value")) for s in getattr(card, role))
        for role in ("inputs", "outputs")
    }
    target = tmp_path / "batched.onnx"
    write_model(onnx.load(path), replace(card, **named), target)
    return target


@pytest.fixture(scope="session")
def colour_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a writer of small segmentation models, see `_write_masks_model`."""
    folder = tmp_path_factory.mktemp("masks")

    def write(decoder: str = "class_ids", batch: int = 1, **fit) -> Path:
        path = folder / f"{decoder}-{'-'.join(map(str, (batch, *fit.values())))}.onnx"
        return path if path.exists() else _write_masks_model(path, decoder, batch, **fit)

    return write


def _save_graph(path: Path, nodes, inputs, outputs, constants, card) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    types = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT, "int64": TensorProto.INT64}

    def values(specs):
        return [helper.make_tensor_value_info(s.name, types[s.dtype], s.shape) for s in specs]

    tensors = [numpy_helper.from_array(v, k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, path.stem, values(inputs), values(outputs), tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {card.KEY: card.to_json()})
    onnx.save(model, path)


def _write_separator(name: Path, offset: float, slope: float, drawing: str) -> Path:
    """Write a separator whose gain is offset + slope times the brightness of the mouth, 0..1."""
    from onnx import TensorProto, helper

    from prunus.runtime.card.card import ModelCard, Weights
    from prunus.runtime.card.tensors import TensorSpec
    from prunus.runtime.tasks.separation.card import (
        MixturePreprocess,
        MouthPreprocess,
        SeparatorPostprocess,
    )

    look, hear = 16, 20  # frames of the two graphs

    def card(part: str, inputs, outputs, preprocess) -> ModelCard:
        weights = Weights("hand-made", "hand-made", "Apache-2.0", True)
        return ModelCard(
            task="separation", model="bright", variant=f"x-{part}", paper="", licence="Apache-2.0",
            exporter="test", weights=weights, inputs=inputs, outputs=outputs,
            preprocess=preprocess, postprocess=SeparatorPostprocess(part),
        )  # fmt: skip

    mouth = (TensorSpec("mouth", "uint8", (1, look, 88, 88), ("b", "f", "row", "column")),)
    features = (
        TensorSpec("lips", "float32", (1, 1, look), ("b", "v", "f")),
        TensorSpec("codes", "int64", (1, look), ("b", "f")),
    )
    nodes = [
        helper.make_node("Cast", ["mouth"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["real", "axes"], ["mean"], keepdims=0),
        helper.make_node("Div", ["mean", "white"], ["share"]),
        helper.make_node("Mul", ["share", "slope"], ["sloped"]),
        helper.make_node("Add", ["sloped", "offset"], ["moved"]),
        helper.make_node("Relu", ["moved"], ["gain"]),
        helper.make_node("Unsqueeze", ["gain", "one"], ["lips"]),
        helper.make_node("Cast", ["mean"], ["codes"], to=TensorProto.INT64),
    ]
    constants = {"axes": np.array([2, 3]), "white": np.float32([255]), "one": np.array([1]),
                 "slope": np.float32([slope]), "offset": np.float32([offset])}  # fmt: skip
    look_card = card("lips", mouth, features, MouthPreprocess(look, reach=2, drawing=drawing))
    _save_graph(Path(f"{name}-lips.onnx"), nodes, mouth, features, constants, look_card)
    length = hear * 640
    inputs = (
        TensorSpec("mixture", "float32", (1, length), ("b", "sample")),
        TensorSpec("lips", "float32", (1, 1, hear), ("b", "v", "f")),
    )
    outputs = (TensorSpec("voice", "float32", (1, length), ("b", "sample")),)
    nodes = [
        helper.make_node("Reshape", ["lips", "column"], ["tall"]),
        helper.make_node("Expand", ["tall", "wide"], ["spread"]),
        helper.make_node("Reshape", ["spread", "flat"], ["gain"]),
        helper.make_node("Mul", ["mixture", "gain"], ["voice"]),
    ]
    constants = {"column": np.array([1, hear, 1]), "wide": np.array([1, hear, 640]),
                 "flat": np.array([1, length])}  # fmt: skip
    hear_card = card("voice", inputs, outputs, MixturePreprocess(length, hear))
    _save_graph(Path(f"{name}-voice.onnx"), nodes, inputs, outputs, constants, hear_card)
    return name


@pytest.fixture(scope="session")
def separator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return NAME of a separator that gives the sound times the brightness of the mouth, 0..1."""
    name = tmp_path_factory.mktemp("separator") / "bright"
    return _write_separator(name, 0.0, 1.0, "picture")


@pytest.fixture(scope="session")
def lip_gate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return NAME of a separator that lets the sound through as far as drawn lips are open."""
    name = tmp_path_factory.mktemp("separator") / "gate"
    return _write_separator(name, 24.5, -42.5, "lips")


@pytest.fixture
def full_disk(monkeypatch):
    """Return a function that lets a class's `write` fail once; it returns the list of its calls.

    full_disk(FolderSink, at=5)
    """

    def fill(owner, at):
        calls, real = [], owner.write

        def write(own, *words):
            calls.append(own)
            if len(calls) == at:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(own, *words)

        monkeypatch.setattr(owner, "write", write)
        return calls

    return fill


class SoundServer:
    """A PulseAudio of its own with two null sinks, ``hole`` and ``voice``, at 16 kHz, mono.

    What is played to ``hole`` is what programs record, and what they play goes to ``voice``: each
    sink has a monitor, as a virtual microphone has.

    Attributes:
        environment: Of programs that shall use it.
    """

    RATE = 16_000

    def __init__(self, folder: Path) -> None:
        socket = folder / "socket"
        folder.chmod(0o700)
        self.environment = {
            **os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder),
            "PULSE_RUNTIME_PATH": str(folder), "PULSE_SERVER": f"unix:{socket}",
            "PULSE_SINK": "voice", "PULSE_SOURCE": "hole.monitor", "OMP_NUM_THREADS": "1",
            "PULSE_LATENCY_MSEC": "40", "PRUNUS_CACHE_DIR": str(folder / "cache"),
        }  # fmt: skip
        modules = [f"module-native-protocol-unix socket={socket}"]
        modules += [
            f"module-null-sink sink_name={name} rate={self.RATE} channels=1"
            for name in ("hole", "voice")
        ]
        words = [word for module in modules for word in ("-L", module)]
        self._log = (folder / "log").open("w")
        self._daemon = subprocess.Popen(
            ["pulseaudio", "--daemonize=no", "-n", "--exit-idle-time=-1", "--use-pid-file=no",
             "--disable-shm=yes", "--realtime=no", *words],
            env=self.environment, stderr=self._log,
        )  # fmt: skip
        until = time.monotonic() + 20.0
        while self.ask("pactl", "info").returncode:
            assert self._daemon.poll() is None and time.monotonic() < until, "it does not start"
            time.sleep(0.05)

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words, env=self.environment, capture_output=True, text=True, check=False
        )

    def start(self, *words: str, **more) -> subprocess.Popen:
        return subprocess.Popen(words, env=self.environment, **more)

    def prunus(self, *words: object) -> list[str]:
        return [sys.executable, "-m", "prunus", *map(str, words)]

    def close(self) -> None:
        self._daemon.send_signal(signal.SIGTERM)
        self._daemon.wait(10.0)
        self._log.close()


@pytest.fixture
def sound_server() -> Iterator[SoundServer]:
    """Return a sound server without devices; skip where there is none."""
    if shutil.which("pulseaudio") is None or shutil.which("parec") is None:
        pytest.skip("needs PulseAudio: apt-get install pulseaudio pulseaudio-utils")
    try:
        import sounddevice  # noqa: F401
    except (ImportError, OSError):
        pytest.skip("needs PortAudio: apt-get install libportaudio2, and the package sounddevice")
    with tempfile.TemporaryDirectory(prefix="prunus-pulse-") as folder:  # sockets want short paths
        server = SoundServer(Path(folder))
        try:
            if "pulse" not in server.ask(sys.executable, "-m", "sounddevice").stdout:
                pytest.skip("needs PulseAudio behind ALSA: apt-get install libasound2-plugins")
            yield server
        finally:
            server.close()
