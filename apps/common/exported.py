"""The graph of a checkpoint that ships, made when its listed name is first used as a model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from prunus import __version__
from prunus.runtime import host
from prunus.runtime.command import Console
from prunus.runtime.errors import ArtifactError

if TYPE_CHECKING:
    from prunus.models.zoo import Entry
    from prunus.runtime.progress import Progress

LEVEL = "L2"  # of EViTPose: the level that the project's figures are about


def exported(entry: Entry) -> Path:
    """Return the graph of a shipped checkpoint, kept in the user's cache.

    Its name holds the weights' hash and prunus's version, since both make the graph.

    Raises:
        ArtifactError: a checkpoint of this kind is no model by itself.
        MissingDependencyError: it was not made yet, and PyTorch is not installed.
        HostError: there is no place to keep it.
    """
    from prunus.runtime.card.artifact import write_error

    name = f"{entry.name}-{entry.sha256[:12]}-{__version__}.onnx"
    path = host.user_cache() / "graphs" / name
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(error, path) from error
    with Console(quiet=not sys.stderr.isatty()).progress(f"export {entry.name}") as progress:
        _export(entry, path, progress)
    print(f"exported {entry.name} to {path}, once; it opens from there", file=sys.stderr)
    return path


def _export(entry: Entry, path: Path, progress: Progress) -> None:
    model, variant = str(entry.config.get("model", "")), str(entry.config.get("variant", ""))
    if model == "evitpose":
        from prunus.export.evitpose import export_evitpose

        export_evitpose(variant, level=LEVEL, output=path, progress=progress)
    elif model == "edaformer":
        from prunus.export.edaformer import export_edaformer

        export_edaformer(isr="published", probability=True, output=path, progress=progress)
    else:
        raise ArtifactError(
            f"{entry.name} is a checkpoint, which has no graph of its own.",
            f"Make its graphs with: prunus export {model}",
        )
