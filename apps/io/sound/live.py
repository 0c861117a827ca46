"""Sound between devices and a program, in threads of their own.

The microphone's samples, or a sender's, are the clock of a live app; the loudspeaker has another,
which its ring follows (`ring`). What it lacks is silence, and is counted; so is what nobody took
from the microphone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Protocol

import numpy as np

from prunus.apps.io.frames import Audio, SoundFormat, SoundSink
from prunus.apps.io.sound.ring import FADE_SECONDS, SoundRing, blended
from prunus.apps.io.timeline import CaptureClock
from prunus.runtime.audio.reblock import Held
from prunus.runtime.audio.resample import Resampler

MARGIN_SECONDS = 0.06  # sound that still waits for the loudspeaker when the next piece comes
_PLAY_SECONDS = 0.02  # handed to a loudspeaker at once
_BACKLOG_SECONDS = 1.0  # sound that may wait beyond that before it is dropped
_END_SECONDS = 5.0  # for a device to play what waits, besides its own length
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
        self._offset = 0.0  # of the samples' clock
        self._microphone, self._block = microphone, block
        self._rate = sample_rate_hz
        self._resampler = Resampler(microphone.sample_rate_hz, sample_rate_hz)
        self._held, self._limit = Held(), int(seconds * sample_rate_hz)
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
                arrived = time.perf_counter() - getattr(self._microphone, "held_s", 0.0)
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
            self._held.push(block)
            gone = len(self._held) - self._limit
            if gone > 0:  # what comes instead begins as what is dropped did
                fade = round(FADE_SECONDS * self._rate)
                before = self._held.take(self._held.start, self._held.start + fade)
                self._held.forget(self._held.start + gone)
                self._held.items = blended(before, self._held.items, fade)
                self.late += gone
            self._ready.notify_all()

    def take(self, count: int) -> Audio | None:
        """Wait for exactly `count` samples; None once the recording has ended.

        Raises:
            SourceError: the device has gone.
        """
        with self._ready:
            while len(self._held) < count and not self._closed:
                self._ready.wait()
            if len(self._held) < count:
                if self._error is not None:
                    raise self._error
                return None
            piece = self._held.cut(count)
            self.taken_until = self._held.start / self._rate + self._offset
            return piece

    def counts(self) -> dict[str, float]:
        """Return what was lost so far."""
        device: dict[str, float] = getattr(self._microphone, "counts", dict)()
        late = round(1000.0 * self.late / self._rate)
        return {**device, "microphone_dropped_ms": device.get("microphone_dropped_ms", 0.0) + late}

    @property
    def waiting(self) -> int:
        """Samples that wait to be taken."""
        return len(self._held)

    def close(self) -> None:
        """Stop recording; safe to call twice and from another thread."""
        with self._ready:
            self._closed = True
            self._ready.notify_all()
        self._microphone.close()


class SteadySpeaker(SoundSink):
    """A loudspeaker with a ring before it, which a thread of its own plays.

    Live, it never makes its writer wait and follows the loudspeaker's clock; for files the
    loudspeaker is the clock, and what was written is played as it is.

    Attributes:
        name: For messages.
        delay_seconds: Sound that still waits when more comes, which bridges gaps in delivery.
        ring: What waits.

    Args:
        speaker: Closed with this.
        form: Of the sound: its blocks say how much comes at once.
        margin_seconds: Sound that waits live; for files, besides one such block.
    """

    def __init__(
        self, speaker: Playing, form: SoundFormat, margin_seconds: float = MARGIN_SECONDS
    ) -> None:
        self.name, self._rate, self._live = speaker.name, form.sample_rate_hz, form.live
        self.delay_seconds = margin_seconds + (0.0 if form.live else form.block_seconds)
        target, block = (int(s * self._rate) for s in (self.delay_seconds, form.block_seconds))
        limit = target + block + int(_BACKLOG_SECONDS * self._rate)
        self.ring = SoundRing(target, limit, self._rate, block, steady=form.live)
        self._speaker, self._block = speaker, int(_PLAY_SECONDS * self._rate)
        self._error: BaseException | None = None
        self._ending, self._closed = threading.Event(), threading.Event()
        self._moved = threading.Condition()  # something was written, or played
        self._thread = threading.Thread(target=self._play, name="speaker", daemon=True)
        self._thread.start()

    def _play(self) -> None:
        try:
            while not self._closed.is_set():
                if not self._live and not self.ring.ready:  # a file has all the time
                    if self._ending.is_set():
                        return
                    self._wait()
                    continue
                if self._ending.is_set() and (self._live or self.ring.waiting < 2 * self._block):
                    return
                self._speaker.write(self.ring.pull(self._block))
                self._wake()
        except BaseException as error:  # raised where sound is written
            self._error = error
            self._wake()

    def _wait(self) -> None:
        with self._moved:
            self._moved.wait(_PLAY_SECONDS)

    def _wake(self) -> None:
        with self._moved:
            self._moved.notify_all()

    def write(self, sound: Audio) -> None:
        """Take (T,) float32 in [-1, 1].

        Raises:
            SourceError: the device has gone.
        """
        self.ring.push(np.clip(sound, -1.0, 1.0))
        self._wake()
        while not self._live and self.ring.waiting > self.ring.target and self._error is None:
            self._wait()
        if self._error is not None:
            raise self._error

    @property
    def underflows(self) -> int:
        """Times that there was nothing to play, in the ring or in the device."""
        return self.ring.gaps + int(getattr(self._speaker, "underflows", 0))

    def counts(self) -> dict[str, float]:
        """Return what went wrong so far, and what waits; files make their writer wait instead."""
        found: dict[str, float] = {"underflows": self.underflows}
        if self._live:
            per_ms, ring = self._rate / 1000.0, self.ring
            found |= {
                "speaker_waits_ms": round(1000.0 * self.delay_seconds),
                "speaker_device_ms": round(getattr(self._speaker, "latency_s", 0.0) * 1000.0),
                "speaker_silence_ms": round(ring.missing / per_ms),
                "speaker_dropped_ms": round(ring.dropped / per_ms),
                "speaker_overflows": ring.overruns,
                "speaker_drift_ppm": round(ring.drift_ppm),
            }
        return found

    def finish(self, samples: int | None) -> None:
        """Play what waits, and end.

        Raises:
            SourceError: the device has gone.
        """
        self._ending.set()
        self._wake()
        self._thread.join(_END_SECONDS + self.ring.waiting / self._rate)
        if self._error is not None:
            raise self._error
        self._speaker.write(self.ring.rest())
        self._speaker.finish(samples)

    def close(self) -> None:
        """Stop playing; safe to call twice."""
        self._closed.set()
        self._ending.set()
        self._wake()
        self._thread.join(_PATIENCE_SECONDS)
        self._speaker.close()


def open_speaker(uri: str, form: SoundFormat, stack: ExitStack) -> SteadySpeaker:
    """Open ``speaker:`` or ``speaker:NAME``.

    Args:
        uri: NAME is a number or part of a name, empty for the system's default.
        form: Of the sound.
        stack: Owns the device.

    Raises:
        PrunusError: there is no such device, or a package is missing.
    """
    from prunus.apps.io.sound import devices as sound_devices

    device = uri.partition(":")[2]
    speaker = SteadySpeaker(sound_devices.Speaker(device, form.sample_rate_hz, _PLAY_SECONDS), form)
    stack.callback(speaker.close)
    return speaker
