"""`prunus plugin`: the library with which TensorRT executes local-global attention nodes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated

import typer

from prunus.apps.cli.options import Debug, Json, Output, Quiet, shown_progress
from prunus.runtime.plugins.library import PluginLibrary, check_usable, default_path, describe
from prunus.runtime.plugins.local_global_attention.tiles import ARCHITECTURES

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="""Build the TensorRT plugin library for local-global attention, or say what one is.

\b
Examples:
  prunus plugin build
  prunus plugin info libprunus_local_global_attention.so
""",
)


@app.command("build")
def build(
    *,
    output: Output = None,
    arch: Annotated[
        list[int] | None,
        typer.Option(
            help=f"Compute capability times ten, once per GPU ({', '.join(map(str, ARCHITECTURES))}"
            "); default: all."
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compile the kernels and the library; needs g++ and triton, no GPU and no CUDA toolkit.

    Without -o it goes where `prunus build` and the runtime look for it.

    \b
    Examples:
      prunus plugin build
      prunus plugin build --arch 87 -o libprunus_local_global_attention.so
    """
    from prunus.runtime.plugins.local_global_attention.build import build_library

    target = output or default_path()
    if output is None:
        target.parent.mkdir(parents=True, exist_ok=True)
    with shown_progress("plugin build", quiet) as progress:
        library = build_library(target, tuple(arch or ARCHITECTURES), progress=progress)
    _tell(library, as_json, "wrote ")


@app.command("info")
def info(
    library: Annotated[Path | None, typer.Argument(help="Library; default: the built one.")] = None,
    *,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say which version a library is and which GPUs it serves; its code is not run.

    \b
    Examples:
      prunus plugin info
      prunus plugin info libprunus_local_global_attention.so --json
    """
    found = describe(library or default_path())
    check_usable(found)
    _tell(found, as_json)


def _tell(library: PluginLibrary, as_json: bool, verb: str = "") -> None:
    if as_json:
        facts = dataclasses.asdict(library) | {"path": str(library.path)}
        typer.echo(json.dumps(facts, indent=1, sort_keys=True))
        return
    held = ", ".join(f"{a // 10}.{a % 10}" for a in library.architectures)
    size = library.path.stat().st_size / 1e6
    typer.echo(
        f"{verb}{library.path}  {library.name} {library.identity}, {size:.1f} MB, "
        f"compute capability {held}"
    )
