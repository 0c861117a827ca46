"""Where decoded sound goes: a WAV file, a pipe, a speaker, nowhere."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from prunus.apps.io.sinks.registry import NullSink, resolve
from prunus.runtime.audio.files import WavWriter, pcm16, wav_stream_header
from prunus.runtime.card.artifact import atomic_path

Audio = npt.NDArray[np.float32]


class SoundSink(Protocol):
    """Takes sound in order."""

    name: str

    def write(self, sound: Audio) -> None:
        """Take (T,) float32 in [-1, 1]."""

    def finish(self, samples: int | None) -> None:
        """End the sound; `samples` is its true length where it is known, at most what came."""


class Trimmer:
    """Holds back the end of a sound until its true length is known.

    Args:
        keep: Samples by which the length may turn out shorter: the completed last frame.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self.given = 0
        self._held = np.zeros(0, np.float32)

    def push(self, sound: Audio) -> Audio:
        """Take a block; return what is certainly part of the sound."""
        self._held = np.concatenate((self._held, sound))
        ready = max(0, len(self._held) - self._keep)
        out, self._held = self._held[:ready], self._held[ready:]
        self.given += ready
        return out

    def finish(self, samples: int | None) -> Audio:
        """Return the rest up to `samples` in all; everything when that is None."""
        until = len(self._held) if samples is None else max(0, samples - self.given)
        out, self._held = self._held[:until], self._held[:0]
        self.given += len(out)
        return out


class WavSink:
    """A 16-bit WAV file; it takes its name when the stack closes without an exception.

    Args:
        path: Target.
        sample_rate_hz: Samples per second.
        keep: See `Trimmer`.
        stack: Owns the file.

    Raises:
        SourceError: the folder cannot be written.
    """

    def __init__(self, path: str, sample_rate_hz: int, keep: int, stack: ExitStack) -> None:
        self.name = path
        self._trimmer = Trimmer(keep)
        temporary = stack.enter_context(atomic_path(Path(path)))
        self._file = stack.enter_context(WavWriter(temporary, sample_rate_hz))

    def write(self, sound: Audio) -> None:
        """See `SoundSink`."""
        self._file.write(self._trimmer.push(sound))

    def finish(self, samples: int | None) -> None:
        """See `SoundSink`."""
        self._file.write(self._trimmer.finish(samples))


class PipeSink:
    """Standard output as 16-bit WAV of unknown length."""

    name = "standard output"

    def __init__(self, sample_rate_hz: int, keep: int) -> None:
        self._trimmer, self._file = Trimmer(keep), sys.stdout.buffer
        self._file.write(wav_stream_header(sample_rate_hz))

    def write(self, sound: Audio) -> None:
        """See `SoundSink`."""
        self._file.write(pcm16(self._trimmer.push(sound)))
        self._file.flush()

    def finish(self, samples: int | None) -> None:
        """See `SoundSink`."""
        self._file.write(pcm16(self._trimmer.finish(samples)))
        self._file.flush()


@dataclass(frozen=True, slots=True)
class SoundFormat:
    """What a sink for sound must know.

    Attributes:
        sample_rate_hz: Of the sound.
        keep: Samples by which files may turn out shorter than what was written.
        block_seconds: Length of the blocks that will come.
        live: The sound comes by a clock of its own, which speakers then follow; otherwise a
            speaker makes its writer wait.
    """

    sample_rate_hz: int
    keep: int
    block_seconds: float
    live: bool = False


def open_sound_sink(
    uri: str,
    sample_rate_hz: int,
    *,
    keep: int,
    block_seconds: float,
    stack: ExitStack,
    live: bool = False,
) -> SoundSink:
    """Open ``speaker:``, ``speaker:NAME``, ``null:``, ``-`` or a ``.wav`` file.

    Args:
        uri: What the user said.
        sample_rate_hz: See `SoundFormat`.
        keep: See `SoundFormat`.
        block_seconds: See `SoundFormat`.
        stack: Owns files and devices.
        live: See `SoundFormat`.

    Raises:
        PrunusError: the folder cannot be written, there is no such device, a package is missing.
    """
    form = SoundFormat(sample_rate_hz, keep, block_seconds, live)
    sink: SoundSink = resolve(uri, "sound").load()(uri, form, stack)
    return sink


def open_speaker(uri: str, form: SoundFormat, stack: ExitStack) -> SoundSink:
    """Open ``speaker:`` or ``speaker:NAME``."""
    device, rate = uri.partition(":")[2], form.sample_rate_hz
    if form.live:
        from prunus.apps.io.sound.live import MARGIN_SECONDS, open_steady_speaker

        return open_steady_speaker(device, rate, form.block_seconds + MARGIN_SECONDS, stack)
    from prunus.apps.io.sound.devices import Speaker

    speaker = Speaker(device, rate, form.block_seconds)
    stack.callback(speaker.close)
    return speaker


def open_null(uri: str, form: SoundFormat, stack: ExitStack) -> SoundSink:
    """Open ``null:``."""
    return NullSink()


def open_pipe(uri: str, form: SoundFormat, stack: ExitStack) -> SoundSink:
    """Open ``-``."""
    return PipeSink(form.sample_rate_hz, form.keep)


def open_wav_sink(uri: str, form: SoundFormat, stack: ExitStack) -> SoundSink:
    """Open a WAV file."""
    return WavSink(uri, form.sample_rate_hz, form.keep, stack)
