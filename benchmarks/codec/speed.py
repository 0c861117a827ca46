"""Codec benchmarks: sound in, codes, sound out, in the runtime, in PyTorch, and EnCodec beside it.

    python -m benchmarks.codec.speed                       # all, some ten minutes on two cores
    python -m benchmarks.codec.speed --only wavtokenizer   # against PyTorch eager and EnCodec-24k
    python -m benchmarks.codec.speed --quick               # the same tables with short turns

Each runner has a process of its own; runners take turns A B A B. Weights are random but for the
codec that ships: latency does not depend on them. FuseCodec's deployed network is SpeechTokenizer's
generator. The peer EnCodec-24k needs `transformers` (extra ``peer``) and is left out without it.
What every back end computes is compared with ONNX Runtime. The record is written after each codec.
The codec that ships takes steps of 20 ms, made for live use; as it is exported for files, in steps
of 1 s, it is timed beside. Step by step against PyTorch: `benchmarks/codec/steps.py`.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prunus.apps.common.model_files import DEFAULT_CODEC, codec_name
from prunus.runtime.card.artifact import sha256_of
from prunus.runtime.host import installed
from prunus.runtime.measure.compare import Comparison
from prunus.runtime.measure.latency import environment
from prunus.runtime.measure.runner import RunnerSpec
from prunus.runtime.progress import ConsoleProgress
from prunus.runtime.tasks.codec.codec import find_parts

from ..record import (
    MODELS,
    Settings,
    backends,
    exported,
    finish,
    new_parser,
    settings,
    show,
    take_turns,
    write_record,
)

_RUNNERS = "benchmarks.codec.runners"
# Length of the sound: whole frames, and for WavTokenizer the window that it was trained on.
SECONDS = {"wavtokenizer": 3.0, "fusecodec": 3.0, "freecodec": 3.2, "nsfcodec": 3.0}


def model(name: str) -> str:
    """Return NAME of a codec's files: those that ship, or random ones, exported on first use."""
    if name == DEFAULT_CODEC:
        return codec_name(name)
    base = MODELS / f"{name}-fp32"

    def write(progress: ConsoleProgress) -> None:
        script = importlib.import_module(f"prunus.export.{name}")
        getattr(script, f"export_{name}")(output=base, progress=progress)

    exported(Path(f"{base}-decoder.onnx"), write)
    return str(base)


def long_steps() -> str:
    """Return NAME of the codec that ships in steps of a second, exported on first use."""
    from prunus.export.nsfcodec import export_nsfcodec

    base = MODELS / "nsfcodec-1s"
    exported(
        Path(f"{base}-decoder.onnx"),
        lambda progress: export_nsfcodec(step=50, output=base, progress=progress),
    )
    return str(base)


def runner(name: str, target: str, *arguments: str, threads: int) -> RunnerSpec:
    """Return one contestant of a whole sound."""
    return RunnerSpec(
        name, target=f"{_RUNNERS}:{target}", arguments=arguments, threads=threads,
        boundary="pipeline",
    )  # fmt: skip


def compare(name: str, how: Settings, *, compiled: bool) -> dict[str, Any]:
    """Time one codec: PyTorch eager first, which ratios refer to, then every back end."""
    length, threads = str(SECONDS[name]), how.threads
    files = model(name)
    entries = [runner(f"{name} torch-eager", "torch_codec", name, "eager", length, threads=threads)]
    if compiled:
        entries.append(
            runner(f"{name} torch-compile", "torch_codec", name, "compile", length, threads=threads)
        )
    with tempfile.TemporaryDirectory(prefix="prunus-bench-") as folder:
        kept = {b: f"{folder}/{b}.npz" for b in backends()}
        entries += [
            runner(f"{name} {b}", "runtime_codec", files, b, length, path, threads=threads)
            for b, path in kept.items()
        ]
        if name == DEFAULT_CODEC:
            entries.append(
                runner(f"{name} onnxruntime, steps of 1 s", "runtime_codec", long_steps(),
                       "onnxruntime", length, threads=threads)
            )  # fmt: skip
        if name == "wavtokenizer" and installed("transformers"):
            entries.append(
                runner("encodec-24k torch-eager", "encodec", "eager", length, threads=threads)
            )
        result = take_turns(name, entries, how)
        outcomes = {b: dict(np.load(path)) for b, path in kept.items()}
    print(f"\n## {name}: {length} s of sound, coded and decoded\n{result.to_text()}", flush=True)
    return {
        "results": [
            {
                "name": r.spec.name,
                "ratio": round(r.ratio, 4),
                "ratio_range": [round(x, 4) for x in r.ratio_range],
                "p50_ms": round(r.latency.p50_ms, 3),
                "p99_ms": round(r.latency.p99_ms, 3),
                "calls": r.latency.n,
                "peak_memory_mib": round(r.peak_memory_bytes / 2**20),
                "cold_start_ms": round(r.cold_start_ms),
            }
            for r in result.results
        ],
        "sound_seconds": SECONDS[name],
        "work": _work(name, result),
        "against_onnxruntime": _agreement(name, outcomes),
        "models": {p.name: sha256_of(p) for p in find_parts(files).values()},
    }


def _agreement(name: str, outcomes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Print and return how far each back end is from ONNX Runtime: equal codes, SNR of sound."""
    first, *others = outcomes.values()
    found = {}
    for backend, other in zip(list(outcomes)[1:], others, strict=True):
        noise = first["sound"].astype(np.float64) - other["sound"]
        power = float((first["sound"].astype(np.float64) ** 2).sum())
        snr = 10.0 * np.log10(power / max(float((noise**2).sum()), 1e-30))
        equal = 100.0 * float((first["codes"] == other["codes"]).mean())
        found[backend] = {"equal_codes_percent": round(equal, 2), "snr_db": round(float(snr), 1)}
        print(f"{name} {backend} against ONNX Runtime: {equal:.2f} % of codes equal, sound of the "
              f"same codes {snr:.1f} dB SNR")  # fmt: skip
    return found


def _work(name: str, result: Comparison) -> dict[str, Any]:
    """Print and return multiply-accumulates per second of sound, and real-time factors."""
    from benchmarks.codec.networks import encodec_macs_per_second, halves, macs_per_second

    encode, decode = macs_per_second(*halves(name))
    rows, found = [], {"encode": encode, "decode": decode}
    if any(r.spec.name.startswith("encodec") for r in result.results):
        found["encodec-24k"] = encodec_macs_per_second()
    for entry in result.results:
        peer = entry.spec.name.startswith("encodec")
        macs = found["encodec-24k"] if peer else encode + decode
        factor = entry.latency.p50_ms / 1000.0 / SECONDS[name]
        rows.append(
            (entry.spec.name, f"{macs / 1e9:.2f}", f"{factor:.3f}", f"{macs / factor / 1e9:.1f}",
             f"{entry.ratio:.2f}x", f"{entry.peak_memory_bytes / 2**20:.0f}")
        )  # fmt: skip
        found[f"{entry.spec.name} real-time factor"] = factor
    columns = ("runner", "GMAC per s of sound", "real-time factor", "GMAC/s", "ratio", "peak MiB")
    title = f"{name}: encode {encode / 1e9:.2f}, decode {decode / 1e9:.2f} GMAC per s of sound"
    show(f"\n{title}", columns, rows)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks; return the exit code."""
    parser = new_parser(__doc__, "codec.json", SECONDS)
    parser.add_argument("--compile", action="store_true", help="torch.compile as well (minutes)")
    options = parser.parse_args(arguments)
    how = settings(options, rounds=(2, 4), seconds=(2.0, 6.0))

    def work() -> None:
        body: dict[str, Any] = {"environment": environment(how.threads), "cases": {}}
        for name in options.only or list(SECONDS):
            body["cases"][name] = compare(name, how, compiled=options.compile)
            write_record(options.output, body)

    return finish(work, options.output)


if __name__ == "__main__":
    sys.exit(main())
