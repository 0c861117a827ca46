import numpy as np
import pytest

from prunus.models.training.pose.scores import COCO_SIGMAS, MASK_SHARE, score_poses
from prunus.runtime.tasks.pose.accuracy import oks


def _person(rng):
    return rng.uniform(20, 180, (1, 17, 2)), np.ones((1, 17), bool), np.array([[0, 0, 200, 200.0]])


def test_constants_are_those_of_the_evaluation_of_coco():
    published = (26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89)
    np.testing.assert_allclose(COCO_SIGMAS * 1000, published)


def test_a_planted_error_gives_the_published_value():
    rng = np.random.default_rng(0)
    wanted, labelled, _ = _person(rng)
    area = np.array([10_000.0])
    found = wanted.copy()
    # One joint displaced by exactly k * s must score exp(-1/2).
    found[0, 9, 0] += 2 * COCO_SIGMAS[9] * 100
    expected = (16 + np.exp(-0.5)) / 17
    assert oks(found, wanted, labelled, area, COCO_SIGMAS)[0] == pytest.approx(expected, rel=1e-12)


def test_unlabelled_joints_and_people_do_not_count():
    rng = np.random.default_rng(1)
    wanted, labelled, box = _person(rng)
    found = wanted.copy()
    found[0, :5] += 500
    labelled[0, :5] = False
    scores = score_poses(
        np.concatenate([found, found]),
        np.concatenate([wanted, wanted]),
        np.concatenate([labelled, np.zeros_like(labelled)]),
        np.concatenate([box, box]),
    )
    assert (scores.people, scores.joints) == (1, 12)
    assert scores.oks == pytest.approx(1)
    assert scores.pixels == pytest.approx(0)


def test_thresholds_distances_and_pck_on_planted_errors():
    wanted = np.zeros((2, 17, 2))
    wanted[:, 5] = (100, 50)  # left shoulder
    wanted[:, 12] = (100, 150)  # right hip: torso diagonal 100
    labelled = np.zeros((2, 17), bool)
    labelled[:, [5, 12]] = True
    found = wanted.copy()
    found[0, 5, 0] += 19  # inside a fifth of the torso
    found[1, [5, 12], 0] += 300
    boxes = np.array([[0, 0, 200, 200.0]] * 2)
    scores = score_poses(found, wanted, labelled, boxes)
    assert scores.pck == pytest.approx(0.5)
    assert scores.pixels == pytest.approx((19 + 0 + 300 + 300) / 4)
    near = np.exp(-(19**2) / (2 * 200 * 200 * MASK_SHARE * (2 * 0.079) ** 2))
    assert scores.oks == pytest.approx((1 + near) / 4, abs=1e-6)
    assert (scores.oks_50, scores.oks_75) == (0.5, 0.5)
