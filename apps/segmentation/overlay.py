"""Paint masks: classes in their colours, or a background that is blurred or replaced.

Everything works on whole frames with OpenCV's own loops; a frame of 640x480 takes one or two
milliseconds, so that the network stays the slowest step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunus.apps.io.sources.registry import Image
from prunus.apps.live.pages import hex_colour
from prunus.apps.pose.overlay import Colour, draw_panel
from prunus.apps.segmentation.options import Mode
from prunus.runtime.errors import UsageError, nearest
from prunus.runtime.pictures.opencv import load_cv2

if TYPE_CHECKING:
    from prunus.runtime.tasks.segmentation.card import MaskPostprocess
    from prunus.runtime.tasks.segmentation.segmenter import Mask

Floats = npt.NDArray[np.float32]
_BLUR_SHARE = 0.03  # radius of the blur as a share of the frame's longer side
_FEATHER_SHARE = 1 / 250  # half width of the soft edge of a mask without probabilities
_UNSURE = 0.15  # probabilities below are background, above 1 minus this foreground
_LEGEND_LINES = 6
_LEGEND_SHARE = 0.005  # classes below this share of the frame are not worth a line


@dataclass(frozen=True, slots=True)
class Look:
    """How masks are shown.

    Attributes:
        mode: ``overlay``, ``blur`` or ``replace``.
        opacity: Strength of the colours of ``overlay``, 0..1.
        subject: Number of the class that ``blur`` and ``replace`` keep, and that ``overlay``
            paints alone in a network of two classes; -1 for none.
        backdrop: For ``replace``: uint8 (h, w, 3) BGR of any size, or one BGR colour.
    """

    mode: Mode = "overlay"
    opacity: float = 0.5
    subject: int = -1
    backdrop: Image | Colour = (64, 160, 64)


class MaskPainter:
    """Paint the masks of one model: scene in, scene out.

    Args:
        postprocess: Class names and colours of the card.
        look: What to paint.

    Raises:
        UsageError: the look needs a subject and has none.

    Example:
        >>> paint = MaskPainter(segmenter.postprocess, Look("blur", subject=1))
        >>> paint(frame, segmenter(frame))
    """

    def __init__(self, postprocess: MaskPostprocess, look: Look) -> None:
        self.look, self._names = look, postprocess.classes
        self._foreground = postprocess.foreground
        self._colours: list[Colour] = [(b, g, r) for r, g, b in postprocess.palette]
        self._backdrop: Image | None = None
        if look.mode != "overlay" and look.subject < 0:
            raise UsageError(
                f"--mode {look.mode} keeps one class in front; this model names none.",
                f"Choose one with --subject, e.g. --subject '{postprocess.classes[-1]}'.",
            )

    def __call__(self, scene: Image, mask: Mask) -> Image:
        """Paint one mask into a scene of the same size and return the scene.

        Args:
            scene: uint8 (height, width, 3) BGR; changed in place.
            mask: Of this frame.
        """
        look = self.look
        if look.mode == "overlay":
            return self._tint(scene, mask)
        sure = self._subject(mask)
        behind = _blurred(scene, sure) if look.mode == "blur" else self._behind(scene)
        return _blend(scene, behind, sure)

    def legend(self, scene: Image, mask: Mask) -> Image:
        """Name the largest classes in the lower left corner; nothing for a single subject."""
        if self.look.mode != "overlay" or self._single:
            return scene
        shown = self._largest(mask)
        return draw_panel(
            scene, [self._names[k] for k in shown],
            swatches=[self._colours[k] for k in shown], bottom=True,
        )  # fmt: skip

    def shapes(self, mask: Mask) -> list[dict[str, Any]]:
        """Return the largest classes as shapes of a page (`prunus.apps.live.pages`).

        Their outlines are those of `mask`, to a pixel; a background that was changed has none.
        """
        if self.look.mode != "overlay":
            return []
        return [
            {
                "id": k, "label": "" if self._single else self._names[k],
                "colour": hex_colour(self._colours[k]), "fill": self.look.opacity,
                "rings": _rings(mask.classes == k),
            }
            for k in ([self.look.subject] if self._single else self._largest(mask))
        ]  # fmt: skip

    def _largest(self, mask: Mask) -> list[int]:
        # Every fourth pixel is enough to tell which classes are large.
        seen = np.bincount(mask.classes[::4, ::4].ravel(), minlength=len(self._names))
        order = np.argsort(-seen, kind="stable")[:_LEGEND_LINES]
        return [int(k) for k in order if seen[k] > _LEGEND_SHARE * seen.sum()]

    @property
    def _single(self) -> bool:
        return len(self._names) == 2 and self.look.subject >= 0

    def _subject(self, mask: Mask) -> Floats:
        """Return (h, w) float32 0..1, how much of each pixel belongs to the subject."""
        cv2 = load_cv2()
        if mask.foreground is not None and self.look.subject == self._foreground:
            sure = mask.foreground
            if ((sure > 0) & (sure < 1)).any():
                scale = 1 / (1 - 2 * _UNSURE)
                raised: Floats = cv2.addWeighted(sure, scale, sure, 0, -_UNSURE * scale)
                return np.clip(raised, 0, 1, out=raised)
        else:
            sure = (mask.classes == self.look.subject).astype(np.float32)
        width = 2 * round(max(sure.shape) * _FEATHER_SHARE) + 1
        soft: Floats = cv2.blur(sure, (width, width), borderType=cv2.BORDER_REPLICATE)
        return soft

    def _tint(self, scene: Image, mask: Mask) -> Image:
        cv2, opacity = load_cv2(), self.look.opacity
        if self._single:
            weight = self._subject(mask) * np.float32(opacity)
            paint = np.empty_like(scene)
            paint[:] = self._colours[self.look.subject]
            return _blend(scene, paint, 1 - weight)
        numbers, paint = mask.classes, self._painted(mask.classes)
        cv2.addWeighted(scene, 1 - opacity, paint, opacity, 0, dst=scene)
        edges = numbers != _shifted_maximum(numbers)
        scene[edges] = (245, 245, 245)
        return scene

    def _painted(self, numbers: npt.NDArray[Any]) -> Image:
        cv2 = load_cv2()
        if numbers.dtype == np.uint8:
            table = np.zeros((256, 1, 3), np.uint8)
            table[: len(self._colours), 0] = self._colours
            painted: Image = cv2.applyColorMap(np.ascontiguousarray(numbers), table)
            return painted
        taken: Image = np.array(self._colours, np.uint8)[numbers]
        return taken

    def _behind(self, scene: Image) -> Image:
        if self._backdrop is None or self._backdrop.shape != scene.shape:
            given = self.look.backdrop
            if isinstance(given, tuple):
                self._backdrop = np.empty_like(scene)
                self._backdrop[:] = given
            else:
                self._backdrop = cover(given, (scene.shape[0], scene.shape[1]))
        return self._backdrop


def _rings(inside: npt.NDArray[np.bool_]) -> list[list[int]]:
    """Return the outlines of a mask, holes included: x0, y0, x1, y1, ... of each."""
    cv2 = load_cv2()
    lines, _ = cv2.findContours(inside.view(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    short = (cv2.approxPolyDP(line, 0.8, True) for line in lines)
    return [line.ravel().tolist() for line in short if len(line) > 2]


def _shifted_maximum(numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the largest class among each pixel and its right and lower neighbours."""
    largest = numbers.copy()
    np.maximum(largest[:, :-1], numbers[:, 1:], out=largest[:, :-1])
    np.maximum(largest[:-1], numbers[1:], out=largest[:-1])
    return largest


def _blend(scene: Image, behind: Image, sure: Floats) -> Image:
    """Write ``sure * scene + (1 - sure) * behind`` into the scene and return it."""
    load_cv2().blendLinear(scene, behind, sure, 1 - sure, dst=scene)
    return scene


def _blurred(scene: Image, sure: Floats) -> Image:
    """Return the scene blurred without what is in front, which would smear into a halo.

    A blur removes what a small picture cannot hold, so it is computed on a small one: the mean of
    the background weighted by how much of it is there.
    """
    cv2 = load_cv2()
    height, width = scene.shape[:2]
    radius = max(_BLUR_SHARE * max(height, width), 1.0)
    step = max(radius / 3, 1.0)
    size = (max(round(width / step), 1), max(round(height / step), 1))
    small = cv2.resize(scene, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    behind = 1 - cv2.resize(sure, size, interpolation=cv2.INTER_AREA)
    sigma = radius / step / 2
    weight = cv2.GaussianBlur(behind, (0, 0), sigma)[..., None]
    mean = cv2.GaussianBlur(small * behind[..., None], (0, 0), sigma) / np.maximum(weight, 1e-3)
    # Deep inside the subject nothing of the background is near: there it is never seen.
    mean = np.clip(mean, 0, 255).astype(np.uint8)
    enlarged: Image = cv2.resize(mean, (width, height), interpolation=cv2.INTER_LINEAR)
    return enlarged


def cover(picture: Image, size: tuple[int, int]) -> Image:
    """Return a picture at a size (height, width): scaled to cover it, the rest cut off evenly."""
    cv2 = load_cv2()
    height, width = picture.shape[:2]
    scale = max(size[0] / height, size[1] / width)
    wide = (max(round(width * scale), size[1]), max(round(height * scale), size[0]))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    grown = cv2.resize(picture, wide, interpolation=method)
    top, left = (wide[1] - size[0]) // 2, (wide[0] - size[1]) // 2
    return np.ascontiguousarray(grown[top : top + size[0], left : left + size[1]])


def subject_number(name: str | None, postprocess: MaskPostprocess) -> int:
    """Return the number of the class that stays in front: by name, else what the card says.

    Raises:
        UsageError: there is no such class.
    """
    if name is None:
        return postprocess.foreground
    known: Sequence[str] = postprocess.classes
    if name not in known:
        few = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
        raise UsageError(
            f"The model has no class '{name}'{nearest(name, list(known))}.",
            f"Its classes: {few}; all: prunus inspect MODEL.onnx",
        )
    return list(known).index(name)


def parse_colour(text: str) -> Colour | None:
    """Return the BGR colour of ``#rrggbb``; None for other text (a picture's path).

    >>> parse_colour("#102030")
    (48, 32, 16)
    """
    digits = text.removeprefix("#")
    if len(digits) != 6 or len(text) != 7:
        return None
    try:
        red, green, blue = bytes.fromhex(digits)
    except ValueError:
        return None
    return (blue, green, red)
