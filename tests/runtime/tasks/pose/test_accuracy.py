import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.runtime.errors import TensorError
from prunus.runtime.tasks.pose.accuracy import (
    box_length,
    mean_over_people,
    oks,
    pck,
    rescored,
    suppress_doubles,
)

SIGMAS = np.array([0.026, 0.079, 0.107])


def people(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 200, (count, 3, 2))


def test_oks_of_the_truth_is_one() -> None:
    truth = people()
    seen = np.ones((2, 3), bool)
    assert oks(truth, truth, seen, np.full(2, 900.0), SIGMAS) == pytest.approx([1, 1])


def test_oks_by_hand() -> None:
    """One joint, sigma 0.1, area 100: k = 0.2, so 2 px off scores exp(-4 / (2 * 100 * 0.04))."""
    got = oks(
        np.array([[[2.0, 0.0]]]), np.zeros((1, 1, 2)), np.ones((1, 1), bool), np.array([100.0]),
        np.array([0.1]),
    )  # fmt: skip
    assert got == pytest.approx([np.exp(-0.5)])


def test_oks_equals_the_coco_evaluator() -> None:
    api = pytest.importorskip("faster_coco_eval")
    rng = np.random.default_rng(1)
    truth = rng.uniform(20, 200, (17, 2))
    labels = rng.integers(0, 3, 17)
    labels[0] = 2
    guess = truth + rng.normal(0, 4, truth.shape)
    box, area = [10.0, 10.0, 200.0, 200.0], 20000.0
    annotation = {
        "id": 1, "image_id": 1, "category_id": 1, "bbox": box, "area": area, "iscrowd": 0,
        "num_keypoints": int((labels > 0).sum()),
        "keypoints": np.c_[truth, labels].ravel().tolist(),
    }  # fmt: skip
    data = {"images": [{"id": 1}], "annotations": [annotation], "categories": [{"id": 1}]}
    mine = {"image_id": 1, "category_id": 1, "score": 1.0}
    mine["keypoints"] = np.c_[guess, np.ones(17)].ravel().tolist()
    coco = api.COCO(data)
    judge = api.COCOeval_faster(coco, coco.loadRes([mine]), "keypoints")
    judge.evaluate()
    theirs = judge.ious[1, 1][0][0]
    sigmas = judge.params.kpt_oks_sigmas
    ours = oks(guess[None], truth[None], labels[None] > 0, np.array([area]), sigmas)
    assert ours[0] == pytest.approx(theirs, abs=1e-12)


@given(st.floats(0, 50), st.floats(0, 50))
def test_oks_falls_with_distance(a: float, b: float) -> None:
    truth, seen = people(1), np.ones((1, 3), bool)
    near, far = sorted((a, b))
    score = [oks(truth + d, truth, seen, np.array([5e3]), SIGMAS)[0] for d in (near, far)]
    assert 1 >= score[0] >= score[1] >= 0


def test_unlabelled_joints_do_not_count() -> None:
    truth = people()
    guess = truth.copy()
    guess[:, 2] += 1000
    seen = np.array([[True, True, False], [False, False, False]])
    assert oks(guess, truth, seen, np.full(2, 900.0), SIGMAS)[0] == pytest.approx(1)
    assert np.isnan(oks(guess, truth, seen, np.full(2, 900.0), SIGMAS)[1])
    assert pck(guess, truth, seen, np.full(2, 100.0))[0] == 1
    assert mean_over_people([1.0, np.nan, 0.5]) == 0.75
    assert np.isnan(mean_over_people([np.nan]))


def test_pck_counts_joints_within_reach() -> None:
    truth = np.zeros((1, 3, 2))
    guess = np.array([[[0, 0], [20, 0], [0, 20.1]]])
    length = box_length(np.array([[0.0, 0.0, 60.0, 100.0]]))
    assert length == [100.0]
    assert pck(guess, truth, np.ones((1, 3), bool), length, 0.2) == pytest.approx([2 / 3])


def test_rescoring() -> None:
    assert rescored(0.5, np.array([0.1, 0.8, 0.4])) == pytest.approx(0.3)
    assert rescored(0.5, np.array([0.1])) == 0.0


def test_doubles_are_suppressed() -> None:
    first = people(1)[0]
    everyone = np.stack([first + 0.1, first, first + 80])
    kept = suppress_doubles(everyone, np.array([0.5, 0.9, 0.3]), np.full(3, 5e3), SIGMAS)
    assert kept == [1, 2]


def test_misfits_are_explained() -> None:
    with pytest.raises(TensorError, match="score column"):
        oks(np.zeros((1, 3, 3)), np.zeros((1, 3, 3)), np.ones((1, 3), bool), np.ones(1), SIGMAS)
    with pytest.raises(TensorError, match="one sigma per joint"):
        oks(people(), people(), np.ones((2, 3), bool), np.ones(2), SIGMAS[:2])
