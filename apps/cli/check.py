"""`prunus check`: the exported file against PyTorch, judged in the task's own units."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prunus.apps.common import options as shared
from prunus.runtime.command import Console
from prunus.runtime.errors import UsageError
from prunus.runtime.options import argument, option

if TYPE_CHECKING:
    from prunus.export.verify.check import Feeds

_NOISE = 8  # runs of noise at most: more of it tells no more


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """What `prunus check` does.

    \b
    Examples:
      prunus check evitpose-tiny-L2.onnx --backend onnxruntime --backend openvino
      prunus check evitpose-tiny-int8.onnx --bisect --save runs.npz
      prunus check nsfcodec_16k_encoder
      prunus check resnet-int8.onnx --against resnet.onnx --input x=batch.npy
    """

    model: str = argument("ONNX file, a listed name, or saved runs (.npz) to judge again.")
    backend: tuple[str, ...] = option(
        "onnxruntime, openvino, openvino-bf16, tensorrt, tensorrt_rtx; repeatable.",
        default=("onnxruntime",), metavar="NAME",
    )  # fmt: skip
    arithmetic: shared.Arithmetic = shared.arithmetic()
    samples: int = option("Real inputs to compare.", default=64, minimum=1)
    images: Path | None = option("Files to take inputs from; default: bundled media.", default=None)
    against: str | None = option(
        "Another file as the reference, in place of the PyTorch network.", default=None,
        metavar="FILE",
    )  # fmt: skip
    input: tuple[str, ...] = shared.inputs()
    shape: tuple[str, ...] = shared.shape()
    checkpoint: Path | None = option(
        "Weights that were exported; default: shipped ones.", default=None
    )
    bisect: bool = option("Name the first block and node that differ.", default=False)
    save: Path | None = option("Keep the runs (.npz) to judge them again.", default=None)
    budget: tuple[str, ...] = option("Own limit, e.g. mean_px=0.2; repeat for more.", default=())
    output: Path | None = shared.output("The report, as JSON.")
    threads: int | None = shared.threads()


def check(options: CheckOptions, console: Console) -> None:
    """Compare an exported model with its PyTorch network on real inputs."""
    limits = parse_budgets(options.budget)
    if Path(options.model).suffix == ".npz":
        from prunus.export.verify.saved import rejudge

        report = rejudge(Path(options.model), limits)
    else:
        from prunus.apps.common.model_files import find_model
        from prunus.export.verify.check import check_artifact

        backends = shared.with_arithmetic(options.backend, options.arithmetic, plain="f32")
        path = find_model(options.model, options.shape)
        against = options.against and find_model(options.against, options.shape)
        with console.progress("check") as progress:
            report = check_artifact(
                path,
                feeds=_feeds(path, options),
                reference=against,
                backends=backends,
                checkpoint=options.checkpoint,
                limit=options.samples,
                source=options.images,
                bisect=options.bisect,
                save=options.save,
                budgets=limits,
                threads=options.threads,
                progress=progress,
            )
    if options.output is not None:
        from prunus.runtime.card.artifact import write_whole

        write_whole(options.output, report.to_json())
    console.say(report.to_text(), report.to_json())
    report.raise_if_failed()


def _feeds(path: Path, options: CheckOptions) -> Feeds | None:
    """Return whole inputs where some are given, or where no script of ours finds real ones.

    Raises:
        UsageError: no reference for a network that is not ours, or inputs that do not fit.
    """
    from prunus.apps.bench.targets import has_real_inputs, real_inputs
    from prunus.apps.generic.inputs import read_feed
    from prunus.export.common.registry import has_network, model_of
    from prunus.export.verify.check import Feeds
    from prunus.runtime.card.artifact import read_card
    from prunus.runtime.measure.runner import example_inputs, samples

    card = read_card(path)
    if options.against is None:
        model_of(card)  # refuses a file without a reference
    if options.input:
        feed, notes = read_feed(card, options.input)
        return Feeds((feed,), "; ".join(notes))
    if has_network(card):
        return None
    if has_real_inputs(card):
        feeds = samples(card, real_inputs(card))
        return Feeds(feeds, f"{len(feeds)} bundled pictures")
    count = min(options.samples, _NOISE)
    return Feeds([example_inputs(card, seed) for seed in range(count)], "uniform noise")


def parse_budgets(words: Sequence[str]) -> dict[str, float]:
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
