"""Microphone and speaker through the package ``sounddevice``, which is loaded when one is opened.

Both block: PortAudio keeps the clock, and counts what it lost when the program was late.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from prunus.apps.io.sound.ring import blended, carried_on
from prunus.runtime.audio.resample import Resampler
from prunus.runtime.errors import HostError, MissingDependencyError, SourceError

Audio = npt.NDArray[np.float32]
Direction = Literal["input", "output"]
_LATE_SECONDS = 0.5  # by which sound may be read late before it is left out
_LATENCY_BLOCKS = 2  # what the device may hold: one block that plays while the next is made
_WHAT = {"input": "microphone", "output": "speaker"}


class Microphone:
    """A sound source that records until it is closed.

    Attributes:
        title: For messages.
        sample_rate_hz: What the device gives: the wanted rate, or its own where it refuses that.
        channels: Blocks are their mean.
        samples: -1, as for pipes: it has no end.
        overflows: Blocks before which sound was lost because nobody had read it.
        latency_s: Seconds of sound that the device keeps, as PortAudio tells.
        late_s: Seconds by which the latest block was read later than the earliest ones: sound
            servers keep what a slow program does not read.
        dropped_s: Seconds that were left out because they came more than half a second late.

    Args:
        device: Number or part of a name, empty for the system's default.
        wanted_hz: Rate that would need no resampling.
        block_seconds: Length of the blocks that will be asked for.

    Raises:
        MissingDependencyError: sounddevice is not installed.
        HostError: PortAudio is missing, there is no such device, or it is in use.
    """

    live = True
    disguised = ends_early = unmeasured = ""
    cancels = False

    def __init__(self, device: str, wanted_hz: int, block_seconds: float) -> None:
        self._library = load_sounddevice()
        found = _find(self._library, device, "input", wanted_hz)
        self.title, self.channels = found.title, found.channels
        self.sample_rate_hz, self.samples, self.overflows = found.sample_rate_hz, -1, 0
        self._taken, self._end, self._begun = 0, np.zeros(2, np.float32), False
        self._ahead, self.late_s, self.dropped_s = -math.inf, 0.0, 0.0
        self._stream = _opened(self._library, "InputStream", found, block_seconds)
        self.latency_s = float(getattr(self._stream, "latency", 0.0))

    def blocks(self, size: int) -> Iterator[Audio]:
        """Yield mono float32 blocks of `size` samples.

        Raises:
            SourceError: the device has gone, was unplugged for example.
        """
        late = lost = False
        while True:
            try:
                block, overflowed = self._stream.read(size)
            except self._library.PortAudioError as error:
                seconds = self._taken / self.sample_rate_hz
                raise SourceError(
                    f"The {self.title} was lost after {seconds:.2f} s: {_reason(error)}.",
                    "What came before is kept. Plug it in and start again.",
                ) from None
            lost |= bool(overflowed)
            self._taken += len(block)
            ahead = self._taken / self.sample_rate_hz - time.perf_counter()
            self._ahead = max(self._ahead, ahead)
            self.late_s = self._ahead - ahead
            late = self.late_s > (size / self.sample_rate_hz if late else _LATE_SECONDS)
            if late:  # what servers keep for a slow program would only be heard later and later
                self.dropped_s, lost = self.dropped_s + len(block) / self.sample_rate_hz, True
                continue
            mono = np.ascontiguousarray(block.mean(axis=1, dtype=np.float32))
            if lost and self._begun:  # what was lost must not click
                before = carried_on(self._end, self.sample_rate_hz)
                mono = blended(before, mono, len(before))
            self.overflows += lost
            lost, self._begun, self._end = False, True, mono[-2:]
            yield mono

    def counts(self) -> dict[str, float]:
        """Return what was lost so far, and what the device keeps."""
        return {
            "overflows": self.overflows,
            "microphone_device_ms": round(1000.0 * self.latency_s),
            "microphone_late_ms": round(1000.0 * self.late_s),
            "microphone_dropped_ms": round(1000.0 * self.dropped_s),
        }

    def close(self) -> None:
        """Stop recording; safe to call twice."""
        _close(self._stream, self._library)


class Speaker:
    """A sound sink that plays.

    Attributes:
        name: For messages.
        underflows: Times that the device ran out of sound.
        latency_s: Seconds of sound that the device keeps, as PortAudio tells.

    Args:
        device: Number or part of a name, empty for the system's default.
        sample_rate_hz: Of the sound; a device that refuses it gets its own rate.
        block_seconds: Length of the blocks that will come.

    Raises:
        MissingDependencyError: sounddevice is not installed.
        HostError: PortAudio is missing, there is no such device, or it is in use.
    """

    def __init__(self, device: str, sample_rate_hz: int, block_seconds: float) -> None:
        self._library = load_sounddevice()
        self._found = _find(self._library, device, "output", sample_rate_hz)
        self.name, self.underflows, self._played = self._found.title, 0, 0
        self._resampler = Resampler(sample_rate_hz, self._found.sample_rate_hz)
        self._stream = _opened(self._library, "OutputStream", self._found, block_seconds)
        self.latency_s = float(getattr(self._stream, "latency", 0.0))

    @property
    def seconds(self) -> float:
        """Length of what was played."""
        return self._played / self._found.sample_rate_hz

    def write(self, sound: Audio) -> None:
        """Play (T,) float32 in [-1, 1]; returns when the device has room for it.

        Raises:
            SourceError: the device has gone.
        """
        self._play(self._resampler.push(sound))

    def finish(self, samples: int | None) -> None:
        """Play the rest; the true length does not matter to ears."""
        self._play(self._resampler.flush())
        with contextlib.suppress(self._library.PortAudioError):
            self._stream.stop()  # waits until everything was heard

    def close(self) -> None:
        """Stop playing; safe to call twice."""
        _close(self._stream, self._library)

    def _play(self, sound: Audio) -> None:
        if not len(sound):
            return
        block = np.repeat(sound[:, None], self._found.channels, axis=1)
        try:
            self.underflows += bool(self._stream.write(np.ascontiguousarray(block)))
        except self._library.PortAudioError as error:
            raise SourceError(
                f"The {self.name} was lost after {self.seconds:.2f} s: {_reason(error)}.",
                "Plug it in and start again.",
            ) from None
        self._played += len(sound)


def load_sounddevice() -> Any:
    """Import sounddevice.

    Raises:
        MissingDependencyError: the package is not installed.
        HostError: its library PortAudio is missing.
    """
    try:
        import sounddevice
    except ImportError:
        raise MissingDependencyError("sounddevice", "audio", "Microphone and speaker") from None
    except OSError:  # the package is there, the library that it binds is not
        raise HostError(
            "Microphone and speaker need the library PortAudio, which is not installed.",
            "Install it, on Debian with: apt-get install libportaudio2",
        ) from None
    return sounddevice


@dataclass(frozen=True, slots=True)
class _Found:
    """A device and how it will be opened."""

    device: Any
    title: str
    sample_rate_hz: int
    channels: int


def _find(library: Any, device: str, direction: Direction, wanted_hz: int) -> _Found:
    """Find a device, and the first rate and channel count that it takes."""
    wanted: Any = int(device) if device.isdigit() else device or None
    what = _WHAT[direction]
    try:
        about = dict(library.query_devices(wanted, direction))
        most = min(2, int(about[f"max_{direction}_channels"]))
    except (ValueError, library.PortAudioError):
        about, most = {}, 0
    if most < 1:
        names = _names(library, direction)
        raise HostError(
            f"There is no {what} '{device}'." if device else f"This machine has no {what}.",
            f"Known: {', '.join(names)}." if names else "Plug one in, or use a file instead.",
        )
    title, problem = f"{what} '{about['name']}'", ""
    check = getattr(library, f"check_{direction}_settings")
    for rate in dict.fromkeys((wanted_hz, int(about["default_samplerate"]))):
        for channels in dict.fromkeys((1, most)):
            try:
                check(device=wanted, channels=channels, dtype="float32", samplerate=rate)
            except (ValueError, library.PortAudioError) as error:
                problem = _reason(error)
            else:
                return _Found(wanted, title, rate, channels)
    raise HostError(f"The {title} cannot be used: {problem}.", "Is another program using it?")


def _names(library: Any, direction: Direction) -> list[str]:
    try:
        found = [dict(d) for d in library.query_devices()]
    except library.PortAudioError:
        return []
    return [str(d["name"]) for d in found if int(d[f"max_{direction}_channels"]) > 0]


def _opened(library: Any, kind: str, found: _Found, block_seconds: float) -> Any:
    try:
        stream = getattr(library, kind)(
            device=found.device, samplerate=found.sample_rate_hz, channels=found.channels,
            dtype="float32", blocksize=0, latency=_LATENCY_BLOCKS * block_seconds,
        )  # fmt: skip
        stream.start()
    except library.PortAudioError as error:
        raise HostError(
            f"The {found.title} cannot be opened: {_reason(error)}.", "Is another program using it?"
        ) from None
    return stream


def _close(stream: Any, library: Any) -> None:
    with contextlib.suppress(library.PortAudioError):  # a lost device cannot be stopped
        stream.abort()
    with contextlib.suppress(library.PortAudioError):
        stream.close()


def _reason(error: Exception) -> str:
    return str(error.args[0] if error.args else error).rstrip(".") or type(error).__name__
