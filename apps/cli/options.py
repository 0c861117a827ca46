"""The flags that mean the same in every verb, spelled once."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from prunus.runtime.errors import UsageError, nearest
from prunus.runtime.progress import ConsoleProgress, Silent

if TYPE_CHECKING:
    from prunus.runtime.session.base import BackendOptions, InferencePrecision

Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="Where the result goes.", metavar="PATH")
]
Backend = Annotated[
    str,
    typer.Option("--backend", help="auto, onnxruntime, openvino or tensorrt.", metavar="NAME"),
]
Level = Annotated[
    str | None, typer.Option("--level", help="Pruning level L0 (dense) to L3.", metavar="LEVEL")
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", help="CPU threads; default: all cores.", min=1, metavar="N"),
]
Device = Annotated[
    str, typer.Option("--device", help="cpu, cuda:0, or what the back end knows.", metavar="NAME")
]
Arithmetic = Annotated[
    str,
    typer.Option(
        "--arithmetic",
        help="OpenVINO's products: f32, bf16, or auto (bf16 where the card allows it).",
        metavar="NAME",
    ),
]
NoCudaGraph = Annotated[
    bool, typer.Option("--no-cuda-graph", help="TensorRT: queue calls instead of replaying them.")
]
Separator = Annotated[
    str | None,
    typer.Option(
        help="NAME of NAME-lips.onnx and NAME-voice.onnx; default: the newest pair, else the "
        "one that ships."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no notes.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole trace of an error.")]


def switches(arithmetic: str, no_cuda_graph: bool) -> BackendOptions:
    """Return the back ends' switches from the flags above."""
    from prunus.runtime.session.base import BackendOptions

    known = ("auto", "f32", "bf16")
    if arithmetic not in known:
        raise UsageError(
            f"Unknown arithmetic '{arithmetic}'{nearest(arithmetic, list(known))}.",
            f"Choose one of: {', '.join(known)}.",
        )
    return BackendOptions(
        inference_precision=cast("InferencePrecision", arithmetic), cuda_graph=not no_cuda_graph
    )


@contextlib.contextmanager
def shown_progress(title: str, quiet: bool) -> Iterator[ConsoleProgress | Silent]:
    """Yield the progress display of a verb: silent with ``--quiet``."""
    if quiet:
        yield Silent()
        return
    with ConsoleProgress(title) as progress:
        yield progress
