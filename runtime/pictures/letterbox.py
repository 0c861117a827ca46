"""Shrink or grow a whole frame into an input: aspect kept, padded at bottom and right.

Areas are averaged where the frame shrinks, which keeps small people visible; else it is bilinear.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from prunus.runtime.pictures.crop import Frame, resample
from prunus.runtime.pictures.opencv import in_colours


def letterbox_size(frame: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width of a frame inside an input of a size.

    >>> letterbox_size((40, 30), (64, 96))
    (64, 48)
    """
    ratio = min(size[0] / frame[0], size[1] / frame[1])
    height, width = (max(round(side * ratio), 1) for side in frame)
    return min(height, size[0]), min(width, size[1])


def letterbox_into(
    frame: Frame, out: Frame, *, rgb: bool = True, pad_value: int = 0
) -> npt.NDArray[np.float64]:
    """Fill an input buffer; return input pixels per frame pixel as x, y.

    Args:
        frame: uint8 (h, w, 3) BGR.
        out: uint8 (height, width, 3), written in place.
        rgb: True when `out` is in RGB order.
        pad_value: What the frame does not cover.
    """
    rows, columns = letterbox_size((frame.shape[0], frame.shape[1]), (out.shape[0], out.shape[1]))
    small = resample(frame, (rows, columns))
    out[:] = pad_value
    out[:rows, :columns] = in_colours(small, rgb)
    return np.array([columns / frame.shape[1], rows / frame.shape[0]])
