"""Smart Turn for `methods`: is the speaker done? And how near our network is to the shipped file.

    python -m benchmarks.reduction.turn --packages DIR --speech DIR    # beside the shipped file

Sentences are studio prompts of Asterisk, one speaker, each to its end, and broken off in its
middle. They are read out, and few: they tell ways apart, not how good Smart Turn is.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from benchmarks.reduction import networks
from benchmarks.reduction.cases import Array, Case, Scores, cut, plain
from benchmarks.reduction.speech import RATE_HZ, read_prompts
from benchmarks.reduction.turn_network import (
    FILE,
    POSITIONS,
    SmartTurn,
    read_smart_turn,
    unrounded,
)
from prunus.export.common.samples import Samples
from prunus.export.planning.candidates import first_blocks

from ..record import MODELS, RESULTS, ROOT, finish, write_record

_SECONDS = 8
_PAUSE = 0.2  # seconds of silence after which a voice detector asks
_QUIET = 0.01  # of full scale: what lies at the ends of the recordings
_MIDDLE = 0.4, 0.7  # of a sentence: it is broken off at the quietest moment in between
_WINDOW = 0.02  # seconds over which loudness is told
# One clause: broken off in the middle, nobody could take it for whole.
_SENTENCE = re.compile(r"[^.!?,]+[.!?]")
_JOINED = re.compile(r"\b(and|or|but|which|followed|while|then)\b")


def read_turns(folder: Path) -> tuple[Array, Array]:
    """Return sentences of one clause from studio recordings, each whole and broken off.

    Args:
        folder: See `read_prompts`, which also says what is raised.

    Returns:
        (2 n, 128000) float32 at 16 kHz, silence first; (2 n,) bool, whole and broken in turns.
    """
    sounds, told = [], set()
    for sound, text in read_prompts(folder):
        if _SENTENCE.fullmatch(text.strip()) and not _JOINED.search(text) and text not in told:
            loud = np.flatnonzero(np.abs(sound) > _QUIET)
            said = sound[loud[0] : loud[-1] + 1]
            sounds += [_asked(said), _asked(said[: quietest(said)])]
            told.add(text)
    return np.stack(sounds), np.arange(len(sounds)) % 2 == 0


def quietest(said: Array) -> int:
    """Return the sample in the middle of a sentence (T,) at 16 kHz that is in the least sound."""
    width = round(_WINDOW * RATE_HZ)
    energy = np.convolve(said**2, np.ones(width), "same")
    first, last = (round(share * len(said)) for share in _MIDDLE)
    return first + int(energy[first:last].argmin())


def _asked(said: Array) -> Array:
    """Return eight seconds that end with what is said and a pause."""
    sound = np.append(said, np.zeros(round(_PAUSE * RATE_HZ), np.float32))
    whole = np.zeros(_SECONDS * RATE_HZ, np.float32)
    sound = sound[-len(whole) :]
    whole[-len(sound) :] = sound
    return whole


def log_mels(sounds: Array) -> Array:
    """Return Whisper's features of eight seconds each, (n, 80, 800) float32."""
    from transformers import WhisperFeatureExtractor

    front = WhisperFeatureExtractor(feature_size=80, chunk_length=_SECONDS)
    made = front(list(sounds), sampling_rate=RATE_HZ, return_tensors="np", do_normalize=True)
    return np.asarray(made.input_features, np.float32)


def right_decisions(logits: Array, whole: Array) -> Scores:
    """Return 1 for each decision that is right, of logits (n, 1)."""
    return Scores(((logits[:, 0] > 0) == whole).astype(float), np.ones(len(whole)))


def smart_turn(packages: Path, speech: Path) -> Case:
    """Return Smart Turn, judged by its decisions on whole and broken sentences."""
    tensors = read_smart_turn(packages / FILE)

    def network(positions: int = POSITIONS) -> nn.Module:
        return SmartTurn(tensors, positions).eval()

    example = torch.rand(1, 80, 2 * POSITIONS, generator=torch.Generator().manual_seed(0))
    words = (
        "tome:0.5@1", "tome:0.7@1", "mergedna:0.5@1", "top(by=received):0.5@1", "hiprune:0.5@1",
        "random:0.5@1", "strided:0.5@1", "strided:0.7@1", "average_pool:0.5@1",
    )  # fmt: skip
    entries = [plain("dense", "dense", network)]
    entries += [
        plain(f"last {k // 50} s of 8", "rival", partial(network, k)) for k in (300, 200)
    ]
    entries += [plain("first 3 blocks", "blocks", lambda: first_blocks(network(), 3))]
    entries += [cut(network, w, POSITIONS, example) for w in words]
    turns = cache(partial(read_turns, speech))

    def samples() -> Samples:
        return Samples({"mel": log_mels(turns()[0])}, "studio speech")

    def score(logits: Array) -> Scores:
        return right_decisions(logits, turns()[1])

    about = (
        "Is the speaker done? The figure is the share of right decisions on sentences of one "
        "clause from studio prompts of Asterisk, one speaker: each to its end, and broken off at "
        "the quietest moment of its middle, then 0.2 s of silence; in front, silence up to the "
        "eight seconds. Weights are what the package's int8 stands for, activations are floats. "
        "*last 4 s of 8* is the same network with a shorter input. One logit comes out: the cosine "
        "tells only how many decisions stay."
    )
    return Case("Smart Turn 3.2, trained, 8 s, 400 tokens", about, "mel:1x80x800", entries, samples,
                score, "right decisions")  # fmt: skip


def compare_with_shipped(packages: Path, speech: Path) -> dict[str, dict[str, float]]:
    """Return how near our network is to the file of the package, on the sentences.

    By file: the difference of the probabilities, mean and most, the share of equal decisions, and
    of right ones. ``unrounded`` is the shipped graph with the rounding of activations left out.
    """
    import onnxruntime

    sounds, whole = read_turns(speech)
    mels = log_mels(sounds)
    with torch.no_grad():
        logits = SmartTurn(read_smart_turn(packages / FILE)).eval()(torch.from_numpy(mels)).numpy()
    own = 1 / (1 + np.exp(-logits.astype(np.float64)))
    found = {"ours": {"right": right_decisions(logits, whole).accuracy, "turns": len(whole)}}
    shipped = onnx.load(str(packages / FILE))
    for name, model in (("unrounded", unrounded(shipped)), ("as shipped", shipped)):
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        told = session.run(None, {session.get_inputs()[0].name: mels})[0]
        off = np.abs(told - own)
        found[name] = {
            "mean": float(off.mean()), "most": float(off.max()),
            "alike": float(((told > 0.5) == (own > 0.5)).mean()),
            "right": right_decisions(told - 0.5, whole).accuracy,
        }  # fmt: skip
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare the network with the shipped file; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--packages", type=Path, default=MODELS / "packages", metavar="DIR")
    add("--speech", type=Path, default=ROOT / ".cache" / "speech", metavar="DIR")
    add("-o", "--output", type=Path, default=RESULTS / "smart_turn.json")
    options = parser.parse_args(arguments)

    def work() -> None:
        networks.install(options.packages)
        torch.set_num_threads(1)
        found = compare_with_shipped(options.packages, options.speech)
        for name, row in found.items():
            print(name, ", ".join(f"{key} {value:.3g}" for key, value in row.items()))
        rounded = {n: {k: float(f"{v:.3g}") for k, v in row.items()} for n, row in found.items()}
        write_record(options.output, rounded)

    return finish(work, options.output)


if __name__ == "__main__":
    sys.exit(main())
