"""Real people from close by: known where two looks agree, shown whole or in part."""

import numpy as np
import pytest

from prunus.models.training.rendering.backgrounds import Backgrounds
from prunus.models.training.rendering.mask_studio import SIZE
from prunus.models.training.segmentation.shards import BACKGROUND, IGNORE, PERSON, read_masks
from prunus.models.training.teachers.portraits import (
    Portrait,
    label_portrait,
    reframe,
    write_portraits,
)
from prunus.runtime.errors import SourceError


class _Teacher:
    """Sees the left half in the whole picture, and up to `near` columns from close by."""

    def __init__(self, near):
        self.near, self.boxes = near, []

    def look(self, image):
        return (np.arange(image.shape[1]) < image.shape[1] // 2)[None].repeat(len(image), 0) * 0.9

    def look_at_people(self, image, boxes):
        self.boxes += [b.tolist() for b in boxes]
        return (np.arange(image.shape[1]) < self.near)[None].repeat(len(image), 0) * 0.8


def _portrait(unsure=0):
    labels = np.zeros((80, 60), np.uint8)
    labels[20:, 10:50] = PERSON
    labels[20 : 20 + unsure, 10:50] = IGNORE
    image = np.where(labels[..., None] == PERSON, 200, 40).astype(np.uint8).repeat(3, 2)
    return Portrait(image, labels, (labels == PERSON).astype(np.float32))


def test_pixels_are_known_where_both_looks_agree():
    teacher = _Teacher(near=30)
    found = label_portrait(np.zeros((50, 100, 3), np.uint8), teacher)
    assert teacher.boxes == [[0, 0, 49, 49]]
    assert (found.labels[:, :30] == PERSON).all()
    assert (found.labels[:, 30:50] == IGNORE).all()
    assert (found.labels[:, 50:] == BACKGROUND).all()
    assert found.agreement() == pytest.approx(0.6)
    more = label_portrait(np.zeros((50, 100, 3), np.uint8), _Teacher(near=70))
    assert (more.labels[:, 50:70] == IGNORE).all() and (more.labels[:, 70:] == BACKGROUND).all()
    assert found.probability[0, 0] == pytest.approx(0.85)


def test_a_window_shows_the_portrait_and_knows_nothing_beside_it():
    shots = [reframe(np.random.default_rng(k), _portrait()) for k in range(30)]
    whole = [s for s in shots if (s.labels == IGNORE).any()]
    assert 0 < len(whole) < 15
    for shot in whole:  # 80 x 60: a quarter of the width is empty, grey as in deployed models
        assert (shot.labels == IGNORE).mean() == pytest.approx(0.25, abs=0.02)
        assert (shot.image[:, -20:] == 114).all()
    for shot in shots:
        assert shot.image.shape == (SIZE, SIZE, 3)
        person, ground = (shot.image[shot.labels == v] for v in (PERSON, BACKGROUND))
        assert person.mean() > 185 and (not len(ground) or ground.mean() < 60)


def test_folders_are_filled_once_and_sure_people_alone_are_cut_out(tmp_path):
    backs = Backgrounds()
    write_portraits(tmp_path, [_portrait()], backs, count=6, seed=4)
    (path,) = tmp_path.iterdir()
    assert len(read_masks(tmp_path)) == 6 and path.name == "portraits-004-0000.npz"
    before = path.stat().st_mtime_ns
    write_portraits(tmp_path, [_portrait()], backs, count=6, seed=4)
    assert path.stat().st_mtime_ns == before
    with pytest.raises(SourceError, match="sure of nobody"):
        write_portraits(tmp_path, [_portrait(unsure=10)], backs, count=6, seed=5)


def test_hard_sets_are_collages_alone(tmp_path):
    portraits = [_portrait(unsure=5)]  # whose windows are known to be unknown in part
    write_portraits(tmp_path, portraits, Backgrounds(), count=12, seed=1, hard=True)
    shots = read_masks(tmp_path)
    labels = [shots[i].labels for i in range(12)]
    assert not any((each == IGNORE).any() for each in labels)
    assert 0 < sum((each == PERSON).any() for each in labels) < 12
