"""The mouth crop: against its definition, and steady on a moving portrait."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import prunus.apps
from prunus.models import zoo
from prunus.runtime.errors import UsageError
from prunus.runtime.tasks.faces.boxes import FaceFinder
from prunus.runtime.tasks.faces.finder import FaceTracker
from prunus.runtime.tasks.faces.mesh import LIPS, FaceMesh
from prunus.runtime.tasks.faces.mouth import (
    INSIDE,
    LIP,
    SKIN,
    MouthCropper,
    align,
    draw_lips,
    mouth_opening,
    similarity,
)
from prunus.runtime.tasks.separation.card import MouthPreprocess

PICTURE = cv2.imread(str(Path(prunus.apps.__path__[0]) / "media" / "portrait.jpg"))
PRE = MouthPreprocess(frames=16)


@pytest.fixture(scope="module")
def landmarks() -> np.ndarray:
    with (
        FaceFinder.open(zoo.model_path("blazeface_full"), "onnxruntime", 1) as finder,
        FaceMesh.open(zoo.model_path("facemesh"), "onnxruntime", 1) as mesh,
    ):
        return FaceTracker().update(PICTURE, finder, mesh)[0].points


def _matrix(degrees: float, scale: float, dx: float, dy: float) -> np.ndarray:
    matrix = cv2.getRotationMatrix2D((224, 125), degrees, scale)
    matrix[:, 2] += [dx, dy]
    return matrix


def _moved(points: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frame = cv2.warpAffine(PICTURE, matrix, (700, 700), flags=cv2.INTER_CUBIC)
    return frame, (points[:, :2] @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def _all(cropper: MouthCropper, clip) -> list[np.ndarray]:
    return [c for f, p in clip for c in cropper.push(f, p)] + cropper.flush()


def test_similarity_is_exact_and_least_squares() -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(5, 2))
    true = np.array([[0.8, -0.6, 3.0], [0.6, 0.8, -2.0]]) * [[2, 2, 1]]
    target = points @ true[:, :2].T + true[:, 2]
    np.testing.assert_allclose(similarity(points, target), true, atol=1e-12)
    noisy = target + rng.normal(size=target.shape)
    best = similarity(points, noisy)
    error = ((points @ best[:, :2].T + best[:, 2] - noisy) ** 2).sum()
    for k in range(20):
        other = best + rng.normal(scale=0.05, size=(2, 3))
        other[1, 0], other[1, 1] = -other[0, 1], other[0, 0]
        assert ((points @ other[:, :2].T + other[:, 2] - noisy) ** 2).sum() >= error, k


def test_crops_equal_the_published_steps_taken_one_by_one(landmarks) -> None:
    """Mean of twelve, warp of 256 pixels, grey patch of 96, its middle 88: the long way."""
    clip = [_moved(landmarks, _matrix(0.5 * k, 1.3, 3 * k, 2 * k)) for k in range(15)]
    crops = _all(MouthCropper(PRE), clip)
    assert len(crops) == 15
    for k, crop in enumerate(crops):
        window = [p for _, p in clip[min(k, 3) : min(k, 3) + 12]]
        matrix = align(np.mean(window, axis=0))
        face = cv2.warpAffine(clip[k][0], matrix, (256, 256), flags=cv2.INTER_LINEAR)
        grey = cv2.cvtColor(face, cv2.COLOR_BGR2GRAY)
        mouth = (clip[k][1][list(LIPS)] @ matrix[:, :2].T + matrix[:, 2]).mean(0)
        x, y = (int(np.round(v)) - 48 for v in mouth)
        expected = grey[y : y + 96, x : x + 96][4:92, 4:92]
        assert crop.shape == (88, 88) and crop.dtype == np.uint8
        # The same pixels up to the 1/32 pixel to which OpenCV rounds coordinates.
        assert np.abs(crop.astype(int) - expected).mean() < 0.5


def test_the_crop_stays_when_the_head_moves_turns_and_comes_nearer(landmarks) -> None:
    still = _all(MouthCropper(PRE), [(PICTURE, landmarks[:, :2])] * 3)[0].astype(float)
    for degrees, scale, dx, dy in [(0, 1, 40, 30), (25, 1, 100, 100), (-15, 1.7, 150, 200)]:
        clip = [_moved(landmarks, _matrix(degrees, scale, dx, dy))] * 3
        crop = _all(MouthCropper(PRE), clip)[0].astype(float)
        assert np.corrcoef(crop.ravel(), still.ravel())[0, 1] > 0.97
    other = np.roll(still, 12, axis=1)  # a crop that misses by 12 pixels would not pass
    assert np.corrcoef(other.ravel(), still.ravel())[0, 1] < 0.9


def test_trembling_landmarks_do_not_shake_the_crop(landmarks) -> None:
    rng = np.random.default_rng(3)
    clip = []
    for _ in range(24):
        points = landmarks[:, :2].copy()
        points[[2, 33, 133, 362, 263]] += rng.normal(scale=1.0, size=(5, 2)).astype(np.float32)
        clip.append((PICTURE, points))

    def shake(crops) -> float:
        return float(np.diff(np.array(crops, float), axis=0).std())

    steady = shake(_all(MouthCropper(PRE), clip)[:12])
    alone = shake([_all(MouthCropper(PRE), [one])[0] for one in clip[:12]])
    assert steady < 0.4 * alone


@pytest.mark.parametrize("ahead", [0, 4, 11])
def test_every_frame_gives_one_crop_with_the_declared_delay(landmarks, ahead: int) -> None:
    cropper = MouthCropper(PRE, ahead)
    given = [len(cropper.push(PICTURE, landmarks)) for _ in range(20)]
    assert given == [0] * ahead + [1] * (20 - ahead)
    assert len(cropper.flush()) == ahead and cropper.flush() == []


def test_missing_faces_repeat_the_last_landmarks_and_begin_with_grey(landmarks) -> None:
    clip = [(PICTURE, None)] * 2 + [(PICTURE, landmarks)] * 2 + [(PICTURE, None)] * 3
    crops = _all(MouthCropper(PRE, 0), clip)
    assert all((c == 107).all() for c in crops[:2])
    for crop in crops[3:]:  # warped one by one or in a row, OpenCV may round a pixel otherwise
        np.testing.assert_allclose(crop.astype(int), crops[2].astype(int), rtol=0, atol=1)
        assert (crop != crops[2]).mean() < 1e-3


def test_a_mouth_half_out_of_the_frame_is_cropped_all_the_same(landmarks) -> None:
    cut = np.ascontiguousarray(PICTURE[:, :224])
    (whole,), (half,) = (
        _all(MouthCropper(PRE), [(f, landmarks)]) for f in (PICTURE, cut)
    )
    same = half == whole
    assert same[:, :30].all() and not half[:, 60:].any()


def test_drawn_lips_show_skin_lips_and_the_opening(landmarks) -> None:
    pre = MouthPreprocess(frames=16, drawing="lips")
    crop = _all(MouthCropper(pre), [(PICTURE, landmarks)])[0]
    assert {SKIN, LIP, INSIDE} <= set(np.unique(crop).tolist())
    inner = crop < (LIP + INSIDE) / 2
    rows, columns = np.nonzero(inner)
    assert abs(columns.mean() - 44) < 4 and abs(rows.mean() - 44) < 6
    closed = landmarks.copy()
    closed[[317, 14, 87, 308, 78], 1] = closed[[312, 13, 82, 308, 78], 1]
    assert mouth_opening(closed) < 0.05 < mouth_opening(landmarks)
    drawn = _all(MouthCropper(pre), [(PICTURE, closed)])[0]
    assert (drawn < (LIP + INSIDE) / 2).sum() < 0.3 * inner.sum()
    assert draw_lips(np.full((20, 2), 1e6), 88).shape == (88, 88)


def test_another_look_ahead_is_refused() -> None:
    with pytest.raises(UsageError, match="0 to 11"):
        MouthCropper(PRE, 12)
