"""NsfCodec as two step graphs: `frames` at a time, state in and state out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunus.models.codec.layers.vector_quantizer import CodeSearch
from prunus.models.codec.nsfcodec.nsfcodec import NsfCodec
from prunus.runtime.card.tensors import StateSpec


class NsfEncoderStep(nn.Module):
    """Sound -> pitch and envelope codes, one frame late.

    Args:
        network: The codec.
    """

    def __init__(self, network: NsfCodec) -> None:
        super().__init__()
        self.encoder = network.encoder
        self.search = CodeSearch(network.quantizer)

    def states(self) -> tuple[StateSpec, ...]:
        """Return the states in the order of the arguments behind the sound."""
        return tuple(self.encoder.states())

    def forward(self, audio: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Take one step.

        Args:
            audio: (1, frames * hop) samples that follow those of the step before.
            past: See `states`.

        Returns:
            Pitch (1, 1, frames) and codes (1, stages, frames) int64, and the next states.
        """
        logits, features, following = self.encoder(audio, list(past))
        codes = self.search(features.transpose(1, 2)).permute(1, 0, 2)
        return (logits.argmax(dim=2).unsqueeze(1), codes, *following)


class NsfDecoderStep(nn.Module):
    """Pitch and envelope codes -> sound, one frame late.

    Args:
        network: The codec.
    """

    def __init__(self, network: NsfCodec) -> None:
        super().__init__()
        self.decoder = network.decoder
        self.table = network.quantizer

    def states(self) -> tuple[StateSpec, ...]:
        """Return the states in the order of the arguments behind the codes."""
        return tuple(self.decoder.states())

    def forward(self, pitch: Tensor, codes: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        """Take one step.

        Args:
            pitch: (1, 1, frames) int64.
            codes: (1, stages, frames) int64.
            past: See `states`.

        Returns:
            Sound (1, frames * hop) in [-1, 1] and the next states.
        """
        vectors = self.table.decode(codes.permute(1, 0, 2)).transpose(1, 2)
        sound, following = self.decoder(pitch[:, 0], vectors, list(past))
        return (torch.clamp(sound, -1.0, 1.0), *following)
