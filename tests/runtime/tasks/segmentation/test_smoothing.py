"""Steadied masks, in numbers worked out by hand."""

import numpy as np
import pytest

from prunus.runtime.errors import UsageError
from prunus.runtime.tasks.segmentation.smoothing import MaskSmoothing


def _map(*values) -> np.ndarray:
    return np.array([values], np.float32)


def test_small_moves_keep_most_of_the_past_and_sudden_ones_nothing() -> None:
    smoothing = MaskSmoothing(strength=0.6)
    first = _map(0.2, 0.2, 0.2, 0.9, 0.9)
    np.testing.assert_array_equal(smoothing.probability(first), first)
    found = smoothing.probability(_map(0.2, 0.3, 0.45, 0.4, 0.1))
    # The past weighs 0.6 (1 - |move| / 0.5): of moves by 0, 0.1, 0.25, 0.5 and 0.8.
    expected = _map(0.2, 0.2 * 0.48 + 0.3 * 0.52, 0.2 * 0.3 + 0.45 * 0.7, 0.4, 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.dtype == np.float32
    again = smoothing.probability(expected)
    np.testing.assert_allclose(again, expected, rtol=1e-6)  # the steadied one is the past


def test_off_means_off() -> None:
    smoothing = MaskSmoothing(strength=0.0, patience=1)
    for now in (_map(0.1, 0.9), _map(0.2, 0.8)):
        np.testing.assert_array_equal(smoothing.probability(now), now)
    for now in (np.array([[1, 2]]), np.array([[3, 2]])):
        np.testing.assert_array_equal(smoothing.classes(now), now)


@pytest.mark.parametrize("patience", [1, 2, 3, 255])
def test_a_new_class_shows_when_it_was_seen_often_enough_in_a_row(patience) -> None:
    smoothing = MaskSmoothing(patience=patience)
    assert smoothing.classes(np.array([[4]])).item() == 4
    shown = [smoothing.classes(np.array([[7]])).item() for _ in range(patience + 1)]
    assert shown == [4] * (patience - 1) + [7, 7]


def test_flicker_never_shows_and_pixels_do_not_wait_for_each_other() -> None:
    smoothing = MaskSmoothing(patience=2)
    frames = [[1, 1], [2, 1], [1, 2], [2, 2], [3, 2], [2, 1]]
    shown = [smoothing.classes(np.array([f])).ravel().tolist() for f in frames]
    assert shown == [[1, 1], [1, 1], [1, 1], [1, 2], [1, 2], [1, 2]]


def test_a_class_that_stays_for_hours_still_counts() -> None:
    smoothing = MaskSmoothing(patience=2)
    for _ in range(600):
        assert smoothing.classes(np.array([[1]])).item() == 1


def test_another_size_or_a_cut_starts_anew() -> None:
    smoothing = MaskSmoothing()
    smoothing.probability(_map(0.2, 0.2))
    smoothing.classes(np.array([[1, 1]]))
    assert smoothing.probability(_map(0.3)).tolist() == _map(0.3).tolist()
    assert smoothing.classes(np.array([[2]])).tolist() == [[2]]
    smoothing.reset()
    assert smoothing.probability(_map(0.5)).tolist() == [[0.5]]
    assert smoothing.classes(np.array([[3]])).tolist() == [[3]]


def test_what_comes_back_belongs_to_the_caller() -> None:
    smoothing = MaskSmoothing()
    for _ in range(2):
        now = np.array([[0.2]], np.float32)
        smoothing.probability(now)[:] = 9
        shown = np.array([[1]])
        smoothing.classes(shown)[:] = 9
    np.testing.assert_allclose(smoothing.probability(_map(0.2)), 0.2, rtol=1e-6)
    assert smoothing.classes(np.array([[1]])).item() == 1


@pytest.mark.parametrize(
    ("strength", "patience"), [(1.0, 2), (-0.1, 2), (0.6, 0), (float("nan"), 2), (0.6, 256)]
)
def test_settings_out_of_range_are_refused(strength, patience) -> None:
    with pytest.raises(UsageError, match="0 <= strength < 1 and 1 to 255 frames"):
        MaskSmoothing(strength, patience)
