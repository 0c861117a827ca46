"""From lip features to the video map that meets the audio (Dolphin, arXiv 2509.23610).

A convolution narrows the features; one multi-scale block (three lengths, a pooled global map and
top-down attention, TDANet arXiv 2209.15200) lets frames see one another.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from prunus.models.separation.channels_first import GlobalNorm, depthwise
from prunus.models.separation.voice.resample import average_pool
from prunus.models.separation.voice.top_down import TopDown

_DEPTH = 3


class ConvNorm(nn.Module):
    """A convolution, a norm and, where given, PReLU with one slope."""

    def __init__(self, conv: nn.Module, norm: nn.Module, *, activated: bool = False) -> None:
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.act: nn.Module | None = nn.PReLU() if activated else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, F) to (B, D, F')."""
        out: Tensor = self.norm(self.conv(x))
        if self.act is not None:
            out = self.act(out)
        return out


def narrow(features: int, channels: int) -> ConvNorm:
    """Return the layer from lip features (B, features, F) to (B, channels, F)."""
    conv = nn.Conv1d(features, channels, 3, padding=1)
    return ConvNorm(conv, nn.BatchNorm1d(channels), activated=True)


class GlobalMap(nn.Module):
    """norm W2 ReLU(dw5(norm W1 x)) over the coarsest length."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = _pointwise(channels)
        self.dwconv = depthwise(channels, 5)
        self.fc2 = _pointwise(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, F) to the same shape."""
        out: Tensor = self.fc2(functional.relu(self.dwconv(self.fc1(x))))
        return out


def _pointwise(channels: int) -> ConvNorm:
    return ConvNorm(nn.Conv1d(channels, channels, 1, bias=False), GlobalNorm(channels))


class VideoBlock(nn.Module):
    """The multi-scale block, with its residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first = nn.Conv1d(channels, channels, 1)
        self.proj_1x1 = ConvNorm(first, nn.BatchNorm1d(channels), activated=True)
        self.spp_dw = nn.ModuleList(
            ConvNorm(depthwise(channels, 5, 2 if k else 1), nn.BatchNorm1d(channels))
            for k in range(_DEPTH)
        )
        self.globalatt = GlobalMap(channels)
        # The last of the three is in the checkpoint, but nothing reads what it would compute.
        self.loc_glo_fus = nn.ModuleList(TopDown(channels, nn.BatchNorm1d) for _ in range(_DEPTH))
        self.last_layer = nn.ModuleList(
            TopDown(channels, nn.BatchNorm1d) for _ in range(_DEPTH - 1)
        )
        self.res_conv = nn.Conv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, F) to the same shape."""
        scales = []
        step = self.proj_1x1(x)
        for conv in self.spp_dw:
            step = conv(step)
            scales.append(step)
        pooled = [average_pool(scale, scales[-1].shape[-1]) for scale in scales]
        coarse = self.globalatt(sum(pooled[1:], pooled[0]))
        fine, middle = (self.loc_glo_fus[k](scales[k], coarse) for k in range(2))
        # Here the *finer* map modulates the middle one, resampled down to it.
        merged = self.last_layer[0](fine, self.last_layer[1](middle, fine))
        out: Tensor = self.res_conv(merged) + x
        return out
