"""What people may change while a run goes on: settings with the ranges of the command line.

An app names those of its options that its loop heeds at every frame, and nothing else: type,
range, choices and help are the option's own, so a page's form, the check of what arrives and the
command line cannot differ. Any thread may read and set.
"""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from prunus.runtime.errors import UsageError, nearest
from prunus.runtime.options import Parameter, check_value, option, parameters

PAUSED, SHOWN = "paused", "shown"
ALL = "all"
_END = object()
_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Pause:
    paused: bool = option("Stop here, for all who watch, until somebody goes on.", default=False)


@dataclass(frozen=True, slots=True)
class _Shown:
    shown: str = option("Which source the page shows.", default=ALL)


class Controls:
    """Settings of a running loop.

    Args:
        options: Dataclass of the app's options, as the run was started with it.
        labels: Name of an option that the loop heeds -> its name on a page.
        values: First values by name, where the option's own is None.
        pause: Whether the run can stand still (see `gate`).

    Example:
        >>> controls = Controls(PoseOptions(), {"conf": "Threshold"}, {"conf": 0.15})
        >>> controls.set({"conf": 0.3})
        >>> controls["conf"]
        0.3
    """

    def __init__(
        self,
        options: Any,
        labels: Mapping[str, str],
        values: Mapping[str, Any] | None = None,
        *,
        pause: bool = True,
    ) -> None:
        self._labels = {**labels, **({PAUSED: "Pause"} if pause else {})}
        declared = (*parameters(type(options)), *parameters(_Pause))
        self._declared = {p.name: p for p in declared if p.name in self._labels}
        first = {name: getattr(options, name) for name in labels}
        self._values = {**first, **(values or {}), **({PAUSED: False} if pause else {})}
        self._changed = threading.Condition()
        self._closed = False
        self.on_change: list[Callable[[], None]] = []  # called after a change, in its thread

    def choose_among(self, sources: Sequence[str]) -> None:
        """Let people choose which of several sources a page shows, at first all of them."""
        [which] = parameters(_Shown)
        told = dataclasses.replace(which.option, choices=(ALL, *sources))
        self._labels[SHOWN], self._values[SHOWN] = "Source", ALL
        self._declared[SHOWN] = dataclasses.replace(which, option=told)

    def __getitem__(self, name: str) -> Any:
        with self._changed:
            return self._values[name]

    def values(self) -> dict[str, Any]:
        """Return all values by name."""
        with self._changed:
            return dict(self._values)

    def set(self, changes: Mapping[str, Any]) -> None:
        """Change settings, all of them or none.

        Args:
            changes: Values by name, as JSON gives them.

        Raises:
            UsageError: no such setting, or a value of another type or outside its range.
        """
        checked = {name: self._checked(name, value) for name, value in changes.items()}
        with self._changed:
            self._values.update(checked)
            self._changed.notify_all()
        for tell in self.on_change:
            tell()

    def describe(self) -> list[dict[str, Any]]:
        """Return what a form needs of each setting: name, label, help, type, range, choices."""
        return [
            {
                "name": name,
                "label": self._labels[name],
                "type": p.type.__name__,
                **{k: v for k, v in dataclasses.asdict(p.option).items()
                   if k in ("help", "choices", "minimum", "maximum")},
            }
            for name, p in self._declared.items()
        ]  # fmt: skip

    def gate(self, items: Iterable[T], *, live: bool) -> Iterator[T]:
        """Pass items on; none while paused, and none any more once closed.

        Args:
            items: Of a source.
            live: The source does not wait: what comes while paused is gone.
        """
        iterator = iter(items)
        while True:
            if not live:
                self._wait()
            item: Any = next(iterator, _END)
            if item is _END or self._closed:
                return
            if not (live and self._paused):
                yield item

    def close(self) -> None:
        """Let nothing stand still any more: the run ends."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def _paused(self) -> bool:
        return bool(self._values.get(PAUSED, False))

    def _wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._paused)

    def _checked(self, name: str, value: Any) -> Any:
        parameter = self._declared.get(name)
        if parameter is None:
            known = list(self._declared)
            raise UsageError(
                f"There is no control '{name}'{nearest(name, known)}.",
                f"This run has: {', '.join(known) or 'none'}.",
            )
        value = _of_type(parameter, value)
        check_value(parameter, value)
        return value


def _of_type(parameter: Parameter, value: Any) -> Any:
    """Return a value from JSON as the type of its option; raises UsageError."""
    kind = parameter.type
    if kind is float and type(value) is int and abs(value) <= 1 << 53:
        value = float(value)
    if type(value) is not kind or (kind is float and not math.isfinite(value)):
        raise UsageError(
            f"Got {str(value)[:40]!r} for '{parameter.name}'; expected {_EXPECTED[kind]}.",
            parameter.option.help,
        )
    return value
