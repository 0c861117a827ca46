"""Finite scalar quantisation: round each bounded number, no codebook (FSQ, arXiv 2309.15505).

    half   = (L - 1)(1 - eps) / 2,  eps = 1e-3;   offset = 0.5 for even L, else 0
    bound  = tanh(z + tan(offset / half)) half - offset            appendix A.1
    vector = round(bound) / floor(L / 2)                           in [-1, 1]
    code   = sum_i (round_i + floor(L_i / 2)) prod_{j < i} L_j     first number varies fastest

No loss is needed: every code is within reach of its own frame.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from prunus.models.blocks.quantizers.interface import FrameQuantizer
from prunus.runtime.errors import UsageError

_EPS = 1e-3


class ScalarQuantizer(FrameQuantizer):
    """One number per dimension, one code per frame.

    Args:
        levels: Values of each number, e.g. (8, 5, 5, 5) for 1000 codes (the paper's 2^10).

    Raises:
        UsageError: fewer than two levels somewhere, or more codes than int64 holds.
    """

    levels: Tensor
    basis: Tensor
    width: Tensor
    reach: Tensor
    offset: Tensor
    shift: Tensor

    def __init__(self, levels: tuple[int, ...]) -> None:
        if not levels or min(levels) < 2 or math.prod(levels) >= 2**62:
            raise UsageError(
                f"Got the levels {list(levels)}; expected two or more each, and fewer than 2^62 "
                "codes in all."
            )
        super().__init__(len(levels), (math.prod(levels),))
        for name, values in (
            ("levels", list(levels)),
            ("basis", [math.prod(levels[:k]) for k in range(len(levels))]),
            ("width", [size // 2 for size in levels]),
        ):
            self.register_buffer(name, torch.tensor(values), persistent=False)
        half = torch.tensor([(size - 1) * (1 - _EPS) / 2 for size in levels])
        offset = torch.tensor([0.0 if size % 2 else 0.5 for size in levels])
        self.register_buffer("reach", half, persistent=False)
        self.register_buffer("offset", offset, persistent=False)
        self.register_buffer("shift", torch.tan(offset / half), persistent=False)

    def condition(self, x: Tensor) -> Tensor:
        """Bound frames: (..., D) any number to (..., D) just beyond [-1, 1] at most."""
        return (torch.tanh(x + self.shift) * self.reach - self.offset) / self.width

    def search(self, latent: Tensor) -> Tensor:
        """Round, and write the digits as one number, (..., 1)."""
        digits = torch.round(latent * self.width).long() + self.width
        return (digits * self.basis).sum(dim=-1, keepdim=True)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the rounded numbers in [-1, 1], (..., D)."""
        self.check_codes(codes)
        digits = torch.div(codes, self.basis, rounding_mode="floor") % self.levels
        return (digits - self.width).float() / self.width

    def losses(self, latent: Tensor, vectors: Tensor) -> dict[str, Tensor]:
        """Return no loss."""
        return {}
