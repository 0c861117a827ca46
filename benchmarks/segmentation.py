"""Segmentation benchmarks: every figure that prunus states about EDAFormer's speed.

    python benchmarks/segmentation.py            # all, some fifteen minutes on two cores
    python benchmarks/segmentation.py --quick    # short turns, the peer's compiled form left out:
                                                 # seven minutes, first exports apart
    python benchmarks/segmentation.py --only isr-512 --seconds 4

Each case is written as soon as it is done, beside those of earlier runs (`--only`). Each runner
has a process of its own; runners take turns A B A B. Weights are random (the graph is
the same); what a number format costs in pixels is measured beside its speed, on real frames,
against the fp32 file. The peer, SegFormer-B0, needs `transformers` (extra ``peer``) and is left
out without it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from record import write_record

from prunus.apps.bench.runs import run_in_turns, scene_runner, session_runner, torch_runner
from prunus.apps.bench.targets import real_inputs
from prunus.apps.common.tables import plain_table
from prunus.runtime.card.artifact import read_card, sha256_of
from prunus.runtime.errors import PrunusError
from prunus.runtime.host import bfloat16_flag, installed
from prunus.runtime.measure.compare import Comparison
from prunus.runtime.measure.latency import Clock, environment
from prunus.runtime.measure.runner import RunnerSpec, samples
from prunus.runtime.progress import ConsoleProgress
from prunus.runtime.session.base import BackendOptions
from prunus.runtime.session.base import open as open_session

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / ".cache" / "bench"
RESULTS = Path(__file__).resolve().parent / "results"
PORTRAIT = ROOT / "apps" / "media" / "portrait.jpg"  # one real picture: speed does not depend on it
BUDGETS = {"fp32": 0.9999, "bf16": 0.995, "int8": 0.985}  # share of pixels with the same class
_PEERS = "segmentation_peers"


@dataclass(frozen=True, slots=True)
class Settings:
    """How long and with what."""

    threads: int
    rounds: int
    seconds: float
    clock: Clock = "wall"
    quick: bool = False


def model(isr: str, precision: str = "fp32", size: str = "512x512", classes: int = 150) -> Path:
    """Return an exported EDAFormer-T with random weights, exported again when its code changed."""
    path = MODELS / f"edaformer-t-{isr}-{size}-{precision}.onnx"
    if not path.is_file() or path.stat().st_mtime < _newest_source():
        from prunus.export.edaformer import export_edaformer

        MODELS.mkdir(parents=True, exist_ok=True)
        with ConsoleProgress(f"export {path.name}") as progress:
            export_edaformer(
                "t", isr=isr, size=size, classes=classes, precision=cast(Any, precision),
                calibration=PORTRAIT, output=path, progress=progress,
            )  # fmt: skip
    return path


def _newest_source() -> float:
    """Return when the code that makes the files was last written."""
    sources = [*ROOT.glob("models/segmentation/*.py"), ROOT / "export" / "edaformer.py"]
    return max(path.stat().st_mtime for path in sources)


def backends() -> list[str]:
    """Return the back ends that this machine can run, with their arithmetic."""
    names = ["onnxruntime"]
    if installed("openvino"):
        names.append("openvino-f32")
        if bfloat16_flag():
            names.append("openvino-bf16")
    return names


def measure(title: str, runners: Sequence[RunnerSpec], settings: Settings) -> Comparison:
    """Run one comparison and print it."""
    with ConsoleProgress(title) as progress:
        result = run_in_turns(
            runners,
            rounds=settings.rounds,
            seconds=settings.seconds,
            clock=settings.clock,
            progress=progress,
        )
    print(f"\n## {title}\n{result.to_text()}\n", flush=True)
    return result


def runners_of_one_network(settings: Settings) -> dict[str, Any]:
    """PyTorch, every back end and number format, and the peer; ratios refer to PyTorch eager."""
    off, quantised = model("off"), model("off", "int8")
    entries = [
        torch_runner(word, off, settings.threads) for word in ("torch-eager", "torch-compile")
    ]
    entries.append(
        RunnerSpec(
            "EDAFormer-T torch-eager, rewritten",
            target=f"{_PEERS}:rewritten",
            arguments=(str(off),),
            threads=settings.threads,
        )
    )
    files = [(off, name) for name in backends()] + [(quantised, name) for name in backends()]
    entries += [session_runner(path, name, settings.threads) for path, name in files]
    if installed("transformers"):
        entries += _peers(settings)
    result = measure("T at 512x512, ISR off, all runners", entries, settings)
    kept = _pixels_kept(files, off, settings)
    rows = [[name, f"{share:.5f}", f"{need}", "yes" if share >= need else "NO"]
            for name, (share, need) in kept.items()]  # fmt: skip
    columns = ("file and back end", "pixels equal to fp32", "budget", "within")
    print(plain_table("## classes that stay the same", columns, rows) + "\n", flush=True)
    return {**_stored(result), "pixels_equal": {name: share for name, (share, _) in kept.items()}}


def _peers(settings: Settings) -> list[RunnerSpec]:
    from segmentation_peers import export_segformer, network_macs

    path = MODELS / "segformer-b0-512x512-fp32.onnx"
    if not path.is_file():
        with ConsoleProgress(f"export {path.name}"):
            export_segformer(path)
    print(f"SegFormer-B0: {network_macs() / 1e9:.2f} GMACs at 512x512", flush=True)
    torch_runners = [
        RunnerSpec(
            f"SegFormer-B0 torch-{mode}",
            target=f"{_PEERS}:segformer",
            arguments=(mode,),
            threads=settings.threads,
        )
        for mode in (("eager",) if settings.quick else ("eager", "compile"))
    ]
    return [*torch_runners, *(session_runner(path, b, settings.threads) for b in backends())]


def _pixels_kept(
    files: Sequence[tuple[Path, str]], reference: Path, settings: Settings
) -> dict[str, tuple[float, float]]:
    """Return by file and back end: share of pixels with the fp32 file's class, and the budget."""
    card = read_card(reference)
    feeds = samples(card, real_inputs(card))
    with open_session(reference, "onnxruntime", threads=settings.threads) as session:
        expected = [session.run(feed)["classes"].copy() for feed in feeds]
    found = {}
    for path, backend in files:
        plain, _, arithmetic = backend.partition("-")
        options = BackendOptions(inference_precision=cast(Any, arithmetic or "auto"))
        with open_session(path, plain, threads=settings.threads, options=options) as session:
            equal = [
                float((session.run(feed)["classes"] == want).mean())
                for feed, want in zip(feeds, expected, strict=True)
            ]
        lower = read_card(path).precision.precision
        need = BUDGETS["bf16" if lower == "fp32" and arithmetic == "bf16" else lower]
        found[f"{path.stem} {backend}"] = (sum(equal) / len(equal), need)
    return found


def isr_small(settings: Settings) -> dict[str, Any]:
    """ISR off against published at 512x512, 150 classes."""
    return _isr("512x512", 150, settings)


def isr_large(settings: Settings) -> dict[str, Any]:
    """ISR off against published at 1024x1024, 19 classes: one window of Cityscapes."""
    return _isr("1024x1024", 19, settings)


def _isr(size: str, classes: int, settings: Settings) -> dict[str, Any]:
    """Measure the speed-up beside the ratio of MACs on each back end."""
    found: dict[str, Any] = {}
    rows = []
    paths = [model(name, size=size, classes=classes) for name in ("off", "published")]
    plan = read_card(paths[1]).tokens
    assert plan is not None  # EDAFormer's card has one
    saved = 1 - plan.macs / plan.macs_dense
    for backend in backends():
        entries = [session_runner(p, backend, settings.threads) for p in paths]
        result = measure(f"ISR at {size} on {backend}", entries, settings)
        found[backend] = _stored(result)
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
    print(plain_table("## ISR published against off", columns, rows) + "\n", flush=True)
    return found


def frames(settings: Settings) -> dict[str, Any]:
    """A whole frame, video to drawn mask, against the engine alone on each back end."""
    found: dict[str, Any] = {}
    rows = []
    for backend in backends():
        path = model("published")
        entries = [
            session_runner(path, backend, settings.threads, "engine"),
            scene_runner(path, backend, settings.threads, "frame"),
        ]
        result = measure(f"engine and whole frame on {backend}", entries, settings)
        found[backend] = _stored(result)
        engine, frame = result.results
        rows.append(
            [
                backend, f"{engine.latency.p50_ms:.1f}", f"{frame.latency.p50_ms:.1f}",
                f"{1 / frame.ratio:.3f}",
            ]
        )  # fmt: skip
    columns = ("back end", "engine ms", "frame ms", "frame / engine")
    print(plain_table("## frame against engine", columns, rows) + "\n", flush=True)
    return found


def _keep(path: Path, case: str, found: dict[str, Any], settings: Settings) -> None:
    """Write one case into the file of results; what other cases left there stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cases = json.loads(path.read_text())["cases"] if path.is_file() else {}
    used = sorted(MODELS.glob("edaformer-*.onnx")) + sorted(MODELS.glob("segformer-*.onnx"))
    body = {
        "environment": environment(settings.threads),
        "models": {p.name: sha256_of(p) for p in used},
        "cases": cases | {case: found},
    }
    write_record(path, body)


def _stored(result: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values: to the microsecond, with short names of files."""
    raw: dict[str, Any] = json.loads(result.to_json(), parse_float=lambda t: round(float(t), 4))
    for entry in raw["results"]:  # paths of this machine say nothing elsewhere
        entry["spec"]["path"] = Path(entry["spec"]["path"]).name
        entry["spec"]["arguments"] = [Path(word).name for word in entry["spec"]["arguments"]]
    return raw


CASES: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "runners": runners_of_one_network,
    "isr-512": isr_small,
    "isr-1024": isr_large,
    "frames": frames,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="short turns, no compiled peer")
    parser.add_argument("--only", choices=list(CASES), action="append", help="default: all")
    parser.add_argument("--threads", type=int, default=0, help="default: 2, 1 with --cpu")
    parser.add_argument("--cpu", action="store_true", help="CPU time: for a busy machine")
    parser.add_argument("--rounds", type=int, default=0, help="turns of each runner")
    parser.add_argument("--seconds", type=float, default=0.0, help="length of a turn")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "segmentation.json")
    options = parser.parse_args(arguments)
    settings = Settings(
        threads=options.threads or (1 if options.cpu else 2),
        rounds=options.rounds or 4,
        seconds=options.seconds or (0.5 if options.quick else 4.0),
        clock="cpu" if options.cpu else "wall",
        quick=options.quick,
    )
    # Runners live in processes of their own and find this folder's targets by it.
    here = str(Path(__file__).resolve().parent)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    begin = time.perf_counter()
    try:
        for name in options.only or CASES:
            _keep(options.output, name, CASES[name](settings), settings)
    except PrunusError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    print(f"wrote {options.output} after {time.perf_counter() - begin:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
