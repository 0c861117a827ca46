"""Entropy losses: sure about each frame, spread over the codebook (arXiv 2310.05737, equation 5).

    p(c | x) = softmax_c(-|x - c|^2 / T)
    frame    = mean over frames of H(p(. | x))          small: each frame is sure of its code
    codebook = H(mean over frames of p(. | x))          large: all codes are used

MAGVIT-v2 trains with frame - codebook. Entropies are in nats.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_LEAST = 1e-12  # probabilities below this count as nothing; log stays finite


class Entropies(NamedTuple):
    """Two scalars in nats; `loss` is what is minimised."""

    frame: Tensor
    codebook: Tensor

    @property
    def loss(self) -> Tensor:
        """frame - codebook."""
        return self.frame - self.codebook


def soft_assignment(x: Tensor, codebook: Tensor, temperature: float) -> Tensor:
    """Return p(c | x) (N, V) of frames (N, D) and code vectors (V, D)."""
    # |x|^2 is the same for every code and leaves the softmax.
    closeness = 2.0 * x @ codebook.t() - codebook.square().sum(dim=1)
    return (closeness / temperature).softmax(dim=1)


def entropies(probabilities: Tensor) -> Entropies:
    """Return both entropies of p(c | x) (N, V)."""
    return Entropies(_entropy(probabilities).mean(), _entropy(probabilities.mean(dim=0)))


def _entropy(probabilities: Tensor) -> Tensor:
    return -(probabilities * probabilities.clamp(min=_LEAST).log()).sum(dim=-1)


def bit_assignment(x: Tensor, temperature: float) -> Tensor:
    """Return p(c | x) (N, 2^b) over all sign vectors, frames (N, b).

    The distances to sign vectors split over the bits: -|x - c|^2 = 2 x.c + const, so
    p(c | x) is a product of sigmoid(4 x_i / T) for bits that are set and its complement otherwise.
    Code c has bit i set when (c >> i) & 1.
    """
    one = (4.0 * x / temperature).sigmoid()
    table = one.new_ones(x.shape[0], 1)
    for bit in one.unbind(dim=1):  # the newest bit is the highest: it doubles the table
        table = torch.cat((table * (1.0 - bit)[:, None], table * bit[:, None]), dim=1)
    return table
