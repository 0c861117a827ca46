"""Scores of class maps against values that were worked out by hand."""

import numpy as np
import pytest

from prunus.runtime.errors import TensorError, UsageError
from prunus.runtime.tasks.segmentation.accuracy import ConfusionMatrix

LABELLED = np.array([[0, 0, 1, 1], [0, 0, 1, 2]])
FOUND = np.array([[0, 0, 1, 0], [0, 1, 1, 1]])


def test_hand_computed_scores() -> None:
    matrix = ConfusionMatrix(4)
    matrix.add(FOUND, LABELLED)
    expected = np.zeros((4, 4), int)
    expected[0, :2] = 3, 1
    expected[1, :2] = 1, 2
    expected[2, 1] = 1
    np.testing.assert_array_equal(matrix.counts, expected)
    scores = matrix.scores()
    # Class 0: 3 of {4 labelled + 4 found - 3}; 1: 2 of {3 + 4 - 2}; 2: none of 1; 3: nowhere.
    np.testing.assert_allclose(scores.iou, [3 / 5, 2 / 5, 0, np.nan])
    np.testing.assert_allclose(scores.accuracy, [3 / 4, 2 / 3, 0, np.nan])
    assert scores.mean_iou == pytest.approx((3 / 5 + 2 / 5 + 0) / 3)
    assert scores.mean_accuracy == pytest.approx((3 / 4 + 2 / 3 + 0) / 3)
    assert scores.pixel_accuracy == pytest.approx(5 / 8)
    assert scores.labelled.tolist() == [4, 3, 1, 0] and scores.judged == 8


def test_pictures_add_up_before_the_ratio() -> None:
    """Two pictures of different sizes weigh by their pixels, not one half each."""
    matrix = ConfusionMatrix(2)
    matrix.add(np.zeros((1, 1), np.uint8), np.ones((1, 1), np.uint8))
    matrix.add(np.ones((1, 9), np.uint8), np.ones((1, 9), np.uint8))
    assert matrix.scores().iou[1] == pytest.approx(9 / 10)


def test_ignored_pixels_count_nowhere() -> None:
    labelled = LABELLED.copy()
    labelled[1, 3] = 255
    matrix = ConfusionMatrix(3)
    matrix.add(FOUND, labelled)
    scores = matrix.scores()
    assert scores.judged == 7 and np.isnan(scores.iou[2])
    assert scores.iou[1] == pytest.approx(2 / 4)
    matrix = ConfusionMatrix(3)
    matrix.add(FOUND, LABELLED, ignored=2)
    assert matrix.scores().judged == 7


def test_nothing_judged_is_not_a_number() -> None:
    matrix = ConfusionMatrix(2)
    matrix.add(np.zeros((2, 2), np.uint8), np.full((2, 2), 255, np.uint8))
    scores = matrix.scores()
    assert np.isnan([scores.mean_iou, scores.pixel_accuracy, scores.mean_accuracy]).all()


def test_numbers_that_are_no_class_are_refused() -> None:
    matrix = ConfusionMatrix(2)
    with pytest.raises(UsageError, match="labels hold the class number 2"):
        matrix.add(FOUND, LABELLED)
    with pytest.raises(UsageError, match="model hold the class number 5"):
        matrix.add(np.array([[5]]), np.array([[0]]))
    with pytest.raises(UsageError, match="class number -1"):
        matrix.add(np.array([[0]]), np.array([[-1]]))
    assert not matrix.counts.any()
    with pytest.raises(TensorError, match=r"\[1, 1\] class numbers for \[2, 4\]"):
        matrix.add(np.zeros((1, 1), int), LABELLED)
    with pytest.raises(UsageError, match="at least one"):
        ConfusionMatrix(0)
