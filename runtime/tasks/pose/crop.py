"""Cut people out of a frame and map joints back: the unbiased affine of UDP (arXiv 1911.07524).

Crop pixel x runs over 0..W-1 and covers the padded box from edge to edge, so
``image_x = x / (W - 1) * box_width + left``; rows likewise. The same two numbers per axis serve
the way in and the way back, and no half pixel is lost between them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import MissingDependencyError, TensorError
from prunus.runtime.tasks.pose.card import ImagePreprocess

Frame = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_WARP_LIMIT = 32_000  # OpenCV addresses the source of a warp with 16-bit integers
_SMALLEST_BOX = 1.0  # pixels; a thinner box has no content to scale up


def as_bgr8(image: npt.NDArray[Any]) -> Frame:
    """Return any usual picture as contiguous uint8 (height, width, 3) in BGR order.

    Args:
        image: (height, width) or (height, width, 1) grey, 3 channels BGR, or 4 channels BGRA (the
            alpha is dropped); uint8, uint16 over its full range, or float in 0..1.

    Raises:
        TensorError: another layout or dtype, no pixels, or values that are not finite.
    """
    image = np.asarray(image)
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.ndim not in (2, 3) or channels not in (1, 3, 4) or image.size == 0:
        raise TensorError(
            f"Got a picture of shape {list(image.shape)}; expected [height, width] or "
            "[height, width, 1, 3 or 4] with at least one pixel.",
            "Check what the source delivers.",
        )
    if image.ndim == 2:
        image = image[:, :, None]
    image = _as_uint8(image)
    image = np.repeat(image, 3, axis=2) if channels == 1 else image[:, :, :3]
    return np.ascontiguousarray(image)


def _as_uint8(image: npt.NDArray[Any]) -> Frame:
    if image.dtype == np.uint8:
        return image
    if image.dtype == np.uint16:
        return (image >> 8).astype(np.uint8)
    if image.dtype.kind == "f":
        if not np.isfinite(image).all():
            raise TensorError(
                "Got a picture with NaN or infinite values; expected finite ones in 0..1.",
                "Check what the source delivers.",
            )
        if image.min() < 0.0 or image.max() > 1.0:
            raise TensorError(
                f"The float picture spans {image.min():.3g}..{image.max():.3g}; expected 0..1.",
                "Divide by its white level, or convert it to uint8.",
            )
        return (image * 255.0 + 0.5).astype(np.uint8)
    raise TensorError(
        f"Got a picture of dtype {image.dtype}; expected uint8, uint16 or float.",
        "Convert it to uint8.",
    )


def check_frame(frame: npt.NDArray[Any]) -> None:
    """Refuse anything but uint8 (height, width, 3) with pixels; `as_bgr8` makes one.

    Raises:
        TensorError: another shape or dtype.
    """
    shape: tuple[int, ...] = getattr(frame, "shape", ())
    dtype = getattr(frame, "dtype", type(frame).__name__)
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise TensorError(
            f"Got a frame {dtype} {list(shape)}; expected uint8 [height, width, bgr=3].",
            "Convert it with prunus.runtime.tasks.pose.crop.as_bgr8.",
        )


def check_boxes(boxes: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return boxes as float64 (people, 4) of x0, y0, x1, y1; an empty list is (0, 4).

    Raises:
        TensorError: another shape, NaN or infinite numbers, or corners in the wrong order.
    """
    array = np.asarray(boxes, np.float64)
    if array.size == 0:
        return np.zeros((0, 4))
    if array.ndim != 2 or array.shape[1] != 4:
        raise TensorError(
            f"Got boxes of shape {list(array.shape)}; expected [people, x0 y0 x1 y1].",
            "Give one row of four numbers per person.",
        )
    if not np.isfinite(array).all():
        row = int(np.argmin(np.isfinite(array).all(1)))
        raise TensorError(
            f"Box {row} is {array[row].tolist()}; expected finite numbers.", "Check the detector."
        )
    if (array[:, 2:] < array[:, :2]).any():
        row = int(np.argmax((array[:, 2:] < array[:, :2]).any(1)))
        raise TensorError(
            f"Box {row} is {array[row].tolist()}; expected x0 <= x1 and y0 <= y1.",
            "Give corners, not width and height.",
        )
    return array


@dataclass(frozen=True, slots=True)
class CropGeometry:
    """Size of the crops and how far a person box grows.

    Attributes:
        height: Crop height in pixels.
        width: Crop width in pixels.
        padding: Factor by which a box grows.
        pad_value: Value outside the frame, 0..255.
        rgb: True when the crops are in RGB order.
    """

    height: int
    width: int
    padding: float = 1.25
    pad_value: int = 0
    rgb: bool = True

    @staticmethod
    def of(preprocess: ImagePreprocess) -> CropGeometry:
        """Read it from a model card."""
        p = preprocess
        return CropGeometry(p.height, p.width, p.box_padding, p.pad_value, p.colour == "rgb")

    def windows(self, boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Grow boxes to the aspect of the crop.

        Args:
            boxes: float64 (people, 4) of x0, y0, x1, y1 in image pixels.

        Returns:
            float64 (people, 4) of left, top, width, height in image pixels.
        """
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        size = np.maximum(boxes[:, 2:] - boxes[:, :2], _SMALLEST_BOX)
        aspect = self.width / self.height
        width = np.maximum(size[:, 0], size[:, 1] * aspect) * self.padding
        size = np.stack([width, width / aspect], axis=1)
        return np.concatenate([centre - size / 2, size], axis=1)

    def to_image(self, joints: Floats, windows: npt.NDArray[np.float64]) -> Floats:
        """Map joints from crop pixels to image pixels.

        Args:
            joints: float32 (people, joints, 3) of x, y in crop pixels and score.
            windows: float64 (people, 4), what `windows` returned.

        Returns:
            float32 (people, joints, 3) of x, y in image pixels and score.
        """
        scale = windows[:, None, 2:] / [self.width - 1, self.height - 1]
        mapped = joints.copy()
        mapped[..., :2] = joints[..., :2] * scale + windows[:, None, :2]
        return mapped

    def crop_into(self, frame: Frame, windows: npt.NDArray[np.float64], out: Frame) -> None:
        """Cut one crop per window into a buffer that the caller owns.

        Args:
            frame: uint8 (height, width, 3) BGR.
            windows: float64 (people, 4), what `windows` returned.
            out: uint8 (at least people, crop height, crop width, 3); written in place.

        Raises:
            MissingDependencyError: OpenCV is not installed.
        """
        cv2 = load_cv2()
        for window, target in zip(windows, out, strict=False):
            part, offset, step = _part(frame, window)
            if part.size == 0:
                target[:] = self.pad_value
                continue
            scale = np.array([self.width - 1, self.height - 1]) / window[2:]
            shift = (offset - window[:2]) * scale
            matrix = np.array([[scale[0] * step, 0, shift[0]], [0, scale[1] * step, shift[1]]])
            border = (self.pad_value,) * 3
            size, linear, fill = (self.width, self.height), cv2.INTER_LINEAR, cv2.BORDER_CONSTANT
            crop = cv2.warpAffine(
                part, matrix, size, flags=linear, borderMode=fill, borderValue=border
            )
            target[:] = crop[:, :, ::-1] if self.rgb else crop


def _part(
    frame: Frame, window: npt.NDArray[np.float64]
) -> tuple[Frame, npt.NDArray[np.float64], int]:
    """Return the part of the frame under a window, its corner, and its pixel step.

    The warp sees only what it needs: that keeps far coordinates out of its integers, and a frame
    larger than it can address still works.
    """
    height, width = frame.shape[:2]
    low = np.clip(np.floor(window[:2]) - 2, 0, [width, height]).astype(int)
    high = np.clip(np.ceil(window[:2] + window[2:]) + 3, 0, [width, height]).astype(int)
    part = frame[low[1] : high[1], low[0] : high[0]]
    step = max(1, -(-max(part.shape[:2]) // _WARP_LIMIT))
    return (part[::step, ::step] if step > 1 else part), low.astype(np.float64), step


def load_cv2() -> Any:
    """Return the cv2 module; raises MissingDependencyError without OpenCV."""
    try:
        import cv2
    except ImportError:
        raise MissingDependencyError("cv2", "apps", "Cutting people out of a frame") from None
    return cv2
