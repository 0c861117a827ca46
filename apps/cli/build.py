"""`prunus build`: a TensorRT engine from an exported ONNX file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from prunus.apps.cli.options import Debug, Json, Output, Quiet, shown_progress


def build(
    model: Annotated[Path, typer.Argument(help="ONNX file made by prunus export.")],
    *,
    output: Output = None,
    flavour: Annotated[str, typer.Option(help="auto, tensorrt or tensorrt_rtx.")] = "auto",
    timing_cache: Annotated[
        Path | None, typer.Option(help="Measured kernel times to start from and add to.")
    ] = None,
    workspace: Annotated[int, typer.Option(help="Scratch memory in MiB; 0: no limit.", min=0)] = 0,
    timeout: Annotated[float, typer.Option(help="Give up after so many seconds.", min=1)] = 3600,
    min_half_share: Annotated[
        float | None,
        typer.Option(
            help="Smallest share of layers in half precision or int8; default: by precision.",
            min=0,
            max=1,
        ),
    ] = None,
    tf32: Annotated[bool, typer.Option("--tf32", help="Round float32 products to TF32.")] = False,
    plugin: Annotated[
        str, typer.Option(help="Attention nodes run by the plugin library: auto, on or off.")
    ] = "auto",
    plugin_library: Annotated[
        Path | None, typer.Option(help="The library made by prunus plugin build.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Build a TensorRT engine, in a child process, with a sidecar that describes it.

    \b
    Examples:
      prunus build evitpose-tiny-L2.onnx -o evitpose-tiny-L2.engine
      prunus build evitpose-tiny-L2.onnx --flavour tensorrt_rtx --json
      prunus build unitranspose-tiny.onnx --plugin on
    """
    from prunus.export.engine.build import build_engine

    target = output or model.with_suffix(".engine")
    with shown_progress("build", quiet) as progress:
        sidecar = build_engine(
            model,
            target,
            flavour,
            timing_cache=timing_cache,
            workspace_mib=workspace,
            timeout=timeout,
            min_half_share=min_half_share,
            tf32=tf32,
            plugin=plugin,
            plugin_library=plugin_library,
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(sidecar), indent=1, sort_keys=True))
        return
    typer.echo(
        f"wrote {target}  {sidecar.flavour} {sidecar.version}, {sidecar.build_seconds:.1f} s, "
        f"{100 * sidecar.half_layer_share:.0f} % of the compute layers in half precision or int8"
        + (f", plugin {sidecar.plugin.rpartition(' ')[0]}" if sidecar.plugin else "")
    )
