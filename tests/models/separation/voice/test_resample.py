"""Length changes follow PyTorch's rules, as constants."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from prunus.models.separation.voice.resample import (
    average_pool,
    nearest,
    nearest_index,
    pooling_matrix,
)


def test_nearest_indices_are_the_published_ones(cases):
    found = 0
    for name in cases.arrays.files:
        if name.startswith("unit/nearest_"):
            source, target = map(int, name.split("_")[1:])
            assert np.array_equal(nearest_index(source, target).numpy(), cases.arrays[name]), name
            found += 1
    assert found >= 9


@pytest.mark.parametrize(("source", "target"), [(5, 205), (25, 13), (6, 24), (7, 7), (8, 2)])
def test_nearest_agrees_with_torch(source, target):
    x = torch.randn(2, 3, source)
    expected = functional.interpolate(x, size=target, mode="nearest")
    assert torch.equal(nearest(x, target), expected)


@pytest.mark.parametrize(("source", "target"), [(25, 7), (24, 6), (13, 26), (11, 3), (5, 5)])
def test_pooling_agrees_with_torch(source, target):
    x = torch.randn(2, 3, source, dtype=torch.float64)
    expected = functional.adaptive_avg_pool1d(x, target)
    assert torch.allclose(average_pool(x, target), expected, atol=1e-14)
    assert torch.allclose(pooling_matrix(source, target).sum(dim=0), torch.ones(target).double())
