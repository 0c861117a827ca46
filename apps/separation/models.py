"""The three models of the voice picker: what separates, what finds faces, what reads lips."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus.apps.common.model_files import find_model, separation_models
from prunus.apps.separation.options import SeparationChoice

if TYPE_CHECKING:
    from prunus.runtime.tasks.faces.boxes import FaceFinder
    from prunus.runtime.tasks.faces.mesh import FaceMesh
    from prunus.runtime.tasks.separation.separator import SpeechSeparator

FACES = ("blazeface_full", "facemesh")


@dataclass(frozen=True, slots=True)
class Models:
    """What a run needs besides its clip."""

    separator: SpeechSeparator
    finder: FaceFinder
    mesh: FaceMesh


def open_models(
    choice: SeparationChoice, compute: Mapping[str, Any], stack: ExitStack
) -> Models:
    """Open the models of a run; the stack closes them.

    Args:
        choice: Names the separator.
        compute: Arguments of `SpeechSeparator.open`, as `BackendChoice.keywords` gives them.
        stack: Closes them.

    Raises:
        PrunusError: one cannot be used.
    """
    from prunus.runtime.tasks.separation.separator import SpeechSeparator

    paths = separation_models(choice.model)
    separator = stack.enter_context(SpeechSeparator.open(paths[1], **compute))
    boxes, points = map(find_model, FACES)
    return Models(separator, *open_faces(boxes, points, compute, stack))


def open_faces(
    boxes: Path, points: Path, compute: Mapping[str, Any], stack: ExitStack
) -> tuple[FaceFinder, FaceMesh]:
    """Open what finds faces and what reads them: small networks, on one thread of a CPU.

    Args:
        boxes: File of the finder.
        points: File of the mesh.
        compute: As of `open_models`.
        stack: Closes them.

    Raises:
        PrunusError: one cannot be used.
    """
    from prunus.runtime.tasks.faces.boxes import FaceFinder
    from prunus.runtime.tasks.faces.mesh import FaceMesh

    backend = "onnxruntime" if compute["backend"] == "tensorrt" else compute["backend"]
    threads = compute["threads"] or 1
    finder = stack.enter_context(FaceFinder.open(boxes, backend, threads))
    return finder, stack.enter_context(FaceMesh.open(points, backend, threads))
