"""The estimator with a session that reads the crop it was given, so that every slot is checked."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import pytest

import prunus.apps
from prunus.models import zoo
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.card.tokens import TokenPlan
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
    """Return the brightness-weighted centre of each crop."""

    backend = description = "test"
    choice = ()

    def __init__(self, batch: int, card: ModelCard | None = None) -> None:
        self.card = card or _card(batch)
        self.runs = 0

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        self.runs += 1
        light = inputs["image"].astype(np.float32).sum(-1) + 1e-9
        total = light.sum((1, 2))
        x = (light.sum(1) * np.arange(48)).sum(1) / total
        y = (light.sum(2) * np.arange(64)).sum(1) / total
        rows = np.stack([x, y, np.full(len(x), 0.5)], axis=-1)[:, None]
        return {"keypoints": rows.astype(np.float32)}

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


def test_people_of_several_frames_share_runs_and_keep_their_frames() -> None:
    scenes = [_scene(people) for people in (1, 0, 2, 1)]
    session = DotSession(4)
    shared = PoseEstimator(session).many([s[0] for s in scenes], [s[1] for s in scenes])
    assert session.runs == 1 and [len(poses) for poses in shared] == [1, 0, 2, 1]
    alone = PoseEstimator(DotSession(4))
    for (frame, boxes, _), poses in zip(scenes, shared, strict=True):
        for one, other in zip(poses, alone(frame, boxes), strict=True):
            np.testing.assert_array_equal(one.keypoints, other.keypoints)
            assert one.box == other.box and one.score == other.score


def test_each_person_gets_the_own_tokens() -> None:
    def told(batch: int) -> DotSession:
        plan = TokenPlan("L9", (3,), (1,), 12, 1, "sum", "carry", 1, 2, (4, 3))
        maps = TensorSpec("tokens_3", "int32", (batch, 12), ("batch", "patch"))
        card = _card(batch)
        card = dataclasses.replace(card, outputs=(*card.outputs, maps), tokens=plan)
        session = DotSession(batch, card)
        run = session.run

        def with_maps(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            light = inputs["image"].reshape(batch, 4, 16, 3, 16, 3).max((2, 4, 5))
            maps = np.where(light > 0, 0, -1).astype(np.int32)
            return {**run(inputs), "tokens_3": maps.reshape(batch, 12)}

        session.run = with_maps  # type: ignore[method-assign]
        return session

    frame, boxes, dots = _scene(5)
    estimator = PoseEstimator({n: told(n) for n in (1, 4)})
    for pose, (x, y) in zip(estimator(frame, boxes), dots, strict=True):
        assert pose.tokens is not None and list(pose.tokens.maps) == [3]
        cells = pose.tokens.maps[3]
        left, top, width, height = pose.tokens.window
        row, column = int((y - top) / height * 4), int((x - left) / width * 3)
        assert cells.shape == (4, 3) and cells[row, column] == 0 and (cells < 0).sum() >= 8
    assert PoseEstimator(DotSession(1))(frame, boxes)[0].tokens is None
    # Where one of the files tells, joints are read all the same, and nobody's tokens are told.
    for mixed in ({1: told(1), 4: DotSession(4)}, {1: DotSession(1), 4: told(4)}):
        for pose, dot in zip(PoseEstimator(mixed)(frame, boxes), dots, strict=True):
            assert pose.tokens is None and np.abs(pose.keypoints[0, :2] - dot).max() < 0.3


def test_poses_outlive_later_calls() -> None:
    frame = cv2.imread(str(PORTRAIT))
    with PoseEstimator.open(LIGHTNING, "onnxruntime", threads=1) as estimator:
        first = estimator(frame, np.array([[50.0, 10, 462, 502]]))[0]
        kept = first.keypoints.copy()
        other = estimator(255 - frame, np.array([[0.0, 0, 400, 400]]))[0]
    assert not np.allclose(other.keypoints, kept)
    np.testing.assert_array_equal(first.keypoints, kept)


def test_empty_slots_hold_nobody_of_the_call_before() -> None:
    frame, boxes, _ = _scene(4)
    session, seen = DotSession(4), []
    run = session.run
    session.run = lambda inputs: seen.append(inputs["image"].copy()) or run(inputs)  # type: ignore[method-assign,func-returns-value]
    estimator = PoseEstimator({4: session})
    estimator(frame, boxes)
    estimator(frame, boxes[:1])
    assert seen[0].any((1, 2, 3)).all()
    assert seen[1].any((1, 2, 3)).tolist() == [True, False, False, False]


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
    poisoned = np.full((1, 1, 3), np.nan, np.float32)
    session.run = lambda inputs: {"keypoints": poisoned}  # type: ignore[method-assign]
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


def test_large_noisy_pictures_move_few_joints() -> None:
    """Of people eight times as large, with noise on every pixel; 16 % moved when 4 were read."""
    from prunus.runtime.tasks.pose.people import PeopleFinder

    video = cv2.VideoCapture(str(Path(prunus.apps.__path__[0]) / "media" / "pedestrians.mp4"))
    frames = [video.read()[1] for _ in range(86)][10::25]
    rng, moved = np.random.default_rng(0), []
    with (
        PeopleFinder.open(zoo.model_path("movenet_multipose"), "onnxruntime", threads=1) as find,
        PoseEstimator.open(zoo.model_path("movenet_lightning"), "onnxruntime", threads=1) as pose,
    ):
        for frame in frames:
            for person in (p for p in find(frame) if p.score > 0.3):
                x, y = (max(int(v) - 40, 0) for v in person.box[:2])
                part = frame[y : int(person.box[3]) + 40, x : int(person.box[2]) + 40]
                box = np.array([person.box]) - [x, y, x, y]
                large = cv2.resize(part, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
                noise = rng.integers(-43, 44, large.shape, np.int8)
                large = np.clip(large.astype(np.int16) + noise, 0, 255).astype(np.uint8)
                (small,), (big,) = pose(part, box), pose(large, box * 8)
                shift = (big.keypoints[:, :2] + 0.5) / 8 - 0.5 - small.keypoints[:, :2]
                way = np.linalg.norm(shift, axis=1) / np.hypot(*(box[0, 2:] - box[0, :2]))
                moved += (way > 0.05)[small.keypoints[:, 2] > 0.3].tolist()
    assert len(moved) > 100 and np.mean(moved) < 0.08


@pytest.mark.parametrize(
    ("change", "way_there"),
    [
        (lambda f: cv2.copyMakeBorder(f, 9, 20, 17, 30, cv2.BORDER_CONSTANT),
         lambda p: np.add(p, (17, 9))),
        (lambda f: cv2.resize(f, None, fx=2, fy=2), lambda p: (p + 0.5) * 2 - 0.5),
        (lambda f: cv2.resize(f, None, fx=4, fy=4), lambda p: (p + 0.5) * 4 - 0.5),
        (lambda f: cv2.resize(f, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
         lambda p: (p + 0.5) / 2 - 0.5),
        (lambda f: cv2.convertScaleAbs(f, alpha=0.8), lambda p: p),
        (lambda f: cv2.imdecode(cv2.imencode(".jpg", f, [1, 90])[1], 1), lambda p: p),
    ],
    ids=["padded", "twice", "four times", "half", "darker", "jpeg"],
)  # fmt: skip
def test_joints_go_where_the_picture_goes(change, way_there) -> None:
    frame = cv2.imread(str(Path(prunus.apps.__path__[0]) / "media" / "portrait.jpg"))
    box = np.array([[60.0, 10.0, 450.0, 500.0]])
    moved_box = way_there(box.reshape(2, 2)).reshape(1, 4)
    with PoseEstimator.open(zoo.model_path("movenet_lightning"), "onnxruntime", threads=1) as pose:
        (before,), (after,) = pose(frame, box), pose(change(frame), moved_box)
    seen = before.keypoints[:, 2] > 0.3
    expected = way_there(before.keypoints[:, :2])[seen]
    way = np.linalg.norm(after.keypoints[seen, :2] - expected, axis=1)
    assert seen.sum() >= 5
    assert way.max() < 0.03 * np.hypot(*(moved_box[0, 2:] - moved_box[0, :2]))
