"""Residual stages: each codes what the ones before left (SoundStream, arXiv 2107.03312, III-C).

The first stages alone are a coarser codec: `decode` takes any number of leading codes. A sum of
code vectors is not coded back to the same codes in general, since each stage chooses greedily.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from prunus.models.blocks.quantizers.interface import FrameQuantizer, Quantized
from prunus.models.blocks.quantizers.vector import PlainQuantizer
from prunus.runtime.errors import TensorError


class ResidualStages(FrameQuantizer):
    """Plain quantisers in a row.

    Args:
        dim: Width of a frame.
        codes: Entries of each stage.
        stages: Number of stages.
    """

    def __init__(self, dim: int, codes: int, stages: int) -> None:
        super().__init__(dim, (codes,) * stages)
        self.layers = nn.ModuleList(PlainQuantizer(dim, codes) for _ in range(stages))

    @property
    def stages(self) -> list[PlainQuantizer]:
        """The stages in order."""
        return cast("list[PlainQuantizer]", list(self.layers))

    def search(self, latent: Tensor) -> Tensor:
        """Return the codes of all stages, (..., stages)."""
        found, rest = [], latent
        for stage in self.stages:
            codes = stage.search(rest)
            rest = rest - stage.decode(codes)
            found.append(codes)
        return torch.cat(found, dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the sum of the entries of the leading stages, codes (..., 1 to stages)."""
        given = codes.shape[-1] if codes.dim() else 0
        if not 1 <= given <= len(self.stages):
            raise TensorError(f"Got codes of {given} stages; expected 1 to {len(self.stages)}.")
        total: Tensor | None = None
        for k in range(given):
            vectors: Tensor = self.stages[k].decode(codes[..., k : k + 1])
            total = vectors if total is None else total + vectors
        assert total is not None  # one stage at least
        return total

    def forward(self, x: Tensor) -> Quantized:
        """Quantise frames (..., D); losses are means over the stages, each on its own residual."""
        self.check_frames(x)
        rest, total, found = x, torch.zeros_like(x), []
        losses: dict[str, Tensor] = {}
        for stage in self.stages:
            codes = stage.search(rest.detach())
            vectors = stage.decode(codes)
            for name, value in stage.losses(rest, vectors).items():
                losses[name] = losses.get(name, torch.zeros_like(value)) + value
            rest = rest - vectors.detach()
            total = total + vectors.detach()
            found.append(codes)
        means = {name: value / len(self.stages) for name, value in losses.items()}
        return Quantized(x + (total - x).detach(), torch.cat(found, dim=-1), means)
