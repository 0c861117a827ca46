"""Crops of people that a user stored."""

import numpy as np
import pytest

from prunus.export.precision.calibration import load_calibration
from prunus.runtime.errors import SourceError, UsageError
from prunus.runtime.tasks.pose.card import ImagePreprocess

FIT = ImagePreprocess(8, 6, "stretch")


def test_crops_come_from_either_kind_of_file(tmp_path) -> None:
    crops = np.random.default_rng(0).integers(0, 255, (5, 8, 6, 3), np.uint8)
    np.savez(tmp_path / "a.npz", crops=crops, other=np.zeros(3))
    np.save(tmp_path / "a.npy", crops)
    for name in ("a.npz", "a.npy"):
        (found,) = load_calibration(tmp_path / name, FIT, limit=5).arrays.values()
        np.testing.assert_array_equal(found, crops)


def test_what_holds_no_crops_is_refused_by_name(tmp_path, broken_npz) -> None:
    path = broken_npz("b.npz", crops=np.zeros((5, 8, 6, 3), np.uint8))
    with pytest.raises(SourceError, match=r"b\.npz is not a complete"):
        load_calibration(path, FIT)
    np.savez(tmp_path / "c.npz", images=np.zeros((5, 8, 6, 3), np.uint8))
    with pytest.raises(SourceError, match=r"\['images'\]; expected 'crops'"):
        load_calibration(tmp_path / "c.npz", FIT)
    np.save(tmp_path / "d.npy", np.zeros((5, 8, 7, 3), np.uint8))
    with pytest.raises(UsageError, match=r"uint8 \[5, 8, 7, 3\]; expected uint8 \[n, 8, 6, 3\]"):
        load_calibration(tmp_path / "d.npy", FIT)
