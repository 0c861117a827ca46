"""One codebook: the nearest code vector (VQ-VAE, arXiv 1711.00937, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.blocks.quantizers.interface import FrameQuantizer
from prunus.models.codec.layers.kmeans import fit_kmeans
from prunus.models.codec.layers.vector_quantizer import nearest_code


class PlainQuantizer(FrameQuantizer):
    """A table of code vectors, trained by gradients.

    Losses: ``codebook`` |sg(x) - e|^2 moves code vectors, ``commitment`` |x - sg(e)|^2 the encoder
    (the paper weights it by 0.25). Running-mean training keeps buffers instead, see
    `prunus.models.codec.layers.vector_quantizer.Codebook`; the search is the same function.

    Args:
        dim: Width of a frame.
        codes: Entries.
    """

    def __init__(self, dim: int, codes: int) -> None:
        super().__init__(dim, (codes,))
        self.embed = nn.Parameter(torch.empty(codes, dim).uniform_(-1.0 / codes, 1.0 / codes))

    def search(self, latent: Tensor) -> Tensor:
        """Return the nearest entries, (..., 1)."""
        return nearest_code(latent, self.embed).unsqueeze(-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return the entries (..., D)."""
        self.check_codes(codes)
        return functional.embedding(codes.squeeze(-1), self.embed)

    def losses(self, latent: Tensor, vectors: Tensor) -> dict[str, Tensor]:
        """Return ``commitment`` and ``codebook``."""
        return {
            "commitment": functional.mse_loss(latent, vectors.detach()),
            "codebook": functional.mse_loss(vectors, latent.detach()),
        }

    def start_from(self, frames: Tensor, seed: int = 0) -> None:
        """Set the code vectors to the k-means centres of frames (N, D), N at least the entries."""
        with torch.no_grad():
            self.embed.copy_(fit_kmeans(frames, self.sizes[0], seed=seed).centres)
