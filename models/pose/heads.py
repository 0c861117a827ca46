"""Decoders from tokens to joints. ViTPose (arXiv 2204.12484, section 3.1) has the classic and the
simple one; the token head follows TokenPose (arXiv 2104.03516), the regression head predicts a
coordinate with its spread as RLE does (arXiv 2107.11291); the sub-pixel head is prunus' choice for
small networks: pixel shuffle on 1x1 convolutions costs a seventh of two transposed convolutions.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from prunus.runtime.errors import UsageError, nearest

Head = Literal["classic", "simple", "subpixel", "token", "regression"]


class GridHead(nn.Module):
    """Base of the heads that read the patch grid; subclasses set `layers`."""

    reads_grid = True

    def __init__(self, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid

    def _as_map(self, patches: Tensor) -> Tensor:
        rows, columns = self.grid
        return patches.transpose(1, 2).reshape(patches.shape[0], -1, rows, columns)


class ClassicHead(GridHead):
    """Two transposed convolutions (4, stride 2) with batch norm and ReLU, then 1x1."""

    def __init__(self, dim: int, joints: int, grid: tuple[int, int]) -> None:
        super().__init__(grid)
        self.deconv_layers = nn.Sequential(
            nn.ConvTranspose2d(dim, 256, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            nn.ConvTranspose2d(256, 256, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(256),
            nn.ReLU(),
        )
        self.final_layer = nn.Conv2d(256, joints, 1)
        nn.init.normal_(self.final_layer.weight, std=0.001)

    def forward(self, joints: Tensor, patches: Tensor) -> Tensor:
        """Map patches (B, N, C) to heatmaps (B, J, 4 rows, 4 columns)."""
        out: Tensor = self.final_layer(self.deconv_layers(self._as_map(patches)))
        return out


class SimpleHead(GridHead):
    """ReLU, bilinear x4 (half-pixel centres), 3x3 convolution."""

    def __init__(self, dim: int, joints: int, grid: tuple[int, int]) -> None:
        super().__init__(grid)
        self.final_layer = nn.Conv2d(dim, joints, 3, padding=1)
        nn.init.normal_(self.final_layer.weight, std=0.001)

    def forward(self, joints: Tensor, patches: Tensor) -> Tensor:
        """Map patches (B, N, C) to heatmaps (B, J, 4 rows, 4 columns)."""
        rows, columns = self.grid
        features = functional.interpolate(
            functional.relu(self._as_map(patches)),
            size=(4 * rows, 4 * columns),
            mode="bilinear",
            align_corners=False,
        )
        out: Tensor = self.final_layer(features)
        return out


class SubpixelHead(GridHead):
    """Twice (1x1 convolution, pixel shuffle x2, batch norm, ReLU), then 3x3."""

    def __init__(self, dim: int, joints: int, grid: tuple[int, int]) -> None:
        super().__init__(grid)
        self.up_layers = nn.Sequential(
            nn.Conv2d(dim, 4 * 256, 1),
            nn.PixelShuffle(2),
            nn.BatchNorm2d(256),
            nn.ReLU(),
            nn.Conv2d(256, 4 * 128, 1),
            nn.PixelShuffle(2),
            nn.BatchNorm2d(128),
            nn.ReLU(),
        )
        self.final_layer = nn.Conv2d(128, joints, 3, padding=1)
        nn.init.normal_(self.final_layer.weight, std=0.001)

    def forward(self, joints: Tensor, patches: Tensor) -> Tensor:
        """Map patches (B, N, C) to heatmaps (B, J, 4 rows, 4 columns)."""
        out: Tensor = self.final_layer(self.up_layers(self._as_map(patches)))
        return out


class TokenHead(nn.Module):
    """Each joint token becomes its whole heatmap: norm, Linear, norm, Linear."""

    reads_grid = False

    def __init__(self, dim: int, joints: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.size = (4 * grid[0], 4 * grid[1])
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim),
            nn.Linear(dim, 384),
            nn.LayerNorm(384),
            nn.Linear(384, self.size[0] * self.size[1]),
        )

    def forward(self, joints: Tensor, patches: Tensor | None) -> Tensor:
        """Map joint tokens (B, J, C) to heatmaps (B, J, 4 rows, 4 columns)."""
        out: Tensor = self.mlp(joints).reshape(joints.shape[0], -1, *self.size)
        return out


class RegressionHead(nn.Module):
    """Each joint token becomes x, y in 0..1 of the crop and their standard deviations."""

    reads_grid = False

    def __init__(self, dim: int, joints: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, 4))

    def forward(self, joints: Tensor, patches: Tensor | None) -> Tensor:
        """Map joint tokens (B, J, C) to (B, J, 4): x, y, sigma x, sigma y, each in 0..1."""
        out: Tensor = self.mlp(joints).sigmoid()
        return out


_HEADS = {
    "classic": ClassicHead,
    "simple": SimpleHead,
    "subpixel": SubpixelHead,
    "token": TokenHead,
    "regression": RegressionHead,
}


def build_head(head: str, dim: int, joints: int, grid: tuple[int, int]) -> nn.Module:
    """Return the head of that name; raises UsageError for an unknown one."""
    if head not in _HEADS:
        raise UsageError(
            f"Unknown head '{head}'{nearest(head, list(_HEADS))}.",
            f"Choose one of {', '.join(_HEADS)}.",
        )
    return _HEADS[head](dim, joints, grid)
