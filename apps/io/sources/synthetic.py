"""A camera without hardware: a slow flight over the bundled portrait, the same on every run."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator

from prunus.apps.common.media import PORTRAIT
from prunus.apps.io.frames import Frame, Image, SourceInfo
from prunus.runtime.errors import SourceError
from prunus.runtime.pictures.files import read_picture
from prunus.runtime.pictures.opencv import load_cv2

_GRAMMAR = re.compile(
    r"(?:(\d{1,5})x(\d{1,5}))?(?:@(\d{1,4}(?:\.\d{1,6})?))?(?:\*(\d{1,12}))?", re.ASCII
)
_PERIOD = 120  # frames of one round of the flight
_LARGEST = 8192


class SyntheticSource:
    """Frames at a steady rate, or as fast as they are taken when the rate is 0.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        fps: Frames per second; 0 does not wait.
        frames: How many frames, 0 for no end.
    """

    def __init__(self, width: int, height: int, fps: float, frames: int) -> None:
        self.warnings: list[str] = []
        self._picture = read_picture(PORTRAIT)
        self._stopped = False
        self.info = SourceInfo("synthetic", width, height, fps, frames, live=fps > 0)

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames."""
        start, index = time.perf_counter(), 0
        while not self._stopped and (self.info.frames == 0 or index < self.info.frames):
            if self.info.fps:
                time.sleep(max(start + index / self.info.fps - time.perf_counter(), 0))
            seconds = index / self.info.fps if self.info.fps else None
            yield Frame(index, self._view(index), "", time.perf_counter_ns(), seconds=seconds)
            index += 1

    def _view(self, index: int) -> Image:
        """Return the portrait, centred, swaying by 4 % of its size."""
        cv2 = load_cv2()
        width, height = self.info.width, self.info.height
        rows, columns = self._picture.shape[:2]
        phase = 2 * math.pi * index / _PERIOD
        scale = min(width / columns, height / rows) * (0.95 + 0.03 * math.sin(phase))
        left = (width - columns * scale) / 2 + 0.04 * width * math.sin(phase)
        top = (height - rows * scale) / 2 + 0.02 * height * math.cos(phase)
        import numpy as np

        matrix = np.array([[scale, 0, left], [0, scale, top]])
        view: Image = cv2.warpAffine(
            self._picture, matrix, (width, height), borderValue=(96, 96, 96)
        )
        return view

    def close(self) -> None:
        """End the flight."""
        self._stopped = True


def open_synthetic(uri: str) -> SyntheticSource:
    """Open ``synthetic:WIDTHxHEIGHT@FPS*FRAMES``; each part may be left out.

    Raises:
        SourceError: another form, or a size that makes no sense.
    """
    text = uri.removeprefix("synthetic:")
    match = _GRAMMAR.fullmatch(text)
    width, height = (int(match[1] or 640), int(match[2] or 480)) if match else (0, 0)
    if match is None or not (1 <= width <= _LARGEST and 1 <= height <= _LARGEST):
        raise SourceError(
            f"Got synthetic:{text}; expected synthetic:WIDTHxHEIGHT@FPS*FRAMES, "
            f"with sides up to {_LARGEST} pixels.",
            "Examples: synthetic:  synthetic:1280x720@30  synthetic:@0*100",
        )
    return SyntheticSource(width, height, float(match[3] or 25), int(match[4] or 0))
