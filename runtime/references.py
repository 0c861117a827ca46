"""Lazy references: ``module:attribute`` in a table, imported when the row is used."""

from __future__ import annotations

import importlib
from typing import Any


def load(reference: str) -> Any:
    """Return what ``module:attribute`` names.

    Raises:
        ImportError: the module cannot be imported, for example because a package is missing.
        AttributeError: it has no such attribute.
        ValueError: the text is not of that form.
    """
    module, colon, name = reference.partition(":")
    if not (module and colon and name):
        raise ValueError(f"'{reference}' is not module:attribute")
    return getattr(importlib.import_module(module), name)
