"""A frame in parts, each part a code on the unit sphere.

`MultiCodebook` is UniTok's (arXiv 2502.20321, section 3.2): every part has a codebook of its own.
`SphericalGroups` is grouped spherical quantisation, GSQ (arXiv 2412.02632, section 3): code vectors
start spread evenly over the sphere and stay on it, as do the parts.

Parts and code vectors are normed to length one before they are compared, so the nearest one is that
of the largest product; `decode` returns unit vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.blocks.quantizers.entropy import entropies, soft_assignment
from prunus.models.blocks.quantizers.interface import FrameQuantizer
from prunus.runtime.errors import UsageError


class MultiCodebook(FrameQuantizer):
    """Parts with codebooks of their own, compared by direction.

    Args:
        dim: Width of a frame.
        codes: Entries of each codebook.
        groups: Parts; divides the width.
        shared: One codebook for all parts.
        temperature: T of the entropy losses; None: no entropy losses.

    Raises:
        UsageError: the parts do not divide the frame.
    """

    offsets: Tensor

    def __init__(
        self,
        dim: int,
        codes: int,
        groups: int,
        *,
        shared: bool = False,
        temperature: float | None = None,
    ) -> None:
        if groups < 1 or dim % groups:
            raise UsageError(f"Got {groups} groups; expected a divisor of the {dim} numbers.")
        super().__init__(dim, (codes,) * groups)
        self.groups, self.temperature = groups, temperature
        tables = 1 if shared else groups
        # Directions of normal vectors are spread evenly over the sphere.
        start = functional.normalize(torch.randn(tables, codes, dim // groups), dim=-1)
        self.embed = nn.Parameter(start)
        steps = torch.zeros(groups) if shared else torch.arange(groups) * codes
        self.register_buffer("offsets", steps.long(), persistent=False)

    def codebooks(self) -> Tensor:
        """Return unit code vectors (1 or groups, codes, D / groups)."""
        return functional.normalize(self.embed, dim=-1)

    def condition(self, x: Tensor) -> Tensor:
        """Norm each part to length one."""
        return functional.normalize(x.unflatten(-1, (self.groups, -1)), dim=-1).flatten(-2)

    def search(self, latent: Tensor) -> Tensor:
        """Return the codes of the parts, (..., groups)."""
        parts = latent.reshape(-1, self.groups, self.dim // self.groups).transpose(0, 1)
        scores = torch.matmul(parts, self.codebooks().transpose(1, 2))  # (groups, N, codes)
        return scores.argmax(dim=2).t().reshape(*latent.shape[:-1], self.groups)

    def decode(self, codes: Tensor) -> Tensor:
        """Return unit vectors side by side, (..., D)."""
        self.check_codes(codes)
        table = self.codebooks().flatten(0, 1)
        return functional.embedding(codes + self.offsets, table).flatten(-2)

    def losses(self, latent: Tensor, vectors: Tensor) -> dict[str, Tensor]:
        """Return ``commitment``, ``codebook`` and, if wanted, both entropies (nats, all parts)."""
        found = {
            "commitment": functional.mse_loss(latent, vectors.detach()),
            "codebook": functional.mse_loss(vectors, latent.detach()),
        }
        if self.temperature is not None:
            tables = self.codebooks().expand(self.groups, -1, -1)
            frame, codebook = latent.new_zeros(()), latent.new_zeros(())
            parts = latent.reshape(-1, self.groups, self.dim // self.groups).unbind(dim=1)
            for part, table in zip(parts, tables, strict=True):
                one = entropies(soft_assignment(part, table, self.temperature))
                frame, codebook = frame + one.frame, codebook + one.codebook
            found |= {"frame_entropy": frame, "codebook_entropy": codebook}
        return found


class SphericalGroups(MultiCodebook):
    """GSQ: parts on the sphere; one codebook for all of them unless `shared` is false.

    Args:
        dim: Width of a frame.
        codes: Entries of each codebook.
        groups: Parts; divides the width.
        shared: One codebook for all parts.
    """

    def __init__(self, dim: int, codes: int, groups: int, *, shared: bool = True) -> None:
        super().__init__(dim, codes, groups, shared=shared)
