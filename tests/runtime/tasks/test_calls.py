"""Task objects under threads: each answer is that of its own input; streams refuse to be shared."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import prunus.apps
from prunus.apps.common.model_files import codec_name, separation_models
from prunus.models import zoo
from prunus.runtime.errors import UsageError
from prunus.runtime.session import registry
from prunus.runtime.tasks.calls import Buffers, OneStream, StageClock, in_turn
from prunus.runtime.tasks.codec.codec import SpeechCodec
from prunus.runtime.tasks.faces.boxes import FaceFinder
from prunus.runtime.tasks.faces.mesh import FaceMesh, Square
from prunus.runtime.tasks.pose.estimator import PoseEstimator
from prunus.runtime.tasks.pose.people import PeopleFinder
from prunus.runtime.tasks.segmentation.segmenter import Segmenter
from prunus.runtime.tasks.separation.separator import SpeechSeparator

BACKENDS = [b.name for b in registry.BACKENDS if ".onnx" in b.suffixes and b.installed]
PORTRAIT = Path(prunus.apps.__path__[0]) / "media" / "portrait.jpg"
CASES = 4


def _frames() -> list[np.ndarray]:
    """The portrait, moved to the right by another width each time."""
    portrait = cv2.imread(str(PORTRAIT))
    return [np.roll(portrait, 40 * k, axis=1) for k in range(CASES)]


def _boxes(number: int) -> np.ndarray:
    """As many people as the case's number, and one."""
    return np.array([[50.0 + 9 * k, 10, 462, 502 - 11 * k] for k in range(number + 1)])


def _sounds() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [(0.1 * rng.standard_normal(4000 + 700 * k)).astype(np.float32) for k in range(CASES)]


def _pose(backend: str):
    task = PoseEstimator.open(zoo.model_path("movenet_lightning"), backend, threads=1)
    cases = [(frame, _boxes(k)) for k, frame in enumerate(_frames())]
    return task, lambda case: [pose.keypoints for pose in task(*case)], cases


def _people(backend: str):
    task = PeopleFinder.open(zoo.model_path("movenet_multipose"), backend, threads=1)
    return task, lambda frame: [pose.keypoints for pose in task(frame)], _frames()


def _masks(backend: str):
    task = Segmenter.open(zoo.model_path("selfie"), backend, threads=1)
    return task, lambda frame: [task(frame).foreground], _frames()


def _faces(backend: str):
    task = FaceFinder.open(zoo.model_path("blazeface_full"), backend, threads=1)
    return task, lambda frame: [face.keypoints for face in task(frame)], _frames()


def _mesh(backend: str):
    task = FaceMesh.open(zoo.model_path("facemesh"), backend, threads=1)
    square = [Square(240.0, 130.0, 300.0, 0.1)]
    return task, lambda frame: [points for points, _ in task(frame, square)], _frames()


def _codec(backend: str):
    task = SpeechCodec.open(codec_name("nsfcodec"), backend, threads=1)

    def there_and_back(sound: np.ndarray) -> list[np.ndarray]:
        speech = task.encode(sound)
        return [*speech.codes.values(), task.decode(speech)]

    return task, there_and_back, _sounds()


def _voices(backend: str):
    task = SpeechSeparator.open(separation_models("dolphin_nano")[1], backend, threads=1)
    rng = np.random.default_rng(1)
    mouths = [rng.integers(0, 256, (8, 88, 88), np.uint8) for _ in range(2)]
    cases = [(s, [(c, i / 25) for i, c in enumerate(m)]) for s, m in zip(_sounds(), mouths)]  # noqa: B905
    return task, lambda case: [task.separate(*case)], cases


# Rounds of each of eight threads: few where a call is long.
TASKS: dict[str, tuple[Callable[[str], Any], int]] = {
    "pose": (_pose, 8), "people": (_people, 2), "masks": (_masks, 6), "faces": (_faces, 6),
    "mesh": (_mesh, 8), "codec": (_codec, 2), "voices": (_voices, 1),
}  # fmt: skip


# What tasks themselves share does not depend on the back end, whose sessions have a test of their
# own; one task goes through all of them.
CELLS = [
    *(pytest.param("pose", backend) for backend in BACKENDS),
    *(pytest.param(n, "onnxruntime") for n in TASKS if n not in ("pose", "voices")),
    pytest.param("voices", "onnxruntime", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "backend"), CELLS)
def test_eight_threads_get_the_answers_to_their_own_inputs(hammer, name, backend) -> None:
    make, rounds = TASKS[name]
    task, call, cases = make(backend)
    with task:
        alone = [call(case) for case in cases]
        answers = hammer(call, cases, rounds)
    different = [not np.array_equal(alone[0][-1], other[-1]) for other in alone[1:]]
    assert all(different), "cases that look alike prove nothing"
    assert sum(map(len, answers)) == 8 * rounds
    for wanted, got in zip(alone, answers, strict=True):
        for one in got:
            assert len(one) == len(wanted)
            for expected, found in zip(wanted, one, strict=True):
                np.testing.assert_array_equal(found, expected)


def test_buffers_are_as_many_as_calls_side_by_side() -> None:
    buffers = Buffers((2,))
    with buffers.borrowed() as one, buffers.borrowed() as two:
        assert one is not two
        first = {id(one), id(two)}
    for _ in range(5):
        with buffers.borrowed() as one, buffers.borrowed() as two:
            assert {id(one), id(two)} == first
    with pytest.raises(RuntimeError), buffers.borrowed():
        raise RuntimeError
    assert len(buffers._idle) == 2


def test_each_thread_has_its_own_times() -> None:
    clock, seen = StageClock("a", "b"), []
    assert clock.stage_ms == {}
    clock.start()["a"] = 3.0
    other = threading.Thread(target=lambda: seen.append(clock.start()))
    other.start()
    other.join()
    assert clock.stage_ms == {"a": 3.0, "b": 0.0} and seen == [{"a": 0.0, "b": 0.0}]


class Stream:
    """Something with a state, whose method calls another of its own."""

    def __init__(self) -> None:
        self._stream = OneStream("A stream")
        self.inside, self.go = threading.Event(), threading.Event()

    @in_turn
    def push(self, wait: bool) -> int:
        return self.take(wait)

    @in_turn
    def take(self, wait: bool) -> int:
        self.inside.set()
        if wait:
            self.go.wait()
        return 1


def test_a_stream_refuses_a_second_thread_but_not_itself() -> None:
    stream, got = Stream(), []
    first = threading.Thread(target=lambda: got.append(stream.push(True)))
    first.start()
    stream.inside.wait()
    with pytest.raises(UsageError, match="A stream serves one stream"):
        stream.push(False)
    stream.go.set()
    first.join()
    assert got == [1] and stream.push(False) == 1


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_codec_stream_refuses_a_second_thread(monkeypatch, part) -> None:
    with SpeechCodec.open(codec_name("nsfcodec"), "onnxruntime", threads=1) as codec:
        stream = codec.encoder() if part == "encoder" else codec.decoder()
        inside, go, told = threading.Event(), threading.Event(), []

        def held():
            inside.set()
            go.wait()
            return {}

        monkeypatch.setattr(stream._flow, "flush", lambda *_: held())
        first = threading.Thread(target=lambda: told.append(stream.flush()))
        first.start()
        inside.wait()
        with pytest.raises(UsageError, match=f"A stream {part} serves one stream"):
            stream.flush()
        go.set()
        first.join()
        assert len(told) == 1
