"""`prunus build`: a TensorRT engine from an exported ONNX file."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from prunus.apps.common import options as shared
from prunus.runtime.command import Console
from prunus.runtime.json_text import json_text
from prunus.runtime.options import argument, option


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What `prunus build` does.

    \b
    Examples:
      prunus build evitpose-tiny-L2.onnx -o evitpose-tiny-L2.engine
      prunus build evitpose-tiny-L2.onnx --flavour tensorrt_rtx --json
      prunus build unitranspose-tiny.onnx --plugin on
    """

    model: str = argument("ONNX file, or a listed name.")
    output: Path | None = shared.output("The engine; default: beside the model.")
    flavour: str = option("auto, tensorrt or tensorrt_rtx.", default="auto")
    timing_cache: Path | None = option(
        "Measured kernel times to start from and add to.", default=None
    )
    workspace: int = option("Scratch memory in MiB; 0: no limit.", default=0, minimum=0)
    timeout: float = option("Give up after so many seconds.", default=3600.0, minimum=1)
    min_half_share: float | None = option(
        "Smallest share of layers in half precision or int8; default: by precision.",
        default=None, minimum=0, maximum=1,
    )  # fmt: skip
    tf32: bool = option("Round float32 products to TF32.", default=False)
    plugin: str = option(
        "Attention nodes run by the plugin library: auto, on or off.", default="auto"
    )
    plugin_library: Path | None = option("The library made by prunus plugin build.", default=None)
    shape: tuple[str, ...] = shared.shape()


def build(options: BuildOptions, console: Console) -> None:
    """Build an engine in a child process, with a sidecar that describes it."""
    from prunus.apps.common.model_files import find_model
    from prunus.export.engine.build import build_engine

    model = find_model(options.model, options.shape)
    # A listed name has its graph in a cache: the engine belongs where the user is.
    named = Path(options.model)
    beside = named if named.is_file() else Path(model.name)
    target = options.output or beside.with_suffix(".engine")
    with console.progress("build") as progress:
        sidecar = build_engine(
            model,
            target,
            options.flavour,
            timing_cache=options.timing_cache,
            workspace_mib=options.workspace,
            timeout=options.timeout,
            min_half_share=options.min_half_share,
            tf32=options.tf32,
            plugin=options.plugin,
            plugin_library=options.plugin_library,
            progress=progress,
        )
    console.say(
        f"wrote {target}  {sidecar.flavour} {sidecar.version}, {sidecar.build_seconds:.1f} s, "
        f"{100 * sidecar.half_layer_share:.0f} % of the compute layers in half precision or int8"
        + (f", plugin {sidecar.plugin.rpartition(' ')[0]}" if sidecar.plugin else ""),
        json_text(dataclasses.asdict(sidecar), indent=1),
    )
