"""The voice picker on voices that it never heard: is the voice clearer, are its words understood?

    python -m benchmarks.separation.words --unpacked DIR       # twenty minutes of one core
    python -m benchmarks.separation.words --unpacked DIR --model NAME

DIR is that of `codec/peers.py`. Each voice meets another one at -5, 0 and 5 dB, with lips drawn
from its sound as in the training; mixtures stay in `--folder`, as `prunus eval separation` reads
them. LibriVox's sentences come with what is said in them: word errors are counted for those alone.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.codec.peers import GROUPS, RATE_HZ, Audio
from prunus.apps.codec.recordings import Recording
from prunus.apps.common.options import BackendChoice
from prunus.apps.separation.evaluate import evaluate
from prunus.apps.separation.options import SeparationEvalOptions
from prunus.models.training.rendering.drawn_lips import STEP, lip_clip, random_mouth
from prunus.models.training.separation.mixture_files import write_mixture_files
from prunus.runtime.audio.resample import resample
from prunus.runtime.measure.latency import environment
from prunus.runtime.progress import ConsoleProgress

from ..record import RESULTS, finish, write_record

RATIOS_DB = (-5.0, 0.0, 5.0)
_LEVEL = 10 ** (-24 / 20)  # root mean square of a mixture
_NOISE = 10 ** (-70 / 20)
PAIRS = {
    "LibriVox (en) and June (fr)": ("LibriVox, English", "June, French"),
    "June (fr) and volunteers": ("June, French", "volunteers, six languages"),
}


def write_pairs(folder: Path, first: Sequence[Recording], second: Sequence[Recording]) -> None:
    """Write a mixture of each first recording with the next second one at each ratio.

    Args:
        folder: See `prunus.apps.separation.mixtures`; what is there under the same name goes.
        first: Whole, and their texts go with them.
        second: Repeated or cut to the length of the first.
    """
    for k, one in enumerate(first):
        for n, ratio in enumerate(RATIOS_DB):
            rng = np.random.default_rng([k, n])
            other = second[(k * len(RATIOS_DB) + n) % len(second)]
            sound = resample(one.sound, one.sample_rate_hz, RATE_HZ)
            count = -(-len(sound) // STEP) * STEP
            pair = np.stack((np.pad(sound, (0, count - len(sound))), np.resize(other.sound, count)))
            name = f"{Path(one.name).stem}_{other.name}_{ratio:+g}".replace(" ", "-")
            mouths = [lip_clip(voice, random_mouth(rng), rng) for voice in pair]
            write_mixture_files(folder, name, *mixed(pair, ratio, rng), mouths)
            if one.text is not None:
                (folder / "s1" / f"{name}.txt").write_text(one.text + "\n", encoding="utf-8")


def mixed(voices: Audio, ratio_db: float, rng: np.random.Generator) -> tuple[Audio, list[Audio]]:
    """Return the mixture (T,) and both voices at their ratio, from (2, T) of any level."""
    gains = 10 ** (np.array([[ratio_db], [-ratio_db]]) / 2 / 20)
    voices = voices / np.sqrt((voices**2).mean(axis=1, keepdims=True)) * gains
    voices *= _LEVEL / np.sqrt((voices.sum(axis=0) ** 2).mean())
    noise = _NOISE * rng.standard_normal(voices.shape[1])
    whole = (voices.sum(axis=0) + noise).astype(np.float32)
    return whole, list(voices.astype(np.float32))


def judge(args: argparse.Namespace, folder: Path) -> None:
    """Make the mixtures, judge the separator on them, print tables, keep the means."""
    record: dict[str, Any] = {"environment": environment(1), "pairs": {}}
    found = {name: read(args.unpacked) for name, read in GROUPS.items()}
    for number, (title, (first, second)) in enumerate(PAIRS.items()):
        place = folder / str(number)
        write_pairs(place, found[first], found[second])
        options = SeparationEvalOptions(
            place, args.model, lips=("own", "swapped"), compute=BackendChoice("auto", threads=1)
        )
        with ConsoleProgress(title) as progress:
            scores = evaluate(options, progress)
        print(f"\n{title}\n{scores.to_text()}")
        told = scores.to_dict()
        record |= {"model": told["model"], "weights": told["weights"]}
        record["pairs"][title] = {
            "voices": len(scores.names), "transcribed_words": sum(told["words"]),
            "rows": told["means"], "notes": told["notes"],
        }  # fmt: skip
        write_record(args.output, json.loads(json.dumps(record), parse_float=_rounded))


def _rounded(text: str) -> float:
    return round(float(text), 4)


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--unpacked", type=Path, required=True)
    parser.add_argument("--model", help="default: the one that ships")
    parser.add_argument("--folder", type=Path, help="keep the mixtures here")
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "separation_words.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="prunus-voices-") as temporary:
        work = functools.partial(judge, args, args.folder or Path(temporary))
        return finish(work, args.output)


if __name__ == "__main__":
    sys.exit(main())
