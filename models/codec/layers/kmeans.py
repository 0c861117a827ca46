"""k-means: k-means++ starts (Arthur and Vassilvitskii, 2007), then Lloyd's steps; same seed, same
centres.

Empty clusters take the frame that lies farthest from its centre, so every centre has frames as long
as there are as many different frames as centres.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from prunus.models.codec.layers.vector_quantizer import nearest_code
from prunus.runtime.errors import TensorError, UsageError

_BLOCK = 8192  # frames whose distances are held at once


class Clusters(NamedTuple):
    """What k-means found.

    Attributes:
        centres: (k, D) float32.
        inertia: Sum of squared distances of the frames to their centres.
        steps: Lloyd's steps until nothing changed, or the limit.
    """

    centres: Tensor
    inertia: float
    steps: int


def fit_kmeans(frames: Tensor, k: int, *, seed: int = 0, steps: int = 100) -> Clusters:
    """Cluster frames.

    Args:
        frames: (N, D) float32, at least k of them.
        k: Clusters.
        seed: Of the starting centres; the global generator is left alone.
        steps: Limit of Lloyd's steps.

    Raises:
        UsageError: k or the limit below 1.
        TensorError: not (N, D), fewer frames than clusters, or numbers that are not finite.

    Example:
        >>> fit_kmeans(torch.tensor([[0.0], [1.0], [9.0]]), 2).centres.sort(dim=0).values.tolist()
        [[0.5], [9.0]]
    """
    if k < 1 or steps < 1:
        raise UsageError(f"Got {k} clusters and {steps} steps; expected 1 or more of each.")
    if frames.dim() != 2 or frames.shape[0] < k:
        raise TensorError(f"Got frames of shape {tuple(frames.shape)}; expected ({k} or more, D).")
    data = frames.detach().double()
    if not bool(data.isfinite().all()):
        raise TensorError("The frames hold NaN or infinity; expected finite numbers.")
    centres = _spread_starts(data, k, seed)
    labels = torch.full((len(data),), -1)
    taken = 0
    while taken < steps:
        found = nearest_centres(data, centres)
        if torch.equal(found, labels):
            break
        labels, taken = found, taken + 1
        centres = _means(data, labels, centres)
    labels = nearest_centres(data, centres)
    inertia = float((data - centres[labels]).square().sum())
    return Clusters(centres.float(), inertia, taken)


def nearest_centres(frames: Tensor, centres: Tensor) -> Tensor:
    """Return the nearest centre of each frame, (N,) int64; the first one wins a tie."""
    return torch.cat([nearest_code(block, centres) for block in frames.split(_BLOCK)])


def _spread_starts(data: Tensor, k: int, seed: int) -> Tensor:
    """Draw starts one by one, each with a chance that grows with its squared distance."""
    generator = torch.Generator().manual_seed(seed)
    first = int(torch.randint(len(data), (1,), generator=generator))
    chosen = [first]
    distance = (data - data[first]).square().sum(dim=1)
    for _ in range(1, k):
        total = distance.cumsum(0)
        if float(total[-1]) > 0:
            draw = torch.rand((), generator=generator, dtype=torch.float64) * total[-1]
            pick = min(int(torch.searchsorted(total, draw, right=True)), len(data) - 1)
        else:  # all frames coincide with chosen ones
            pick = int(torch.randint(len(data), (1,), generator=generator))
        chosen.append(pick)
        distance = torch.minimum(distance, (data - data[pick]).square().sum(dim=1))
    return data[chosen].clone()


def _means(data: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    counts = torch.bincount(labels, minlength=len(centres)).to(data.dtype)
    sums = torch.zeros_like(centres).index_add_(0, labels, data)
    moved = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
    empty = (counts == 0).nonzero().flatten().tolist()
    if empty:
        far = (data - moved[labels]).square().sum(dim=1).argsort(descending=True, stable=True)
        for centre, frame in zip(empty, far.tolist(), strict=False):
            moved[centre] = data[frame]
    return moved
