"""Nearest code vectors: one codebook, and residual stages of them.

Buffers carry the names of EnCodec's quantiser (arXiv 2210.13438), which WavTokenizer and
SpeechTokenizer kept. The squared distance |x|^2 - 2 x.e + |e|^2 is smallest where 2 x.e - |e|^2 is
largest: one matrix product with a constant bias, then ArgMax (the first index wins a tie).
"""

from __future__ import annotations

from typing import Protocol, cast

import torch
from torch import Tensor, nn


def nearest_code(x: Tensor, embed: Tensor) -> Tensor:
    """Return the index of the nearest row of `embed`.

    Args:
        x: (..., D) float32.
        embed: (codes, D) float32.

    Returns:
        (...) int64.
    """
    scores = torch.matmul(x, 2.0 * embed.t()) - embed.pow(2).sum(dim=1)
    return scores.argmax(dim=-1)


class Codebook(nn.Module):
    """Code vectors with the running statistics of their training (not used here).

    Args:
        codes: Entries.
        dim: Width of an entry.
    """

    inited: Tensor
    cluster_size: Tensor
    embed: Tensor
    embed_avg: Tensor

    def __init__(self, codes: int, dim: int) -> None:
        super().__init__()
        embed = torch.empty(codes, dim)
        nn.init.kaiming_uniform_(embed)
        self.register_buffer("inited", torch.ones(1))
        self.register_buffer("cluster_size", torch.ones(codes))
        self.register_buffer("embed", embed)
        self.register_buffer("embed_avg", embed.clone())

    def encode(self, x: Tensor) -> Tensor:
        """Map (..., D) to indices (...)."""
        return nearest_code(x, self.embed)

    def decode(self, codes: Tensor) -> Tensor:
        """Map indices (...) to code vectors (..., D)."""
        return torch.nn.functional.embedding(codes, self.embed)


class Quantizer(Protocol):
    """Anything that turns features into codes."""

    def encode(self, x: Tensor) -> Tensor:
        """Return the codes."""


class CodeSearch(nn.Module):
    """The search of a quantiser as a module of its own, so that exporters can keep it float32."""

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        """Return the quantiser's codes."""
        return self.quantizer.encode(x)


class _Stage(nn.Module):
    def __init__(self, codes: int, dim: int) -> None:
        super().__init__()
        self._codebook = Codebook(codes, dim)

    @property
    def codebook(self) -> Codebook:
        return self._codebook


class ResidualQuantizer(nn.Module):
    """Each stage codes what the stages before it left over; one stage is a plain quantiser.

    Args:
        stages: Codebooks.
        codes: Entries of each.
        dim: Width of an entry.
    """

    def __init__(self, stages: int, codes: int, dim: int) -> None:
        super().__init__()
        self.vq = nn.ModuleDict(
            {"layers": nn.ModuleList(_Stage(codes, dim) for _ in range(stages))}
        )

    @property
    def codebooks(self) -> list[Codebook]:
        """The codebooks in order."""
        return [cast(_Stage, stage).codebook for stage in cast(nn.ModuleList, self.vq["layers"])]

    def encode(self, x: Tensor, stages: int | None = None) -> Tensor:
        """Map features (B, D, L) to codes (stages, B, L) int64."""
        residual = x.transpose(1, 2)
        found = []
        for book in self.codebooks[:stages]:
            indices = book.encode(residual)
            residual = residual - book.decode(indices)
            found.append(indices)
        return torch.stack(found)

    def decode(self, codes: Tensor, first: int = 0) -> Tensor:
        """Map codes (K, B, L) of the stages first .. first + K - 1 to features (B, D, L)."""
        total: Tensor | None = None
        for indices, book in zip(codes, self.codebooks[first:], strict=False):
            vectors = book.decode(indices)
            total = vectors if total is None else total + vectors
        if total is None:
            raise ValueError("no codes given")
        return total.transpose(1, 2)
