"""Problems that the attention kernel must get right on a GPU, whatever their speed.

Each takes another way through the kernel or another tile: every combination, heads that are no
multiple of 8, few queries and many keys, windows longer than a tile, masked keys and masked rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from prunus.models.layers.local_global.math import MASK_VALUE, Operands, reference


@dataclass(frozen=True, slots=True)
class Case:
    """One problem; sizes as in the operator's definition."""

    name: str
    combine: Literal["joint", "sum", "local", "global"]
    windows: int
    queries: int
    keys: int
    globals_: int
    heads: int
    head_dim: int
    batch: int = 1

    @property
    def scale(self) -> float:
        """1 / sqrt(d)."""
        return float(self.head_dim**-0.5)


CASES = (
    Case("gated sum, two pictures", "sum", 4, 49, 49, 17, 3, 32, batch=2),
    Case("window alone", "local", 12, 48, 48, 1, 2, 32),
    Case("globals alone", "global", 1, 300, 1, 17, 4, 64),
    Case("few queries, many keys", "joint", 9, 9, 100, 36, 2, 64),
    Case("heads of 20", "joint", 3, 20, 33, 5, 2, 20),
    Case("heads of 128", "sum", 2, 70, 70, 16, 2, 128),
)


def make_case(case: Case, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the operator's inputs; three in ten keys are masked, and all keys of query row 0."""
    generator = torch.Generator().manual_seed(0)
    lead, channels = (case.windows, case.heads, case.queries), case.heads * case.head_dim
    tokens, keys = case.windows * case.queries, case.windows * case.keys
    sets = case.windows if case.batch > 1 else 1
    sizes = {
        "q": (case.batch, tokens, channels),
        "k": (case.batch, keys, channels), "v": (case.batch, keys, channels),
        "bias_l": (*lead, case.keys),
        "kg": (case.batch, sets, case.globals_, channels),
        "vg": (case.batch, sets, case.globals_, channels),
        "bias_g": (case.batch, *lead, case.globals_), "gate": (case.batch, *lead, 1),
    }  # fmt: skip
    inputs = {n: torch.randn(size, generator=generator) for n, size in sizes.items()}
    for name in ("bias_l", "bias_g"):
        masked = torch.rand(inputs[name].shape, generator=generator) < 0.3
        masked[..., 0, :] = True
        inputs[name][masked] = MASK_VALUE
    q_index = torch.randperm(tokens, generator=generator)
    tables = {
        "q_index": q_index.view(case.windows, -1),
        "kv_index": torch.randint(keys, (case.windows, case.keys), generator=generator),
        "o_index": q_index.argsort(),
    }
    return {n: t.to(dtype) for n, t in inputs.items()} | tables


def exact(inputs: Mapping[str, Tensor], *, heads: int, scale: float, combine: str) -> Tensor:
    """Return the definition in float64."""
    wide = {n: t.double() if t.is_floating_point() else t for n, t in inputs.items()}
    operands = Operands(**wide, num_heads=heads, scale=scale, combine=combine)  # type: ignore[arg-type]
    return reference(operands)[0]
