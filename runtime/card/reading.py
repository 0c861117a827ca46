"""Make frozen dataclasses of parsed JSON, strictly: what does not fit is named."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, Literal, TypeVar

from prunus.runtime.errors import ArtifactError, nearest

RE_EXPORT = "Export the model again: prunus export --help"
_T = TypeVar("_T")


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
    hints = typing.get_type_hints(cls)
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


def _value(hint: Any, raw: Any, path: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType or origin is typing.Union:
        return _union(args, raw, path)
    if origin is Literal:
        if raw not in args:
            close = nearest(str(raw), [str(a) for a in args])
            raise ArtifactError(f"{path} is {raw!r}; expected one of {list(args)}{close}.")
        return raw
    if origin is tuple:
        return _tuple(args, raw, path)
    if dataclasses.is_dataclass(hint):
        if not isinstance(raw, dict):
            raise ArtifactError(f"{path} is a {type(raw).__name__}; expected an object.")
        return build(typing.cast("type[Any]", hint), raw, path)
    if hint is float and isinstance(raw, int) and not isinstance(raw, bool):
        return float(raw)
    if not isinstance(raw, hint) or (isinstance(raw, bool) and hint is not bool):
        raise ArtifactError(f"{path} is {raw!r}; expected {hint.__name__}.")
    return raw


def _tuple(args: tuple[Any, ...], raw: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(raw, list):
        raise ArtifactError(f"{path} is {raw!r}; expected a list.")
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
