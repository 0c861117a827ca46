"""Following faces: numbers on planted ones, and the true networks on a moving portrait."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import prunus.apps
from prunus.models import zoo
from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.tasks.faces.boxes import FaceBox, FaceFinder
from prunus.runtime.tasks.faces.finder import FaceOptions, FaceTracker
from prunus.runtime.tasks.faces.mesh import FaceMesh

PICTURE = cv2.imread(str(Path(prunus.apps.__path__[0]) / "media" / "portrait.jpg"))


@pytest.fixture(scope="module")
def nets():
    with (
        FaceFinder.open(zoo.model_path("blazeface_full"), "onnxruntime", 1) as finder,
        FaceMesh.open(zoo.model_path("facemesh"), "onnxruntime", 1) as mesh,
    ):
        yield finder, mesh


def _moved(matrix: np.ndarray, size=(640, 480)) -> np.ndarray:
    return cv2.warpAffine(PICTURE, matrix, size, borderValue=(96, 96, 96))


def _turned(degrees: float, scale: float, x: float, y: float) -> np.ndarray:
    """Portrait turned about its face, which lands at x, y."""
    matrix = cv2.getRotationMatrix2D((224, 125), degrees, scale)
    matrix[:, 2] += [x - 224, y - 125]
    return matrix


@pytest.mark.parametrize(
    ("degrees", "scale", "x", "y"), [(0, 1.0, 300, 200), (20, 1.4, 350, 260), (-25, 0.8, 200, 150)]
)
def test_landmarks_follow_the_picture(nets, degrees, scale, x, y) -> None:
    finder, mesh = nets
    still = FaceTracker().update(PICTURE, finder, mesh)[0].points
    matrix = _turned(degrees, scale, x, y)
    (face,) = FaceTracker().update(_moved(matrix), finder, mesh)
    expected = still[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    distance = np.linalg.norm(face.points[:, :2] - expected, axis=1) / (60 * scale)  # eye to eye
    assert distance.mean() < 0.06
    assert face.mouth_inside == 1.0


def test_one_face_keeps_its_number_through_motion_absence_and_return(nets) -> None:
    finder, mesh = nets
    tracker = FaceTracker(FaceOptions(every=5, timeout_frames=4))
    empty = np.full((480, 640, 3), 96, np.uint8)
    seen = []
    for k in range(10):  # it moves and turns
        frame = _moved(_turned(2 * k, 1.2, 250 + 8 * k, 220))
        seen.append([f.face_id for f in tracker.update(frame, finder, mesh)])
    for _ in range(8):  # gone, longer than the time-out
        seen.append([f.face_id for f in tracker.update(empty, finder, mesh)])
    back = cv2.convertScaleAbs(_moved(_turned(-8, 0.9, 470, 240)), alpha=0.8, beta=10)
    (face,) = tracker.update(back, finder, mesh)  # elsewhere, smaller, in other light
    assert seen == [[1]] * 10 + [[]] * 8
    assert face.face_id == 1


def test_two_faces_get_two_numbers_and_cross_the_edge(nets) -> None:
    finder, mesh = nets
    tracker = FaceTracker(FaceOptions(every=4))
    frame = np.full((480, 900, 3), 96, np.uint8)
    for k in range(9):
        frame[:] = 96
        left = 60 + 5 * k
        frame[60:420, left : left + 300] = PICTURE[0:360, 80:380]
        start = 560 + 25 * k  # this one walks out at the right
        width = min(300, 900 - start)
        frame[60:420, start : start + width] = PICTURE[0:360, 380:80:-1][:, :width]
        faces = tracker.update(frame, finder, mesh)
        assert [f.face_id for f in faces][:1] == [1]
        if k < 5:
            assert [f.face_id for f in faces] == [1, 2]
            assert faces[1].box[0] > faces[0].box[2]
    assert faces[0].mouth_inside == 1.0
    assert len(faces) == 1 or faces[1].mouth_inside < 1.0


def _planted(places: dict[str, tuple[float, float]]):
    """Fake networks for faces of 100 pixels that are stripes of a frequency of their own."""
    stripes = {"a": 5, "b": 11, "c": 23}
    frame = np.full((300, 900, 3), 128, np.uint8)
    rows = np.arange(120)[:, None, None]
    for name, (x, y) in places.items():
        frame[y - 60 : y + 60, x - 60 : x + 60] = 128 + 100 * np.sin(rows / stripes[name] * 3)

    def finder(_):
        eyes = np.array([[-20, -15], [20, -15], [0, 0], [0, 20], [-50, 0], [50, 0]], np.float32)
        return [
            FaceBox((x - 50, y - 50, x + 50, y + 50), eyes + np.float32([x, y]), 0.9)
            for x, y in places.values()
        ]

    def mesh(_, squares):
        found = []
        for square in squares:
            near = [p for p in places.values() if np.hypot(p[0] - square.x, p[1] - square.y) < 40]
            x, y = near[0] if near else (square.x, square.y)
            turn = np.linspace(0, 2 * np.pi, 468)
            points = np.stack([x + 50 * np.cos(turn), y + 50 * np.sin(turn), 0 * turn], 1)
            for k, (dx, dy) in zip((33, 133, 362, 263), [(-25, -15), (-10, -15), (10, -15),
                                                          (25, -15)], strict=True):  # fmt: skip
                points[k, :2] = x + dx, y + dy
            found.append((points.astype(np.float32), 0.9 if near else 0.1))
        return found

    return frame, finder, mesh


def _step(tracker: FaceTracker, seconds: float, **places) -> list[tuple[int, int]]:
    faces = tracker.update(*_planted(places), seconds)
    return [(f.face_id, round((f.box[0] + f.box[2]) / 2)) for f in faces]


def test_numbers_return_to_their_owner_and_to_nobody_else() -> None:
    tracker = FaceTracker(FaceOptions(every=1, timeout_frames=1, memory_seconds=10))
    assert _step(tracker, 0.0, a=(100, 150), b=(400, 150)) == [(1, 100), (2, 400)]
    for k in range(3):
        assert _step(tracker, 0.1 + k / 10, b=(400, 150)) == [(2, 400)]
    # Somebody else at the place of the first one is a new face; the first one comes back elsewhere.
    assert _step(tracker, 0.5, b=(400, 150), c=(100, 150)) == [(2, 400), (3, 100)]
    assert _step(tracker, 0.6, a=(700, 150), b=(400, 150), c=(100, 150)) == [
        (1, 700), (2, 400), (3, 100),
    ]  # fmt: skip


def test_a_forgotten_face_gets_a_new_number() -> None:
    tracker = FaceTracker(FaceOptions(every=1, timeout_frames=1, memory_seconds=10))
    _step(tracker, 0.0, a=(100, 150))
    for k in range(3):
        _step(tracker, 0.1 + k / 10)
    assert _step(tracker, 10.0, a=(100, 150)) == [(1, 100)]
    for k in range(3):
        _step(tracker, 10.1 + k / 10)
    assert _step(tracker, 30.0, a=(100, 150)) == [(2, 100)]


def test_a_short_gap_needs_no_memory_and_a_jump_is_caught_at_once() -> None:
    tracker = FaceTracker(FaceOptions(every=100, timeout_frames=5))
    assert _step(tracker, 0.0, a=(100, 150)) == [(1, 100)]
    assert _step(tracker, 0.1) == []
    assert _step(tracker, 0.2, a=(110, 150)) == [(1, 110)]
    assert _step(tracker, 0.3, a=(160, 150)) == [(1, 160)]
    assert tracker.found


@pytest.mark.parametrize(("size", "kept"), [(1, 1), (0.61, 1), (0.59, 0), (1.59, 1), (1.61, 0)])
def test_a_face_does_not_shrink_or_grow_by_much_in_one_frame(size, kept) -> None:
    tracker = FaceTracker(FaceOptions(every=100))
    frame, finder, mesh = _planted({"a": (300, 150)})
    assert len(tracker.update(frame, finder, mesh, 0.0)) == 1

    def sized(_, squares):
        return [
            ((points - [300, 150, 0]) * size + [300, 150, 0], score)
            for points, score in mesh(_, squares)
        ]

    assert len(tracker.update(frame, lambda _: [], sized, 0.1)) == kept


def test_a_likeness_that_does_not_last_takes_no_number() -> None:
    tracker = FaceTracker(FaceOptions(every=1, confirm_frames=3))
    assert _step(tracker, 0.0, a=(100, 150)) == []
    assert _step(tracker, 0.1, a=(100, 150)) == []
    assert _step(tracker, 0.2) == []
    assert _step(tracker, 0.3, c=(700, 150), b=(400, 150)) == []
    assert _step(tracker, 0.4, c=(700, 150), b=(400, 150)) == []
    # From left to right, whichever was found first; once confirmed, a gap does no harm.
    assert _step(tracker, 0.5, c=(700, 150), b=(400, 150)) == [(1, 400), (2, 700)]
    assert _step(tracker, 0.6, b=(400, 150)) == [(1, 400)]
    assert _step(tracker, 0.7, c=(700, 150), b=(400, 150)) == [(1, 400), (2, 700)]


def test_bad_settings_and_other_models_are_refused() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        FaceOptions(every=0)
    with pytest.raises(ArtifactError, match="face mesh"):
        FaceMesh.open(zoo.model_path("blazeface_full"), "onnxruntime", 1)
