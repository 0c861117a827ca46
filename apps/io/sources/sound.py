"""Sound from microphones, files and pipes, and one that is made up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from prunus.apps.io.frames import Audio, SoundFormat, SoundSource
from prunus.runtime.audio.files import SoundReader
from prunus.runtime.errors import UsageError


def formant_gain(hertz: Any) -> Any:
    """Return how strong a vowel of three formants is at a frequency in Hz, or an array of them."""
    return sum(1.0 / (1.0 + ((hertz - f) / 150.0) ** 2) for f in (500.0, 1500.0, 2500.0))


class SyntheticVoice(SoundSource):
    """Voice-like sound, made as it is asked for: pitch that moves, three formants, pauses.

    Args:
        seconds: Length as a text, empty for five.
        sample_rate_hz: Samples per second.

    Raises:
        UsageError: that is no length.
    """

    samples = 0

    def __init__(self, seconds: str, sample_rate_hz: int) -> None:
        try:
            length = float(seconds or 5.0)
        except ValueError:
            length = 0.0
        if not 0.0 < length < 1e6:
            raise UsageError(f"Got synthetic:{seconds}; expected seconds.", "Try synthetic:5")
        self.sample_rate_hz = sample_rate_hz
        self.samples = max(1, round(length * sample_rate_hz))

    def blocks(self, size: int) -> Iterator[Audio]:
        """See `SoundSource`."""
        phase, rate = 0.0, self.sample_rate_hz
        for begin in range(0, self.samples, size):
            time = np.arange(begin, min(begin + size, self.samples)) / rate
            pitch = 130.0 + 30.0 * np.sin(2 * np.pi * 0.7 * time)
            angle = phase + 2 * np.pi * np.cumsum(pitch) / rate
            phase = float(angle[-1] % (2 * np.pi))
            sound = np.zeros(len(time))
            for harmonic in range(1, 26):
                hertz = harmonic * pitch
                gain = np.where(hertz < rate / 2, formant_gain(hertz), 0.0)
                sound += gain * np.sin(harmonic * angle)
            syllables = np.clip(np.sin(2 * np.pi * 3.5 * time) + 0.3, 0.0, None)
            yield (0.08 * sound * syllables).astype(np.float32)

    def close(self) -> None:
        """See `SoundSource`."""


def open_synthetic(uri: str, form: SoundFormat) -> SyntheticVoice:
    """Open ``synthetic:SECONDS``."""
    return SyntheticVoice(uri.partition(":")[2], form.sample_rate_hz)


def open_file(uri: str, form: SoundFormat) -> SoundReader:
    """Open a sound file, or standard input, at its own rate."""
    return SoundReader(uri)


def open_microphone(uri: str, form: SoundFormat) -> SoundSource:
    """Open ``mic:`` or ``mic:NAME``."""
    from prunus.apps.io.sound.devices import Microphone

    return Microphone(uri.partition(":")[2], form.sample_rate_hz, form.block_seconds)
