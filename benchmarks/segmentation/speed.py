"""Segmentation benchmarks: every figure that prunus states about EDAFormer's speed.

    python -m benchmarks.segmentation.speed           # all, some fifteen minutes on two cores
    python -m benchmarks.segmentation.speed --quick   # short turns, no compiled peer: seven
                                                       # minutes, first exports apart
    python -m benchmarks.segmentation.speed --only isr-512 --seconds 4

Each case is written as soon as it is done, beside those of earlier runs (`--only`). Each runner
has a process of its own; runners take turns A B A B. Weights are random (the graph is
the same); what a number format costs in pixels is measured beside its speed, on real frames,
against the fp32 file. The peer, SegFormer-B0, needs `transformers` (extra ``peer``) and is left
out without it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from prunus.apps.bench.runs import scene_runner, session_runner, torch_runner
from prunus.apps.bench.targets import real_inputs
from prunus.runtime.card.artifact import read_card, sha256_of
from prunus.runtime.host import installed
from prunus.runtime.measure.latency import environment
from prunus.runtime.measure.runner import RunnerSpec, samples
from prunus.runtime.progress import ConsoleProgress
from prunus.runtime.session.base import BackendOptions
from prunus.runtime.session.base import open as open_session

from ..record import (
    MODELS,
    PORTRAIT,
    ROOT,
    Settings,
    backends,
    exported,
    finish,
    measure,
    new_parser,
    settings,
    show,
    stored,
    write_record,
)

BUDGETS = {"fp32": 0.9999, "bf16": 0.995, "int8": 0.985}  # share of pixels with the same class
_PEERS = "benchmarks.segmentation.peers"


def model(isr: str, precision: str = "fp32", size: str = "512x512", classes: int = 150) -> Path:
    """Return an exported EDAFormer-T with random weights, exported again when its code changed."""
    path = MODELS / f"edaformer-t-{isr}-{size}-{precision}.onnx"

    def write(progress: ConsoleProgress) -> None:
        from prunus.export.edaformer import export_edaformer

        export_edaformer(
            "t", isr=isr, size=size, classes=classes, precision=cast(Any, precision),
            # int8 takes more than one picture: half of them judge.
            calibration=None if precision == "int8" else PORTRAIT, output=path, progress=progress,
        )  # fmt: skip

    return exported(path, write, stale=path.is_file() and path.stat().st_mtime < _newest_source())


def _newest_source() -> float:
    """Return when the code that makes the files was last written."""
    sources = [*ROOT.glob("models/segmentation/*.py"), ROOT / "export" / "edaformer.py"]
    return max(path.stat().st_mtime for path in sources)


def runners_of_one_network(how: Settings) -> dict[str, Any]:
    """PyTorch, every back end and number format, and the peer; ratios refer to PyTorch eager."""
    off, quantised = model("off"), model("off", "int8")
    entries = [
        torch_runner(word, off, how.threads) for word in ("torch-eager", "torch-compile")
    ]
    entries.append(
        RunnerSpec(
            "EDAFormer-T torch-eager, rewritten",
            target=f"{_PEERS}:rewritten",
            arguments=(str(off),),
            threads=how.threads,
        )
    )
    files = [(off, name) for name in backends()] + [(quantised, name) for name in backends()]
    entries += [session_runner(path, name, how.threads) for path, name in files]
    if installed("transformers"):
        entries += _peers(how)
    result = measure("T at 512x512, ISR off, all runners", entries, how)
    kept = _pixels_kept(files, off, how)
    rows = [[name, f"{share:.5f}", f"{need}", "yes" if share >= need else "NO"]
            for name, (share, need) in kept.items()]  # fmt: skip
    columns = ("file and back end", "pixels equal to fp32", "budget", "within")
    show("## classes that stay the same", columns, rows)
    return {**stored(result), "pixels_equal": {name: share for name, (share, _) in kept.items()}}


def _peers(how: Settings) -> list[RunnerSpec]:
    from benchmarks.segmentation.peers import export_segformer, network_macs

    path = MODELS / "segformer-b0-512x512-fp32.onnx"
    exported(path, lambda progress: export_segformer(path))
    print(f"SegFormer-B0: {network_macs() / 1e9:.2f} GMACs at 512x512", flush=True)
    torch_runners = [
        RunnerSpec(
            f"SegFormer-B0 torch-{mode}",
            target=f"{_PEERS}:segformer",
            arguments=(mode,),
            threads=how.threads,
        )
        for mode in (("eager",) if how.quick else ("eager", "compile"))
    ]
    return [*torch_runners, *(session_runner(path, b, how.threads) for b in backends())]


def _pixels_kept(
    files: Sequence[tuple[Path, str]], reference: Path, how: Settings
) -> dict[str, tuple[float, float]]:
    """Return by file and back end: share of pixels with the fp32 file's class, and the budget."""
    card = read_card(reference)
    feeds = samples(card, real_inputs(card))
    with open_session(reference, "onnxruntime", threads=how.threads) as session:
        expected = [session.run(feed)["classes"].copy() for feed in feeds]
    found = {}
    for path, backend in files:
        plain, _, arithmetic = backend.partition("-")
        options = BackendOptions(inference_precision=cast(Any, arithmetic or "auto"))
        with open_session(path, plain, threads=how.threads, options=options) as session:
            equal = [
                float((session.run(feed)["classes"] == want).mean())
                for feed, want in zip(feeds, expected, strict=True)
            ]
        lower = read_card(path).precision.precision
        need = BUDGETS["bf16" if lower == "fp32" and arithmetic == "bf16" else lower]
        found[f"{path.stem} {backend}"] = (sum(equal) / len(equal), need)
    return found


def isr_small(how: Settings) -> dict[str, Any]:
    """ISR off against published at 512x512, 150 classes."""
    return _isr("512x512", 150, how)


def isr_large(how: Settings) -> dict[str, Any]:
    """ISR off against published at 1024x1024, 19 classes: one window of Cityscapes."""
    return _isr("1024x1024", 19, how)


def _isr(size: str, classes: int, how: Settings) -> dict[str, Any]:
    """Measure the speed-up beside the ratio of MACs on each back end."""
    found: dict[str, Any] = {}
    rows = []
    paths = [model(name, size=size, classes=classes) for name in ("off", "published")]
    plan = read_card(paths[1]).tokens
    assert plan is not None  # EDAFormer's card has one
    saved = 1 - plan.macs / plan.macs_dense
    for backend in backends():
        entries = [session_runner(p, backend, how.threads) for p in paths]
        result = measure(f"ISR at {size} on {backend}", entries, how)
        found[backend] = stored(result)
        off, on = result.results
        gained = 1 - 1 / on.ratio
        rows.append(
            [
                size, backend, f"{off.latency.p50_ms:.1f}", f"{on.latency.p50_ms:.1f}",
                f"{on.ratio:.2f}x", f"{1 / (1 - saved):.2f}x",
                f"{100 * gained:.0f}%", f"{100 * saved:.0f}%", f"{100 * gained / saved:.0f}%",
            ]
        )  # fmt: skip
    columns = ("size", "back end", "off ms", "published ms", "faster", "fewer MACs", "time saved",
               "MACs saved", "of MACs saved")  # fmt: skip
    show("## ISR published against off", columns, rows)
    return found


def frames(how: Settings) -> dict[str, Any]:
    """A whole frame, video to drawn mask, against the engine alone on each back end."""
    found: dict[str, Any] = {}
    rows = []
    for backend in backends():
        path = model("published")
        entries = [
            session_runner(path, backend, how.threads, "engine"),
            scene_runner(path, backend, how.threads, "frame"),
        ]
        result = measure(f"engine and whole frame on {backend}", entries, how)
        found[backend] = stored(result)
        engine, frame = result.results
        rows.append(
            [
                backend, f"{engine.latency.p50_ms:.1f}", f"{frame.latency.p50_ms:.1f}",
                f"{1 / frame.ratio:.3f}",
            ]
        )  # fmt: skip
    columns = ("back end", "engine ms", "frame ms", "frame / engine")
    show("## frame against engine", columns, rows)
    return found


def _keep(path: Path, case: str, found: dict[str, Any], how: Settings) -> None:
    """Write one case into the file of results; what other cases left there stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cases = json.loads(path.read_text())["cases"] if path.is_file() else {}
    used = sorted(MODELS.glob("edaformer-*.onnx")) + sorted(MODELS.glob("segformer-*.onnx"))
    body = {
        "environment": environment(how.threads),
        "models": {p.name: sha256_of(p) for p in used},
        "cases": cases | {case: found},
    }
    write_record(path, body)


CASES: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "runners": runners_of_one_network,
    "isr-512": isr_small,
    "isr-1024": isr_large,
    "frames": frames,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return the exit code."""
    parser = new_parser(
        __doc__, "segmentation.json", CASES, threads=0, cpu="CPU time: for a busy machine",
        quick="short turns, no compiled peer",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    how = settings(options, rounds=(4, 4), seconds=(0.5, 4.0))

    def work() -> None:
        for name in options.only or CASES:
            _keep(options.output, name, CASES[name](how), how)

    return finish(work, options.output)


if __name__ == "__main__":
    sys.exit(main())
