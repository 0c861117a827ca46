"""The estimator with a session that reads the crop it was given, so that every slot is checked."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

import prunus.apps
from prunus.models import zoo
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError, TensorError
from prunus.runtime.tasks.pose.card import ImagePreprocess, KeypointPostprocess
from prunus.runtime.tasks.pose.estimator import PoseEstimator, split_batches

LIGHTNING = zoo.model_path("movenet_lightning")
PORTRAIT = Path(prunus.apps.__path__[0]) / "media" / "portrait.jpg"


def _card(batch: int, task: str = "pose", decoder: str = "udp_dark") -> ModelCard:
    image = TensorSpec("image", "uint8", (batch, 64, 48, 3), ("batch", "height", "width", "rgb"))
    out = TensorSpec("keypoints", "float32", (batch, 1, 3), ("batch", "joint", "x_y_score"))
    post = KeypointPostprocess(decoder, "one", ("dot",), (), (), (0.1,))  # type: ignore[arg-type]
    return ModelCard(
        task, "test", "dot", "", "", "", Weights("", "", "", True), (image,), (out,),  # type: ignore[arg-type]
        ImagePreprocess(64, 48, "udp_affine"), post,
    )  # fmt: skip


class DotSession:
    """Return the brightness-weighted centre of each crop; keep the output buffer, as a real one."""

    backend = description = "test"
    choice = ()

    def __init__(self, batch: int, card: ModelCard | None = None) -> None:
        self.card = card or _card(batch)
        self.runs = 0
        self._out = np.zeros((batch, 1, 3), np.float32)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.runs += 1
        light = inputs["image"].astype(np.float32).sum(-1) + 1e-9
        total = light.sum((1, 2))
        self._out[:, 0, 0] = (light.sum(1) * np.arange(48)).sum(1) / total
        self._out[:, 0, 1] = (light.sum(2) * np.arange(64)).sum(1) / total
        self._out[:, 0, 2] = 0.5
        return {"keypoints": self._out}

    def close(self) -> None:
        self.closed = True

    def __enter__(self) -> "DotSession":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _scene(people: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One bright dot per box, away from the centre of the box."""
    frame = np.zeros((200, 100 * max(people, 1), 3), np.uint8)
    dots = np.array([[100 * i + 40 + 3 * i % 20, 90 + 5 * i % 17] for i in range(people)], float)
    for x, y in dots.astype(int):
        frame[y - 3 : y + 4, x - 3 : x + 4] = 255
    boxes = np.array([[100 * i + 20, 50, 100 * i + 80, 130] for i in range(people)], float)
    return frame, boxes.reshape(-1, 4), dots


@pytest.mark.parametrize("sizes", [(1,), (4,), (1, 4, 8), (2, 8)])
@pytest.mark.parametrize("people", [1, 3, 5, 9])
def test_each_person_gets_the_own_joint(sizes: tuple[int, ...], people: int) -> None:
    frame, boxes, dots = _scene(people)
    estimator = PoseEstimator({n: DotSession(n) for n in sizes})
    poses = estimator(frame, boxes)
    np.testing.assert_allclose([p.keypoints[0, :2] for p in poses], dots, atol=0.3)
    np.testing.assert_allclose([p.box for p in poses], boxes)


def test_poses_outlive_the_buffers_of_the_session() -> None:
    frame, boxes, dots = _scene(2)
    estimator = PoseEstimator(DotSession(1))
    first = estimator(frame, boxes[:1])[0]
    estimator(frame, boxes[1:])
    np.testing.assert_allclose(first.keypoints[0, :2], dots[0], atol=0.3)


def test_each_part_of_a_call_has_a_clock() -> None:
    frame, boxes, _ = _scene(5)
    estimator = PoseEstimator({2: DotSession(2)})
    estimator(frame, boxes)
    assert list(estimator.stage_ms) == ["crop", "infer", "decode"]
    assert all(value > 0 for value in estimator.stage_ms.values())
    estimator(frame, boxes[:0])
    assert not any(estimator.stage_ms.values())


def test_nobody_in_nobody_out_and_nothing_runs() -> None:
    session = DotSession(4)
    assert PoseEstimator({4: session})(np.zeros((9, 9, 3), np.uint8), np.zeros((0, 4))) == []
    assert session.runs == 0


@pytest.mark.parametrize("people", range(40))
@pytest.mark.parametrize("sizes", [(1,), (8,), (1, 4, 8), (1, 2, 4, 8), (3, 5)])
def test_runs_cover_everybody_without_an_empty_run(people: int, sizes: tuple[int, ...]) -> None:
    runs = split_batches(people, sizes)
    assert sum(runs) >= people
    assert not runs or sum(runs) - runs[-1] < people
    if sizes[0] == 1:
        assert sum(runs) - people <= 2


@pytest.mark.parametrize(
    "frame",
    [np.zeros((9, 9, 3), np.float32), np.full((9, 9, 3), np.nan), np.zeros((9, 9), np.uint8)],
)
def test_wrong_frames_are_refused(frame: np.ndarray) -> None:
    with pytest.raises(TensorError, match="expected uint8"):
        PoseEstimator(DotSession(1))(frame, np.array([[0.0, 0, 5, 5]]))


def test_wrong_sessions_are_refused() -> None:
    with pytest.raises(ArtifactError, match="expected pose"):
        PoseEstimator(DotSession(1, _card(1, task="codec")))
    with pytest.raises(ArtifactError, match="expected 2"):
        PoseEstimator({2: DotSession(1)})
    with pytest.raises(ArtifactError, match="different networks"):
        PoseEstimator({1: DotSession(1), 2: DotSession(2, _card(2, decoder="regression"))})
    with pytest.raises(ArtifactError, match="no sessions"):
        PoseEstimator({})


def test_joints_that_are_not_finite_are_refused() -> None:
    session = DotSession(1)
    session._out[:] = np.nan
    session.run = lambda inputs: {"keypoints": session._out}  # type: ignore[method-assign]
    with pytest.raises(TensorError, match="not finite"):
        PoseEstimator(session)(np.zeros((9, 9, 3), np.uint8), np.array([[0.0, 0, 5, 5]]))


def test_lightning_reads_the_portrait() -> None:
    """Joints of MoveNet Thunder on the same picture, as measured with its original runtime."""
    thunder = {
        0: (224, 123),
        1: (247, 102),
        2: (204, 102),
        3: (274, 118),
        4: (176, 111),
        5: (317, 276),
        6: (104, 267),
    }
    frame = cv2.imread(str(PORTRAIT))
    with PoseEstimator.open(LIGHTNING, "onnxruntime", threads=1) as estimator:
        pose = estimator(frame, np.array([[50.0, 10, 462, 502]]))[0]
    for joint, expected in thunder.items():
        distance = np.linalg.norm(pose.keypoints[joint, :2] - expected)
        assert distance < 26, (joint, pose.keypoints[joint], expected)  # 5 % of the picture
        assert pose.keypoints[joint, 2] > 0.3
