"""NsfCodec step by step, as on a microphone: two back ends and PyTorch eager, same weights.

    python -m benchmarks.codec.steps                                 # the shipped codec, one minute
    python -m benchmarks.codec.steps --model NAME --checkpoint FILE  # another one

Each side runs in a process of its own, in turns A B C A B C: 20 ms of sound are encoded and
decoded, then the next. The real-time factor is time over length of sound; CPU time of one thread
is what a busy machine disturbs least. Codes must agree before anything is reported.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from prunus.apps.common.model_files import DEFAULT_CODEC, codec_name
from prunus.runtime.card.artifact import sha256_of
from prunus.runtime.errors import CheckFailedError
from prunus.runtime.measure.latency import environment, peak_memory_bytes

from ..record import RESULTS, show, write_record

WARM_UP = 50  # steps of 20 ms
SIDES = ("onnxruntime", "openvino", "torch")


def voice(samples: int) -> Any:
    """Return voice-like sound: harmonics that glide, syllables, hiss. (T,) float32 at 16 kHz."""
    rng = np.random.default_rng(0)
    time_s = np.arange(samples) / 16000
    phase = 2 * np.pi * np.cumsum(140 + 40 * np.sin(2 * np.pi * 0.7 * time_s)) / 16000
    sound = sum(np.cos(k * phase) / k for k in range(1, 20)) * 0.1
    syllables = np.clip(np.sin(2 * np.pi * 3.1 * time_s) + 0.5, 0, None)
    return ((sound + 0.02 * rng.standard_normal(samples)) * syllables).astype(np.float32)


def session_steps(args: argparse.Namespace) -> Any:
    """Return a function that takes 320 samples and gives codes, sound included in the work."""
    from prunus.runtime.tasks.codec.codec import SpeechCodec

    codec = SpeechCodec.open(codec_name(args.model), args.side, threads=1)
    encoder, decoder = codec.encoder(eager=True), codec.decoder(eager=True)

    def step(sound: Any) -> Any:
        codes = encoder.push(sound)
        decoder.push(codes)
        return codes["codes"]

    return step


def torch_steps(args: argparse.Namespace) -> Any:
    """Return the same for the PyTorch modules, called one step at a time."""
    import torch

    from prunus.export.nsfcodec import find_network
    from prunus.models.codec.nsfcodec.deployed import NsfDecoderStep, NsfEncoderStep
    from prunus.models.codec.nsfcodec.nsfcodec import zero_past

    torch.set_num_threads(1)
    network = find_network(args.checkpoint).network
    encoder, decoder = NsfEncoderStep(network).eval(), NsfDecoderStep(network).eval()
    heard, spoken = zero_past(encoder.states(), 1), zero_past(decoder.states(), 1)
    begun = False

    @torch.inference_mode()
    def step(sound: Any) -> Any:
        nonlocal heard, spoken, begun
        pitch, codes, *heard = encoder(torch.from_numpy(sound)[None], *heard)
        if not begun:  # the first frame lies before the start
            begun = True
            return codes[0, :, :0].numpy()
        _, *spoken = decoder(pitch, codes, *spoken)
        return codes[0].numpy()

    return step


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run one side in this process."""
    started = time.perf_counter()
    step = (torch_steps if args.side == "torch" else session_steps)(args)
    opened = time.perf_counter() - started
    sound = voice(int(args.seconds * 16000) // 320 * 320)
    walls, cpus, codes = [], [], []
    for at in range(0, len(sound), 320):
        wall, cpu = time.perf_counter_ns(), time.process_time_ns()
        found = step(sound[at : at + 320])
        cpus.append((time.process_time_ns() - cpu) / 1e6)
        walls.append((time.perf_counter_ns() - wall) / 1e6)
        codes.append(np.array(found))
    warm = slice(WARM_UP, None)
    return {
        "open_s": opened,
        "codes": hashlib.sha256(np.concatenate(codes, axis=1).tobytes()).hexdigest(),
        "peak_memory_mib": peak_memory_bytes() / 2**20,
        "wall_ms": [round(v, 4) for v in walls[warm]],
        "cpu_ms": [round(v, 4) for v in cpus[warm]],
    }


def summary(runs: list[dict[str, Any]]) -> dict[str, float]:
    """Return the figures of one side over its runs."""
    wall = np.concatenate([r["wall_ms"] for r in runs])
    cpu = np.concatenate([r["cpu_ms"] for r in runs])
    return {
        "n": len(wall),
        "real_time_factor": float(wall.mean() / 20.0),
        "cpu_real_time_factor": float(cpu.mean() / 20.0),
        **{f"wall_p{q}_ms": float(np.percentile(wall, q)) for q in (50, 90, 99)},
        **{f"cpu_p{q}_ms": float(np.percentile(cpu, q)) for q in (50, 99)},
        "peak_memory_mib": max(r["peak_memory_mib"] for r in runs),
        "open_s": statistics.median(r["open_s"] for r in runs),
    }


def main() -> None:
    """Compare both sides, print the table, keep the samples."""
    parser = argparse.ArgumentParser(description="NsfCodec step by step, beside PyTorch.")
    parser.add_argument("--model", default=DEFAULT_CODEC)
    parser.add_argument("--checkpoint")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "nsfcodec.json")
    args = parser.parse_args()
    if (least := (WARM_UP + 50) * 0.02) > args.seconds:
        parser.error(f"--seconds {args.seconds:g}: at least {least:g}, the first second is warm-up")
    if args.side:
        print(json.dumps(measure(args)))
        return
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(args.rounds):
        for side in SIDES:
            command = [sys.executable, "-m", "benchmarks.codec.steps", "--side", side,
                       "--model", args.model, "--seconds", str(args.seconds)]  # fmt: skip
            command += ["--checkpoint", args.checkpoint] if args.checkpoint else []
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            runs[side].append(json.loads(done.stdout.splitlines()[-1]))
    if len({r["codes"] for side in SIDES for r in runs[side]}) != 1:
        raise CheckFailedError("Codes differ between PyTorch and a back end.", "Run check.")
    found = {side: summary(runs[side]) for side in SIDES}
    ratios = {
        side: {
            kind: statistics.median(
                sum(b[f"{kind}_ms"]) / sum(a[f"{kind}_ms"])
                for a, b in zip(runs[side], runs["torch"], strict=True)
            )
            for kind in ("wall", "cpu")
        }
        for side in SIDES[:-1]
    }
    rows = [
        (side, f"{f['real_time_factor']:.3f}", f"{f['cpu_real_time_factor']:.3f}",
         f"{f['wall_p50_ms']:.2f}", f"{f['wall_p99_ms']:.2f}", f"{f['cpu_p99_ms']:.2f}",
         f"{f['peak_memory_mib']:.0f}", f"{f['open_s']:.2f}")
        for side, f in found.items()
    ]  # fmt: skip
    columns = ("", "RTF", "RTF, CPU", "p50 ms", "p99 ms", "p99 ms, CPU", "peak MiB", "open s")
    show("encode + decode, 20 ms steps, one thread", columns, rows)
    for side, ratio in ratios.items():
        found_ratio = f"{ratio['wall']:.1f} in time, {ratio['cpu']:.1f} in CPU time"
        print(f"PyTorch eager / {side}: {found_ratio}")
    name = codec_name(args.model)
    record = {
        "environment": environment(1),
        "files": {p: sha256_of(f"{name}-{p}.onnx") for p in ("encoder", "decoder")},
        "seconds": args.seconds,
        "figures": found,
        "torch_over_back_end": ratios,
        "runs": runs,
    }
    write_record(args.output, record)


if __name__ == "__main__":
    main()
