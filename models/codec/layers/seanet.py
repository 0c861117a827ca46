"""The convolutional encoder and decoder of EnCodec (arXiv 2210.13438), not causal, weight-normed.

Shared by WavTokenizer and SpeechTokenizer. Sub-module names are the published ones, so that
checkpoints load by name. Differs from EnCodec: reflect padding split over both sides (the odd
sample on the left), the LSTM may run in both directions, residual shortcuts are convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.codec.layers.weight_norm import NormedConv1d, NormedConvTranspose1d


class PaddedConv1d(nn.Module):
    """A convolution that pads itself by reflection: T samples give ceil(T / stride)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.conv = nn.ModuleDict({"conv": NormedConv1d(inputs, outputs, kernel, stride=stride)})

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T) to (B, outputs, ceil(T / stride))."""
        total = self.kernel - self.stride
        right = total // 2
        extra = extra_padding(x.shape[-1], self.kernel, self.stride)
        out: Tensor = self.conv["conv"](reflect_pad(x, total - right, right + extra))
        return out


class TrimmedConvTranspose1d(nn.Module):
    """A transposed convolution cut to ``T * stride``: r - r // 2 off the left, r // 2 right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.trim = kernel - stride
        self.convtr = nn.ModuleDict(
            {"convtr": NormedConvTranspose1d(inputs, outputs, kernel, stride=stride)}
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T) to (B, outputs, T * stride)."""
        out: Tensor = self.convtr["convtr"](x)
        right = self.trim // 2
        return out[..., self.trim - right : out.shape[-1] - right]


def extra_padding(length: int, kernel: int, stride: int) -> int:
    """Return how many samples are missing on the right for the last window to be full."""
    total = kernel - stride
    windows = (length - kernel + total) / stride + 1
    return (math.ceil(windows) - 1) * stride + kernel - total - length


def reflect_pad(x: Tensor, left: int, right: int) -> Tensor:
    """Mirror both ends of (B, C, T); too short inputs get zeros first, cut off afterwards."""
    missing = max(0, max(left, right) - x.shape[-1] + 1)
    if missing:
        x = functional.pad(x, (0, missing))
    padded = functional.pad(x, (left, right), mode="reflect")
    return padded[..., : padded.shape[-1] - missing]


class ResidualUnit(nn.Module):
    """``shortcut(x) + conv1(elu(conv3(elu(x))))`` with half the channels inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = dim // 2
        self.block = nn.Sequential(
            nn.ELU(), PaddedConv1d(dim, hidden, 3), nn.ELU(), PaddedConv1d(hidden, dim, 1)
        )
        self.shortcut = PaddedConv1d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to the same shape."""
        out: Tensor = self.shortcut(x) + self.block(x)
        return out


class ResidualLstm(nn.Module):
    """Two LSTM layers along time with a skip connection; two directions double the channels."""

    def __init__(self, dim: int, *, bidirectional: bool = False) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim, 2, bidirectional=bidirectional)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to (B, C, T), or to (B, 2 C, T) with two directions."""
        frames = x.permute(2, 0, 1)
        out, _ = self.lstm(frames)
        skip = torch.cat((frames, frames), dim=-1) if self.lstm.bidirectional else frames
        summed: Tensor = out + skip
        return summed.permute(1, 2, 0)

    def step(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Go on from a state.

        Args:
            x: (1, C, T) frames.
            h: (2, 1, C) hidden state, zeros at the start.
            c: (2, 1, C) cell state, zeros at the start.

        Returns:
            Output (1, C, T) and the next two states.
        """
        frames = x.permute(2, 0, 1)
        out, (h, c) = self.lstm(frames, (h, c))
        return (out + frames).permute(1, 2, 0), h, c


class SeanetEncoder(nn.Module):
    """Waveform -> features.

    Args:
        base: Channels after the first convolution; they double at every stride.
        strides: In the order in which they are applied.
        dim: Channels that leave.
        bidirectional: Directions of the LSTM.
    """

    def __init__(
        self, base: int, strides: Sequence[int], dim: int, *, bidirectional: bool = False
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [PaddedConv1d(1, base, 7)]
        width = base
        for stride in strides:
            layers += [
                ResidualUnit(width), nn.ELU(), PaddedConv1d(width, 2 * width, 2 * stride, stride)
            ]  # fmt: skip
            width *= 2
        layers.append(ResidualLstm(width, bidirectional=bidirectional))
        layers += [nn.ELU(), PaddedConv1d(width * (2 if bidirectional else 1), dim, 7)]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 1, T) samples to (B, dim, L)."""
        out: Tensor = self.model(x)
        return out


class SeanetDecoder(nn.Module):
    """Features -> waveform: the encoder's mirror with an LSTM of one direction.

    Args:
        base: Channels before the last convolution.
        strides: In the order in which they are applied (the encoder's, reversed).
        dim: Channels that enter.
    """

    def __init__(self, base: int, strides: Sequence[int], dim: int) -> None:
        super().__init__()
        width = base * 2 ** len(strides)
        layers: list[nn.Module] = [PaddedConv1d(dim, width, 7), ResidualLstm(width)]
        for stride in strides:
            layers += [
                nn.ELU(),
                TrimmedConvTranspose1d(width, width // 2, 2 * stride, stride),
                ResidualUnit(width // 2),
            ]
            width //= 2
        self.model = nn.Sequential(*layers, nn.ELU(), PaddedConv1d(width, 1, 7))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, dim, L) to (B, 1, T) samples."""
        out: Tensor = self.model(x)
        return out
