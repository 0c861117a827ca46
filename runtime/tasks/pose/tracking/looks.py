"""What a person's clothes look like: the median colours of four bands of the body.

Enough to tell most people of one scene apart for a while, at a few microseconds each; no network is
asked. It is a hint beside place and motion, never alone a reason to call two people one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Looks = npt.NDArray[np.float32]
Frame = npt.NDArray[np.uint8]

# Shares of a box's height: chest, belly, thighs, shins; between are belt and knees.
_BANDS = ((0.18, 0.34), (0.34, 0.50), (0.55, 0.72), (0.72, 0.90))
_MIDDLE = 0.3  # of the width is left out on each side: arms and background
_FEWEST = 4  # pixels of a band that say something
_SAMPLES = 12  # rows and columns of a band that are looked at
_SPREAD = 45.0  # levels by which one person's colours differ from view to view
_NEW = 0.15  # weight of a new view


def looks_of(frame: Frame, box: tuple[float, float, float, float]) -> Looks | None:
    """Return the colours of a person.

    Args:
        frame: uint8 (height, width, 3) BGR.
        box: x0, y0, x1, y1 in pixels of the whole person.

    Returns:
        float32 (4, 3): brightness, red against green, yellow against blue of each band, in levels;
        None where the box leaves the frame or is too small.
    """
    x0, y0, x1, y1 = box
    rows, columns = frame.shape[:2]
    if x0 < 0 or y0 < 0 or x1 > columns or y1 > rows:
        return None
    wide, tall = x1 - x0, y1 - y0
    left, right = int(x0 + _MIDDLE * wide), int(np.ceil(x1 - _MIDDLE * wide))
    found = np.empty((len(_BANDS), 3), np.float32)
    for k, (low, high) in enumerate(_BANDS):
        top, bottom = int(y0 + low * tall), int(np.ceil(y0 + high * tall))
        down, across = (max((n - 1) // _SAMPLES + 1, 1) for n in (bottom - top, right - left))
        part = frame[top:bottom:down, left:right:across].reshape(-1, 3)
        if len(part) < _FEWEST:
            return None
        b, g, r = np.median(part, axis=0)
        # Light changes as people walk; the two colour axes count double.
        found[k] = (r + g + b) / 3, 2 * (r - g), r + g - 2 * b
    return found


def alike(first: Looks | None, second: Looks | None) -> float:
    """Return how alike two views are, 0 to 1; 0.5 where one is unknown.

    Example:
        >>> alike(np.zeros((4, 3)), np.zeros((4, 3)))
        1.0
    """
    if first is None or second is None:
        return 0.5
    squared = float(((first - second) ** 2).mean())
    return float(np.exp(-squared / (2 * _SPREAD**2)))


def blended(old: Looks, new: Looks) -> Looks:
    """Return the memory of a person after one more view."""
    return old + np.float32(_NEW) * (new - old)
