"""Write mixtures of unseen speakers as files, for ``prunus eval separation``.

``python -m prunus.models.training.separation.mixture_folder OUT --data .cache/speech --count 40``

OUT gets ``mix``, ``s1``, ``s2`` with NAME.wav (16 kHz, mono) and ``mouths/s1``, ``mouths/s2`` with
NAME.npz (``data``: uint8 (F, 88, 88) drawn lips, 25 a second). Mixtures follow the rules of the
training; the same seed gives the same folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from prunus.models.training.separation.evaluate import unseen_batches
from prunus.models.training.separation.mixture_files import write_mixture_files
from prunus.models.training.separation.mixtures import MixtureBatches
from prunus.runtime.errors import UsageError


def write_mixtures(target: Path, batches: MixtureBatches, count: int) -> list[str]:
    """Write the first `count` mixtures, one per batch; return their names.

    Raises:
        UsageError: the folder holds mixtures already, or batches hold more than one mixture.
    """
    if (target / "mix").is_dir() and any((target / "mix").iterdir()):
        raise UsageError(f"{target} holds mixtures already.", "Name another folder.")
    if batches.size != 1:
        raise UsageError(f"Got {batches.size} mixtures per batch; expected 1.")
    names = []
    for k in range(count):
        batch = batches[k]
        name = f"{k:03d}_{batch.names[0]}_{batch.names[1]}"
        mixture, voices = batch.mixture[0].numpy(), list(batch.voice.numpy())
        write_mixture_files(target, name, mixture, voices, list(batch.mouth.numpy()))
        names.append(name)
    return names


def main() -> None:
    """Parse the command line and write the folder."""
    parser = argparse.ArgumentParser(description="Write mixtures of unseen speakers as files.")
    parser.add_argument("out", type=Path, help="folder to fill")
    parser.add_argument("--data", type=Path, default=Path(".cache/speech"))
    parser.add_argument("--speakers", type=Path, help="folder with one folder per speaker")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--frames", type=int, default=100, help="1/25 s each")
    args = parser.parse_args()
    batches = unseen_batches(args.data, args.speakers, 1, args.frames)
    print(f"{args.out}: {len(write_mixtures(args.out, batches, args.count))} mixtures")


if __name__ == "__main__":
    main()
