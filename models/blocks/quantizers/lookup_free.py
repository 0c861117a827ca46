"""Lookup-free quantisation: the sign of each number is a bit; no codebook.

LFQ of MAGVIT-v2 (arXiv 2310.05737, section 3.1): code = sum_i 2^i [x_i > 0], vectors are -1 and +1.
The entropy losses of `entropy` keep frames sure and codes in use; over b bits they need a table of
2^b probabilities, which is why WeTok (arXiv 2508.05599, section 3.1) cuts a frame into groups:
each group is one code, and entropies are those of the groups, summed.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from prunus.models.blocks.quantizers.entropy import bit_assignment, entropies
from prunus.models.blocks.quantizers.interface import FrameQuantizer
from prunus.runtime.errors import UsageError

MAX_BITS = 18  # per group: the entropy loss holds 2^bits probabilities per frame


class SignQuantizer(FrameQuantizer):
    """Signs as codes: one group is LFQ, several are WeTok's grouped LFQ.

    Args:
        bits: Bits of a group.
        groups: Groups; a frame holds groups * bits numbers.
        temperature: T of the entropy losses.

    Raises:
        UsageError: no bit, more than 18 in a group, or no group.
    """

    powers: Tensor

    def __init__(self, bits: int, groups: int = 1, *, temperature: float = 1.0) -> None:
        if not 1 <= bits <= MAX_BITS or groups < 1 or temperature <= 0:
            raise UsageError(
                f"Got {groups} groups of {bits} bits at temperature {temperature}; expected 1 to "
                f"{MAX_BITS} bits, one group or more, and a positive temperature.",
                "Split more bits into more groups.",
            )
        super().__init__(bits * groups, (2**bits,) * groups)
        self.bits, self.groups, self.temperature = bits, groups, temperature
        self.register_buffer("powers", 2 ** torch.arange(bits), persistent=False)

    def search(self, latent: Tensor) -> Tensor:
        """Return one number per group, its lowest bit first, (..., groups)."""
        signs = (latent > 0).long().unflatten(-1, (self.groups, self.bits))
        codes: Tensor = (signs * self.powers).sum(dim=-1)
        return codes

    def decode(self, codes: Tensor) -> Tensor:
        """Return -1 and +1, (..., groups * bits)."""
        self.check_codes(codes)
        digits = torch.div(codes.unsqueeze(-1), self.powers, rounding_mode="floor") % 2
        return (2 * digits - 1).float().flatten(-2)

    def losses(self, latent: Tensor, vectors: Tensor) -> dict[str, Tensor]:
        """Return ``commitment``, ``frame_entropy`` and ``codebook_entropy`` (nats, all groups).

        MAGVIT-v2 minimises commitment + weight * (frame_entropy - codebook_entropy).
        """
        frame, codebook = latent.new_zeros(()), latent.new_zeros(())
        for part in latent.reshape(-1, self.groups, self.bits).unbind(dim=1):
            found = entropies(bit_assignment(part, self.temperature))
            frame, codebook = frame + found.frame, codebook + found.codebook
        return {
            "commitment": functional.mse_loss(latent, vectors.detach()),
            "frame_entropy": frame,
            "codebook_entropy": codebook,
        }
