"""Inputs of a network that prunus did not make, as a user stored them."""

import numpy as np
import pytest

from prunus.export.foreign.samples import load_samples
from prunus.runtime.card.foreign import foreign_card
from prunus.runtime.errors import SourceError


@pytest.fixture
def card(onnx_file):
    spec = ("float32", [1, 2])
    return foreign_card(onnx_file("net", [("Relu", "x", "y")], {"x": spec}, {"y": spec}))


def test_arrays_of_an_archive_are_the_samples(card, tmp_path) -> None:
    x = np.arange(8, dtype=np.float32).reshape(4, 2)
    np.savez(tmp_path / "a.npz", x=x)
    np.testing.assert_array_equal(load_samples(card, tmp_path / "a.npz").arrays["x"], x)


def test_a_damaged_archive_is_refused_by_name(card, broken_npz) -> None:
    path = broken_npz("b.npz", x=np.zeros((99, 2), np.float32))
    with pytest.raises(SourceError, match=r"b\.npz is not a complete"):
        load_samples(card, path)
    with pytest.raises(SourceError, match="Array file not found"):
        load_samples(card, path.with_name("gone.npz"))
