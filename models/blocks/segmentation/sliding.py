"""Sliding-window inference: overlapping crops of one size, logits averaged where they overlap.

This is the protocol of the published Cityscapes figures (crop 1024x1024, stride 768x768).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from prunus.models.segmentation.edaformer import resize_logits
from prunus.runtime.audio.windows import window_corners


def sliding_logits(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    crop: tuple[int, int],
    stride: tuple[int, int],
) -> Tensor:
    """Average a network's logits over windows.

    Args:
        network: (B, 3, h, w) -> logits (B, classes, about h / 8, about w / 8).
        images: (B, 3, H, W) float32, normalised.
        crop: Height and width of a window in pixels; smaller images use a smaller one.
        stride: Steps between windows in pixels, rows and columns.

    Returns:
        (B, classes, H, W) float32 logits.
    """
    height, width = images.shape[2:]
    rows, columns = min(crop[0], height), min(crop[1], width)
    corners = window_corners((height, width), crop, stride)
    parts = [
        resize_logits(network(images[:, :, y : y + rows, x : x + columns]), rows, columns)
        for y, x in corners
    ]
    total = parts[0].new_zeros(*parts[0].shape[:2], height, width)
    count = parts[0].new_zeros(1, 1, height, width)
    for (y, x), part in zip(corners, parts, strict=True):
        total[:, :, y : y + rows, x : x + columns] += part
        count[:, :, y : y + rows, x : x + columns] += 1
    return total / count
