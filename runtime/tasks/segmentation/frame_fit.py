"""Fit a whole frame into a dense network's input, and its result back onto the frame.

`keep_ratio` and `sliding` follow the published segmentation protocols (mmseg 0.11): both resizes
work on bytes with OpenCV's bilinear filter, and a one-step resize would not give the same numbers.
`stretch` and `letterbox` average areas where the frame shrinks, as everything else here does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy.typing as npt

from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.pictures.crop import Frame, resample
from prunus.runtime.pictures.letterbox import letterbox_size
from prunus.runtime.pictures.opencv import in_colours, load_cv2
from prunus.runtime.tasks.segmentation.card import ScenePreprocess

Size = tuple[int, int]  # height, width


def keep_ratio_size(size: Size, longest: int, shortest: int) -> Size:
    """Return the largest size of the same aspect that fits into longest x shortest pixels.

    Example:
        >>> keep_ratio_size((70, 101), 256, 96)
        (96, 139)
    """
    scale = min(longest / max(size), shortest / min(size))
    return max(int(size[0] * scale + 0.5), 1), max(int(size[1] * scale + 0.5), 1)


def round_up(size: Size, multiple: int) -> Size:
    """Return the next size whose sides are multiples."""
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple


def resize(image: npt.NDArray[Any], size: Size, *, nearest: bool = False) -> npt.NDArray[Any]:
    """Resize (h, w) or (h, w, c) bilinearly, or to the nearest pixel for class numbers."""
    if image.shape[:2] == size:
        return image
    cv2 = load_cv2()
    method = cv2.INTER_NEAREST_EXACT if nearest else cv2.INTER_LINEAR
    resized: npt.NDArray[Any] = cv2.resize(image, (size[1], size[0]), interpolation=method)
    return resized


@dataclass(frozen=True, slots=True)
class FrameFit:
    """The way into the input, fixed by the card.

    Attributes:
        preprocess: The card's constants.
    """

    preprocess: ScenePreprocess

    def __post_init__(self) -> None:
        p = self.preprocess
        resizes = p.fit in ("keep_ratio", "sliding")
        if resizes and (min(p.longest, p.shortest, p.multiple) < 1 or p.longest < p.shortest):
            raise ArtifactError(
                f"The card's fit '{p.fit}' has the bounds {p.longest} x {p.shortest} and multiple "
                f"{p.multiple}; expected longest >= shortest >= 1, and a multiple from 1 up."
            )

    @property
    def size(self) -> Size:
        """Input height and width."""
        return self.preprocess.height, self.preprocess.width

    def scaled_size(self, frame: Size) -> Size:
        """Return the size of the picture inside the input, or before it is cut into windows."""
        p = self.preprocess
        if p.fit == "stretch":
            return self.size
        if p.fit == "letterbox":
            return letterbox_size(frame, self.size)
        return round_up(keep_ratio_size(frame, p.longest, p.shortest), p.multiple)

    def scale(self, frame: Frame) -> Frame:
        """Return the frame at `scaled_size`, uint8 (h, w, 3) BGR."""
        p, size = self.preprocess, frame.shape[:2]
        if p.fit in ("keep_ratio", "sliding"):
            kept = keep_ratio_size((size[0], size[1]), p.longest, p.shortest)
            return resize(resize(frame, kept), round_up(kept, p.multiple))
        return resample(frame, self.scaled_size((size[0], size[1])))

    def place(self, scaled: Frame, out: Frame) -> None:
        """Write a scaled picture or a window of it into an input buffer, in the card's colours.

        Args:
            scaled: uint8 (h, w, 3) BGR, at most the input size.
            out: uint8 (height, width, 3); what the picture does not cover gets the pad value.

        Raises:
            UsageError: the picture has not the input size and the card does not pad.
        """
        height, width = scaled.shape[:2]
        if self.preprocess.fit == "keep_ratio" and (height, width) != self.size:
            raise UsageError(
                f"The frame becomes {height}x{width} under the card's keep-ratio rule; this model "
                f"takes {self.size[0]}x{self.size[1]} only.",
                f"Export one with --size {height}x{width}, or with --fit letterbox for all frames.",
            )
        if (height, width) != self.size:
            out[:] = self.preprocess.pad_value
        out[:height, :width] = in_colours(scaled, self.preprocess.colour == "rgb")
