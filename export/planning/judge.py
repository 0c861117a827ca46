"""How good outputs are: a task's own score, or their likeness to the dense ones.

Fidelity is not accuracy: on a trained DINOv2 it ranked plans backwards. It is for networks of which
nothing else is known, and every result says which of the two it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from prunus.export.common.samples import Array, Samples
from prunus.export.foreign.samples import load_samples
from prunus.models.user_network import find_function
from prunus.runtime.arrays import read_arrays
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import TensorError, UsageError
from prunus.runtime.tasks.generic.metric import cosines

Outputs = Mapping[str, Array]
Score = Callable[[dict[str, Array], dict[str, Array]], float]
DRAWS = 100


@dataclass(frozen=True, slots=True)
class Labelled:
    """Inputs, and what a score compares with.

    Attributes:
        samples: The inputs.
        references: The other arrays of their file, (n, ...) each.
        noise: They are noise, for want of real ones.
    """

    samples: Samples
    references: Mapping[str, Array]
    noise: bool = False


def load_labelled(card: ModelCard, source: Path | None, limit: int) -> Labelled:
    """Read inputs and references from one .npz; noise where there is none.

    Args:
        card: Its inputs.
        source: An array (n, ...) for each input, and any others; None: noise.
        limit: At most this many samples, spread evenly.

    Raises:
        SourceError: a file that is missing or damaged.
        TensorError: arrays that are not inputs of the network, or not equally many of each.
    """
    if source is None:
        return Labelled(load_samples(card, None), {}, noise=True)
    arrays = read_arrays(source)
    if not arrays:
        raise TensorError(
            f"{source.name} holds nothing; expected arrays with samples along the first axis."
        )
    names = {spec.name for spec in card.inputs}
    chosen = Samples(arrays, source.name).first(limit).arrays
    samples = Samples({n: a for n, a in chosen.items() if n in names} or chosen, source.name)
    samples.require(card.inputs)
    return Labelled(samples, {n: a for n, a in chosen.items() if n not in names})


def find_score(reference: str | None) -> Score | None:
    """Return the function that ``module:function`` names, None for none; raises UsageError."""
    score = find_function(reference) if reference else None
    if score is not None and not callable(score):
        raise UsageError(f"{reference} is a {type(score).__name__}; expected a function.")
    return score


@dataclass(frozen=True, slots=True)
class Judge:
    """Judges outputs of all samples.

    Attributes:
        labelled: The samples.
        dense: What the dense network gives for them in PyTorch.
        score: The task's function; None: fidelity.
        name: Where the function comes from.
    """

    labelled: Labelled
    dense: Outputs
    score: Score | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if self.score is not None and not self.labelled.references:
            raise UsageError(
                f"--score {self.name} has nothing to compare with.",
                "Give --calibration FILE.npz with the inputs and, beside them, e.g. 'labels'.",
            )

    @property
    def kind(self) -> Literal["accuracy", "fidelity"]:
        """What is measured."""
        return "fidelity" if self.score is None else "accuracy"

    def describe(self) -> str:
        """Return a sentence that says what the numbers are, and on what."""
        on = f"{len(self.labelled.samples)} samples of {self.labelled.samples.source}"
        if self.score is not None:
            return f"accuracy: {self.name} on {on}"
        return f"fidelity, not accuracy: mean cosine to the dense outputs in PyTorch, on {on}"

    def __call__(self, outputs: Outputs) -> tuple[float | None, tuple[float, ...]]:
        """Return the accuracy, and the same on resampled samples.

        Args:
            outputs: By name, (n, ...) for all samples.

        Returns:
            None where no output has the shape of the dense one; no draws where the function fails
            on some resampled set (a class may be missing from it).

        Raises:
            UsageError: the function fails, or does not give a finite number.
        """
        count = len(self.labelled.samples)
        draws = np.random.default_rng(0).integers(0, count, (DRAWS, count))
        if self.score is None:
            likeness = self._likeness(outputs)
            if likeness is None:
                return None, ()
            return float(likeness.mean()), tuple(likeness[draws].mean(1).tolist())
        whole = self._scored(outputs, np.arange(count))
        try:
            return whole, tuple(self._scored(outputs, chosen) for chosen in draws)
        except UsageError:
            return whole, ()

    def _likeness(self, outputs: Outputs) -> Array | None:
        """Return (n,): cosine to dense, mean over the outputs of the same shape."""
        alike = [
            cosines(expected, outputs[name])
            for name, expected in self.dense.items()
            if expected.dtype.kind == "f" and outputs[name].shape == expected.shape
        ]
        return np.mean(alike, axis=0) if alike else None

    def _scored(self, outputs: Outputs, chosen: Array) -> float:
        assert self.score is not None
        given = {name: array[chosen] for name, array in outputs.items()}
        wanted = {name: array[chosen] for name, array in self.labelled.references.items()}
        try:
            value: Any = self.score(given, wanted)
            number = float(value)
        except Exception as error:  # the function is the user's: anything may happen in it
            reason = (str(error).splitlines() or [""])[0]
            raise UsageError(
                f"{self.name} fails: {type(error).__name__}: {reason[:200].rstrip('.')}.",
                f"It gets the outputs {sorted(given)} and the references {sorted(wanted)}, arrays "
                "(n, ...) by name, and returns a number; higher is better.",
            ) from error
        if not math.isfinite(number):
            raise UsageError(f"{self.name} gives {number}; expected a finite number.")
        return number
