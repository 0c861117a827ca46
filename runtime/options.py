"""Options of a command, declared once.

A frozen dataclass is the Python signature; `option` and `argument` add what its fields cannot say:
help with the unit, choices, bounds, flags. `runtime/command.py` makes the command line from it,
`table` the rows of a documentation page. A field that holds another dataclass of options, made with
`group`, is flattened on the command line, so that a set of options which several verbs share is
spelled in one place.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import types
import typing
from collections.abc import Iterator
from dataclasses import MISSING, dataclass
from typing import Any, Literal

from prunus.runtime.errors import UsageError, nearest

_KEY = "option"


@dataclass(frozen=True, slots=True)
class Option:
    """What a command line needs to know about a field beyond its name, type and default.

    Attributes:
        help: One sentence, with the unit.
        flags: Flags instead of ``--name`` (``--no-name`` for a switch that is on by default).
        metavar: What stands for the value in the help.
        choices: The only values.
        minimum: Smallest value of a number.
        maximum: Largest value of a number.
        formerly: Flags of earlier versions, which still work and say their new name.
        positional: A word without a flag.
    """

    help: str
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    formerly: tuple[str, ...] = ()
    positional: bool = False


def quantity(text: str, *units: str) -> tuple[float, str] | None:
    """Return number and unit of a text, None where it is not a number with one of the units.

    >>> quantity("12 ms", "ms", "s"), quantity("12", "ms")
    ((12.0, 'ms'), None)
    """
    found = re.fullmatch(rf"\s*(\d+(?:\.\d*)?|\.\d+)\s*({'|'.join(units)})\s*", text)
    return None if found is None else (float(found[1]), found[2])


def option(help: str, *, default: Any = MISSING, **details: Any) -> Any:
    """Return a dataclass field that is an option; `details` are the fields of `Option`."""
    return dataclasses.field(default=default, metadata={_KEY: Option(help, **details)})


def argument(help: str, *, default: Any = MISSING, **details: Any) -> Any:
    """Return a dataclass field that is a word without a flag."""
    return option(help, default=default, positional=True, **details)


def group(options: type[Any]) -> Any:
    """Return a dataclass field that holds a set of options shared by several commands."""
    return dataclasses.field(default_factory=options, metadata={_KEY: None})


@dataclass(frozen=True, slots=True)
class Parameter:
    """One option of a command, flattened.

    Attributes:
        name: Its name in Python, unique in the command.
        path: Names of the fields that lead to it.
        type: Type of one value: str, int, float, bool or Path.
        many: A tuple of them.
        optional: None is allowed.
        default: Default value, MISSING where there is none.
        option: The rest.
    """

    name: str
    path: tuple[str, ...]
    type: type[Any]
    many: bool
    optional: bool
    default: Any
    option: Option

    @property
    def flags(self) -> tuple[str, ...]:
        """Flags, the long one first; empty for a word without a flag."""
        if self.option.positional or self.option.flags:
            return self.option.flags
        word = self.name.replace("_", "-")
        return (f"--no-{word}",) if self.switched_on else (f"--{word}",)

    @property
    def switched_on(self) -> bool:
        """Tell whether this is a switch whose flag turns it off."""
        return self.type is bool and self.default is True


def parameters(options: type[Any]) -> tuple[Parameter, ...]:
    """Return the options of a dataclass, groups flattened, in the order of its fields.

    Raises:
        TypeError: a field has no help, a type that no command line knows, or a name that another
            one has. This is a fault of the program, which a test finds.
    """
    found = tuple(_walk(options, ()))
    names = [p.name for p in found]
    flags = [flag for p in found for flag in (*p.flags, *p.option.formerly)]
    for kind, words in (("names", names), ("flags", flags)):
        if doubled := sorted({w for w in words if words.count(w) > 1}):
            raise TypeError(f"{options.__name__} has two {kind} {doubled}.")
    return found


def _walk(options: type[Any], path: tuple[str, ...]) -> Iterator[Parameter]:
    hints = typing.get_type_hints(options)
    for f in dataclasses.fields(options):
        where = f"{options.__name__}.{f.name}"
        if _KEY not in f.metadata:
            raise TypeError(f"{where} was not made with option(), argument() or group().")
        if f.metadata[_KEY] is None:
            yield from _walk(hints[f.name], (*path, f.name))
            continue
        told: Option = f.metadata[_KEY]
        if not told.help.strip():
            raise TypeError(f"{where} has no help.")
        kind, many, optional, choices = _kind(hints[f.name], where)
        if choices and not told.choices:
            told = dataclasses.replace(told, choices=choices)
        yield Parameter(f.name, (*path, f.name), kind, many, optional, f.default, told)


def _kind(hint: Any, where: str) -> tuple[type[Any], bool, bool, tuple[str, ...]]:
    """Return (type of one value, many, optional, choices) of an annotation."""
    optional = many = False
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        rest = [a for a in typing.get_args(hint) if a is not type(None)]
        optional, hint = len(rest) < len(typing.get_args(hint)), rest[0]
        if len(rest) != 1:
            raise TypeError(
                f"{where} may be of several types, which no command line can tell apart."
            )
    if typing.get_origin(hint) is tuple:
        many, hint = True, typing.get_args(hint)[0]
    if typing.get_origin(hint) is Literal:
        return str, many, optional, tuple(typing.get_args(hint))
    from pathlib import Path

    if hint not in (str, int, float, bool, Path):
        raise TypeError(
            f"{where} is a {hint}; a command line knows str, int, float, bool and Path."
        )
    return hint, many, optional, ()


def build(options: type[Any], values: dict[str, Any]) -> Any:
    """Return the dataclass made of flat values by name; what is missing keeps its default.

    Raises:
        UsageError: a value is not among the choices, or out of bounds.
    """
    return check(_fill(options, values))


def check(options: Any) -> Any:
    """Return a dataclass of options whose values are possible; raises UsageError."""
    for parameter in parameters(type(options)):
        value = functools.reduce(getattr, parameter.path, options)
        for one in value if parameter.many else (value,):
            if one is not None:
                check_value(parameter, one)
    return options


def check_value(parameter: Parameter, value: Any) -> None:
    """Refuse a value that is not among the choices, or out of bounds; raises UsageError."""
    told = parameter.option
    shown = parameter.flags[0] if parameter.flags else parameter.name.upper()
    if told.choices and value not in told.choices:
        known = list(told.choices)
        raise UsageError(
            f"Unknown {parameter.name.replace('_', ' ')} '{value}'{nearest(str(value), known)}.",
            f"Choose one of: {', '.join(known)} ({shown}).",
        )
    low, high = told.minimum, told.maximum
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        bounds = f"{low:g} or more" if high is None else f"at most {high:g}"
        if low is not None and high is not None:
            bounds = f"{low:g} to {high:g}"
        raise UsageError(f"Got {shown} {value}; expected {bounds}.", told.help)


def _fill(options: type[Any], values: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(options)
    given: dict[str, Any] = {}
    for f in dataclasses.fields(options):
        if f.metadata[_KEY] is None:
            given[f.name] = _fill(hints[f.name], values)
        elif f.name in values:
            given[f.name] = values[f.name]
    return options(**given)


def table(options: type[Any]) -> str:
    """Return the options as rows of a Markdown table: flag, default, meaning."""
    rows = ["| option | default | meaning |", "| --- | --- | --- |"]
    for p in parameters(options):
        flag = ", ".join(f"`{flag}`" for flag in p.flags) or f"`{p.name.upper()}`"
        empty = p.default in (None, (), MISSING) or p.type is bool
        choices = f" ({', '.join(p.option.choices)})" if p.option.choices else ""
        rows.append(f"| {flag} | {'' if empty else p.default} | {p.option.help}{choices} |")
    return "\n".join(rows)
