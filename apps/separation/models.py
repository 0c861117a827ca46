"""The three models of the voice picker: what separates, what finds faces, what reads lips."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunus.apps.common.model_files import find_model, separation_models
from prunus.apps.common.options import BackendChoice
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


def open_models(choice: SeparationChoice, compute: BackendChoice, stack: ExitStack) -> Models:
    """Open the models of a run; the stack closes them.

    Raises:
        PrunusError: one cannot be used.
    """
    from prunus.runtime.tasks.faces.boxes import FaceFinder
    from prunus.runtime.tasks.faces.mesh import FaceMesh
    from prunus.runtime.tasks.separation.separator import SpeechSeparator

    paths = separation_models(choice.model)
    separator = stack.enter_context(SpeechSeparator.open(paths[1], **compute.keywords()))
    backend = "onnxruntime" if compute.backend == "tensorrt" else compute.backend
    threads = compute.threads or 1
    boxes, points = map(find_model, FACES)
    finder = stack.enter_context(FaceFinder.open(boxes, backend, threads))
    mesh = stack.enter_context(FaceMesh.open(points, backend, threads))
    return Models(separator, finder, mesh)
