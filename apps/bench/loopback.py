"""A microphone and a loudspeaker in memory, in real time: what is said and heard is kept.

`prunus bench --boundary mic_to_speaker` runs an app between them, by names like ``clicks:1``. They
keep time as devices do: a block comes when its last sample has passed, and what is written waits
for what is played before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from prunus.apps.io.ends import Ends
from prunus.apps.io.frames import Audio, SoundFormat, SoundSource
from prunus.apps.io.sound.live import SteadySpeaker

_DEVICE_SECONDS = 0.02  # that the loudspeaker keeps
_BUFFER_SECONDS = 0.2  # that the microphone keeps for whoever reads late


@dataclass(slots=True)
class Track:
    """Sound and when it was there.

    Attributes:
        sample_rate_hz: Samples per second.
        begun: Seconds on this machine's clock at which the first sample was there.
        blocks: (T,) float32 each, one behind the other.
    """

    sample_rate_hz: int = 0
    begun: float = 0.0
    blocks: list[Audio] = field(default_factory=list)

    @property
    def sound(self) -> Audio:
        """All of it."""
        return np.concatenate([np.zeros(0, np.float32), *self.blocks])


class Loopback(Ends):
    """Both ends of one run.

    Args:
        make: Returns the sound at a sample rate.

    Attributes:
        said: What the microphone heard.
        heard: What the loudspeaker played.
    """

    scheme = "clicks"

    def __init__(self, make: Callable[[int], Audio]) -> None:
        super().__init__()
        self.make, self.said, self.heard = make, Track(), Track()


class _Microphone(SoundSource):
    live = True

    def __init__(self, track: Track, sound: Audio) -> None:
        self.sample_rate_hz, self._track, self._sound = track.sample_rate_hz, track, sound
        self._overflows, self._full = 0, False

    def blocks(self, size: int) -> Iterator[Audio]:
        self._track.begun = time.perf_counter()
        for end in range(size, len(self._sound) + 1, size):
            late = time.perf_counter() - self._track.begun - end / self.sample_rate_hz
            time.sleep(max(0.0, -late))
            self._track.blocks.append(self._sound[end - size : end])
            full = late > (size / self.sample_rate_hz if self._full else _BUFFER_SECONDS)
            self._overflows += full and not self._full
            self._full = full
            if not full:
                yield self._track.blocks[-1]

    def counts(self) -> dict[str, float]:
        """Return how often nobody had read in time."""
        return {"overflows": self._overflows}

    def close(self) -> None:
        """Nothing is held."""


class _Loudspeaker:
    name, underflows, latency_s = "loudspeaker in memory", 0, _DEVICE_SECONDS

    def __init__(self, track: Track) -> None:
        self._track, self._until = track, 0.0

    def write(self, sound: Audio) -> None:
        """Keep a block; return when all but the last 20 ms have been played."""
        now, rate = time.perf_counter(), self._track.sample_rate_hz
        if now > self._until:  # it starts, or ran dry
            silence = now + _DEVICE_SECONDS - self._until
            if self._track.blocks:
                self.underflows += 1
                self._track.blocks.append(np.zeros(round(silence * rate), np.float32))
            else:
                self._track.begun = now + _DEVICE_SECONDS
            self._until = now + _DEVICE_SECONDS
        self._track.blocks.append(sound.copy())
        self._until += len(sound) / rate
        time.sleep(max(0.0, self._until - _DEVICE_SECONDS - time.perf_counter()))

    def finish(self, samples: int | None) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is held."""


def open_microphone(uri: str, form: SoundFormat) -> SoundSource:
    """Open the microphone of a `Loopback`."""
    loop = Loopback.of(uri)
    loop.said.sample_rate_hz = form.sample_rate_hz
    return _Microphone(loop.said, loop.make(form.sample_rate_hz))


def open_loudspeaker(uri: str, form: SoundFormat, stack: ExitStack) -> SteadySpeaker:
    """Open the loudspeaker of a `Loopback`, behind the ring that all of them have."""
    track = Loopback.of(uri).heard
    track.sample_rate_hz = form.sample_rate_hz
    speaker = SteadySpeaker(_Loudspeaker(track), form)
    stack.callback(speaker.close)
    return speaker
