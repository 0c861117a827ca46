"""Scenes that a user stored."""

import numpy as np
import pytest

from prunus.export.segmentation.samples import load_scenes
from prunus.runtime.errors import SourceError
from prunus.runtime.tasks.segmentation.card import ScenePreprocess

FIT = ScenePreprocess(8, 6, "stretch")


def test_images_come_from_either_kind_of_file(tmp_path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (3, 8, 6, 3), np.uint8)
    np.savez(tmp_path / "a.npz", images=images, other=np.zeros(3))
    np.save(tmp_path / "a.npy", images)
    for name in ("a.npz", "a.npy"):
        np.testing.assert_array_equal(load_scenes(tmp_path / name, FIT).arrays["image"], images)


def test_what_holds_no_images_is_refused_by_name(tmp_path, broken_npz) -> None:
    path = broken_npz("b.npz", images=np.zeros((3, 8, 6, 3), np.uint8))
    with pytest.raises(SourceError, match=r"b\.npz is not a complete"):
        load_scenes(path, FIT)
    np.savez(tmp_path / "c.npz", crops=np.zeros((3, 8, 6, 3), np.uint8))
    with pytest.raises(SourceError, match=r"\['crops'\]; expected 'images'"):
        load_scenes(tmp_path / "c.npz", FIT)
