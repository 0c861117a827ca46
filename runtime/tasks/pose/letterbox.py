"""Shrink or grow a whole frame into a detector's input: aspect kept, padded at bottom and right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from prunus.runtime.tasks.pose.crop import Frame, load_cv2


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
    cv2 = load_cv2()
    height, width = out.shape[:2]
    ratio = min(height / frame.shape[0], width / frame.shape[1])
    size = max(round(frame.shape[1] * ratio), 1), max(round(frame.shape[0] * ratio), 1)
    # Averaging keeps small people visible when a large frame shrinks.
    method = cv2.INTER_AREA if ratio < 1 else cv2.INTER_LINEAR
    small = cv2.resize(frame, size, interpolation=method)
    out[:] = pad_value
    out[: size[1], : size[0]] = small[:, :, ::-1] if rgb else small
    return np.array([size[0] / frame.shape[1], size[1] / frame.shape[0]])
