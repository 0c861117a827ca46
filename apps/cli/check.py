"""`prunus check`: the exported file against PyTorch, judged in the task's own units."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prunus.apps.cli.options import Debug, Json, Output, Quiet, Threads, shown_progress
from prunus.apps.common.model_files import find_model
from prunus.runtime.errors import UsageError


def check(
    model: Annotated[
        Path,
        typer.Argument(help="ONNX file, a model that ships, or saved runs (.npz) to judge again."),
    ],
    *,
    backend: Annotated[
        list[str] | None,
        typer.Option(
            "--backend",
            help="onnxruntime, openvino, openvino-bf16, tensorrt, tensorrt_rtx; repeatable.",
            metavar="NAME",
        ),
    ] = None,
    samples: Annotated[int, typer.Option(help="Real inputs to compare.", min=1)] = 64,
    images: Annotated[
        Path | None, typer.Option(help="Files to take inputs from; default: bundled media.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Weights that were exported; default: shipped ones.")
    ] = None,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Name the first block and node that differ.")
    ] = False,
    save: Annotated[
        Path | None, typer.Option(help="Keep the runs (.npz) to judge them again.")
    ] = None,
    budget: Annotated[
        list[str] | None, typer.Option(help="Own limit, e.g. mean_px=0.2; repeat for more.")
    ] = None,
    output: Output = None,
    threads: Threads = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare an exported model with its PyTorch network on real inputs, in units of the task.

    \b
    Examples:
      prunus check evitpose-tiny-L2.onnx --backend onnxruntime --backend openvino
      prunus check evitpose-tiny-int8.onnx --bisect --save runs.npz
      prunus check nsfcodec_16k_encoder
    """
    limits = parse_budgets(budget or [])
    if model.suffix == ".npz":
        from prunus.export.verify.saved import rejudge

        report = rejudge(model, limits)
    else:
        from prunus.export.verify.check import check_artifact

        with shown_progress("check", quiet) as progress:
            report = check_artifact(
                find_model(str(model)),
                backends=tuple(backend or ("onnxruntime",)),
                checkpoint=checkpoint,
                limit=samples,
                source=images,
                bisect=bisect,
                save=save,
                budgets=limits,
                threads=threads,
                progress=progress,
            )
    if output is not None:
        from prunus.runtime.card.artifact import atomic_path

        with atomic_path(output) as temporary:
            temporary.write_text(report.to_json())
    typer.echo(report.to_json() if as_json else report.to_text())
    report.raise_if_failed()


def parse_budgets(words: list[str]) -> dict[str, float]:
    """Read ``quantity=bound`` words.

    Raises:
        UsageError: a word of another form.

    >>> parse_budgets(["mean_px=0.2"])
    {'mean_px': 0.2}
    """
    limits = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            limits[name] = float(value)
        except ValueError:
            raise UsageError(
                f"Got --budget {word}; expected NAME=NUMBER.", "Example: --budget mean_px=0.2"
            ) from None
    return limits
