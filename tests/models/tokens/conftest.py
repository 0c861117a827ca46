"""What tests of reducers share: a small place, tokens and attention that fit it."""

import numpy as np
import pytest
import torch

from prunus.models.tokens.reducer import Attention, Place, Side


class Bench:
    """Makes places and inputs: 48 patches on a 6 x 8 grid, a class token and a register."""

    @staticmethod
    def place(**changes):
        values = {
            "tokens": 48, "keep": 24, "special": 2, "class_token": True, "grid": (6, 8),
            "dim": 16, "heads": 2, "block": 4,
        }  # fmt: skip
        return Place(**(values | changes))

    @staticmethod
    def inputs(place, batch=2, seed=0, blocks=5):
        """Return x (B, special + N, C), the attention of all blocks and what left them, random."""
        generator = torch.Generator().manual_seed(seed)
        length = place.special + place.tokens
        x = torch.randn(batch, length, place.dim, generator=generator)
        shape = (3, batch, place.heads, length, place.dim // place.heads)
        seen = {b: Attention(*torch.randn(shape, generator=generator)) for b in range(blocks)}
        levels = torch.randn(blocks, *x.shape, generator=generator)
        return x, Side(seen, dict(enumerate(levels)))

    @staticmethod
    def probability(side, block=4):
        """Return (B, heads, L, L) float64: softmax of the attention's logits, in NumPy."""
        query, key = (side.attention[block][k].numpy().astype(np.float64) for k in (0, 1))
        logits = query @ key.swapaxes(2, 3) / np.sqrt(query.shape[-1])
        shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return shifted / shifted.sum(axis=-1, keepdims=True)

    @staticmethod
    def unit(rows):
        """Return rows (N, C) in float64, each of length 1."""
        rows = np.asarray(rows, dtype=np.float64)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def bench():
    return Bench
