"""From pictures to the array that a network takes: normalised or not, channels last or first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError

Pictures = npt.NDArray[np.uint8]
_CHANNELS = 3


class Scale(Protocol):
    """What a card says about the values of pixels, both on the scale 0..255."""

    @property
    def mean(self) -> tuple[float, float, float]:
        """Per channel mean."""

    @property
    def std(self) -> tuple[float, float, float]:
        """Per channel standard deviation."""


def takes_pictures(spec: TensorSpec) -> bool:
    """Tell whether an input has the shape of colour pictures, (n, h, w, 3) or (n, 3, h, w)."""
    return len(spec.shape) == 4 and _CHANNELS in (spec.shape[1], spec.shape[3])


def picture_spec(inputs: Sequence[TensorSpec], name: str) -> TensorSpec:
    """Return the one input that takes pictures.

    Args:
        inputs: Of the card.
        name: Of the model, for messages.

    Raises:
        ArtifactError: none has that shape, or several have.
    """
    found = [spec for spec in inputs if takes_pictures(spec)]
    if len(found) != 1:
        told = ", ".join(spec.describe() for spec in inputs)
        raise ArtifactError(
            f"{name} has {len(found) or 'no'} inputs of the shape of pictures; expected one, "
            f"[n, 3, height, width] or [n, height, width, 3]: {told}.",
            "Feed arrays (.npy) instead of pictures.",
        )
    return found[0]


def channels_first(spec: TensorSpec) -> bool:
    """Tell whether the channels of a picture stand before its rows.

    >>> channels_first(TensorSpec("x", "float32", (1, 3, 8, 6), ("n", "c", "h", "w")))
    True
    """
    return spec.shape[3] != _CHANNELS


def picture_size(spec: TensorSpec) -> tuple[int, int]:
    """Return height and width of the pictures that an input takes."""
    return spec.shape[2:4] if channels_first(spec) else spec.shape[1:3]  # type: ignore[return-value]


def to_tensor(pictures: Pictures, spec: TensorSpec, scale: Scale) -> npt.NDArray[Any]:
    """Return pictures as an input takes them.

    Args:
        pictures: uint8 (n, height, width, 3), the colours in the card's order.
        spec: The input. One of bytes gets the pixels as they are; one of floats gets
            ``(x - mean) / std``, computed in float32.
        scale: Mean and standard deviation.

    Returns:
        The input's dtype; (n, height, width, 3), or (n, 3, height, width) where its channels stand
        first.
    """
    values: npt.NDArray[Any] = pictures
    if spec.dtype != "uint8":
        mean, std = (np.array(c, np.float32) for c in (scale.mean, scale.std))
        values = (pictures.astype(np.float32) - mean) / std
    if channels_first(spec):
        values = values.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(values, dtype=spec.dtype)
