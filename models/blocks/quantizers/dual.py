"""Two codebooks, one index: meaning and detail of a frame share a code (TokenFlow, 2412.03069).

    i = argmin_i  |s - S_i|^2 + w |p - P_i|^2        section 3.1
    s, p -> S_i, P_i

A frame is its semantic part and its detail part side by side. One code gives both vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.blocks.quantizers.interface import FrameQuantizer
from prunus.models.codec.layers.vector_quantizer import nearest_code
from prunus.runtime.errors import UsageError


class SharedIndex(FrameQuantizer):
    """A semantic and a detail codebook behind one code.

    Args:
        semantic: Width of the semantic part, which comes first.
        detail: Width of the detail part.
        codes: Entries of both codebooks.
        weight: Weight w of the detail's distance.

    Raises:
        UsageError: an empty part, or a weight that is not positive.
    """

    def __init__(self, semantic: int, detail: int, codes: int, *, weight: float = 1.0) -> None:
        if min(semantic, detail) < 1 or weight <= 0:
            raise UsageError(
                f"Got parts of {semantic} and {detail} numbers and the weight {weight}; expected "
                "one number or more in each part, and a positive weight."
            )
        super().__init__(semantic + detail, (codes,))
        self.widths, self.weight = (semantic, detail), weight
        bound = 1.0 / codes
        self.semantic = nn.Parameter(torch.empty(codes, semantic).uniform_(-bound, bound))
        self.detail = nn.Parameter(torch.empty(codes, detail).uniform_(-bound, bound))

    def search(self, latent: Tensor) -> Tensor:
        """Return the shared code, (..., 1)."""
        # w |p - P|^2 = |r p - r P|^2 with r = sqrt(w): one search over both parts.
        root = self.weight**0.5
        meaning, detail = latent.split(self.widths, dim=-1)
        table = torch.cat((self.semantic, root * self.detail), dim=1)
        return nearest_code(torch.cat((meaning, root * detail), dim=-1), table).unsqueeze(-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Return both vectors side by side, (..., semantic + detail)."""
        return torch.cat(self.decode_parts(codes), dim=-1)

    def decode_parts(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Return the semantic (..., semantic) and the detail vectors (..., detail)."""
        self.check_codes(codes)
        first = codes.squeeze(-1)
        return functional.embedding(first, self.semantic), functional.embedding(first, self.detail)

    def losses(self, latent: Tensor, vectors: Tensor) -> dict[str, Tensor]:
        """Return ``commitment`` and ``codebook``, the detail part weighted as in the search."""
        meaning, detail = latent.split(self.widths, dim=-1)
        wanted, fine = vectors.split(self.widths, dim=-1)
        mse = functional.mse_loss
        return {
            "commitment": mse(meaning, wanted.detach()) + self.weight * mse(detail, fine.detach()),
            "codebook": mse(wanted, meaning.detach()) + self.weight * mse(fine, detail.detach()),
        }
