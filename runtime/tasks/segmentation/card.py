"""What a card says about dense labels: how a frame is fitted, how class maps are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prunus.runtime.card.reading import Byte, Deviation, Level, Size, SizeOrNone
from prunus.runtime.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class ScenePreprocess:
    """How a whole frame becomes the input image of a dense network.

    Attributes:
        kind: Discriminator in JSON.
        height: Input height in pixels.
        width: Input width in pixels.
        fit: ``stretch`` (to the input size, aspect may change), ``letterbox`` (keep aspect, pad
            bottom and right), ``keep_ratio`` (shrink or grow into `longest` x `shortest`, then up
            to the next `multiple`; the result must be the input size) or ``sliding`` (the same
            resize, then windows of the input size in steps of `stride`).
        colour: Channel order that the graph expects.
        mean: Per channel mean on the 0..255 scale.
        std: Per channel standard deviation on the 0..255 scale.
        normalised_in_graph: True when the graph takes raw 0..255 pixels and normalises itself.
        pad_value: Value outside the picture, 0..255.
        longest: Bound of the longer side in pixels, for ``keep_ratio`` and ``sliding``.
        shortest: Bound of the shorter side in pixels.
        multiple: Sides are rounded up to a multiple of this, in a second resize.
        stride: Steps of the windows in pixels, rows and columns.
    """

    height: Size
    width: Size
    fit: Literal["stretch", "letterbox", "keep_ratio", "sliding"] = "letterbox"
    colour: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[Level, Level, Level] = (123.675, 116.28, 103.53)
    std: tuple[Deviation, Deviation, Deviation] = (58.395, 57.12, 57.375)
    normalised_in_graph: bool = True
    pad_value: Byte = 114
    longest: SizeOrNone = 0
    shortest: SizeOrNone = 0
    multiple: Size = 1
    stride: tuple[SizeOrNone, SizeOrNone] = (0, 0)
    kind: Literal["scene"] = "scene"

    def __post_init__(self) -> None:
        bounded = self.fit in ("keep_ratio", "sliding")
        if (bounded and min(self.longest, self.shortest) < 1) or (
            self.fit == "sliding" and min(self.stride) < 1
        ):
            raise ArtifactError(
                f"The card resizes by '{self.fit}' into {self.longest} x {self.shortest} pixels "
                f"with steps of {list(self.stride)}; expected positive numbers."
            )


@dataclass(frozen=True, slots=True)
class MaskPostprocess:
    """How the outputs become a class per pixel.

    Attributes:
        kind: Discriminator in JSON.
        decoder: ``class_ids`` (numbers at input size, arg-max inside the graph), ``logits``
            (per class, at input size / `stride`) or ``probability`` (of the foreground, 0..1).
        classes: Class names by number; ``probability`` has two, background and foreground.
        palette: RGB colour of each class, 0..255.
        stride: Input pixels per cell of the output.
        foreground: Number of the class that background effects keep, -1 for none.
    """

    decoder: Literal["class_ids", "logits", "probability"]
    classes: tuple[str, ...]
    palette: tuple[tuple[Byte, Byte, Byte], ...]
    stride: int = 1
    foreground: int = -1
    kind: Literal["mask"] = "mask"

    def __post_init__(self) -> None:
        if len(self.palette) != len(self.classes) or not self.classes:
            raise ArtifactError(
                f"The card has {len(self.classes)} classes and {len(self.palette)} colours; "
                "expected as many, and at least one."
            )
        if not -1 <= self.foreground < len(self.classes) or self.stride < 1:
            raise ArtifactError(
                f"The card has the foreground class {self.foreground} and stride {self.stride}; "
                f"expected -1 to {len(self.classes) - 1}, and a stride from 1 up."
            )
