"""Mixtures of two voices, each with its lips: a batch depends on seed and number alone."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prunus.models.training.rendering.drawn_lips import RATE_HZ, STEP, lip_clip, random_mouth
from prunus.models.training.speech.batches import Recording, piece_at, read_recordings
from prunus.models.training.speech.cache import MANIFEST
from prunus.models.training.speech.pitch import HOP
from prunus.runtime.audio.files import SoundReader
from prunus.runtime.audio.resample import resample
from prunus.runtime.errors import ArtifactError

Floats = npt.NDArray[np.float32]
_TRIES = 12  # places to look for a piece in which somebody speaks
_SPOKEN = 0.5  # share of a piece's frames that must be louder than this:
_HEARD = 0.01  # root mean square


@dataclass(frozen=True, slots=True)
class Speaker:
    """All recordings of one voice."""

    name: str
    recordings: tuple[Recording, ...]


@dataclass(frozen=True, slots=True)
class MixtureRules:
    """How mixtures are made.

    Attributes:
        frames: Video frames per mixture, 1/25 s each.
        ratio_db: Level of the first voice against the second, from - to.
        level_db: Root mean square of the mixture against full scale, from - to.
        stretch: Most by which a piece is played faster or slower: other vocal tracts. A voice
            and itself at another speed may meet where only one speaker is at hand.
        noise_db: Level of added noise against full scale, from - to.
    """

    frames: int = 50
    ratio_db: tuple[float, float] = (-5.0, 5.0)
    level_db: tuple[float, float] = (-32.0, -18.0)
    stretch: float = 1.15
    noise_db: tuple[float, float] = (-80.0, -60.0)

    @property
    def samples(self) -> int:
        """Samples per mixture."""
        return self.frames * STEP


def read_speakers(cache: Path, split: str) -> list[Speaker]:
    """Group the speech cache's recordings of a split by who speaks.

    Raises:
        ArtifactError: there is no cache, or nothing in this split.
    """
    found = {r.name: r for r in read_recordings(cache, split)}
    groups: dict[str, list[Recording]] = {}
    for row in json.loads((cache / MANIFEST).read_text()):
        if row["name"] in found:
            groups.setdefault(row["speaker"], []).append(found[row["name"]])
    return [Speaker(name, tuple(group)) for name, group in sorted(groups.items())]


def read_folder(folder: Path) -> list[Speaker]:
    """Take speakers from a folder that holds one folder of sound files per speaker.

    Raises:
        ArtifactError: fewer than two speakers.
    """
    speakers = []
    for place in sorted(p for p in folder.iterdir() if p.is_dir()):
        parts = []
        for path in sorted(p for p in place.rglob("*") if p.is_file()):
            with SoundReader(path) as reader:
                sound = np.concatenate([*reader.blocks(), np.zeros(0, np.float32)])
                parts.append(resample(sound, reader.sample_rate_hz, RATE_HZ))
        if parts:
            joined = np.concatenate(parts)
            whole = (np.clip(joined, -1, 1) * 32767).astype(np.int16)
            pitch = np.zeros(len(whole) // HOP, np.uint8)
            speakers.append(Speaker(place.name, (Recording(place.name, whole, pitch),)))
    if len(speakers) < 2:
        raise ArtifactError(
            f"{folder} holds {len(speakers)} speakers; expected two or more.",
            "Make one folder of recordings per speaker in it.",
        )
    return speakers


@dataclass(frozen=True, slots=True)
class Mixtures:
    """A batch; rows 2k and 2k + 1 are the two speakers of mixture k.

    Attributes:
        mixture: (2 n, T) float32, each mixture twice.
        voice: (2 n, T) float32, what is to come out.
        other: (2 n, T) float32, the other voice.
        mouth: (2 n, F, 88, 88) uint8, the lips of `voice`.
        names: Who speaks, per row.
    """

    mixture: Tensor
    voice: Tensor
    other: Tensor
    mouth: Tensor
    names: tuple[str, ...]


class MixtureBatches:
    """Random mixtures of a set of speakers.

    Args:
        speakers: Voices.
        size: Mixtures per batch.
        seed: Same seed, same batches.
        rules: How they are mixed.
        first: Only mixtures in which one of these speaks; empty for any.
    """

    def __init__(
        self,
        speakers: Sequence[Speaker],
        size: int,
        seed: int,
        rules: MixtureRules,
        first: Sequence[str] = (),
    ) -> None:
        self.speakers, self.size, self.seed, self.rules = list(speakers), size, seed, rules
        self._first = [k for k, s in enumerate(self.speakers) if not first or s.name in first]

    def __getitem__(self, step: int) -> Mixtures:
        """Return batch number `step`."""
        rng = np.random.default_rng([self.seed, step])
        rows = [self._pair(rng) for _ in range(self.size)]
        voices = np.stack([row[0] for row in rows]).reshape(2 * self.size, -1)
        mouths = np.stack([row[1] for row in rows])
        mixture = np.stack([row[2] for row in rows]).repeat(2, axis=0)
        other = voices.reshape(self.size, 2, -1)[:, ::-1].reshape(voices.shape)
        return Mixtures(
            torch.from_numpy(mixture),
            torch.from_numpy(voices),
            torch.from_numpy(np.ascontiguousarray(other)),
            torch.from_numpy(mouths.reshape(2 * self.size, *mouths.shape[2:])),
            tuple(name for row in rows for name in row[3]),
        )

    def _pair(
        self, rng: np.random.Generator
    ) -> tuple[Floats, npt.NDArray[np.uint8], Floats, tuple[str, str]]:
        rules = self.rules
        one = self._first[int(rng.integers(len(self._first)))]
        two = int(rng.integers(len(self.speakers)))
        if two == one and len(self.speakers) > 1 and rng.random() < 0.75:
            two = (two + 1) % len(self.speakers)  # a voice may meet itself, but not often
        chosen = (self.speakers[one], self.speakers[two])
        voices = np.stack([self._piece(rng, s) for s in chosen])
        mouths = np.stack([lip_clip(v, random_mouth(rng), rng) for v in voices])
        voices /= np.maximum(np.sqrt((voices**2).mean(axis=1, keepdims=True)), 1e-4)
        ratio = rng.uniform(*rules.ratio_db)
        voices *= 10 ** (np.array([[ratio / 2], [-ratio / 2]], np.float32) / 20)
        level = 10 ** (rng.uniform(*rules.level_db) / 20)
        voices *= level / max(float(np.sqrt((voices.sum(axis=0) ** 2).mean())), 1e-4)
        noise = 10 ** (rng.uniform(*rules.noise_db) / 20) * rng.standard_normal(voices.shape[1])
        mixture = (voices.sum(axis=0) + noise).astype(np.float32)
        return voices.astype(np.float32), mouths, mixture, (chosen[0].name, chosen[1].name)

    def _piece(self, rng: np.random.Generator, speaker: Speaker) -> Floats:
        """Cut a piece in which the speaker speaks, or the last one that was tried."""
        samples = self.rules.samples
        frames = -(-samples // HOP)
        minutes = np.array([len(r.pitch) for r in speaker.recordings], float)
        piece = np.zeros(samples, np.float32)
        for _ in range(_TRIES):
            recording = speaker.recordings[rng.choice(len(minutes), p=minutes / minutes.sum())]
            speed = float(np.exp(rng.uniform(-1, 1) * math.log(self.rules.stretch)))
            room = max(1, len(recording.pitch) - math.ceil(frames * speed) - 1)
            piece = piece_at(recording, int(rng.integers(0, room)), frames, speed)[0][:samples]
            loud = np.sqrt((piece[: samples // STEP * STEP].reshape(-1, STEP) ** 2).mean(axis=1))
            if (loud > _HEARD).mean() >= _SPOKEN:
                break
        return piece
