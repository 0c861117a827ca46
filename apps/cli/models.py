"""`prunus models`: what is shipped, and the way in for official checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from prunus.apps.cli.options import Debug, Json, Output, Quiet, shown_progress

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@app.callback()
def models(context: typer.Context, as_json: Json = False, debug: Debug = False) -> None:
    """List the models that come with prunus, and import official checkpoints.

    \b
    Examples:
      prunus models
      prunus models import vitpose-small.pth --variant small -o vitpose-small.safetensors
    """
    if context.invoked_subcommand is not None:
        return
    rows = [_row(entry) for entry in _entries()]
    if as_json:
        typer.echo(json.dumps(rows, indent=1, sort_keys=True))
        return
    _print_table(rows)


@app.command("import")
def import_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="Official file: .pth, .pt or .safetensors.")],
    *,
    model: Annotated[
        str,
        typer.Option(
            help="Whose checkpoint it is: vitpose, edaformer, dolphin, wavtokenizer, fusecodec "
            "(SpeechTokenizer, DM-Codec) or freecodec (or parts of it: SuperCodec, ECAPA-TDNN)."
        ),
    ] = "vitpose",
    variant: Annotated[
        str | None,
        typer.Option(help="Size: small or base; t or b (default: small, or what the file is)."),
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="EDAFormer: number of classes; default: the file's.", min=1)
    ] = None,
    head: Annotated[
        str | None, typer.Option(help="Head of the checkpoint; default: what the file has.")
    ] = None,
    expert: Annotated[int, typer.Option(help="Data set of a ++ checkpoint: 0 is COCO.")] = 0,
    names: Annotated[
        Path | None,
        typer.Option(help="Codecs: JSON of pattern -> replacement for files with other names."),
    ] = None,
    output: Output = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Turn an official checkpoint into a safetensors file that prunus exports.

    \b
    Examples:
      prunus models import vitpose-b.pth --variant base -o vitpose-b.safetensors
      prunus models import EDAFormer_T_ade20k.pth --model edaformer -o edaformer-t.safetensors
    """
    from prunus.models.checkpoints.registry import ImportOptions, import_model
    from prunus.runtime.options import build

    given = {"variant": variant, "classes": classes, "head": head, "expert": expert, "names": names}
    target = output or checkpoint.with_suffix(".prunus.safetensors")
    lines = import_model(model, checkpoint, target, build(ImportOptions, given))
    if not quiet:
        typer.echo("\n".join(lines))


@app.command("fetch")
def fetch_file(
    url: Annotated[str, typer.Argument(help="Address of a checkpoint.")],
    *,
    sha256: Annotated[str, typer.Option(help="Its hash, 64 hexadecimal digits.")],
    output: Output = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Download a checkpoint whose hash is known; goes on where an earlier try stopped.

    \b
    Examples:
      prunus models fetch https://example.org/vitpose-b.pth --sha256 0123...cdef
      prunus models fetch URL --sha256 HASH -o weights/vitpose-b.pth
    """
    from urllib.parse import unquote, urlparse

    from prunus.models.checkpoints.fetch import fetch

    target = output or Path(Path(unquote(urlparse(url).path)).name or "checkpoint")
    with shown_progress("fetch", quiet) as progress:
        path = fetch(url, sha256, target, progress=progress)
    if not quiet:
        typer.echo(f"wrote {path}; read it with: prunus models import {path}")


def _entries() -> tuple[Any, ...]:
    from prunus.models import zoo

    return tuple(zoo.entries())


def _row(entry: Any) -> dict[str, Any]:
    """Return one zoo entry as plain values; what the table does not show is in the JSON."""
    import dataclasses

    values = dataclasses.asdict(entry)
    row = {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
    return row | {"size_mb": round(entry.size / 1e6, 1)}


def _print_table(rows: list[dict[str, Any]]) -> None:
    from prunus.apps.common.tables import print_table

    columns = ("name", "kind", "task", "size_mb", "licence", "origin")
    shown = [c for c in columns if any(c in row for row in rows)]
    print_table("shipped models", shown, [[str(row.get(c, "")) for c in shown] for row in rows])
