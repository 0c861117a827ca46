"""ECAPA-TDNN speaker encoder (Desplanques et al., arXiv 2005.07143), SpeechBrain's names.

Each layer is convolution, ReLU, batch norm, in this order. Convolutions pad by reflection.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.codec.layers.seanet import reflect_pad

_TINY = 1e-12  # floor of a variance


class _Conv(nn.Module):
    """A convolution that keeps the length, mirrored at both ends."""

    def __init__(self, inputs: int, outputs: int, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        self.reach = dilation * (kernel - 1) // 2
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation)

    def forward(self, x: Tensor) -> Tensor:
        padded = reflect_pad(x, self.reach, self.reach) if self.reach else x
        out: Tensor = self.conv(padded)
        return out


class _Norm(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x)
        return out


class TdnnBlock(nn.Module):
    """Convolution, ReLU, batch norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv = _Conv(inputs, outputs, kernel, dilation)
        self.norm = _Norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T) to (B, outputs, T)."""
        out: Tensor = self.norm(functional.relu(self.conv(x)))
        return out


class Res2NetBlock(nn.Module):
    """Channels in equal parts; each part also sees the result of the one before it."""

    def __init__(self, dim: int, scale: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.scale = scale
        part = dim // scale
        self.blocks = nn.ModuleList(
            TdnnBlock(part, part, kernel, dilation) for _ in range(scale - 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to the same shape."""
        parts = x.chunk(self.scale, dim=1)
        done = [parts[0]]
        for k, block in enumerate(self.blocks, start=1):
            done.append(block(parts[k] if k == 1 else parts[k] + done[-1]))
        return torch.cat(done, dim=1)


class SqueezeExcite(nn.Module):
    """Scale channels by a function of their means over time."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.conv1 = _Conv(dim, hidden, 1)
        self.conv2 = _Conv(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to the same shape."""
        means = x.mean(dim=2, keepdim=True)
        scale: Tensor = torch.sigmoid(self.conv2(functional.relu(self.conv1(means))))
        return x * scale


class SeRes2NetBlock(nn.Module):
    """1x1, Res2Net, 1x1, squeeze-and-excitation, residual."""

    def __init__(self, dim: int, kernel: int, dilation: int, scale: int = 8) -> None:
        super().__init__()
        self.tdnn1 = TdnnBlock(dim, dim)
        self.res2net_block = Res2NetBlock(dim, scale, kernel, dilation)
        self.tdnn2 = TdnnBlock(dim, dim)
        self.se_block = SqueezeExcite(dim, 128)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to the same shape."""
        out: Tensor = self.se_block(self.tdnn2(self.res2net_block(self.tdnn1(x)))) + x
        return out


class AttentiveStatistics(nn.Module):
    """Mean and deviation over time, weighted by attention that sees the global ones."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.tdnn = TdnnBlock(3 * dim, hidden)
        self.conv = _Conv(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to (B, 2 C, 1)."""
        mean, deviation = _statistics(x, torch.full_like(x[:, :1], 1.0 / x.shape[-1]))
        context = torch.cat((x, mean.expand_as(x), deviation.expand_as(x)), dim=1)
        weights = self.conv(torch.tanh(self.tdnn(context))).softmax(dim=2)
        return torch.cat(_statistics(x, weights), dim=1)


def _statistics(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    mean = (weights * x).sum(dim=2, keepdim=True)
    variance = (weights * (x - mean).pow(2)).sum(dim=2, keepdim=True)
    return mean, variance.clamp(min=_TINY).sqrt()


class EcapaTdnn(nn.Module):
    """Mel features -> one speaker vector.

    Args:
        bands: Mel bands.
        dim: Channels of the blocks; three times as many are pooled.
        embedding: Width of the vector.
        attention: Width of the pooling's attention.
    """

    def __init__(
        self, bands: int = 80, dim: int = 1024, embedding: int = 192, attention: int = 128
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([TdnnBlock(bands, dim, 5)])
        self.blocks.extend(SeRes2NetBlock(dim, 3, dilation) for dilation in (2, 3, 4))
        self.mfa = TdnnBlock(3 * dim, 3 * dim)
        self.asp = AttentiveStatistics(3 * dim, attention)
        self.asp_bn = _Norm(6 * dim)
        self.fc = _Conv(6 * dim, embedding, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, frames, bands) to (B, 1, embedding)."""
        x = features.transpose(1, 2)
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        x = self.mfa(torch.cat(outputs[1:], dim=1))
        out: Tensor = self.fc(self.asp_bn(self.asp(x)))
        return out.transpose(1, 2)
