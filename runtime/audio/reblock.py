"""Pieces of any length in, pieces of a wanted length out: where every stream keeps what waits.

`Held` is one array along time; its places are absolute, so that nobody counts what was forgotten.
`Reblocker` keeps several in step, in frames: sound has a hop of samples in each, codes one item in
one or several.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import TensorError

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Lane:
    """One array along time.

    Attributes:
        items: Items per `frames` frames along the last axis: the hop for sound, 1 for codes.
        frames: Frames per `items`: 1 for sound, the stride for codes.
    """

    items: int
    frames: int = 1

    def count(self, frames: int) -> int:
        """Return how many items so many frames have; `frames` is a multiple of the stride."""
        return frames * self.items // self.frames


class Held:
    """An array that grows at its end and is forgotten from its beginning.

    Args:
        shape: Of the axes before time.
        dtype: Of the items.
        start: Place of the first item that will come.

    Attributes:
        start: Place of the first item that is held.
        items: What is held, (*shape, n).

    Example:
        >>> held = Held()
        >>> held.push(np.arange(5.0))
        >>> held.cut(2), held.take(1, 4), held.end
        (array([0., 1.]), array([0., 2., 3.]), 5)
    """

    def __init__(
        self, shape: Sequence[int] = (), dtype: npt.DTypeLike = np.float32, start: int = 0
    ) -> None:
        self.items: Array = np.zeros((*shape, 0), dtype)
        self.start = start

    def __len__(self) -> int:
        return int(self.items.shape[-1])

    @property
    def end(self) -> int:
        """Place behind the last item."""
        return self.start + len(self)

    def push(self, piece: Array) -> None:
        """Append (*shape, n) items."""
        self.items = np.concatenate((self.items, piece), axis=-1)

    def take(self, begin: int, end: int) -> Array:
        """Return (*shape, end - begin): the items of these places, zeros where none is held."""
        first, last = (min(max(p - self.start, 0), len(self)) for p in (begin, end))
        out = np.zeros((*self.items.shape[:-1], end - begin), self.items.dtype)
        at = self.start + first - begin
        if last > first:
            out[..., at : at + last - first] = self.items[..., first:last]
        return out

    def cut(self, count: int) -> Array:
        """Return and forget the first `count` items, or as many as there are."""
        out, self.items = self.items[..., :count], self.items[..., count:]
        self.start += out.shape[-1]
        return out

    def forget(self, place: int) -> None:
        """Forget what lies before a place."""
        gone = place - self.start
        if gone > 0:
            self.cut(gone)
            self.items = self.items.copy()  # what is kept holds no more memory than it needs


class Reblocker:
    """Arrays in step: pieces of each come in, frames of all of them go out.

    Args:
        lanes: Of each array, by name.
        shapes: Shape, whose last axis is time and does not matter, and type of each.

    Attributes:
        start: Absolute frame of the first items that are held.
    """

    def __init__(self, lanes: Mapping[str, Lane], shapes: Mapping[str, tuple[Any, ...]]) -> None:
        self._lanes = {
            n: (lane, Held(shape[:-1], dtype))
            for n, lane in lanes.items()
            for shape, dtype in [shapes[n]]
        }
        self.start = 0

    def push(self, pieces: Mapping[str, Array]) -> None:
        """Append a piece of every array.

        Raises:
            TensorError: other arrays than those of the lanes.
        """
        if set(pieces) != set(self._lanes):
            raise TensorError(f"Got {sorted(pieces)}; expected {sorted(self._lanes)}.")
        for name, (_, held) in self._lanes.items():
            held.push(pieces[name])

    @property
    def end(self) -> int:
        """Absolute frame up to which every array is complete."""
        return self.start + min(
            len(held) // lane.items * lane.frames for lane, held in self._lanes.values()
        )

    @property
    def begun(self) -> int:
        """Absolute frame up to which there is at least a part of something."""
        return self.start + max(
            -(-len(held) // lane.items) * lane.frames for lane, held in self._lanes.values()
        )

    def complete(self, stride: int) -> int:
        """Fill the started frame, of so many together, with zeros; return where it ends."""
        whole = -(-self.begun // stride) * stride - self.start
        for lane, held in self._lanes.values():
            held.push(held.take(held.end, max(held.end, held.start + lane.count(whole))))
        return self.start + whole

    def take(self, begin: int, frames: int) -> dict[str, Array]:
        """Return frames from the absolute frame `begin` on, zeros behind the end."""
        first = begin - self.start
        return {
            name: held.take(
                held.start + lane.count(first), held.start + lane.count(first + frames)
            )
            for name, (lane, held) in self._lanes.items()
        }

    def forget(self, frame: int) -> None:
        """Forget what lies before an absolute frame."""
        gone = max(0, frame - self.start)
        for lane, held in self._lanes.values():
            held.forget(held.start + lane.count(gone))
        self.start += gone

    def cut(self, frames: int) -> dict[str, Array]:
        """Return and forget the first frames."""
        out = self.take(self.start, frames)
        self.forget(self.start + frames)
        return out
