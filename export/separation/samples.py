"""Inputs for a separator's graphs: mixtures of voices, and mouths that move with one of them.

Without a source they are synthetic: voice-like sound, and drawn mouths that open with its loudness.
They have the statistics that number formats meet, and say nothing about the quality of separation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.export.codec.samples import find_sound, voice_like
from prunus.export.common.samples import Samples
from prunus.runtime.arrays import read_array
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.tasks.separation.card import MixturePreprocess, MouthPreprocess

Array = npt.NDArray[Any]
_FLOOR = 3e-5  # root mean square of the microphone's noise
SYNTHETIC = "synthetic voices and drawn mouths"
_NAMES = {"mouth": "uint8 (n, frames, 88, 88)", "mixture": "float32 (n, samples)"}


def separation_samples(
    card: ModelCard, source: str | Path | None = None, limit: int = 4, lips: Array | None = None
) -> Samples:
    """Make inputs for one graph.

    Args:
        card: The graph's card.
        source: An ``.npz`` with ``mouth`` or ``mixture`` (and ``lips``), or a recording that is
            mixed with a synthetic voice; None: all synthetic.
        limit: At most this many windows.
        lips: (n, V, F) features to go with the mixtures; None: smooth noise of unit variance,
            which is what the norm behind the lip coder gives.

    Raises:
        SourceError, UsageError: a source that cannot be read or does not fit.
    """
    pre = card.preprocess
    if isinstance(pre, MouthPreprocess):
        if source is not None and Path(source).suffix == ".npz":
            mouths, about = _array(source, "mouth"), Path(source).name
        else:
            drawn = [draw_mouths(pre.frames, pre.size, seed) for seed in range(limit)]
            mouths, about = np.stack(drawn), SYNTHETIC
        return _fitting({"mouth": mouths[:limit]}, card, about)
    if not isinstance(pre, MixturePreprocess):
        raise ArtifactError(f"The card of {card.name} describes no graph of a separator.")
    seconds = pre.samples / pre.sample_rate_hz
    if source is not None and Path(source).suffix == ".npz":
        mixtures, about = _array(source, "mixture")[:limit], Path(source).name
    else:
        sound, about = find_sound(source, pre.sample_rate_hz, limit * seconds)
        one = sound[: limit * pre.samples].reshape(-1, pre.samples)
        other = [voice_like(pre.sample_rate_hz, seconds, seed) for seed in range(100, 100 + limit)]
        # As every microphone has it, and three times what 16 bits have. In digital silence the
        # network multiplies rounding: two float32 computations of base at 4 s agree to 80 dB only.
        floor = _FLOOR * np.random.default_rng(0).standard_normal(one.shape)
        mixtures = 0.5 * (one + np.stack(other)) + floor
        about = SYNTHETIC if source is None else f"{about} and a synthetic voice"
    if lips is None:
        width = next(spec.shape[1] for spec in card.inputs if spec.name == "lips")
        lips = smooth_noise((len(mixtures), width, pre.frames))
    arrays = {
        "mixture": mixtures.astype(np.float32),
        "lips": np.resize(lips, _like(lips, mixtures)),
    }
    return _fitting(arrays, card, about)


def draw_mouths(frames: int, size: int, seed: int = 0) -> Array:
    """Return grey crops (frames, size, size) uint8 of a mouth that opens and closes."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    skin = 150 + 20 * x + 12 * np.sin(3 * y + rng.uniform(0, 6))
    time = np.arange(frames) / 25
    opening = np.clip(np.sin(2 * np.pi * rng.uniform(2.5, 4) * time + rng.uniform(0, 6)), 0, None)
    wide = 0.5 + 0.08 * np.sin(2 * np.pi * rng.uniform(1, 2) * time + rng.uniform(0, 6))
    crops = np.empty((frames, size, size), np.uint8)
    for k in range(frames):
        tall = 0.05 + 0.3 * opening[k]
        inside = (x / wide[k]) ** 2 + (y / tall) ** 2
        lips = (x / (wide[k] + 0.14)) ** 2 + (y / (tall + 0.16)) ** 2
        image = np.where(inside < 1, 45.0, np.where(lips < 1, 105.0, skin))
        noisy = image + rng.normal(0, 3, image.shape)
        crops[k] = np.clip(noisy, 0, 255)
    return crops


def smooth_noise(shape: tuple[int, ...], seed: int = 0) -> Array:
    """Return float32 noise of unit variance whose neighbours along the last axis are alike."""
    noise = np.random.default_rng(seed).standard_normal((*shape[:-1], shape[-1] + 4))
    taps = np.array([1.0, 3.0, 4.0, 3.0, 1.0])
    smooth = sum(w * noise[..., k : k + shape[-1]] for k, w in enumerate(taps))
    out: Array = np.asarray(smooth / np.sqrt((taps**2).sum()), np.float32)
    return out


def _like(lips: Array, mixtures: Array) -> tuple[int, ...]:
    return (len(mixtures), *lips.shape[1:])


def _array(source: str | Path, name: str) -> Array:
    made = f"Save it with numpy.savez(path, mouth=..., mixture=...), {name}: {_NAMES[name]}."
    return read_array(source, name, hint=made)


def _fitting(arrays: dict[str, Array], card: ModelCard, about: str) -> Samples:
    for spec in card.inputs:
        got = arrays[spec.name]
        if got.shape[1:] != spec.shape[1:] or got.dtype != spec.dtype or not len(got):
            raise UsageError(
                f"'{spec.name}' of {about} is {got.dtype} {list(got.shape)}; expected "
                f"{spec.dtype} [n, {', '.join(map(str, spec.shape[1:]))}].",
                "Cut clips to the length of the graph's window.",
            )
    return Samples(arrays, about, "windows")
