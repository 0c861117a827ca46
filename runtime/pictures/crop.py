"""Cut people out of a frame and map joints back: the unbiased affine of UDP (arXiv 1911.07524).

Crop pixel x runs over 0..W-1 and covers the padded box from edge to edge, so
``image_x = x / (W - 1) * box_width + left``; rows likewise. The same two numbers per axis serve
the way in and the way back, and no half pixel is lost between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import TensorError
from prunus.runtime.pictures.opencv import in_colours, load_cv2
from prunus.runtime.tasks.pose.card import ImagePreprocess

Frame = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_WARP_LIMIT = 32_000  # OpenCV addresses the source of a warp with 16-bit integers
_POINTWISE = 2.0  # frame pixels per crop pixel from which a bilinear filter misses some
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
            "Convert it with prunus.runtime.pictures.crop.as_bgr8.",
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
        for window, target in zip(windows, out, strict=False):
            scale = window[2:] / [self.width - 1, self.height - 1]
            to_frame = np.array([[scale[0], 0, window[0]], [0, scale[1], window[1]]])
            crop = warp(frame, to_frame, (self.height, self.width), self.pad_value)
            target[:] = in_colours(crop, self.rgb)


def warp(
    frame: Frame, to_frame: npt.NDArray[np.float64], size: tuple[int, int], fill: int = 0
) -> Frame:
    """Cut an affine window out of a frame: bilinear, after averaging areas where it shrinks much.

    From a shrinking by 2 on, the bilinear filter passes over pixels, so that the frame is first
    brought to the crop's scale by averaging. Below, the filter alone gives the published numbers.

    Args:
        frame: uint8 (height, width, 3).
        to_frame: float64 (2, 3) from crop pixels x, y to frame pixels.
        size: Height and width of the crop.
        fill: Value outside the frame, 0..255.

    Returns:
        uint8 (height, width, 3) in the frame's colours.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """
    cv2 = load_cv2()
    part, to_part = _part(frame, to_frame, size)
    if part.size == 0:
        return np.full((*size, 3), fill, np.uint8)
    crop: Frame = cv2.warpAffine(
        part,
        to_part,
        (size[1], size[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(fill,) * 3,
    )
    return crop


def _part(
    frame: Frame, to_frame: npt.NDArray[np.float64], size: tuple[int, int]
) -> tuple[Frame, npt.NDArray[np.float64]]:
    """Return the part of the frame under a window, at about its scale, and the matrix to it.

    The warp sees only what it needs: that keeps far coordinates out of its integers, and a frame
    larger than it can address still works.
    """
    rows, columns = size[0] - 1, size[1] - 1
    corners = to_frame @ np.array([[0, columns, 0, columns], [0, 0, rows, rows], [1, 1, 1, 1]])
    extent = np.array([frame.shape[1], frame.shape[0]])
    shrinking = float(np.linalg.norm(to_frame[:, :2], axis=0).min())
    needed = np.minimum(np.ptp(corners, axis=1), extent).max() / _WARP_LIMIT
    shrinking = max(shrinking if shrinking >= _POINTWISE else 1.0, needed)
    margin = 2 * math.ceil(shrinking)
    low = np.clip(np.floor(corners.min(1)) - margin, 0, extent).astype(int)
    high = np.clip(np.ceil(corners.max(1)) + margin + 1, 0, extent).astype(int)
    part = frame[low[1] : high[1], low[0] : high[0]]
    to_part = to_frame - np.array([[0, 0, low[0]], [0, 0, low[1]]])
    if shrinking > 1 and part.size:
        smaller = np.ceil((high - low) / shrinking).astype(int)
        part = resample(part, (int(smaller[1]), int(smaller[0])))
        share = (smaller / (high - low))[:, None]
        to_part *= share
        to_part[:, 2:] += (share - 1) / 2  # pixels count from their centres
    return part, to_part


def resample(image: npt.NDArray[Any], size: tuple[int, int]) -> npt.NDArray[Any]:
    """Resize a picture or a map: areas are averaged along a side that shrinks, else bilinear.

    Args:
        image: (h, w) or (h, w, c), uint8 or float32.
        size: New height and width.
    """
    cv2 = load_cv2()
    smaller = min(size[0], image.shape[0]), min(size[1], image.shape[1])
    for step, method in ((smaller, cv2.INTER_AREA), (size, cv2.INTER_LINEAR)):
        if image.shape[:2] != step:
            image = cv2.resize(image, (step[1], step[0]), interpolation=method)
    return image
