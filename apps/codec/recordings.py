"""Recordings to judge a codec by, and what is said in them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prunus.apps.judges.texts import Texts
from prunus.runtime.audio.files import SoundReader
from prunus.runtime.errors import SourceError

Audio = npt.NDArray[np.float32]
SOUNDS = (".flac", ".ogg", ".opus", ".wav")


@dataclass(frozen=True, slots=True)
class Recording:
    """One sound to judge by, and what is said in it where that is known."""

    name: str
    sound: Audio
    sample_rate_hz: int
    text: str | None


def find_recordings(paths: Sequence[Path]) -> list[Path]:
    """Return sound files, and those of folders in name order.

    Raises:
        SourceError: there is none.
    """
    files: list[Path] = []
    for path in paths:
        inside = (p for p in sorted(path.rglob("*")) if p.suffix.lower() in SOUNDS)
        files += inside if path.is_dir() else [path]
    if not files:
        raise SourceError(
            f"Found no recordings in {', '.join(map(str, paths))}.", f"Give {', '.join(SOUNDS)}."
        )
    return files


def read_recordings(
    paths: Sequence[Path], seconds: float | None = None, texts: Texts | None = None
) -> list[Recording]:
    """Read what `find_recordings` finds.

    Args:
        paths: Files and folders.
        seconds: Read so much of each at most; what was cut off takes the text with it.
        texts: What is said in them; None: see `Texts`, without a table.

    Raises:
        SourceError: one or its text cannot be read, or holds nothing.
    """
    found, texts = [], texts or Texts()
    for file in find_recordings(paths):
        with SoundReader(file) as reader:
            most = math.inf if seconds is None else round(seconds * reader.sample_rate_hz)
            blocks, have = [np.zeros(0, np.float32)], 0
            for block in reader.blocks():
                blocks.append(block[: int(min(len(block), most - have))])
                have += len(block)
                if have > most:
                    break
            sound = np.nan_to_num(np.concatenate(blocks))
        if not len(sound):
            raise SourceError(f"{file} holds no samples.", "Give recordings of speech.")
        text = texts.of(file)
        whole = have <= most
        found.append(Recording(file.name, sound, reader.sample_rate_hz, text if whole else None))
    return found
