"""Labelled people as a file for `prunus layers` and `prunus plan` on EViTPose, and their score.

    python -m benchmarks.reduction.labelled_people --people DIR -o people.npz
    prunus layers evitpose_dino6 --calibration people.npz --samples 201 \\
        --score benchmarks.reduction.labelled_people:street_oks

`DIR` is the folder of docs/training-pose.md; the people are the street crops that no training saw,
with MoveNet Thunder's joints.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.reduction.cases import Array
from benchmarks.reduction.pose import person_scores, read_people
from prunus.models.pose.decode import udp_dark_decode
from prunus.models.pose.deployed import IMAGENET
from prunus.models.training.pose.evaluate import crop_people, to_picture
from prunus.models.training.pose.evaluation_sets import HeldOut
from prunus.runtime.arrays import write_arrays
from prunus.runtime.errors import UsageError

from ..record import ROOT, finish


def arrays_of(people: HeldOut) -> dict[str, Array]:
    """Return the network's input ``pixels`` (n, 3, 256, 192), and what the score compares with."""
    crops, matrices = crop_people(people, (IMAGENET.height, IMAGENET.width))
    pixels = (crops - np.float32(IMAGENET.mean)) / np.float32(IMAGENET.std)
    return {
        "pixels": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2), np.float32),
        "matrices": np.asarray(matrices), "boxes": people.boxes, "joints": people.joints,
        "labelled": people.labelled,
    }  # fmt: skip


def street_oks(outputs: Mapping[str, Array], references: Mapping[str, Array]) -> float:
    """Return the mean object keypoint similarity of heatmaps (n, 17, 64, 48)."""
    (maps,) = outputs.values()
    if maps.ndim != 4:
        raise UsageError(f"Got an output {list(maps.shape)}; expected heatmaps (n, 17, 64, 48).")
    found = udp_dark_decode(torch.from_numpy(np.asarray(maps))).numpy()
    found[..., 0] *= (IMAGENET.width - 1) / (maps.shape[3] - 1)
    found[..., 1] *= (IMAGENET.height - 1) / (maps.shape[2] - 1)
    told = (references[name] for name in ("boxes", "joints", "labelled"))
    people = HeldOut("street", "MoveNet Thunder", [], *told)
    return person_scores(to_picture(found, references["matrices"])[..., :2], people).accuracy


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--people", type=Path, default=ROOT / ".cache" / "training", metavar="DIR")
    add("--limit", type=int, default=1000, help="this many people at most, spread evenly")
    add("-o", "--output", type=Path, default=Path("people.npz"))
    options = parser.parse_args(arguments)

    def work() -> None:
        people = read_people(options.people, "street_held_out", options.limit)
        write_arrays(options.output, arrays_of(people))

    return finish(work, options.output)


if __name__ == "__main__":
    sys.exit(main())
