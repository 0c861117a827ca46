"""Where decoded sound goes: a WAV file, a pipe, a speaker, nowhere."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

from prunus.apps.io.frames import Audio, SoundFormat, SoundSink
from prunus.apps.io.sinks.registry import NullSink
from prunus.runtime.audio.files import WavWriter, pcm16, wav_stream_header
from prunus.runtime.audio.reblock import Held
from prunus.runtime.card.artifact import atomic_path


class Trimmer:
    """Holds back the end of a sound until its true length is known.

    Args:
        keep: Samples by which the length may turn out shorter: the completed last frame.
    """

    def __init__(self, keep: int) -> None:
        self._keep, self._held = keep, Held()

    def push(self, sound: Audio) -> Audio:
        """Take a block; return what is certainly part of the sound."""
        self._held.push(sound)
        return self._held.cut(max(0, len(self._held) - self._keep))

    def flush(self, samples: int | None) -> Audio:
        """Return the rest up to `samples` in all; everything when that is None."""
        held = self._held
        return held.cut(len(held) if samples is None else max(0, samples - held.start))


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
        self._file.write(self._trimmer.flush(samples))


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
        self._file.write(pcm16(self._trimmer.flush(samples)))
        self._file.flush()


def open_null(uri: str, form: SoundFormat, stack: ExitStack) -> SoundSink:
    """Open ``null:``."""
    return NullSink()


def open_pipe(uri: str, form: SoundFormat, stack: ExitStack) -> SoundSink:
    """Open ``-``."""
    return PipeSink(form.sample_rate_hz, form.keep)


def open_wav_sink(uri: str, form: SoundFormat, stack: ExitStack) -> SoundSink:
    """Open a WAV file."""
    return WavSink(uri, form.sample_rate_hz, form.keep, stack)
