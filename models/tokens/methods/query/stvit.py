"""Semantic tokens and their recovery (STViT-R, arXiv 2303.08810, section 3).

    s = s0 + g MHA(LN s0, LN [s0 ; window and 3 rows and columns around it]), MLP
                                         s0 = adaptive max pool of each window, 3x3 as published
    s = block(query s + table, keys [s ; x])
    learned way back:  x = block(query x, keys s)

The pooled tokens and the layer scales are residual, so that an untrained cut is nearly max pooling;
the way back starts as the identity. What comes out is a grid again: `samples` tokens per side of
each window. K divided by their square must be a number of equal windows.

Differs from the paper: one cut, after which the network's own blocks are the semantic blocks; the
scales of the way back start at zero, not at 1e-5; special tokens pass by.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from prunus.models.layers.semantic_block import SemanticBlock
from prunus.models.layers.token_block import TokenBlock
from prunus.models.tokens.cells import membership
from prunus.models.tokens.reducer import Place, Reduced, Side, TokenReducer, untouched
from prunus.runtime.errors import UsageError


class StVit(TokenReducer):
    """A few tokens per window, made by attention within and among windows.

    Args:
        place: Where it stands.
        samples: Tokens per side of a window; 0: the most of 3, 2, 1 with which K comes out.
        ratio: Hidden width of the MLPs in multiples of C.
    """

    convex: bool = False
    reads_this: ClassVar[bool] = False
    members: Tensor

    def __init__(self, place: Place, *, samples: int = 0, ratio: int = 4) -> None:
        super().__init__(place)
        dim, grid = place.require_dim("stvit"), place.require_grid("stvit")
        if samples < 0 or ratio < 1:
            raise UsageError(
                f"Options 'samples' and 'ratio' of method 'stvit' are {samples} and {ratio}; "
                "expected 0 or more, and 1 or more."
            )
        self.samples, window = _windows(place, samples)
        self.hidden = ratio * dim
        heads = place.heads or 1
        self.make = SemanticBlock(
            dim, heads, self.hidden, grid, window, samples=self.samples, shortcut=True
        )
        self.table = nn.Parameter(0.02 * torch.randn(1, place.keep, dim))
        self.spread = TokenBlock(dim, heads, self.hidden)
        self.recover = TokenBlock(dim, heads, self.hidden, scale=0.0)
        rows, columns = self.make.coarse
        owner = membership((rows, columns), (self.samples, self.samples))  # (windows, K)
        means = owner.transpose(0, 1) @ membership(grid, window)
        self.register_buffer("members", means / (window[0] * window[1]), persistent=False)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the semantic tokens."""
        return self.make.coarse

    def forward(self, x: Tensor, side: Side) -> Reduced:
        """Return special tokens + K; the reported W is the mean of a token's window."""
        if self.place.keep == self.place.tokens:
            return untouched(x, self.place)
        special = self.place.special
        patches = x[:, special:]
        made = self.make(patches)
        y = self.spread(made + self.table, torch.cat((made, patches), dim=1))
        mean = self.members.expand(x.shape[0], -1, -1)
        return Reduced(torch.cat((x[:, :special], y), dim=1), None, mean)

    def _learned(self, y: Tensor, reduced: Reduced, skip: Tensor) -> Tensor:
        out: Tensor = self.recover(skip, y)
        return out

    def macs(self) -> int:
        """Return the cost of both steps; a token is projected as query, as key and as both."""
        if self.place.keep == self.place.tokens:
            return 0
        n, k, dim = self.place.tokens, self.place.keep, self.place.dim
        seen = int(self.make.index.kv_index.shape[1]) + self.samples**2
        rest = 2 * k * dim**2 + 2 * k * dim * self.hidden  # query and output, MLP
        keys = 2 * (n + k) * dim**2
        return 2 * (rest + keys) + 2 * k * seen * dim + 2 * k * (n + k) * dim


def _windows(place: Place, samples: int) -> tuple[int, tuple[int, int]]:
    """Return the tokens per side of a window, and its rows and columns."""
    for count in (samples,) if samples else (3, 2, 1):
        try:
            window = place.cell("stvit", each=count**2)
        except UsageError:
            if count == (samples or 1):
                raise
            continue
        if min(window) >= count:
            return count, window
        if samples:
            raise UsageError(
                f"Method 'stvit' at block {place.block} makes {count}x{count} tokens of windows of "
                f"{window[0]}x{window[1]} patches.",
                "Keep fewer tokens, or give a smaller 'samples'.",
            )
    raise AssertionError("every window holds one token")
