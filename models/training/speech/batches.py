"""Cut training pieces out of the speech cache: a batch depends on the seed and its number alone."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from prunus.models.codec.nsfcodec.pitch_grid import HIGHEST_HZ, LOWEST_HZ, PITCHES
from prunus.models.training.speech.cache import MANIFEST
from prunus.models.training.speech.pitch import HOP
from prunus.runtime.arrays import read_array
from prunus.runtime.errors import ArtifactError

_STEPS_PER_LOG = (PITCHES - 1) / math.log(HIGHEST_HZ / LOWEST_HZ)


@dataclass(frozen=True)
class SpeechAugment:
    """How a piece is varied.

    Attributes:
        resampled: Share of pieces that are played faster or slower: other vocal tracts.
        stretch: Most by which, as a factor.
        gain_db: Softest and loudest gain.
        noise: Share of pieces with faint noise, which a microphone always adds.
    """

    resampled: float = 0.7
    stretch: float = 1.18
    gain_db: tuple[float, float] = (-12.0, 4.0)
    noise: float = 0.3


@dataclass(frozen=True)
class Recording:
    """One source of the cache: (T,) int16 sound and (T / 320,) uint8 pitch."""

    name: str
    sound: npt.NDArray[np.int16]
    pitch: npt.NDArray[np.uint8]


def read_recordings(cache: Path, split: str) -> list[Recording]:
    """Open the sources of a split, mapped into memory.

    Raises:
        ArtifactError: there is no cache, or nothing in this split.
    """
    hint = "Make it with: python -m prunus.models.training.speech.cache --packages DIR"
    if not (cache / MANIFEST).is_file():
        raise ArtifactError(f"There is no speech cache in {cache}.", hint)
    rows = json.loads((cache / MANIFEST).read_text())
    found = [
        Recording(
            row["name"],
            read_array(cache / f"{row['name']}.sound.npy", hint=hint, mapped=True),
            read_array(cache / f"{row['name']}.pitch.npy", hint=hint),
        )
        for row in rows
        if row["split"] == split
    ]
    if not found:
        raise ArtifactError(f"The speech cache in {cache} has no '{split}' recordings.", hint)
    return found


class SpeechBatches:
    """Random pieces of a split.

    Args:
        recordings: See `read_recordings`.
        frames: Length of a piece in frames of 320 samples.
        size: Pieces per batch.
        seed: Same seed, same batches.
        augment: Variation.
    """

    def __init__(
        self,
        recordings: list[Recording],
        frames: int,
        size: int,
        seed: int,
        augment: SpeechAugment,
    ) -> None:
        self.recordings, self.frames, self.size = recordings, frames, size
        self.seed, self.augment = seed, augment
        # Between equal shares of sources and equal shares of minutes.
        weights = np.sqrt([len(r.pitch) for r in recordings])
        self._shares = weights / weights.sum()

    def __getitem__(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return sound (size, frames * 320) float32 and pitch codes (size, frames) int64."""
        rng = np.random.default_rng([self.seed, step])
        pieces = [self._piece(rng) for _ in range(self.size)]
        return (
            torch.from_numpy(np.stack([p[0] for p in pieces])),
            torch.from_numpy(np.stack([p[1] for p in pieces])),
        )

    def _piece(
        self, rng: np.random.Generator
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        recording = self.recordings[rng.choice(len(self.recordings), p=self._shares)]
        augment, speed = self.augment, 1.0
        if rng.random() < augment.resampled:
            speed = float(np.exp(rng.uniform(-1.0, 1.0) * math.log(augment.stretch)))
        taken = math.ceil(self.frames * speed) + 1
        start = int(rng.integers(0, max(1, len(recording.pitch) - taken)))
        sound, pitch = piece_at(recording, start, self.frames, speed)
        gain = 10.0 ** (rng.uniform(*augment.gain_db) / 20.0)
        sound = sound * np.float32(gain)
        if rng.random() < augment.noise:
            level = 10.0 ** (rng.uniform(-75.0, -55.0) / 20.0)
            sound = sound + level * rng.standard_normal(len(sound)).astype(np.float32)
        return np.clip(sound, -1.0, 1.0).astype(np.float32), pitch


def piece_at(
    recording: Recording, start: int, frames: int, speed: float
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Cut a piece, played `speed` times as fast.

    Args:
        recording: Where from.
        start: First frame.
        frames: Frames that come out.
        speed: Above 1 is faster and higher.

    Returns:
        Sound (frames * 320,) and pitch codes (frames,), shifted on the grid with the sound.
    """
    wanted = frames * HOP
    source = round(wanted * speed)
    raw = recording.sound[start * HOP : start * HOP + source].astype(np.float32) / 32768.0
    raw = np.pad(raw, (0, source - len(raw)))
    places = (start + (np.arange(frames) + 0.5) * speed).astype(np.int64)
    pitch = recording.pitch[np.minimum(places, len(recording.pitch) - 1)].astype(np.int64)
    if source == wanted:
        return raw, pitch
    # By the spectrum: exact but for the ends, where it rings a little.
    spectrum = np.fft.rfft(raw)[: wanted // 2 + 1]
    spectrum = np.pad(spectrum, (0, wanted // 2 + 1 - len(spectrum)))
    sound = np.fft.irfft(spectrum, wanted) * (wanted / source)
    shift = round(math.log(speed) * _STEPS_PER_LOG)
    moved = np.clip(pitch + shift, 1, PITCHES)
    return sound.astype(np.float32), np.where(pitch > 0, moved, 0)
