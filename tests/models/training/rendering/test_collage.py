"""People cut out and put before other scenes: labelled as pasted, leaving where they left."""

import numpy as np
import pytest

from prunus.models.training.rendering.backgrounds import Backgrounds
from prunus.models.training.rendering.collage import Cutout, collage, hang_cloths, place
from prunus.models.training.rendering.mask_studio import SIZE
from prunus.models.training.segmentation.shards import BACKGROUND, PERSON


def _bust(touching):
    """A bright red block, the person, that ends above or at the picture's lower edge."""
    alpha = np.zeros((120, 100), np.float32)
    alpha[30 : 120 if touching else 100, 25:75] = 1
    image = np.full((120, 100, 3), 30, np.uint8)
    image[alpha > 0] = (240, 10, 10)
    return Cutout(image, alpha)


def _at(matrix, x, y):
    return matrix @ np.array([x, y, 1.0])


@pytest.mark.parametrize("seed", range(20))
def test_who_leaves_the_old_picture_below_leaves_the_new_one_below(seed):
    matrix = place(np.random.default_rng(seed), _bust(touching=True))
    assert _at(matrix, 50, 120)[1] >= SIZE
    assert _at(matrix, 50, 30)[1] < SIZE


@pytest.mark.parametrize("seed", range(20))
def test_who_is_cut_on_both_sides_fills_the_picture(seed):
    wide = Cutout(np.zeros((200, 60, 3), np.uint8), np.ones((200, 60), np.float32))
    matrix = place(np.random.default_rng(seed), wide)
    ends = sorted(_at(matrix, x, 0)[0] for x in (0, 60))
    assert ends[0] <= 1 and ends[1] >= SIZE - 1


def test_a_cut_is_firm_where_the_teacher_is_sure():
    probability = np.array([[0.1, 0.3, 0.5, 0.7, 0.9]], np.float32)
    cut = Cutout.of(np.zeros((1, 5, 3), np.uint8), probability)
    assert np.allclose(cut.alpha, [[0, 0, 0.5, 1, 1]], atol=1e-6)


def test_labels_are_what_was_pasted_and_a_seed_decides_all():
    backs = Backgrounds()
    backs.photographs = [np.full((300, 300, 3), (20, 90, 20), np.uint8)]
    shots = [collage(np.random.default_rng(k), [_bust(True)], backs) for k in range(12)]
    again = collage(np.random.default_rng(3), [_bust(True)], backs)
    assert np.array_equal(shots[3].image, again.image)
    assert np.array_equal(shots[3].labels, again.labels)
    with_people = [s for s in shots if (s.labels == PERSON).any()]
    assert len(with_people) >= 8
    reds = [s.image.astype(int) for s in with_people]
    gaps = [
        (r[s.labels == PERSON] - r[s.labels == BACKGROUND].mean(0)).mean(0)
        for r, s in zip(reds, with_people, strict=True)
    ]
    assert np.mean(gaps, 0)[0] > 60 > np.mean(gaps, 0)[1]  # red is where the labels say
    assert all(set(np.unique(s.labels)) <= {BACKGROUND, PERSON} for s in shots)


def test_hard_collages_hang_cloths_that_are_nobody():
    backs = Backgrounds()
    backs.photographs = [np.full((300, 300, 3), 90, np.uint8)]
    cuts = [_bust(True)]
    empty = [
        collage(np.random.default_rng(k), cuts, backs, empty=1.0, cloths=1.0) for k in range(4)
    ]
    assert not any((s.labels == PERSON).any() for s in empty)
    ground = np.full((SIZE, SIZE, 3), 90, np.float32)
    hung = [hang_cloths(np.random.default_rng(k), ground) for k in range(6)]
    changed = [(np.abs(h - ground).max(2) > 5).mean() for h in hung]
    assert all(h.min() >= 0 and h.max() <= 281 for h in hung)
    assert np.mean(changed) > 0.15 and (ground == 90).all()
