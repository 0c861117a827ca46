"""Codec graphs that work on windows: where a network looks at all of its input, pieces overlap.

Every module here takes one window of constant length. Codes are int64 (1, codebooks, frames).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from prunus.models.codec.freecodec.freecodec import FreeCodec
from prunus.models.codec.freecodec.supercodec import StackedQuantizer
from prunus.models.codec.fusecodec.speechtokenizer import SpeechTokenizer
from prunus.models.codec.layers.vector_quantizer import CodeSearch
from prunus.models.codec.layers.vocos import fold_rows
from prunus.models.codec.wavtokenizer import WavTokenizer


class WavTokenizerDecoder(nn.Module):
    """Codes -> sound, exact for sounds that fit into the window.

    Args:
        network: Folded; its adaptive norms are replaced by their row `bandwidth`, in place.
        bandwidth: Row of the adaptive norms.
    """

    def __init__(self, network: WavTokenizer, bandwidth: int = 0) -> None:
        super().__init__()
        fold_rows(network.backbone, bandwidth)
        self.table = network.quantizer
        self.backbone, self.head = network.backbone, network.head

    def forward(self, codes: Tensor, valid: Tensor) -> Tensor:
        """Synthesise.

        Args:
            codes: (1, 1, W) int64; any index where not valid.
            valid: (1, W) float32, ones for the frames that count, zeros behind them.

        Returns:
            (1, W * hop) float32 samples within [-1, 1]; meaningless behind the valid frames.
        """
        mask = valid.unsqueeze(1)
        features = self.table.decode(codes.permute(1, 0, 2))
        sound: Tensor = self.head(self.backbone(features, 0, mask), mask)
        return sound.clamp(-1.0, 1.0)


class SpeechTokenizerEncoder(nn.Module):
    """Sound -> residual codes of one window."""

    def __init__(self, network: SpeechTokenizer) -> None:
        super().__init__()
        self.encoder, self.search = network.encoder, CodeSearch(network.quantizer)

    def forward(self, audio: Tensor) -> Tensor:
        """Map (1, W * hop) samples to codes (1, stages, W)."""
        codes: Tensor = self.search(self.encoder(audio.unsqueeze(1))).permute(1, 0, 2)
        return codes


class FreeCodecEncoder(nn.Module):
    """Sound -> content and prosody codes of one window."""

    def __init__(self, network: FreeCodec) -> None:
        super().__init__()
        self.content = network.content["encoder"]
        self.prosody = network.prosody["encoder"]
        self.content_search = CodeSearch(cast(StackedQuantizer, network.content["rq"]))
        self.prosody_search = CodeSearch(cast(StackedQuantizer, network.prosody["rq"]))

    def forward(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Map (1, W * hop) samples to codes (1, stages, W) and (1, 1, W / stride)."""
        features = self.content(audio.unsqueeze(1)).transpose(1, 2)
        content: Tensor = self.content_search(features)
        prosody: Tensor = self.prosody_search(self.prosody(audio))
        return content.transpose(1, 2), prosody.transpose(1, 2)


class FreeCodecSpeaker(nn.Module):
    """Sound -> voice vector, once per recording."""

    def __init__(self, network: FreeCodec) -> None:
        super().__init__()
        self.network = network

    def forward(self, audio: Tensor) -> Tensor:
        """Map (1, T) samples to (1, timbre_dim), quantised where the network does so."""
        return self.network.quantised_speaker(audio)


class FreeCodecDecoder(nn.Module):
    """Codes and a voice -> sound of one window."""

    def __init__(self, network: FreeCodec) -> None:
        super().__init__()
        self.content_table = cast(StackedQuantizer, network.content["rq"])
        self.prosody_table = cast(StackedQuantizer, network.prosody["rq"])
        self.decoder = fold_rows(network.decoder, 0)

    def forward(self, content: Tensor, prosody: Tensor, voice: Tensor) -> Tensor:
        """Synthesise.

        Args:
            content: (1, stages, W) int64.
            prosody: (1, 1, W / stride) int64.
            voice: (1, timbre_dim) float32.

        Returns:
            (1, W * hop) float32 samples within [-1, 1].
        """
        sound: Tensor = self.decoder(
            self.content_table.decode(content.transpose(1, 2)),
            self.prosody_table.decode(prosody.transpose(1, 2)),
            voice,
        )
        return torch.clamp(sound, -1.0, 1.0)
