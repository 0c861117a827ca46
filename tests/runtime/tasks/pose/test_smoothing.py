"""The one-euro filter: steady at rest, quick in motion."""

import numpy as np
import pytest

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
