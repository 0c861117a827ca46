"""Run any network once and say what came out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.apps.common.model_files import find_model
from prunus.apps.generic.inputs import read_feed, with_words
from prunus.apps.generic.options import TensorsOptions
from prunus.apps.live.summary import Summary
from prunus.runtime.arrays import write_arrays
from prunus.runtime.tasks.metrics import non_finite

_SHOWN = 16  # values of an output that are told one by one, and best ones of longer rows
_BEST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorsSummary(Summary):
    """What a run gave.

    Attributes:
        backend: One line about the session.
        run_ms: Milliseconds of the one run; `prunus bench` measures.
        inputs: A line about what each input got.
        tensors: What is told of each output, by name: see `describe`.
    """

    backend: str
    run_ms: float
    inputs: tuple[str, ...]
    tensors: dict[str, dict[str, Any]]

    def lines(self) -> list[str]:
        """Return inputs, outputs and files."""
        lines = [f"{self.model}  {self.backend}", *(f"  in   {line}" for line in self.inputs)]
        for name, told in self.tensors.items():
            lines.append(f"  out  {name} {told['dtype']} {told['shape']}")
            lines += [f"       {k} {v}" for k, v in told.items() if k not in ("dtype", "shape")]
        return lines + [f"wrote {name}" for name in self.outputs]


def run_tensors(options: TensorsOptions, *, quiet: bool = False) -> TensorsSummary:
    """Run a model once.

    Raises:
        PrunusError: the model cannot be opened, or an input is missing or does not fit.
    """
    from prunus.runtime.card.artifact import atomic_path
    from prunus.runtime.session.base import open as open_session

    path = find_model(options.model, options.shape)
    with open_session(path, **options.compute.keywords()) as session:
        card = with_words(session.card, options.before)
        feed, notes = read_feed(card, options.input, noise=options.noise, rate=options.rate)
        outputs = session.run(feed)
        run_ms, backend = session.run_ms, session.description
    if options.output is not None:
        with atomic_path(options.output) as temporary:
            write_arrays(temporary, outputs)
    return TensorsSummary(
        model=card.name,
        backend=backend,
        run_ms=round(run_ms, 3),
        inputs=notes,
        tensors={name: describe(array) for name, array in outputs.items()},
        outputs=() if options.output is None else (str(options.output),),
        warnings=non_finite(outputs, card.name),
    )


def describe(array: npt.NDArray[Any]) -> dict[str, Any]:
    """Return what is told of an output: type, shape, range, and values or the largest of a row.

    Args:
        array: Any shape; NaN and infinity are left out of range and mean.
    """
    told: dict[str, Any] = {"dtype": str(array.dtype), "shape": list(array.shape)}
    numbers = array.astype(np.float64) if array.dtype.kind != "f" else array
    finite = numbers[np.isfinite(numbers)].astype(np.float64)
    if finite.size:
        told |= {
            "minimum": float(finite.min()), "maximum": float(finite.max()),
            "mean": float(finite.mean()),
        }  # fmt: skip
    if array.size <= _SHOWN:
        told["values"] = [_plain(v) for v in array.reshape(-1)]
    elif array.ndim == 2 and len(array) <= _SHOWN and array.dtype.kind == "f":
        order = np.argsort(-np.nan_to_num(array, nan=-np.inf), axis=1, kind="stable")[:, :_BEST]
        told["largest"] = [
            [[int(k), _plain(row[k])] for k in best] for row, best in zip(array, order, strict=True)
        ]
    return told


def _plain(value: Any) -> Any:
    """Return a number as JSON has it: NaN and infinity become None."""
    number = value.item()
    return number if not isinstance(number, float) or np.isfinite(number) else None
