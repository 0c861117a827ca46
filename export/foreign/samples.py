"""Inputs of a network of which nothing but its tensors is known: arrays, pictures, or noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prunus.export.common.samples import Samples
from prunus.runtime.arrays import read_arrays
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import SourceError, UsageError

NOISE = "uniform noise, for want of real inputs"
_NOISE_SAMPLES = 4


def load_samples(card: ModelCard, source: str | Path | None = None, limit: int = 64) -> Samples:
    """Find inputs of a network.

    Args:
        card: Its inputs, and how pictures go in.
        source: An .npz with an array (n, ...) for each input, a picture, or a folder of pictures;
            None: noise.
        limit: At most this many samples.

    Raises:
        SourceError: a file that is missing or damaged.
        UsageError: an archive of other names, or pictures where the card does not say how they go
            in.
    """
    if source is None:
        return _noise(card, min(limit, _NOISE_SAMPLES))
    path = Path(source)
    if path.suffix == ".npz":
        return _archive(card, path).first(limit)
    return _pictures(card, path, limit)


def _noise(card: ModelCard, count: int) -> Samples:
    from prunus.runtime.measure.runner import example_inputs

    made = [example_inputs(card, seed) for seed in range(count)]
    names = [spec.name for spec in card.inputs]
    return Samples({n: np.stack([m[n][0] for m in made]) for n in names}, NOISE)


def _archive(card: ModelCard, path: Path) -> Samples:
    samples = Samples(read_arrays(path), path.name)
    samples.require(card.inputs)
    return samples


def _pictures(card: ModelCard, path: Path, limit: int) -> Samples:
    from prunus.export.precision.calibration import CLIPS, read_frames
    from prunus.runtime.pictures.files import PICTURES
    from prunus.runtime.tasks.generic.feed import picture_feed

    if len(card.inputs) != 1:
        raise UsageError(
            f"{card.name} has {len(card.inputs)} inputs; pictures are one.",
            "Give an .npz with an array for each input.",
        )
    known = (*PICTURES, *CLIPS)
    files = [path]
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix.lower() in known)
        if not files:
            raise SourceError(f"{path} holds no pictures.", f"Give some of: {', '.join(known)}.")
    spread = np.linspace(0, len(files) - 1, min(limit, len(files))).round().astype(int)
    each = max(1, limit // len(spread))
    frames = [frame for k in spread for frame in read_frames(files[k], each)]
    name = card.inputs[0].name
    rows = [picture_feed(card, frame)[name][0] for frame in frames]
    return Samples({name: np.stack(rows)}, f"{len(rows)} pictures of {path.name}", "pictures")
