"""Make frozen dataclasses of parsed JSON, strictly: what does not fit is named."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import reprlib
import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from prunus.runtime.errors import ArtifactError, nearest
from prunus.runtime.limits import JSON_DEPTH, short_number

RE_EXPORT = "Export the model again: prunus export --help"
_T = TypeVar("_T")




@dataclass(frozen=True, slots=True)
class Range:
    """Bounds of a number, both included; written ``Annotated[int, Range(1, 8)]``."""

    low: float
    high: float


# What a card's numbers can be at all. Wide: they keep divisions, loops and memory in bounds.
Size = Annotated[int, Range(1, 1 << 16)]  # pixels along one side, or a stride
SizeOrNone = Annotated[int, Range(0, 1 << 16)]
Count = Annotated[int, Range(0, 1 << 31)]
Positive = Annotated[int, Range(1, 1 << 31)]
Operations = Annotated[int, Range(0, 1 << 62)]
SampleRate = Annotated[int, Range(1, 768_000)]  # Hz
FrameRate = Annotated[int, Range(1, 1000)]  # pictures per second
Byte = Annotated[int, Range(0, 255)]
Share = Annotated[float, Range(0, 1)]
Level = Annotated[float, Range(-1e6, 1e6)]
Deviation = Annotated[float, Range(1e-6, 1e6)]
Factor = Annotated[float, Range(0.01, 100)]
_ANY_INT = Range(-(1 << 63), (1 << 63) - 1)
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]', re.DOTALL)


def parse_json(text: str | bytes, subject: str) -> Any:
    """Parse JSON of any origin.

    Args:
        text: UTF-8.
        subject: What it is called in errors, e.g. ``The model card``.

    Raises:
        ArtifactError: it is not JSON, holds NaN or infinity, or is nested too deeply.
    """
    # Deep nesting is refused before it is parsed: parsers and messages call themselves per level.
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    depth = 0
    for found in _BRACKETS.finditer(data):
        first = found[0][:1]
        depth += (first in b"[{") - (first in b"]}")
        JSON_DEPTH.check(max(depth, 0), subject, ArtifactError)
    try:
        return json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{subject} is not JSON: {error}.", RE_EXPORT) from None


def _no_constant(name: str) -> None:
    raise ValueError(f"it holds {name}, which is not a number")


def build(cls: type[_T], raw: dict[str, Any], path: str) -> _T:
    """Return a dataclass made of parsed JSON.

    Lists become tuples, and whole numbers become floats where a float is wanted.

    Args:
        cls: Dataclass.
        raw: Key -> value.
        path: What it is called in errors, e.g. ``card.inputs[0]``.

    Raises:
        ArtifactError: an unknown or missing key, or a value of another type; it is named.
    """
    hints = _hints(typing.cast("Any", cls))
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in raw:
        if key not in names:
            raise ArtifactError(
                f"Unknown key '{key}' in {path}{nearest(key, names)}.",
                "The card may come from another version of prunus; " + RE_EXPORT.lower(),
            )
    values: dict[str, Any] = {}
    for f in dataclasses.fields(cls):  # type: ignore[arg-type]
        if f.name in raw:
            values[f.name] = _value(hints[f.name], raw[f.name], f"{path}.{f.name}")
        elif f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise ArtifactError(f"Key '{f.name}' is missing in {path}.", RE_EXPORT)
    return cls(**values)


@functools.cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _value(hint: Any, raw: Any, path: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        rule = args[1]
        own = not isinstance(rule, Range)  # the field has a reader of its own
        return rule(raw, path) if own else _within(rule, _value(args[0], raw, path), path)
    if origin is types.UnionType or origin is typing.Union:
        return _union(args, raw, path)
    if origin is Literal:
        if raw not in args:
            close = nearest(str(raw), [str(a) for a in args])
            got = reprlib.repr(raw)
            raise ArtifactError(f"{path} is {got}; expected one of {list(args)}{close}.")
        return raw
    if origin is tuple:
        return _tuple(args, raw, path)
    if dataclasses.is_dataclass(hint):
        if not isinstance(raw, dict):
            raise ArtifactError(f"{path} is a {type(raw).__name__}; expected an object.")
        return build(typing.cast("type[Any]", hint), raw, path)
    return _scalar(hint, raw, path)


def _scalar(hint: Any, raw: Any, path: str) -> Any:
    if not isinstance(raw, (int, float) if hint is float else hint) or (
        isinstance(raw, bool) and hint is not bool
    ):
        raise ArtifactError(f"{path} is {reprlib.repr(raw)}; expected {hint.__name__}.")
    if hint is int:
        return _within(_ANY_INT, raw, path)
    return _finite(raw, path) if hint is float else raw


def _finite(raw: float, path: str) -> float:
    try:
        value = float(raw)
    except OverflowError:  # a whole number of hundreds of digits
        value = math.inf
    if not math.isfinite(value):
        raise ArtifactError(f"{path} is beyond every float; expected a finite number.")
    return value


def _within(bounds: Range, value: Any, path: str) -> Any:
    if not bounds.low <= value <= bounds.high:
        shown = short_number(value) if isinstance(value, int) else f"{value:g}"
        raise ArtifactError(
            f"{path} is {shown}; expected {bounds.low:g} to {bounds.high:g}.", RE_EXPORT
        )
    return value


def _tuple(args: tuple[Any, ...], raw: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(raw, list):
        raise ArtifactError(f"{path} is {reprlib.repr(raw)}; expected a list.")
    if len(args) == 2 and args[1] is Ellipsis:
        args = (args[0],) * len(raw)
    if len(args) != len(raw):
        raise ArtifactError(f"{path} has {len(raw)} entries; expected {len(args)}.")
    pairs = enumerate(zip(args, raw, strict=True))
    return tuple(_value(a, v, f"{path}[{i}]") for i, (a, v) in pairs)


def _union(args: tuple[Any, ...], raw: Any, path: str) -> Any:
    """Read an optional value; processing parts are read before, by their kind."""
    if raw is None:
        return None
    return _value(next(a for a in args if a is not type(None)), raw, path)
