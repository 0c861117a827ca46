"""JSON as every reader takes it: RFC 8259 knows no NaN and no infinity."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON with sorted keys; numbers that JSON cannot hold become null.

    Args:
        value: Dictionaries, lists and tuples of texts, numbers, truth values and None.
        indent: Spaces a level; None writes one line.

    Raises:
        TypeError: something else is in it, for example an array.

    Example:
        >>> json_text({"px": float("nan"), "people": (1, 2)})
        '{"people": [1, 2], "px": null}'
    """
    return json.dumps(finite(value), sort_keys=True, indent=indent, allow_nan=False)


def canonical(value: Any) -> bytes:
    """Return JSON with sorted keys and without spaces: equal values are equal bytes.

    Raises:
        ValueError: NaN or infinity, which JSON does not have.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def finite(value: Any) -> Any:
    """Return a value in which numbers that JSON cannot hold are None, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
