"""Whether a file's tensors fit a network: every difference in one message; and the file written."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from prunus.runtime.card.artifact import atomic_path, sha256_of
from prunus.runtime.errors import UsageError

KEY = "prunus"  # of a safetensors header: JSON of what the file says about itself
_LISTED = 12  # names shown per kind of difference


def require_fit(
    own: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    title: str,
    *,
    fresh: Collection[str] = (),
    advice: Callable[[list[str]], str],
) -> None:
    """Refuse tensors that a network does not take.

    Args:
        own: State of the network.
        state: Tensors of the file, under our names.
        title: What they should fit, e.g. ``EViTPose-small``.
        fresh: Names that the file may lack.
        advice: Gets the names of another shape; returns how to go on.

    Raises:
        UsageError: names missing, left over or of another shape, all of them listed.
    """
    missing = [n for n in own if n not in state and n not in fresh]
    unexpected = [n for n in state if n not in own]
    wrong = [n for n in own if n in state and own[n].shape != state[n].shape]
    nothing = bool(own) and not own.keys() & state.keys()
    if not (missing or unexpected or wrong or nothing):
        return
    notes = [f"{n} is {list(state[n].shape)}, expected {list(own[n].shape)}" for n in wrong]
    kinds = (("missing", missing), ("unexpected", unexpected), ("mismatched", notes))
    text = "; ".join(listed(*kind) for kind in kinds if kind[1])
    raise UsageError(f"The checkpoint does not fit {title}; {text}.", advice(wrong))


def listed(kind: str, names: Collection[str]) -> str:
    """Return ``kind: a, b, c and n more``."""
    shown = list(names)[:_LISTED]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"{kind}: {', '.join(shown)}{more}"


def save_imported(
    state: Mapping[str, Tensor], source: Path, target: str | Path, about: Mapping[str, Any]
) -> None:
    """Write a safetensors file that says where it came from; it appears only when complete.

    Args:
        state: Parameter name -> tensor.
        source: File that was read.
        target: File to write.
        about: What else it says of itself.

    Raises:
        SourceError: the file cannot be written.
    """
    from safetensors.torch import save_file

    facts = {**about, "source": source.name, "source_sha256": sha256_of(source)}
    # One key only: the writer orders several at random, and files should be reproducible.
    with atomic_path(target) as temporary:
        save_file(dict(state), temporary, metadata={KEY: json.dumps(facts, sort_keys=True)})
