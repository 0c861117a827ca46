"""Which methods reduce tokens: one row each, one small file each."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from prunus.models.tokens.plan import split_method
from prunus.models.tokens.reducer import Place, TokenReducer
from prunus.runtime import references
from prunus.runtime.errors import UsageError, nearest

Mechanism = Literal["attention", "similarity", "transformation", "query", "control"]


@dataclass(frozen=True, slots=True)
class Method:
    """A way to reduce tokens.

    Attributes:
        name: Word in a plan.
        reducer: ``module:Class``, a `TokenReducer` whose keyword arguments are its options.
        mechanism: What it goes by; ``control`` for plain selections.
        source: Paper.
        help: What it does, one sentence.
        trained: It has weights of its own: useless until the network is trained with it.
    """

    name: str
    reducer: str
    mechanism: Mechanism
    source: str
    help: str
    trained: bool = False

    def build(self, place: Place, options: dict[str, Any]) -> TokenReducer:
        """Return the reducer for a place.

        Raises:
            UsageError: an option that it does not have, or a place where it cannot stand.
        """
        kind: type[TokenReducer] = references.load(self.reducer)
        reducer: TokenReducer = kind(place, **_typed(self.name, kind, options))
        return reducer


def _row(
    name: str, place: str, mechanism: Mechanism, source: str, help: str, **more: Any
) -> Method:
    module, _, kind = place.partition(":")
    reducer = f"prunus.models.tokens.methods.{mechanism}.{module}:{kind}"
    return Method(name, reducer, mechanism, source, help, **more)


METHODS: tuple[Method, ...] = (
    _row(
        "evit", "evit:Evit", "attention", "arXiv 2202.07800",
        "Keep what the class token looks at; the rest becomes one token.",
    ),
    _row(
        "joint", "joint:JointTokenReducer", "attention", "arXiv 2209.08194, 2503.00232",
        "Keep what the special tokens (joints) look at.",
    ),
    _row(
        "tome", "tome:ToMe", "similarity", "arXiv 2210.09461",
        "Merge the most similar pairs of an alternating split, by size.",
    ),
)  # fmt: skip


def find_method(name: str) -> Method:
    """Return the row of a name; raises UsageError for another."""
    rows = {method.name: method for method in METHODS}
    if name not in rows:
        raise UsageError(
            f"Unknown method '{name}' of token reduction{nearest(name, list(rows))}.",
            f"Choose one of {', '.join(rows)}.",
        )
    return rows[name]


def build_reducer(method: str, place: Place) -> TokenReducer:
    """Return the reducer of a method in words, e.g. ``evit(merge=drop)``, for a place.

    Raises:
        UsageError: an unknown method or option, or a place where it cannot stand.
    """
    name, options = split_method(method)
    return find_method(name).build(place, options)


def _typed(name: str, kind: type[TokenReducer], options: dict[str, Any]) -> dict[str, Any]:
    """Return options as the types that the class declares."""
    known = {
        p.name: p
        for p in inspect.signature(kind).parameters.values()
        if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    hints = get_type_hints(kind.__init__)
    values: dict[str, Any] = {}
    for key, value in options.items():
        if key not in known:
            raise UsageError(
                f"Method '{name}' has no option '{key}'{nearest(key, list(known))}.",
                f"It has: {', '.join(known) or 'none'}.",
            )
        values[key] = _value(name, key, value, hints[key])
    return values


def _value(method: str, key: str, value: Any, hint: Any) -> Any:
    if not isinstance(value, str) or hint is str:
        return value
    if get_origin(hint) is Literal:
        if value in get_args(hint):
            return value
        wanted = f"one of {', '.join(map(str, get_args(hint)))}"
    elif hint is bool:
        if value in ("true", "false"):
            return value == "true"
        wanted = "true or false"
    else:
        kinds = [kind for kind in (get_args(hint) or (hint,)) if kind in (int, float)]
        for kind in kinds:
            try:
                return kind(value)
            except ValueError:
                continue
        wanted = "a whole number" if kinds == [int] else "a number"
    raise UsageError(f"Option '{key}' of method '{method}' is '{value}'; expected {wanted}.")
