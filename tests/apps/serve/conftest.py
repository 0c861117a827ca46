"""Small networks to serve."""

from dataclasses import replace

import numpy as np
import onnx
import pytest

from prunus.export.common.pipeline import write_model
from prunus.runtime.card.foreign import foreign_card


@pytest.fixture
def batched(onnx_file, tmp_path):
    """Return a file of y = 3 x whose card calls the first axis, of four places, a batch."""
    shape = ("float32", [4, 5])
    path = onnx_file("net", [("Mul", "x w", "y")], {"x": shape}, {"y": shape}, {"w": np.float32(3)})
    card = foreign_card(path)
    named = {
        role: tuple(replace(s, axes=("batch", "value")) for s in getattr(card, role))
        for role in ("inputs", "outputs")
    }
    target = tmp_path / "batched.onnx"
    write_model(onnx.load(path), replace(card, **named), target)
    return target
