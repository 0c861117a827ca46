"""FreeCodec (Zheng et al., arXiv 2412.01053): content, prosody and timbre coded apart. 16 kHz.

Paper architecture, own weights: no code or weights have been published. What the paper states is
fixed here (the three branches, their rates and codebooks, the order of the decoder); what it does
not state - widths of the Transformer, number of ConvNeXt blocks, mel settings, how prosody and
timbre enter - is configurable, and the defaults are ours. The content branch is SuperCodec's
encoder and the timbre branch ECAPA-TDNN, both under their published names, so that weights of
these parts load (see `models.checkpoints.codecs`).

Rate: 50 content and 6.25 prosody codes of 8 bits per second, 450 bit/s; the timbre vector goes once
per utterance, as numbers or (`timbre_groups` > 0) as one code of 10 bits per group.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.codec.freecodec.ecapa import EcapaTdnn
from prunus.models.codec.freecodec.supercodec import (
    StackedQuantizer,
    SuperCodecConfig,
    build_decoder,
    build_encoder,
)
from prunus.models.codec.layers.mel import LogMel, centred
from prunus.models.codec.layers.vector_quantizer import nearest_code
from prunus.models.codec.layers.vocos import ConvNextBlock
from prunus.models.tokens.blocks.layouts import BlockLayout
from prunus.runtime.errors import UsageError

_MEL_CENTRE_DB, _MEL_SPREAD_DB = -30.0, 30.0  # brings log-mel levels of speech near 0 +- 1


@dataclass(frozen=True, slots=True)
class FreeCodecConfig:
    """Sizes.

    Attributes:
        content: Encoder, codebook and upsampler of the content branch.
        prosody_bands: Lowest mel bands that the prosody branch sees (paper: 20).
        prosody_stride: Content frames per prosody code (paper: 8).
        prosody_codes: Entries of the prosody codebook (paper: 256).
        prosody_layers: Convolutions per stack.
        mel_size: Window of the prosody's mel spectrogram in samples; its hop is the content's.
        mel_bands: Its bands.
        speaker_dim: Channels of the timbre encoder.
        timbre_dim: Width of the timbre vector.
        timbre_groups: Groups in which the vector is quantised; 0: not quantised (v1, v3).
        timbre_codes: Entries per group (paper, v2: 8 groups of 1024).
        width: Channels of the decoder in front of the upsampler.
        layers: Transformer layers (paper: 4).
        heads: Attention heads.
        blocks: ConvNeXt blocks.
    """

    content: SuperCodecConfig = field(
        default_factory=lambda: SuperCodecConfig(strides=(2, 4, 5, 8), stages=1, codes=256)
    )
    prosody_bands: int = 20
    prosody_stride: int = 8
    prosody_codes: int = 256
    prosody_layers: int = 3
    mel_size: int = 1024
    mel_bands: int = 80
    speaker_dim: int = 1024
    timbre_dim: int = 192
    timbre_groups: int = 0
    timbre_codes: int = 1024
    width: int = 256
    layers: int = 4
    heads: int = 8
    blocks: int = 4

    def __post_init__(self) -> None:
        if self.timbre_groups and self.timbre_dim % self.timbre_groups:
            raise UsageError(
                f"Got {self.timbre_groups} timbre groups; expected a divisor of {self.timbre_dim}."
            )

    @property
    def hop(self) -> int:
        """Samples per content frame."""
        return self.content.hop

    @property
    def sample_rate_hz(self) -> int:
        """Samples per second."""
        return self.content.sample_rate_hz


class ConvStack(nn.Module):
    """Convolutions of width 5 with ReLU and layer norm."""

    def __init__(self, inputs: int, dim: int, layers: int) -> None:
        super().__init__()
        widths = [inputs] + [dim] * layers
        self.convs = nn.ModuleList(nn.Conv1d(a, b, 5, padding=2) for a, b in pairwise(widths))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T) to (B, dim, T)."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = norm(functional.relu(conv(x)).transpose(1, 2)).transpose(1, 2)
        return x


class ProsodyEncoder(nn.Module):
    """Lowest mel bands -> slow features: stack, max pooling with a long stride, stack.

    The long stride is what removes content and speaker (section 2.2 of the paper).
    """

    def __init__(self, config: FreeCodecConfig) -> None:
        super().__init__()
        dim, layers = config.content.dim, config.prosody_layers
        self.bands, self.stride = config.prosody_bands, config.prosody_stride
        self.mel = LogMel(config.sample_rate_hz, config.mel_size, config.hop, config.mel_bands)
        self.front = ConvStack(config.prosody_bands, dim, layers)
        self.back = ConvStack(dim, dim, layers)

    def forward(self, audio: Tensor) -> Tensor:
        """Map (B, T) samples to (B, frames // stride, dim); T holds whole strides."""
        mel = self.mel(audio)[:, :-1, : self.bands]  # the last centre lies behind the last frame
        level = (mel - _MEL_CENTRE_DB) / _MEL_SPREAD_DB
        pooled = functional.max_pool1d(self.front(level.transpose(1, 2)), self.stride)
        out: Tensor = self.back(pooled).transpose(1, 2)
        return out


class GroupQuantizer(nn.Module):
    """Equal parts of a vector, each with its own codebook."""

    embed: Tensor

    def __init__(self, groups: int, codes: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("embed", torch.randn(groups, codes, dim // groups))

    def encode(self, x: Tensor) -> Tensor:
        """Map (B, dim) to codes (B, groups)."""
        parts = x.chunk(len(self.embed), dim=-1)
        pairs = zip(parts, self.embed, strict=True)
        return torch.stack([nearest_code(part, table) for part, table in pairs], dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Map (B, groups) to (B, dim)."""
        parts = [functional.embedding(codes[:, k], table) for k, table in enumerate(self.embed)]
        return torch.cat(parts, dim=-1)


class SelfAttentionLayer(nn.Module):
    """A pre-norm Transformer encoder layer."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.fc1, self.act, self.fc2 = nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, L, C) to the same shape."""
        batch, length, dim = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(mixed.transpose(1, 2).reshape(batch, length, dim))
        out: Tensor = x + self.fc2(self.act(self.fc1(self.norm2(x))))
        return out


class FreeDecoder(nn.Module):
    """Code vectors and timbre -> waveform."""

    def __init__(self, config: FreeCodecConfig) -> None:
        super().__init__()
        dim = config.content.dim
        self.stride = config.prosody_stride
        self.enter = nn.Linear(dim, config.width)
        self.layers = nn.ModuleList(
            SelfAttentionLayer(config.width, config.heads) for _ in range(config.layers)
        )
        self.prosody = nn.Linear(dim, config.width)
        self.timbre = nn.Linear(config.timbre_dim, config.width)
        self.blocks = nn.ModuleList(
            ConvNextBlock(config.width, 3 * config.width, 1) for _ in range(config.blocks)
        )
        self.leave = nn.Linear(config.width, dim)
        self.upsampler = build_decoder(config.content)

    def token_layout(self) -> BlockLayout:
        """Return what `prune` must know: the Transformer's parts; what follows needs all frames."""
        return BlockLayout(
            "layers", qkv=("qkv",), out="proj", heads="heads", mlp=("fc1", "act", "fc2"),
            special=0, class_token=False, grid=(1, 0), restore="delta",
        )  # fmt: skip

    def forward(self, content: Tensor, prosody: Tensor, timbre: Tensor) -> Tensor:
        """Map content (B, L, D), prosody (B, L / stride, D), timbre (B, E) to (B, L * hop)."""
        x = self.enter(content)
        x = x + positions(x.shape[1], x.shape[2]).to(x)
        for layer in self.layers:
            x = layer(x)
        slow = self.prosody(prosody).repeat_interleave(self.stride, dim=1)
        x = (x + slow + self.timbre(timbre).unsqueeze(1)).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        features = self.leave(x.transpose(1, 2)).transpose(1, 2)
        out: Tensor = self.upsampler(features)
        return out.squeeze(1)


def positions(length: int, dim: int) -> Tensor:
    """Return the (length, dim) sinusoids of arXiv 1706.03762, 3.5."""
    rate = torch.exp(torch.arange(0, dim, 2, dtype=torch.float64) * (-math.log(1e4) / dim))
    angle = torch.arange(length, dtype=torch.float64)[:, None] * rate
    return torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(1).float()


class FreeCodec(nn.Module):
    """Waveform <-> content codes, prosody codes and one timbre vector.

    Args:
        config: Sizes.
    """

    def __init__(self, config: FreeCodecConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or FreeCodecConfig()
        part = config.content
        self.content = nn.ModuleDict(
            {
                "encoder": build_encoder(part),
                "rq": StackedQuantizer(part.stages, part.codes, part.dim),
            }
        )
        self.prosody = nn.ModuleDict(
            {
                "encoder": ProsodyEncoder(config),
                "rq": StackedQuantizer(1, config.prosody_codes, part.dim),
            }
        )
        self.timbre_mel = LogMel(part.sample_rate_hz, bands=80)
        self.timbre = EcapaTdnn(dim=config.speaker_dim, embedding=config.timbre_dim)
        if config.timbre_groups:
            self.timbre_vq = GroupQuantizer(
                config.timbre_groups, config.timbre_codes, config.timbre_dim
            )
        self.decoder = FreeDecoder(config)

    def encode(self, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Tokenise content and prosody.

        Args:
            audio: (B, T) float32 in [-1, 1], T whole prosody codes (`hop * prosody_stride`).

        Returns:
            Content codes (B, L, stages) and prosody codes (B, L / stride, 1), int64.
        """
        content = self.content["encoder"](audio.unsqueeze(1)).transpose(1, 2)
        prosody = self.prosody["encoder"](audio)
        return self._rq("content").encode(content), self._rq("prosody").encode(prosody)

    def speaker(self, audio: Tensor) -> Tensor:
        """Return the timbre vectors (B, timbre_dim) of (B, T) samples, not quantised."""
        out: Tensor = self.timbre(centred(self.timbre_mel(audio)))
        return out.squeeze(1)

    def quantised_speaker(self, audio: Tensor) -> Tensor:
        """Return the timbre vectors after their group quantiser; the plain ones without one."""
        vector = self.speaker(audio)
        if not self.config.timbre_groups:
            return vector
        return self.timbre_vq.decode(self.timbre_vq.encode(vector))

    def decode(self, content: Tensor, prosody: Tensor, timbre: Tensor) -> Tensor:
        """Synthesise (B, L * hop) samples; another voice's vector converts the voice."""
        out: Tensor = self.decoder(
            self._rq("content").decode(content), self._rq("prosody").decode(prosody), timbre
        )
        return out

    def forward(self, audio: Tensor) -> Tensor:
        """Encode and decode (B, T) samples."""
        content, prosody = self.encode(audio)
        return self.decode(content, prosody, self.quantised_speaker(audio))

    def _rq(self, branch: str) -> StackedQuantizer:
        return cast(StackedQuantizer, getattr(self, branch)["rq"])
