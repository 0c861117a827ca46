"""SuperCodec (Zheng et al., ICASSP 2024): the waveform coder that FreeCodec's content branch uses.

State dict names and arithmetic follow the published code (MIT). What differs: the branch weights of
`Select` belong to each batch element (the published code takes element 0's for all), and one frame
keeps its time axis.

"Causal" convolutions pad by reflection on the left only; the residual ones pad both sides, and
`Select` averages over the whole input, so nothing here is causal as a whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.codec.layers.seanet import reflect_pad
from prunus.models.codec.layers.vector_quantizer import nearest_code
from prunus.models.codec.layers.weight_norm import NormedConv1d

_SLOPE = 0.1


@dataclass(frozen=True, slots=True)
class SuperCodecConfig:
    """Sizes.

    Attributes:
        strides: Of the encoder, in the order in which they are applied.
        stages: Residual codebooks.
        codes: Entries of each.
        dim: Width of a code vector.
        base: Channels of the first convolution.
        growth: Channels behind each block, as multiples of `base`.
        sample_rate_hz: Samples per second.
    """

    strides: tuple[int, ...] = (4, 4, 4, 5)
    stages: int = 2
    codes: int = 1024
    dim: int = 256
    base: int = 32
    growth: tuple[int, ...] = (2, 4, 8, 16)
    sample_rate_hz: int = 16000

    @property
    def hop(self) -> int:
        """Samples per frame."""
        return math.prod(self.strides)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels before the first block and behind each."""
        return (self.base, *(self.base * factor for factor in self.growth))


class LeftPaddedConv1d(nn.Module):
    """A strided convolution that mirrors its beginning."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.left = kernel - stride
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T) to (B, outputs, T // stride)."""
        out: Tensor = self.conv(reflect_pad(x, self.left, 0))
        return out


class CutConvTranspose1d(nn.Module):
    """A transposed convolution whose tail is cut off."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.ConvTranspose1d(inputs, outputs, 2 * stride, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T) to (B, outputs, T * stride)."""
        out: Tensor = self.conv(x)
        return out[..., : x.shape[-1] * self.stride]


class DilatedResidual(nn.Module):
    """``x + conv3(leaky_relu(x))`` for each dilation; the list has the published name."""

    def __init__(self, dim: int, dilations: Sequence[int], name: str) -> None:
        super().__init__()
        self.listed = name
        layers = [NormedConv1d(dim, dim, 3, dilation=d, padding=d) for d in dilations]
        self.add_module(name, nn.ModuleList(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to the same shape."""
        for conv in getattr(self, self.listed):
            x = x + conv(functional.leaky_relu(x, _SLOPE))
        return x


class Select(nn.Module):
    """Mix two branches per channel with weights from the mean of their sum (SKNet, 1903.06586)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        # Kernels of 3 on a length of 1: only the middle tap ever meets a value.
        self.fc = nn.Sequential(nn.Conv1d(dim, dim, 3, padding=1), nn.ReLU())
        self.fcs = nn.ModuleList(nn.Conv1d(dim, dim, 3, padding=1) for _ in range(2))

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Mix two (B, C, T) into one."""
        shared = self.fc((a + b).mean(dim=-1, keepdim=True))
        weights = torch.stack([branch(shared) for branch in self.fcs]).softmax(dim=0)
        return weights[0] * a + weights[1] * b


class DownBlock(nn.Module):
    """Stride down, code what a round trip loses, and add it back by selection."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.downs_one = LeftPaddedConv1d(inputs, outputs, 2 * stride, stride)
        self.downs_two = LeftPaddedConv1d(inputs, outputs, 2 * stride, stride)
        self.ups_one = CutConvTranspose1d(outputs, inputs, stride)
        self.res_one = DilatedResidual(inputs, (1, 3), "convs")
        self.res_four = DilatedResidual(outputs, (1, 3, 5), "convs1")
        self.skn = Select(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T) to (B, outputs, T / stride)."""
        first = self.downs_one(x)
        lost = self.res_one(x - self.ups_one(first))
        out: Tensor = self.res_four(self.skn(first, self.downs_two(lost)))
        return out


class UpBlock(nn.Module):
    """The mirror of `DownBlock`."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.ups_one = CutConvTranspose1d(inputs, outputs, stride)
        self.ups_two = CutConvTranspose1d(inputs, outputs, stride)
        self.downs_one = LeftPaddedConv1d(outputs, inputs, 2 * stride, stride)
        self.res_one = DilatedResidual(inputs, (1, 3), "convs")
        self.res_four = DilatedResidual(outputs, (1, 3, 5), "convs1")
        self.skn = Select(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T) to (B, outputs, T * stride)."""
        first = self.ups_one(x)
        lost = self.res_one(x - self.downs_one(first))
        out: Tensor = self.res_four(self.skn(first, self.ups_two(lost)))
        return out


def build_encoder(config: SuperCodecConfig) -> nn.Sequential:
    """Return waveform (B, 1, T) -> features (B, dim, T / hop)."""
    widths = config.widths
    blocks = [
        DownBlock(a, b, s) for a, b, s in zip(widths, widths[1:], config.strides, strict=False)
    ]
    first, last = LeftPaddedConv1d(1, widths[0], 7), LeftPaddedConv1d(widths[-1], config.dim, 3)
    return nn.Sequential(first, *blocks, last)


def build_decoder(config: SuperCodecConfig) -> nn.Sequential:
    """Return features (B, dim, L) -> waveform (B, 1, L * hop)."""
    widths = config.widths[::-1]
    strides = config.strides[::-1]
    blocks = [UpBlock(a, b, s) for a, b, s in zip(widths, widths[1:], strides, strict=False)]
    first, last = LeftPaddedConv1d(config.dim, widths[0], 7), LeftPaddedConv1d(widths[-1], 1, 7)
    return nn.Sequential(first, *blocks, last)


class BatchedCodebook(nn.Module):
    """A codebook whose buffers have a leading axis of 1, as its published library stores them."""

    embed: Tensor

    def __init__(self, codes: int, dim: int) -> None:
        super().__init__()
        embed = torch.randn(1, codes, dim)
        self.register_buffer("initted", torch.ones(1))
        self.register_buffer("cluster_size", torch.ones(1, codes))
        self.register_buffer("embed_avg", embed.clone())
        self.register_buffer("embed", embed)

    def encode(self, x: Tensor) -> Tensor:
        """Map (..., D) to indices (...)."""
        return nearest_code(x, self.embed[0])

    def decode(self, codes: Tensor) -> Tensor:
        """Map indices (...) to (..., D)."""
        return functional.embedding(codes, self.embed[0])


class StackedQuantizer(nn.Module):
    """Residual stages of `BatchedCodebook` under the published names."""

    def __init__(self, stages: int, codes: int, dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleDict({"_codebook": BatchedCodebook(codes, dim)}) for _ in range(stages)
        )

    @property
    def codebooks(self) -> list[BatchedCodebook]:
        """The codebooks in order."""
        return [layer["_codebook"] for layer in self.layers]  # type: ignore[index, misc]

    def encode(self, x: Tensor) -> Tensor:
        """Map features (B, L, D) to codes (B, L, stages) int64."""
        residual, found = x, []
        for book in self.codebooks:
            found.append(book.encode(residual))
            residual = residual - book.decode(found[-1])
        return torch.stack(found, dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        """Map codes (B, L, stages) to the sum of their vectors (B, L, D)."""
        parts = [book.decode(codes[..., k]) for k, book in enumerate(self.codebooks)]
        return torch.stack(parts).sum(dim=0)


class SuperCodec(nn.Module):
    """Waveform <-> tokens.

    Args:
        config: Sizes.
    """

    def __init__(self, config: SuperCodecConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SuperCodecConfig()
        self.encoder = build_encoder(config)
        self.rq = StackedQuantizer(config.stages, config.codes, config.dim)
        self.decoder = build_decoder(config)

    def features(self, audio: Tensor) -> Tensor:
        """Map (B, T) samples to (B, dim, L); T is cut to whole frames first."""
        whole = audio.shape[-1] // self.config.hop * self.config.hop
        out: Tensor = self.encoder(audio[:, :whole].unsqueeze(1))
        return out

    def encode(self, audio: Tensor) -> Tensor:
        """Tokenise (B, T) float32 samples in [-1, 1]: (B, L, stages) int64."""
        return self.rq.encode(self.features(audio).transpose(1, 2))

    def decode(self, codes: Tensor) -> Tensor:
        """Synthesise (B, 1, L * hop) samples from codes (B, L, stages)."""
        out: Tensor = self.decoder(self.rq.decode(codes).transpose(1, 2))
        return out

    def forward(self, audio: Tensor) -> Tensor:
        """Encode and decode."""
        return self.decode(self.encode(audio))
