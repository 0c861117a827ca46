"""Whether an engine fits this machine, and the package that runs it.

An engine is bound to the version that built it and to a GPU architecture. TensorRT tells of a
mismatch late and in its own terms; the sidecar lets us tell before, in one line.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from prunus.runtime.card.artifact import EngineSidecar
from prunus.runtime.errors import ArtifactError, MissingDependencyError
from prunus.runtime.session.registry import find
from prunus.runtime.session.tensorrt.cuda import DeviceProperties

# Import name of a flavour -> extra of prunus that installs it.
EXTRAS = {package.module: package.extra for package in find("tensorrt").packages}
PORTABLE = "portable"
_OLDEST_PORTABLE = (8, 0)  # portable engines run on Ampere and later


def explain_mismatch(
    path: str | Path, sidecar: EngineSidecar, version: str, gpu: DeviceProperties
) -> None:
    """Raise ArtifactError with one line naming everything in which engine and machine differ.

    Args:
        path: Plan file, whose hash is compared too.
        sidecar: Its sidecar.
        version: Version of the installed package of the sidecar's flavour.
        gpu: The GPU that is to run it.
    """
    wrong = []
    if sidecar.version != version:
        wrong.append(f"built with {sidecar.flavour} {sidecar.version}, installed is {version}")
    here = tuple(int(n) for n in gpu.compute_capability.split("."))
    if sidecar.compute_capability == PORTABLE:
        if here < _OLDEST_PORTABLE:
            wrong.append(f"needs an Ampere or later GPU, {gpu.name} is sm {gpu.compute_capability}")
    elif sidecar.compute_capability != gpu.compute_capability:
        wrong.append(
            f"built for sm {sidecar.compute_capability}, {gpu.name} is sm {gpu.compute_capability}"
        )
    if not sidecar.describes(path):
        wrong.append("the file is not the one that its sidecar describes (SHA-256 differs)")
    if wrong:
        raise ArtifactError(
            f"{path} cannot run here: {'; '.join(wrong)}.", rebuild_hint(path, sidecar)
        )


def rebuild_hint(path: str | Path, sidecar: EngineSidecar) -> str:
    """Return the command that builds this engine again."""
    onnx = Path(path).with_suffix(".onnx")
    return f"Build it again: prunus build {onnx} -o {path} --flavour {sidecar.flavour}"


def import_flavour(flavour: str) -> Any:
    """Import the package of a flavour; raises MissingDependencyError naming the extra."""
    if flavour not in EXTRAS:
        raise ArtifactError(
            f"The engine has the unknown flavour '{flavour}'; known: {', '.join(EXTRAS)}.",
            "Upgrade prunus, or build the engine again.",
        )
    if importlib.util.find_spec(flavour) is None:
        raise MissingDependencyError(flavour, EXTRAS[flavour], "Running this engine")
    return importlib.import_module(flavour)
