"""The separation scene of `make demo`: two people speak at once, and the face chooses who is heard.

Runs the voice picker on the bundled clip with the shipped separator, once for each face, and
compares what is heard with the clean voices that the clip carries.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from prunus.apps.common.media import TWO_VOICES, bundled
from prunus.apps.common.model_files import DEFAULT_SEPARATOR, shipped_separator
from prunus.apps.common.options import BackendChoice
from prunus.apps.common.tables import plain_table
from prunus.apps.demo.two_voices import FPS, RATE_HZ, read_clean, read_moments
from prunus.apps.separation.app import run_separation
from prunus.apps.separation.mixtures import read_sound
from prunus.apps.separation.options import SeparationOptions
from prunus.runtime.audio.quality import si_sdr_db

_SHORTEST = 1.0  # seconds: faces get their numbers in the first frames


def hear_each(folder: Path, backend: str = "auto", frames: int | None = None) -> tuple[Path, ...]:
    """Hear each face of the bundled clip, print by how much its voice stands out, return the files.

    Args:
        folder: For a sound per face, and a video with the voice of the first.
        backend: See `prunus.runtime.session.base.open`.
        frames: At most so many pictures, but one second.

    Raises:
        PrunusError: a package or a file is missing, or the folder cannot be written.
        KeyboardInterrupt: Ctrl-C ended a run.
    """
    pair = shipped_separator()
    if pair is None:
        print(f"  skipped: no trained {DEFAULT_SEPARATOR} ships; see docs/training-separation.md")
        return ()
    seconds = None if frames is None else max(frames / FPS, _SHORTEST)
    clip = bundled(TWO_VOICES)
    _, mixture = read_moments(clip)
    clean = read_clean(clip)
    files: list[Path] = []
    rows = []
    for face in range(1, len(clean) + 1):
        sound, video = (folder / f"two_voices-face-{face}{suffix}" for suffix in (".wav", ".mp4"))
        made = [sound, video] if face == 1 else [sound]
        summary = run_separation(
            SeparationOptions(
                str(clip), tuple(map(str, made)), model=str(pair[1]), face=face,
                seconds=seconds, compute=BackendChoice(backend),
            ),
            quiet=True,
        )  # fmt: skip
        if summary.interrupted:
            raise KeyboardInterrupt
        files += made
        heard = read_sound(sound, RATE_HZ)
        gains = [_gain(voice, mixture, heard) for voice in clean]
        asked, others = gains.pop(face - 1), gains
        rows.append(
            (f"face {face}", f"{asked:+.1f}", f"{max(others):+.1f}",
             f"{summary.real_time_factor:.2f}")
        )  # fmt: skip
    columns = ("heard", "its voice, SI-SDR dB", "the other voice", "real-time factor")
    print(plain_table("gain over the mixture, in which both are equally loud", columns, rows))
    return tuple(files)


def _gain(voice: np.ndarray, mixture: np.ndarray, heard: np.ndarray) -> float:
    """Return by how much closer `heard` is to a voice than the mixture is, in decibels."""
    length = min(len(voice), len(mixture), len(heard))
    clean = voice[:length]
    return si_sdr_db(clean, heard[:length]) - si_sdr_db(clean, mixture[:length])
