"""`prunus eval separation`: a separator on mixtures whose clean voices are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from prunus.apps.cli.options import (
    Backend,
    Debug,
    Json,
    Output,
    Quiet,
    Separator,
    Threads,
    shown_progress,
)


def separation(
    folder: Annotated[Path, typer.Argument(help="Folder with mix/, s1/, s2/ and mouths/.")],
    *,
    model: Separator = None,
    mouths: Annotated[
        Path | None, typer.Option(help="Folder of mouth files; default: FOLDER/mouths.")
    ] = None,
    lips: Annotated[
        list[str] | None, typer.Option(help="own, swapped or frozen; repeatable. Default: own.")
    ] = None,
    judge: Annotated[
        list[str] | None,
        typer.Option(help="pesq, stoi, dnsmos; repeatable. Default: pesq and stoi, if installed."),
    ] = None,
    hop: Annotated[
        float | None, typer.Option(help="Seconds between windows; default: as the files allow.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many mixtures.", min=1)] = None,
    output: Output = None,
    backend: Backend = "auto",
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Report SI-SDRi, SDRi, PESQ and STOI of a separator on any folder of mixtures.

    Each split of LRS2-2Mix, LRS3-2Mix and VoxCeleb2-2Mix is such a folder; name the folder of
    their mouths (ID.npz) with --mouths.

    \b
    Examples:
      prunus eval separation wav16k/min/tt --mouths mouths --model dolphin
      prunus eval separation mixtures/ --model nano --lips own --lips swapped --lips frozen
    """
    from prunus.apps.common.model_files import separation_models
    from prunus.apps.common.speech_metrics import open_judges
    from prunus.apps.separation.evaluate import evaluate_separation, parse_lips
    from prunus.apps.separation.mixtures import find_mixtures
    from prunus.runtime.card.artifact import atomic_path
    from prunus.runtime.errors import MissingDependencyError
    from prunus.runtime.tasks.separation.separator import SpeechSeparator

    conditions = parse_lips(lips)
    missing: list[str] = []
    judges = []
    for name in judge or ["pesq", "stoi"]:
        try:
            judges += open_judges([name])[0]
        except MissingDependencyError as error:
            if judge:
                raise
            missing.append(f"{error.message} {error.hint}")
    found = find_mixtures(folder, mouths, limit)
    with (
        SpeechSeparator.open(separation_models(model)[1], backend, threads=threads) as opened,
        shown_progress("eval", quiet) as progress,
    ):
        result = evaluate_separation(
            opened, found, judges, lips=conditions, hop_s=hop, missing=missing, progress=progress
        )
    text = json.dumps(result.to_dict(), indent=1, sort_keys=True)
    if output is not None:
        with atomic_path(output) as temporary:
            temporary.write_text(text + "\n", encoding="utf-8")
    typer.echo(text if as_json else result.to_text())
