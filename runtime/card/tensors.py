"""What a card says about the tensors of a graph, and about the states of a step graph."""

from __future__ import annotations

import math
from dataclasses import dataclass

from prunus.runtime.card.reading import Count, Positive
from prunus.runtime.errors import ArtifactError, nearest
from prunus.runtime.limits import TENSOR_VALUES

DTYPES = (
    "float32", "float16", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32",
    "uint64", "int64", "bool",
)  # fmt: skip


def _check_tensor(name: str, dtype: str, shape: tuple[int, ...]) -> None:
    if dtype not in DTYPES:
        raise ArtifactError(
            f"Tensor '{name}' has the dtype '{dtype}'; "
            f"expected one of {list(DTYPES)}{nearest(dtype, list(DTYPES))}."
        )
    if any(n < 1 for n in shape):
        raise ArtifactError(
            f"Tensor '{name}' has the shape {list(shape)}; expected positive sizes."
        )
    TENSOR_VALUES.check(math.prod(shape), f"Tensor '{name}'", ArtifactError)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of the graph; every dimension is a constant.

    Attributes:
        name: Name in the graph.
        dtype: numpy dtype name, e.g. ``float32`` or ``uint8``.
        shape: Static shape.
        axes: One name per dimension, e.g. ``("batch", "height", "width", "rgb")``.
        unit: Unit of the values, e.g. ``pixel``, ``logit``, ``1`` for none.
        minimum: Smallest meaningful value, None when unbounded.
        maximum: Largest meaningful value, None when unbounded.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    unit: str = "1"
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.shape) or any(n < 1 for n in self.shape):
            raise ArtifactError(
                f"Tensor '{self.name}' has the shape {list(self.shape)} and the axes "
                f"{list(self.axes)}; expected positive sizes with one name each."
            )
        _check_tensor(self.name, self.dtype, self.shape)
        low, high = self.minimum, self.maximum
        if low is not None and high is not None and low > high:
            raise ArtifactError(
                f"Tensor '{self.name}' ranges from {low:g} to {high:g}; expected the smaller first."
            )

    def describe(self) -> str:
        """Return e.g. ``image uint8 [batch=1, height=256, width=192, rgb=3]``."""
        dims = ", ".join(f"{a}={n}" for a, n in zip(self.axes, self.shape, strict=True))
        return f"{self.name} {self.dtype} [{dims}]"


@dataclass(frozen=True, slots=True)
class StateSpec:
    """A state tensor of a step graph: it goes in as `name` and comes out as `name + "_next"`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    zero: float = 0.0

    def __post_init__(self) -> None:
        _check_tensor(self.name, self.dtype, self.shape)


@dataclass(frozen=True, slots=True)
class Streaming:
    """Contract of a step graph: hop and delay in samples of the input."""

    states: tuple[StateSpec, ...]
    hop: Positive
    algorithmic_delay: Count
