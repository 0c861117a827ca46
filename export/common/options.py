"""Options that several models' exports have, and how Python callers give them by name.

Nothing here loads torch or onnx: the command line reads these dataclasses before it exports.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from prunus.runtime.card.precision import Precision
from prunus.runtime.errors import UsageError, nearest
from prunus.runtime.options import build, check, option, parameters
from prunus.runtime.progress import Progress, Silent

R = TypeVar("R")
# Of options that every model has and words its own way. Python callers may give `Samples`, too.
CALIBRATION: dict[str, Any] = {"default": None, "metavar": "PATH"}
OUTPUT: dict[str, Any] = {"default": None, "metavar": "PATH", "flags": ("--output", "-o")}


@dataclass(frozen=True, slots=True)
class WeightOptions:
    """Which numbers go into the network."""

    checkpoint: str | None = option(
        "Weights file, or random; default: the shipped ones that fit, else UNTRAINED random ones.",
        default=None,
        metavar="FILE",
    )
    seed: int = option("Seed of random weights.", default=0, minimum=0)


@dataclass(frozen=True, slots=True)
class PrecisionOptions:
    """Number format of the layers."""

    precision: Precision = option("Number format of the layers.", default="fp32")
    activations: Literal["int8", "uint8"] = option(
        "Integer type of int8 activations; uint8 is for CPUs only.", default="int8"
    )
    bf16: bool = option(
        "Measure OpenVINO's bfloat16 on this CPU; allow it on the card.", default=False
    )


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """How many tokens survive; give one of them at most."""

    level: str | None = option(
        "Pruning level L0 (dense, the default) to L3.", default=None, metavar="LEVEL"
    )
    keep: str | None = option(
        "Share of the tokens that survives each of three cuts, 0..1; or a plan as for --plan.",
        default=None,
        metavar="SHARE",
    )
    plan: str | None = option(
        "Tokens kept at blocks: tokens@blocks, e.g. 135/95/71@3/6/9; EViTPose also takes methods: "
        "tome:96@4.", default=None, metavar="PLAN",
    )

    @property
    def share_and_plan(self) -> tuple[float | None, str | None]:
        """Share and plan, after a plan that was given as --keep; raises UsageError."""
        if self.keep is None:
            return None, self.plan
        if "@" in str(self.keep) and self.plan is None:
            return None, self.keep
        try:
            return float(self.keep), self.plan
        except ValueError:
            raise UsageError(
                f"Got --keep {self.keep}; expected a share or a plan.",
                "Examples: --keep 0.5   --plan 135/95/71@3/6/9",
            ) from None


def batch(what: str) -> Any:
    """Return the field of the batch size, which the graph fixes."""
    return option(f"{what} per run of the graph.", default=1, metavar="N")


def npu() -> Any:
    """Return the field of a graph for NPUs."""
    return option(
        "Make a graph for NPUs, in which nothing is chosen by the data: with a TopK or a Gather by "
        "computed indices the export is refused.",
        default=False,
    )


def small() -> Any:
    """Return the field of compact storage."""
    return option("Store constants of a float32 file compactly; no number changes.", default=False)


def parse_size(text: str) -> tuple[int, int]:
    """Return height and width of ``512x1024``, or of ``512`` for a square.

    Raises:
        UsageError: another form.
    """
    first, _, second = text.lower().partition("x")
    second = second or first
    if not (first.isdigit() and second.isdigit() and int(first) and int(second)):
        raise UsageError(f"Got --size {text}; expected HEIGHTxWIDTH.", "Example: --size 512x512")
    return int(first), int(second)


def require_fp32(small: bool, precision: Precision) -> None:
    """Refuse compact storage in another number format; raises UsageError."""
    if small and precision != "fp32":
        raise UsageError(f"Got small files in {precision}; expected fp32.", "Leave out one.")


def takes(options: type[Any]) -> Callable[[Callable[[Any, Progress], R]], Callable[..., R]]:
    """Let a function of (options, progress) be called with the options by name, too.

    ``export(Options(variant="tiny"))`` and ``export("tiny", output=path)`` are then the same:
    groups are flattened, words without a name are options in their order, and a value out of bounds
    is a `UsageError`.
    """

    def wrap(function: Callable[[Any, Progress], R]) -> Callable[..., R]:
        @functools.wraps(function)
        def call(*words: Any, progress: Progress | None = None, **values: Any) -> R:
            whole = bool(words) and isinstance(words[0], options)
            given = check(words[0]) if whole else _named(options, words, values)
            return function(given, progress or Silent())

        return call

    return wrap


def _named(options: type[Any], words: tuple[Any, ...], values: dict[str, Any]) -> Any:
    names = [p.name for p in parameters(options)]
    if len(words) > len(names):
        raise TypeError(f"Got {len(words)} options; {options.__name__} has {len(names)}.")
    values = dict(zip(names, words, strict=False)) | values
    for name in values:
        if name not in names:
            raise TypeError(f"No option '{name}' of {options.__name__}{nearest(name, names)}.")
    return build(options, values)
