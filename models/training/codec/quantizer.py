"""Teach residual codebooks: moving averages, straight-through gradients, revival of unused codes.

As in SoundStream (arXiv 2107.03312, III-C) and EnCodec: code vectors follow the mean of what they
are chosen for; codes that are hardly chosen are put where vectors are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunus.models.codec.layers.vector_quantizer import Codebook, ResidualQuantizer, nearest_code


class CodebookTrainer:
    """Quantise in training mode and move the codebooks.

    Args:
        quantizer: Its codebooks are changed in place.
        decay: Of the moving averages per step.
        seldom: Moving count per step below which a code is revived.
        seed: Of the choice of revived vectors.
    """

    def __init__(
        self,
        quantizer: ResidualQuantizer,
        decay: float = 0.98,
        seldom: float = 0.05,
        seed: int = 0,
    ) -> None:
        self.quantizer, self.decay, self.seldom, self.seed = quantizer, decay, seldom, seed

    def quantise(
        self, features: Tensor, step: int, *, update: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Quantise with straight-through gradients.

        Args:
            features: (B, L, D) float32.
            step: Number of the training step; 0 fills the codebooks.
            update: Move the codebooks.

        Returns:
            Code vectors (B, L, D) and the commitment loss.
        """
        flat = features.reshape(-1, features.shape[-1])
        residual, total = flat, torch.zeros_like(flat)
        commitment = flat.new_zeros(())
        generator = torch.Generator().manual_seed(self.seed + step)
        for book in self.quantizer.codebooks:
            if update and step == 0:
                self._fill(book, residual.detach(), generator)
            codes = nearest_code(residual.detach(), book.embed)
            # A copy: the averages move the codebook before gradients have flowed.
            vectors = torch.nn.functional.embedding(codes, book.embed).clone()
            commitment = commitment + (residual - vectors).pow(2).mean()
            if update:
                self._move(book, residual.detach(), codes, generator)
            total = total + vectors
            residual = residual - vectors
        passed = flat + (total - flat).detach()
        return passed.view_as(features), commitment / len(self.quantizer.codebooks)

    def use(self) -> list[float]:
        """Return, per codebook, the perplexity of its moving counts: codes in effective use."""
        found = []
        for book in self.quantizer.codebooks:
            share = book.cluster_size / book.cluster_size.sum().clamp(min=1e-9)
            entropy = -(share * share.clamp(min=1e-12).log()).sum()
            found.append(round(float(entropy.exp()), 1))
        return found

    def _fill(self, book: Codebook, vectors: Tensor, generator: torch.Generator) -> None:
        chosen = torch.randint(len(vectors), (len(book.embed),), generator=generator)
        spread = vectors.std() * 0.02
        noise = torch.randn(book.embed.shape, generator=generator).to(vectors.device)
        book.embed.copy_(vectors[chosen.to(vectors.device)] + spread * noise)
        book.embed_avg.copy_(book.embed)
        book.cluster_size.fill_(1.0)

    def _move(
        self, book: Codebook, vectors: Tensor, codes: Tensor, generator: torch.Generator
    ) -> None:
        counts = torch.bincount(codes, minlength=len(book.embed)).float()
        sums = torch.zeros_like(book.embed).index_add_(0, codes, vectors)
        book.cluster_size.lerp_(counts, 1 - self.decay)
        book.embed_avg.lerp_(sums, 1 - self.decay)
        book.embed.copy_(book.embed_avg / book.cluster_size.clamp(min=1e-5).unsqueeze(1))
        unused = book.cluster_size < self.seldom * len(vectors) / len(book.embed)
        if unused.any():
            number = int(unused.sum())
            chosen = torch.randint(len(vectors), (number,), generator=generator)
            revived = vectors[chosen.to(vectors.device)]
            start = 0.5 * len(vectors) / len(book.embed)
            book.embed[unused] = revived
            book.cluster_size[unused] = start
            book.embed_avg[unused] = revived * start
