"""Changing the length of maps (B, C, T) by constant rules: nearest neighbours and average pooling.

Nearest neighbours follow PyTorch's rule, source = floor(i * float32(T_in / T_out)): where the
product is a whole number, float32 rounding decides, and other runtimes round otherwise. So the
indices are computed here and become constants of an exported graph.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def nearest_index(source: int, target: int) -> Tensor:
    """Return (target,) int64: the source step of each target step."""
    scale = np.float32(source) / np.float32(target)
    steps = np.floor(np.arange(target, dtype=np.float32) * scale).astype(np.int64)
    return torch.from_numpy(np.minimum(steps, source - 1))


def nearest(x: Tensor, length: int) -> Tensor:
    """Resample (B, C, T) to (B, C, length) by nearest neighbours."""
    own = x.shape[-1]
    if length == own:
        return x
    factor = length // own
    if factor * own == length and factor & (factor - 1) == 0:  # the rule is exact for 2, 4, 8 ...
        return repeat(x, factor)
    return x.index_select(2, nearest_index(own, length).to(x.device))


def repeat(x: Tensor, times: int) -> Tensor:
    """Repeat each step of (B, C, T) in place: (B, C, T * times)."""
    batch, channels, length = x.shape
    wide = x.unsqueeze(-1).expand(batch, channels, length, times)
    return wide.reshape(batch, channels, length * times)


def average_pool(x: Tensor, length: int) -> Tensor:
    """Pool (B, C, T) to `length` steps, each the mean of the steps it covers in part or whole."""
    own = x.shape[-1]
    if length == own:
        return x
    if own % length == 0:
        return functional.avg_pool1d(x, own // length)
    if length % own == 0:
        return repeat(x, length // own)
    return x @ pooling_matrix(own, length).to(x.dtype).to(x.device)


def pooling_matrix(source: int, target: int) -> Tensor:
    """Return (source, target) float64: column i averages steps floor(i r) .. ceil((i + 1) r) - 1.

    With r = source / target; the windows of PyTorch's adaptive average pooling.
    """
    matrix = torch.zeros(source, target, dtype=torch.float64)
    for i in range(target):
        start, stop = i * source // target, -(-(i + 1) * source // target)
        matrix[start:stop, i] = 1 / (stop - start)
    return matrix
