"""The one-euro filter: steady at rest, quick in motion."""

import cv2
import numpy as np
import pytest

from prunus.apps.common.media import MEDIA
from prunus.models import zoo
from prunus.runtime.tasks.pose.estimator import PoseEstimator
from prunus.runtime.tasks.pose.smoothing import Smoothing, smooth

SETTINGS = Smoothing()


def _follow(points: np.ndarray, rate: float = 30.0) -> np.ndarray:
    state, out = None, []
    for number, point in enumerate(points):
        keypoints = np.array([[*point, 0.7]], np.float32)
        filtered, state = smooth(keypoints, 200.0, number / rate, state, SETTINGS)
        assert filtered[0, 2] == np.float32(0.7)
        out.append(filtered[0, :2])
    return np.array(out)


def test_trembling_shrinks() -> None:
    noise = np.random.default_rng(0).normal(size=(300, 2)) * 2 + 100
    assert _follow(noise)[50:].std() < 0.6 * noise[50:].std()


def test_fast_motion_lags_less_than_a_plain_low_pass() -> None:
    points = np.stack([np.arange(60) * 20.0, np.zeros(60)], 1)
    lag = (points - _follow(points))[30:, 0].mean()
    plain = 20 * 30 / (2 * np.pi * SETTINGS.minimum_cutoff_hz)  # speed times time constant
    assert 0 <= lag < 0.3 * plain


def test_first_frame_and_repeated_time_pass_unchanged() -> None:
    keypoints = np.array([[5, 6, 0.5]], np.float32)
    first, state = smooth(keypoints, 10, 1.0, None, SETTINGS)
    np.testing.assert_array_equal(first, keypoints)
    again, _ = smooth(keypoints + 3, 10, 1.0, state, SETTINGS)
    np.testing.assert_array_equal(again, keypoints + 3)


def test_a_still_point_stays() -> None:
    assert _follow(np.full((20, 2), 7.0)) == pytest.approx(7.0)


@pytest.fixture(scope="module")
def still():
    """Joints of the portrait in 40 frames of camera noise, crops trembling, and its box."""
    picture = cv2.imread(str(MEDIA / "portrait.jpg"))
    rng, (rows, columns) = np.random.default_rng(0), picture.shape[:2]
    box = np.array([0.02 * columns, 0.02 * rows, 0.98 * columns, 0.98 * rows])
    path = zoo.model_path("movenet_lightning")
    with PoseEstimator.open(path, "onnxruntime", threads=1) as estimator:
        found = [
            estimator(
                np.clip(picture + rng.normal(0, 6, picture.shape), 0, 255).astype(np.uint8),
                box[None] + rng.normal(0, 2, (1, 4)),
            )[0].keypoints
            for _ in range(40)
        ]
    return np.stack(found), float(np.hypot(box[2] - box[0], box[3] - box[1]))


def test_joints_of_a_still_person_tremble_by_less_than_half_a_percent(still) -> None:
    raw, size = still
    seen = raw[:, :, 2].mean(0) > 0.3
    state, out = None, []
    for number, keypoints in enumerate(raw):
        filtered, state = smooth(keypoints, size, number / 30, state, SETTINGS)
        out.append(filtered)
    settled = np.stack(out)[10:, seen, :2] / size
    assert seen.sum() >= 5
    assert (raw[10:, seen, :2] / size).std(0).max() > 0.005
    assert settled.std(0).max() < 0.005
    assert np.linalg.norm(np.diff(settled, axis=0), axis=-1).mean() < 0.002


@pytest.mark.parametrize("speed", [0.1, 0.3, 1.0, 3.0])
def test_the_filter_adds_at_most_a_frame_of_lag(speed) -> None:
    """From standing still into any speed in person sizes per second, at 30 frames a second."""
    size, state, lags = 200.0, None, []
    for number in range(120):
        x = size * speed * max(number - 30, 0) / 30
        keypoints = np.array([[x, 0, 1]], np.float32)
        filtered, state = smooth(keypoints, size, number / 30, state, SETTINGS)
        lags.append((x - float(filtered[0, 0])) / (size * speed / 30))
    assert lags[-1] <= 1.0
    assert max(lags) <= (1.0 if speed >= 0.3 else 2.0)
