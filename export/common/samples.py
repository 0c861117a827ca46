"""Real inputs of a network: for calibrating int8, for judging an export, for `check`.

One array per graph input, samples stacked along axis 0. Their hash and count go on the card of a
quantised model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import TensorError

Array = npt.NDArray[Any]
LEAST = 2  # samples of either half: one alone shows no spread


@dataclass(frozen=True, slots=True)
class Samples:
    """Inputs and where they come from.

    Attributes:
        arrays: Input name -> (n, ...) single samples; axis 0 is the batch axis of the graph.
        source: A few words for the card and for messages, e.g. ``bundled clip and portrait``.
        noun: What one sample is, in the plural, e.g. ``crops``.
    """

    arrays: Mapping[str, Array]
    source: str
    noun: str = "samples"

    def __post_init__(self) -> None:
        counts = {n: len(v) if v.ndim else "no axis of" for n, v in self.arrays.items()}
        if len(set(counts.values())) != 1 or not all(v.ndim for v in self.arrays.values()):
            raise TensorError(
                f"The inputs hold {counts or 'no'} {self.noun}; expected equally many of each.",
                "Give one array per input, samples along the first axis.",
            )

    def __len__(self) -> int:
        """Return how many samples there are."""
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, name: str) -> Array:
        """Return the samples of one input."""
        return self.arrays[name]

    @property
    def sha256(self) -> str:
        """Hash of shapes and values, by input name."""
        digest = hashlib.sha256()
        for name in sorted(self.arrays):
            if len(self.arrays) > 1:
                digest.update(name.encode())
            digest.update(repr(self.arrays[name].shape).encode())
            digest.update(np.ascontiguousarray(self.arrays[name]).tobytes())
        return digest.hexdigest()

    def first(self, count: int) -> Samples:
        """Return at most `count` samples, spread evenly over the set."""
        if count >= len(self):
            return self
        chosen = np.linspace(0, len(self) - 1, count).round().astype(int)
        return Samples({n: a[chosen] for n, a in self.arrays.items()}, self.source, self.noun)

    def halves(self) -> tuple[Samples, Samples]:
        """Return the samples that calibrate, and the others, which judge: every second one.

        Neighbours in a clip are alike, so both halves see all of it, and no sample is in both.

        Raises:
            TensorError: fewer than twice `LEAST`.
        """
        if len(self) < 2 * LEAST:
            raise TensorError(
                f"Got {len(self)} {self.noun} ({self.source}); int8 needs at least {2 * LEAST}: "
                "half of them calibrate, and the others judge.",
                "Give more with --calibration, or leave the option out for the bundled ones.",
            )
        calibrate, others = (
            Samples({n: a[k::2] for n, a in self.arrays.items()}, self.source, self.noun)
            for k in (0, 1)
        )
        return calibrate, others

    def require(self, specs: Sequence[TensorSpec]) -> None:
        """Refuse samples that are not inputs of this graph.

        Raises:
            TensorError: a name, shape or type differs, or there are none.
        """
        if not len(self):
            raise TensorError(
                f"Got 0 {self.noun} ({self.source}); expected at least one.",
                "Give real inputs, or leave the option out for the bundled ones.",
            )
        wanted = sorted(spec.name for spec in specs)
        if sorted(self.arrays) != wanted:
            raise TensorError(
                f"Got {self.noun} with the inputs {sorted(self.arrays)}; expected {wanted}."
            )
        for spec in specs:
            values = self.arrays[spec.name]
            if values.shape[1:] != spec.shape[1:] or values.dtype != np.dtype(spec.dtype):
                raise TensorError(
                    f"Got {self.noun} {values.dtype} {list(values.shape)} ({self.source}); "
                    f"expected n of {spec.describe()}.",
                    "Prepare them as the card's preprocessing says.",
                )


def full_batches(arrays: Mapping[str, Array], batch: int) -> list[dict[str, Array]]:
    """Split arrays along axis 0 into full batches; the last one is filled up by repeating."""
    count = len(next(iter(arrays.values())))
    total = -(-count // batch) * batch
    filled = {
        name: np.ascontiguousarray(np.resize(values, (total, *values.shape[1:])))
        for name, values in arrays.items()
    }
    return [
        {name: values[start : start + batch] for name, values in filled.items()}
        for start in range(0, total, batch)
    ]
