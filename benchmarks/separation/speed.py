"""Dolphin as published in PyTorch, and as exported: same weights, same clip; the app; peers.

    python -m benchmarks.separation.speed           # half an hour on two quiet cores
    python -m benchmarks.separation.speed --quick   # some seven minutes, without the first exports
    python -m benchmarks.separation.speed --only app --only live
    python -m benchmarks.separation.speed --only clips --seconds 2

``clips``, per window length: the published form (dense cosine transform; PyTorch eager) is the
first runner; the same network with short heat filters in PyTorch, the two exported graphs in ONNX
Runtime and OpenVINO, and peers in PyTorch follow (Conv-TasNet and DPTNet, sound only, where ``make
peer-deps`` brought them). Each has a process of its own, in turns A B A B; a ratio of 3 is three
times as fast as the published form. The answers are compared before anything is timed.

The published code holds one T x T table per heat layer: 59 of them, 0.65 GB for one second and 10.3
GB for four. Here layers of equal length share one, which changes no product and lets four seconds
fit; ``tables_gb`` is what the published code would hold.

``live``: ``dolphin-nano``, one hop per call. Its real-time factor is the median over the hop.

``app``: ``prunus run separation`` with ``dolphin-nano`` on the bundled clip of two voices, from
faces to the clip that comes out: CPU time of each stage per second of sound, on one thread.

Each case is written as soon as it is measured; others in the record stay.
"""

from __future__ import annotations

import argparse
import functools
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunus.apps.bench.separation import PEERS, dolphin_macs, graphs, peer_macs, published
from prunus.export.codec.samples import voice_like
from prunus.export.dolphin import export_dolphin
from prunus.export.separation.samples import draw_mouths
from prunus.models.separation.config import dolphin_config
from prunus.runtime.card.artifact import sha256_of
from prunus.runtime.errors import CheckFailedError, HostError
from prunus.runtime.measure.compare import Comparison, compare
from prunus.runtime.measure.latency import environment
from prunus.runtime.measure.runner import RunnerSpec
from prunus.runtime.progress import ConsoleProgress
from prunus.runtime.tasks.separation.metric import snr_db
from prunus.runtime.tasks.separation.separator import SpeechSeparator, find_parts

from ..record import MODELS, ROOT, exported, finish, new_parser, settings, show, write_record

TARGETS = "prunus.apps.bench.separation"
CASES = ("clips", "live", "app")
CLIP = ROOT / "apps" / "media" / "two_voices.mp4"
BACKENDS = ("onnxruntime", "openvino-f32", "openvino-bf16")
PAPER_MS = 2117.96  # a second of audio on the paper's CPU, table of efficiency
AGREE_DB = 50.0  # filters of radius 32 against the transform; float32 in between


def files(variant: str, seconds: float, *, live: bool = False) -> Path:
    """Return NAME of the exported graphs, written on first use."""
    name = MODELS / f"dolphin-{variant}-{seconds:g}s{'-live' if live else ''}-frames"
    lip_seconds = {} if live else {"lip_seconds": seconds}
    exported(
        Path(f"{name}-voice.onnx"),
        lambda progress: export_dolphin(
            variant, seconds=seconds, output=name, progress=progress, **lip_seconds
        ),
        stale=not Path(f"{name}-lips.onnx").is_file(),
    )
    return name


def clip(seconds: float) -> dict[str, np.ndarray]:
    """Return two clips: ``mixture`` (2, 1, L) float32 and ``mouth`` (2, 1, F, 88, 88) uint8."""
    mixtures, mouths = [], []
    for seed in range(2):
        one, two = voice_like(16000, seconds, seed), voice_like(16000, seconds, seed + 100)
        mixtures.append((0.5 * (one + two)).astype(np.float32)[None])
        mouths.append(draw_mouths(round(25 * seconds), 88, seed)[None])
    return {"mixture": np.stack(mixtures), "mouth": np.stack(mouths)}


def tables_gb(variant: str, seconds: float) -> float:
    """Return the gigabytes of cosine tables that the published form holds."""
    config = dolphin_config(variant)
    frames = config.padded_frames(round(16000 * seconds))
    encode, decode = config.encoder_blocks, config.decoder_blocks
    total = 0
    for level in range(config.levels):
        length = frames >> level
        # Local blocks of both sides; top-down fusion has one layer here and two at the bottleneck;
        # the decoder's fusion has one here and two one level below.
        total += (encode + decode + 1 + 1) * length**2
        total += 2 * (frames >> (config.levels - 1)) ** 2 + 2 * (length // 2) ** 2
    return 4 * total / 1e9


def agree(variant: str, name: Path, inputs: dict[str, np.ndarray]) -> float:
    """Return the SNR in dB of the exported graphs against the published form.

    Raises:
        CheckFailedError: they compute different things.
    """
    expected = np.asarray(published(inputs, None, variant, "dense")()).reshape(-1)
    got: Any = graphs(inputs, None, "onnxruntime", str(name))()
    snr = snr_db(expected, np.asarray(got["voice"]).reshape(-1)[: len(expected)])
    if not snr >= AGREE_DB:
        raise CheckFailedError(
            f"The graphs {name} differ from the published form: {snr:.1f} dB.",
            f"Delete {MODELS} if these files are old.",
        )
    return snr


def measure(variant: str, seconds: float, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one window length and print its table."""
    name, inputs = files(variant, seconds), clip(seconds)
    snr = agree(variant, name, inputs)
    runners = [
        _runner(f"PyTorch eager, {heat}", "published", (variant, heat), options)
        for heat in ("dense", "filter")
    ]
    runners += [
        _runner(f"graphs, {backend}", "graphs", (backend, str(name)), options)
        for backend in options.backend or BACKENDS
    ]
    runners += [_runner(f"{p} (sound only)", "peer", (p,), options) for p in options.peers]
    macs = {f"PyTorch eager, {h}": dolphin_macs(variant, h, seconds) for h in ("dense", "filter")}
    macs |= {f"{p} (sound only)": peer_macs(p, round(16000 * seconds)) for p in options.peers}
    few = {"minimum": 1, "warm_windows": 2} if options.quick else {}
    result = _in_turns(f"dolphin {variant} {seconds:g} s", runners, inputs, options, **few)
    rows = []
    for entry in result.results:
        per_second = entry.latency.p50_ms / seconds
        done = macs.get(entry.spec.name, macs["PyTorch eager, filter"])
        rows.append(
            [
                entry.spec.name, f"{done / seconds / 1e9:.1f}", f"{entry.latency.p50_ms:.0f}",
                f"{per_second:.0f}", f"{per_second / 1000:.2f}", f"{entry.ratio:.2f}",
                f"{entry.ratio_range[0]:.2f}-{entry.ratio_range[1]:.2f}",
                f"{entry.peak_memory_bytes / 2**20:.0f}", f"{PAPER_MS / per_second:.2f}",
            ]
        )  # fmt: skip
    heads = (
        "runner", "GMAC/s", "p50 ms", "ms/s audio", "RTF", "times", "range", "peak MiB",
        "paper/this",
    )  # fmt: skip
    held = tables_gb(variant, seconds)
    title = (
        f"## dolphin {variant}, {seconds:g} s, {_clock(options)}; the published code holds "
        f"{held:.2f} GB of tables"
    )
    show(title, heads, rows)
    found: dict[str, Any] = json.loads(result.to_json())
    return found | {
        "seconds": seconds,
        "agreement_db": round(snr, 1),
        "tables_gb": round(held, 3),
        "macs": macs,
        "files": {path.name: sha256_of(path) for path in find_parts(name)},
    }


def _runner(
    name: str, target: str, words: tuple[str, ...], options: argparse.Namespace,
    boundary: str = "pipeline",
) -> RunnerSpec:  # fmt: skip
    return RunnerSpec(
        name, target=f"{TARGETS}:{target}", arguments=words, threads=options.threads,
        boundary=boundary,
    )  # fmt: skip


def _in_turns(
    title: str, runners: list[RunnerSpec], inputs: dict[str, np.ndarray],
    options: argparse.Namespace, **limits: int,
) -> Comparison:  # fmt: skip
    with ConsoleProgress(title) as progress:
        return compare(
            runners, inputs, rounds=options.rounds, seconds=options.turn, progress=progress,
            clock="cpu" if options.cpu else "wall", **limits,
        )  # fmt: skip


def _clock(options: argparse.Namespace) -> str:
    clock = "CPU time" if options.cpu else "wall clock"
    return f"{options.threads} thread{'s' * (options.threads > 1)}, {clock}"


def live(variant: str, options: argparse.Namespace) -> dict[str, Any]:
    """Measure one hop of a live stream and print its table."""
    name, inputs = files(variant, 2.0, live=True), clip(2.0)
    with SpeechSeparator.open(name, "onnxruntime", threads=1) as separator:
        plan = separator.stream().plan
    runners = [
        _runner(f"hop, {backend}", "hops", (backend, str(name), ""), options, "step")
        for backend in options.backend or BACKENDS
    ]
    result = _in_turns(f"dolphin {variant} live", runners, inputs, options)
    hop_ms = 1000 * plan.hop_s
    rows = [
        [
            entry.spec.name, f"{entry.latency.p50_ms:.1f}", f"{entry.latency.p99_ms:.1f}",
            f"{entry.latency.p50_ms / hop_ms:.3f}", f"{entry.peak_memory_bytes / 2**20:.0f}",
        ]
        for entry in result.results
    ]  # fmt: skip
    title = (
        f"## dolphin {variant} live: hop {hop_ms:.0f} ms, delay {plan.delay / 16:.0f} ms, "
        f"{_clock(options)}"
    )
    heads = ("runner", "p50 ms", "p99 ms", "real-time factor", "peak MiB")
    show(title, heads, rows)
    found: dict[str, Any] = json.loads(result.to_json())
    return found | {
        "hop_ms": hop_ms,
        "delay_ms": plan.delay / 16,
        "files": {path.name: sha256_of(path) for path in find_parts(name)},
    }


def app(options: argparse.Namespace) -> dict[str, Any]:
    """Run the voice picker on the bundled clip and print the CPU time of its stages.

    Raises:
        PrunusError: a run failed.
    """
    name = files("nano", 2.0, live=True)
    rows, runs = [], {}
    for backend in options.backend or BACKENDS[:2]:
        found = [_run_app(name, backend) for _ in range(options.rounds)]
        runs[backend] = found
        middle = sorted(found, key=_factor)[len(found) // 2]
        length = middle["seconds"]
        rows.append(
            [
                backend, f"{_factor(middle):.3f}",
                f"{statistics.median(run['real_time_factor'] for run in found):.2f}",
                *(f"{middle['cpu_seconds'][stage] / length:.3f}" for stage in STAGES),
                str(len(middle["faces"])),
            ]
        )  # fmt: skip
    title = f"## app on {CLIP.name}, CPU seconds per second of sound; one thread per model"
    heads = ("back end", "factor", "wall factor", *STAGES, "faces")
    show(title, heads, rows)
    return {
        "runs": runs,
        "clip": sha256_of(CLIP),
        "files": {path.name: sha256_of(path) for path in find_parts(name)},
    }


STAGES = ("faces", "separate", "write", "other")


def _factor(run: dict[str, Any]) -> float:
    return float(sum(run["cpu_seconds"].values()) / run["seconds"])


def _run_app(name: Path, backend: str) -> dict[str, Any]:
    plain, _, arithmetic = backend.partition("-")
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "prunus.apps.cli.main", "run", "separation",
            "--source", str(CLIP),
            "--model", f"{name}-voice.onnx", "--sink", f"{folder}/voice.mp4", "--threads", "1",
            "--backend", plain, "--arithmetic", arithmetic or "auto", "--json", "--quiet",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(f"The app ended with code {done.returncode}: {done.stderr[-300:].strip()}")
    found: dict[str, Any] = json.loads(done.stdout)
    found.pop("outputs")  # a temporary folder
    return found


def record(path: Path, name: str, case: dict[str, Any], threads: int) -> None:
    """Put a case into the record, beside those that are there."""
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    here = environment(threads)
    cases = old.get("cases", {}) | {name: {"environment": here} | case}
    write_record(path, {"environment": here, "cases": cases})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = new_parser(
        __doc__, "separation.json", CASES, threads=0, turn="--turn",
        cpu="CPU time of all threads, for a busy machine", quick="two short turns of each runner",
    )  # fmt: skip
    add = parser.add_argument
    add("--variant", default="base", help="of the comparison (default base)")
    add("--seconds", type=float, nargs="*", default=[1.0, 2.0, 4.0])
    add("--backend", choices=BACKENDS, action="append", help="default: all")
    add("--no-peers", action="store_true", help="without Conv-TasNet and DPTNet")
    options = parser.parse_args(arguments)
    how = settings(options, rounds=(2, 4), seconds=(0.2, 3.0))
    options.threads, options.rounds, options.turn = how.threads, how.rounds, how.seconds
    peers = () if options.no_peers or not importlib.util.find_spec("asteroid") else tuple(PEERS)
    options.peers, only = peers, options.only or CASES
    cases: dict[str, Callable[[], dict[str, Any]]] = {}
    if "live" in only:
        cases["nano live"] = lambda: live("nano", options)
    if "app" in only:
        cases["nano app"] = lambda: app(options)
    if "clips" in only:
        for s in options.seconds:
            cases[f"{options.variant} {s:g} s"] = functools.partial(
                measure, options.variant, s, options
            )

    def work() -> None:
        for name, case in cases.items():
            record(options.output, name, case(), options.threads)

    return finish(work, options.output)


if __name__ == "__main__":
    sys.exit(main())
