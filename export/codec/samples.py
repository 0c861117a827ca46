"""Inputs for codec graphs: sound of a file or voice-like, codes, and states of step graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from prunus.export.common.samples import Samples
from prunus.runtime.audio.files import SoundReader
from prunus.runtime.audio.resample import resample
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import SourceError
from prunus.runtime.tasks.codec.card import CodecPostprocess, CodecPreprocess

Array = npt.NDArray[Any]
VALID = "valid"
VOICE_LIKE = "voice-like synthetic sound"
_FORMANTS_HZ = (500.0, 1500.0, 2500.0)
_LEVEL = 0.3
_NEVER_NEGATIVE = ("count", "phase", "pitch_before")  # states of a source, no stream has others


def voice_like(sample_rate_hz: int, seconds: float, seed: int = 0) -> Array:
    """Return sound with the traits of speech: pitch, formants, syllables, noise, pauses.

    Returns:
        (T,) float32 within [-0.5, 0.5], the same for the same arguments.
    """
    rng = np.random.default_rng(seed)
    count = int(sample_rate_hz * seconds)
    time = np.arange(count) / sample_rate_hz
    pitch = 120.0 + 40.0 * np.sin(2 * np.pi * 0.7 * time + rng.uniform(0, 6)) + rng.uniform(0, 60)
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate_hz
    drift = 1.0 + 0.2 * np.sin(2 * np.pi * 1.3 * time + rng.uniform(0, 6))
    sound = np.zeros(count)
    for harmonic in range(1, 30):
        hertz = harmonic * pitch
        gain = sum(1.0 / (1.0 + ((hertz - f * drift) / 150.0) ** 2) for f in _FORMANTS_HZ)
        sound += np.where(hertz < sample_rate_hz / 2, gain, 0.0) * np.sin(harmonic * phase)
    syllables = np.clip(np.sin(2 * np.pi * 3.5 * time + rng.uniform(0, 6)) + 0.3, 0.0, None)
    sound = (sound + 0.3 * rng.standard_normal(count)) * syllables
    loudest = float(np.abs(sound).max()) if count else 1.0
    return (0.5 * sound / max(loudest, 1e-9)).astype(np.float32)


def find_sound(source: str | Path | None, sample_rate_hz: int, seconds: float) -> tuple[Array, str]:
    """Return at least `seconds` of mono sound at this rate, and a few words about it.

    Raises:
        SourceError: the file holds no sound.
    """
    if source is None:
        return voice_like(sample_rate_hz, seconds), VOICE_LIKE
    with SoundReader(source) as reader:
        wanted = int(seconds * reader.sample_rate_hz) + 1
        blocks, have = [], 0
        for block in reader.blocks():
            blocks.append(block)
            have += len(block)
            if have >= wanted:
                break
        if not have:
            raise SourceError(f"{source} holds no samples.", "Give a recording of speech.")
        sound = resample(np.concatenate(blocks), reader.sample_rate_hz, sample_rate_hz)
    return np.resize(sound, max(len(sound), int(seconds * sample_rate_hz))), Path(source).name


def load_samples(card: ModelCard, source: str | Path | None = None, limit: int = 16) -> Samples:
    """Find inputs for one graph, see `codec_samples`; windows are long, so a few will do."""
    return codec_samples(card, source, min(limit, 16))


def codec_samples(card: ModelCard, source: str | Path | None, limit: int) -> Samples:
    """Make inputs for any graph of a codec.

    Sound is cut into windows. Codes are uniform random: every index is legal, and each is tried.
    States are zeros, as at the start, in every other sample, and noise of usual size between.
    """
    rng = np.random.default_rng(0)
    pre = cast(CodecPreprocess, card.preprocess)
    states = {state.name for state in card.streaming.states} if card.streaming else set()
    arrays: dict[str, Array] = {}
    about = "random codes"
    for spec in card.inputs:
        if spec.name in states:
            arrays[spec.name] = _states(spec, limit, rng)
        elif spec.dtype == "int64":
            sizes = {s.name: s.size for s in cast(CodecPostprocess, card.postprocess).streams}
            arrays[spec.name] = rng.integers(0, sizes[spec.name], (limit, *spec.shape[1:]))
        elif spec.name == VALID:
            counts = np.linspace(spec.shape[1], max(spec.shape[1] // 3, 1), limit).round()
            arrays[VALID] = (np.arange(spec.shape[1]) < counts[:, None]).astype(np.float32)
        elif spec.axes[-1] == "sample":
            length = spec.shape[1]
            sound, about = find_sound(
                source, pre.sample_rate_hz, limit * length / pre.sample_rate_hz
            )
            arrays[spec.name] = sound[: limit * length].reshape(limit, length)
        else:
            arrays[spec.name] = rng.standard_normal((limit, *spec.shape[1:])).astype(np.float32)
    return Samples(arrays, about, "pieces")


def _states(spec: TensorSpec, count: int, rng: np.random.Generator) -> Array:
    noise = _LEVEL * rng.standard_normal((count, *spec.shape[1:]))
    if spec.name == "started":
        noise = np.ones_like(noise)
    elif spec.name in _NEVER_NEGATIVE:
        noise = np.abs(noise)
    noise[::2] = 0.0
    return noise.astype(spec.dtype)
