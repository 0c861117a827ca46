"""Live sound between devices and a program, neither of which waits for the other.

The microphone's samples are the clock of a live app. The loudspeaker has a clock of its own, a few
millionths apart: its ring is kept around a target fill by playing up to half a per cent faster or
slower, too little to hear, and that corrects the drift. What it lacks is silence, and is counted;
so is what nobody took from the microphone.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import numpy as np
import numpy.typing as npt

from prunus.apps.io.timeline import CaptureClock
from prunus.runtime.audio.resample import Resampler
from prunus.runtime.errors import UsageError

Audio = npt.NDArray[np.float32]
MARGIN_SECONDS = 0.04  # sound that waits for the loudspeaker besides one piece of its delivery
_STRETCH = 0.005  # largest change of speed by which drift is corrected
_PLAY_SECONDS = 0.02  # handed to a loudspeaker at once
_PATIENCE_SECONDS = 1.0  # for a device to take what it was given, before it is closed under it


class Recording(Protocol):
    """A microphone as `sound_devices.Microphone` is one."""

    sample_rate_hz: int

    def blocks(self, size: int) -> Iterator[Audio]:
        """Yield mono blocks until it is closed."""

    def close(self) -> None:
        """Stop recording."""


class Playing(Protocol):
    """A loudspeaker as `sound_devices.Speaker` is one: writing waits until there is room."""

    name: str

    def write(self, sound: Audio) -> None:
        """Play a block."""

    def finish(self, samples: int | None) -> None:
        """Play the rest."""

    def close(self) -> None:
        """Stop playing."""


class SoundRing:
    """Samples on their way to a device that takes them in its own time.

    Args:
        target: Samples that should wait in the ring: its delay.
        limit: Samples above which the oldest are dropped.

    Attributes:
        missing: Samples of silence that were given because the ring was empty.
        gaps: How often that happened.
        dropped: Samples that were dropped because the ring was full.
    """

    def __init__(self, target: int, limit: int) -> None:
        if not 0 < target < limit:
            raise UsageError(f"Got a target of {target} and a limit of {limit} samples.")
        self.target, self.limit = target, limit
        self.missing = self.dropped = self.gaps = 0
        self._held = np.zeros(0, np.float32)
        self._at = 0.0  # position of the next sample in `_held`
        self._started = False
        self._lock = threading.Lock()

    def push(self, block: Audio) -> None:
        """Append samples."""
        with self._lock:
            self._held = np.concatenate((self._held[int(self._at) :], block))
            self._at -= int(self._at)
            extra = len(self._held) - self.limit
            if extra > 0:
                self._held = self._held[extra:]
                self.dropped += extra

    def pull(self, count: int) -> Audio:
        """Return exactly `count` samples: silence until the ring has filled once to its target."""
        with self._lock:
            fill = len(self._held) - self._at
            self._started = self._started or fill >= self.target
            if not self._started:
                return np.zeros(count, np.float32)
            speed = 1.0 + _STRETCH * float(np.clip((fill - self.target) / self.target, -1, 1))
            places = self._at + speed * np.arange(count)
            usable = int((places <= len(self._held) - 1).sum())
            out = np.zeros(count, np.float32)
            if usable:
                out[:usable] = np.interp(
                    places[:usable], np.arange(len(self._held)), self._held
                )
            self._at += speed * usable
            if usable < count:
                self.missing += count - usable
                self.gaps += 1
                self._started = False  # fill up again rather than stutter
            return out

    @property
    def waiting(self) -> float:
        """Samples that wait, with the part of one that speed leaves over."""
        return len(self._held) - self._at

    def rest(self) -> Audio:
        """Return what still waits."""
        with self._lock:
            out, self._held = self._held[int(self._at) :], np.zeros(0, np.float32)
            self._at = 0.0
            return out


class Recorder:
    """Read a microphone in a thread of its own; hand out pieces of any length.

    Args:
        microphone: Closed with this.
        sample_rate_hz: Of the pieces.
        block: Samples per read, at the microphone's rate.
        seconds: Sound that may wait; the oldest goes when nobody takes it.

    Attributes:
        late: Samples that were dropped because nobody took them.
        taken_until: `time.perf_counter` when the last sample that was taken reached the microphone:
            the resampler holds sound back, and pieces may have waited.
    """

    def __init__(
        self, microphone: Recording, sample_rate_hz: int, block: int, seconds: float = 4.0
    ) -> None:
        self.late, self.taken_until = 0, 0.0
        self._clock, self._lost = CaptureClock(), 0  # blocks that the device itself lost
        self._offset = self._position = 0.0  # of the samples: their clock, and those that are over
        self._microphone, self._block = microphone, block
        self._rate = sample_rate_hz
        self._resampler = Resampler(microphone.sample_rate_hz, sample_rate_hz)
        self._blocks: deque[Audio] = deque()
        self._held, self._limit = 0, int(seconds * sample_rate_hz)
        self._ready = threading.Condition()
        self._error: BaseException | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._read, name="microphone", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        rate, heard = self._microphone.sample_rate_hz, 0
        try:
            for block in self._microphone.blocks(self._block):
                if self._closed:
                    break
                if self._lost != (lost := getattr(self._microphone, "overflows", 0)):
                    self._clock, self._lost = CaptureClock(), lost
                heard += len(block)
                arrived = time.perf_counter()
                self._offset = self._clock.captured(heard / rate, arrived) - heard / rate
                self._add(self._resampler.push(block))
        except BaseException as error:  # raised where the pieces are taken
            if not self._closed:
                self._error = error
        self._add(self._resampler.flush())  # a recording that ends is whole
        with self._ready:
            self._closed = True
            self._ready.notify_all()

    def _add(self, block: Audio) -> None:
        with self._ready:
            self._blocks.append(block)
            self._held += len(block)
            while self._held > self._limit and len(self._blocks) > 1:
                gone = len(self._blocks.popleft())
                self._held -= gone
                self._position += gone
                self.late += gone
            self._ready.notify_all()

    def take(self, count: int) -> Audio | None:
        """Wait for exactly `count` samples; None once the recording has ended.

        Raises:
            SourceError: the device has gone.
        """
        with self._ready:
            while self._held < count and not self._closed:
                self._ready.wait()
            if self._held < count:
                if self._error is not None:
                    raise self._error
                return None
            parts, wanted = [], count
            while wanted:
                block = self._blocks.popleft()
                parts.append(block[:wanted])
                if len(block) > wanted:
                    self._blocks.appendleft(block[wanted:])
                wanted -= len(parts[-1])
            self._held -= count
            self._position += count
            self.taken_until = self._position / self._rate + self._offset
            return np.concatenate(parts)

    @property
    def waiting(self) -> int:
        """Samples that wait to be taken."""
        return self._held

    def close(self) -> None:
        """Stop recording; safe to call twice and from another thread."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
        self._microphone.close()


class SteadySpeaker:
    """A sound sink that never makes its writer wait, and follows the loudspeaker's clock.

    Attributes:
        name: For messages.
        delay_seconds: Sound that waits, which bridges gaps in delivery.

    Args:
        speaker: Closed with this.
        sample_rate_hz: Of the sound.
        delay_seconds: Sound that waits, which bridges gaps in delivery.
        block_seconds: Of what is handed to the speaker at once.
    """

    def __init__(
        self,
        speaker: Playing,
        sample_rate_hz: int,
        delay_seconds: float = 0.15,
        block_seconds: float = _PLAY_SECONDS,
    ) -> None:
        self.name = speaker.name
        self.delay_seconds = delay_seconds
        target = int(delay_seconds * sample_rate_hz)
        self.ring = SoundRing(target, target + 2 * sample_rate_hz)
        self._speaker, self._block = speaker, int(block_seconds * sample_rate_hz)
        self._error: BaseException | None = None
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._play, name="speaker", daemon=True)
        self._thread.start()

    def _play(self) -> None:
        try:
            while not self._ending.is_set():
                self._speaker.write(self.ring.pull(self._block))
        except BaseException as error:  # raised where sound is written
            self._error = error

    def write(self, sound: Audio) -> None:
        """Take (T,) float32 in [-1, 1].

        Raises:
            SourceError: the device has gone.
        """
        if self._error is not None:
            raise self._error
        self.ring.push(np.clip(sound, -1.0, 1.0))

    @property
    def underflows(self) -> int:
        """Times that there was nothing to play, in the ring or in the device."""
        return self.ring.gaps + int(getattr(self._speaker, "underflows", 0))

    def finish(self, samples: int | None) -> None:
        """Play what waits, and end.

        Raises:
            SourceError: the device has gone.
        """
        self._ending.set()
        self._thread.join(5.0)
        if self._error is not None:
            raise self._error
        self._speaker.write(self.ring.rest())
        self._speaker.finish(samples)

    def close(self) -> None:
        """Stop playing; safe to call twice."""
        self._ending.set()
        self._thread.join(_PATIENCE_SECONDS)
        self._speaker.close()


def open_steady_speaker(
    device: str, sample_rate_hz: int, delay_seconds: float, stack: ExitStack
) -> SteadySpeaker:
    """Open a loudspeaker for sound that comes by another clock than its own.

    Args:
        device: Number or part of a name, empty for the system's default.
        sample_rate_hz: Of the sound.
        delay_seconds: See `SteadySpeaker`; a piece of delivery and `MARGIN_SECONDS` at least.
        stack: Owns the device.

    Raises:
        PrunusError: there is no such device, or a package is missing.
    """
    from prunus.apps.io.sound import devices as sound_devices

    device_sink = sound_devices.Speaker(device, sample_rate_hz, _PLAY_SECONDS)
    speaker = SteadySpeaker(device_sink, sample_rate_hz, delay_seconds)
    stack.callback(speaker.close)
    return speaker
