"""A browser as camera, microphone, screen and loudspeaker of a run, by the name of its `Peer`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import cv2
import numpy as np

from prunus.apps.io.frames import Audio, Frame, Image, SoundFormat, SoundSource, SourceInfo
from prunus.apps.io.sound.live import SteadySpeaker
from prunus.apps.io.sound.ring import FADE_SECONDS, blended, carried_on
from prunus.apps.io.sources.clip import upright
from prunus.apps.io.timeline import CaptureClock, TimeLine
from prunus.apps.web.showing import Showing
from prunus.apps.webrtc.peer import VOICE_HZ, Peer
from prunus.runtime.audio.reblock import Held
from prunus.runtime.audio.resample import Resampler
from prunus.runtime.errors import PrunusError, SourceError
from prunus.runtime.limits import CAMERA_PIXELS
from prunus.runtime.pipeline.queue import END

_FPS = 30.0  # what the page asks for; a browser gives fewer in the dark
_LATE_S = 3.0  # by which decoded pictures are too late,
_PATIENCE_S = 10.0  # and for how long they may be: what is a moment's trouble catches up
_SHAPE = 0.05  # by which width over height may change, as browsers round when they scale
_HOLE_S = 2.0  # without sound, after which it begins anew
_HELD_S = 0.08  # of sound that waits for packets in disorder before it is decoded


class _Lateness:
    """Tells when what comes stays seconds late: decoding that falls behind never ends."""

    _DRIFT = 1e-4  # seconds per second: quartz clocks differ by less

    def __init__(self) -> None:
        self._least, self._last = np.inf, 0.0
        self._since: float | None = None

    def lasts(self, stamp: float, arrived: float) -> bool:
        """Return whether it does, at the next picture: its stamp and arrival in seconds."""
        delay = arrived - stamp
        grown = self._least + self._DRIFT * max(stamp - self._last, 0.0)
        self._least, self._last = min(grown, delay), stamp
        if delay - self._least < _LATE_S:
            self._since = None
        elif self._since is None:
            self._since = arrived
        return self._since is not None and arrived - self._since > _PATIENCE_S


class PeerCamera:
    """Frames of a browser's camera, with the times of their RTP stamps.

    A browser that lacks bandwidth or time sends smaller pictures, which are enlarged; one that is
    turned sends others, and the source ends, for another run to begin.

    Args:
        peer: The browser.

    Raises:
        SourceError: it has gone before its first picture, or that is too large.
    """

    def __init__(self, peer: Peer) -> None:
        self.warnings: list[str] = []
        self._peer, self._pictures = peer, peer.tap("video")
        self._first: Any = self._pictures.get()
        if self._first is END:
            raise SourceError(f"The camera gave no picture: {peer.reason}.", "Start it again.")
        try:
            width, height = self._size(self._first.frame)
        except PrunusError as error:
            peer.leave(error.message.rstrip("."))
            raise
        self.info = SourceInfo("camera", width, height, _FPS, 0, live=True)

    @staticmethod
    def _size(frame: Any) -> tuple[int, int]:
        CAMERA_PIXELS.check(frame.width * frame.height, "The camera's picture", SourceError)
        return frame.width, frame.height

    def __iter__(self) -> Iterator[Frame]:
        """Yield frames until the browser goes or is turned.

        Raises:
            SourceError: pictures became too large.
        """
        line, clock, lateness = TimeLine(), CaptureClock(), _Lateness()
        index, came = 0, self._first
        self._first = END
        while came is not END:
            width, height = self._size(came.frame)
            if abs(np.log(width * self.info.height / (height * self.info.width))) > _SHAPE:
                self._peer.rest = came
                return
            placed = line.place(came.frame.time, 1 / _FPS)
            captured = clock.captured(placed, came.arrived)
            if lateness.lasts(placed, came.arrived):
                self._peer.leave("pictures came seconds late: this machine or the line is too slow")
                return
            yield Frame(index, self._fitted(upright(came.frame)), "", round(captured * 1e9))
            index += 1
            came = self._pictures.get()

    def _fitted(self, image: Image) -> Image:
        size = (self.info.width, self.info.height)
        if image.shape[1::-1] == size:
            return image
        fitted: Image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_LINEAR))
        return fitted

    def close(self) -> None:
        """Take no more; the browser stays."""
        self._pictures.abort()


class PeerMicrophone(SoundSource):
    """Sound of a browser's microphone; what was lost on the way is silence, faded in and out.

    Attributes:
        overflows: Times that it began anew after a longer silence, or nobody had taken it.
        held_s: Seconds that sound waits here before it comes.

    Args:
        peer: The browser.
    """

    live = True
    sample_rate_hz = VOICE_HZ
    held_s = _HELD_S

    def __init__(self, peer: Peer) -> None:
        self._sounds = peer.tap("audio")
        self.overflows, self._missing = 0, 0

    def blocks(self, size: int) -> Iterator[Audio]:
        """Yield mono float32 blocks of `size` samples until the browser goes."""
        held, expected, end = Held(), 0, np.zeros(2, np.float32)
        while (came := self._sounds.get()) is not END:
            sound, begin = _mono(came.frame), round((came.frame.time or 0.0) * VOICE_HZ)
            hole = begin - expected if held.end else 0
            if 0 < hole <= _HOLE_S * VOICE_HZ:
                before = carried_on(end, VOICE_HZ)
                held.push(blended(before, np.zeros(hole, np.float32), len(before)))
                sound = blended(0.0, sound, round(FADE_SECONDS * VOICE_HZ))
                self._missing += hole
            elif hole:
                self.overflows += 1
            held.push(sound)
            expected, end = begin + len(sound), sound[-2:]
            while len(held) >= size:
                yield held.cut(size)

    def counts(self) -> dict[str, float]:
        """Return what was lost so far, and what waits here."""
        return {
            "overflows": self.overflows,
            "microphone_device_ms": round(1000 * _HELD_S),
            "microphone_missing_ms": round(1000 * self._missing / VOICE_HZ),
        }

    def close(self) -> None:
        """Take no more; the browser stays."""
        self._sounds.abort()


def _mono(frame: Any) -> Audio:
    """Return the samples of a packed 16-bit frame, at 48 kHz."""
    channels = len(frame.layout.channels)
    sound = frame.to_ndarray().reshape(-1, channels).mean(axis=1, dtype=np.float32) / 32768
    mono: Audio = sound.astype(np.float32)
    if frame.sample_rate != VOICE_HZ:  # telephone codecs: each packet alone, good enough for them
        resampler = Resampler(frame.sample_rate, VOICE_HZ)
        mono = np.concatenate((resampler.push(mono), resampler.flush()))
    return mono


class _Loudspeaker:
    """What `SteadySpeaker` plays on."""

    name = "the browser"
    latency_s = 0.04

    def __init__(self, peer: Peer, sample_rate_hz: int) -> None:
        self._voice, self._resampler = peer.voice, Resampler(sample_rate_hz, VOICE_HZ)

    @property
    def underflows(self) -> int:
        return self._voice.underflows

    def write(self, sound: Audio) -> None:
        self._voice.put(self._resampler.push(sound))

    def finish(self, samples: int | None) -> None:
        self._voice.put(self._resampler.flush())

    def close(self) -> None:
        """The voice belongs to the browser."""


def open_camera(uri: str) -> PeerCamera:
    """Open the camera of a `Peer`."""
    return PeerCamera(Peer.of(uri))


def open_microphone(uri: str, form: SoundFormat) -> PeerMicrophone:
    """Open its microphone."""
    return PeerMicrophone(Peer.of(uri))


def open_page(uri: str, info: SourceInfo) -> Showing:
    """Open its page as a sink."""
    return Peer.of(uri).page()


def open_voice(uri: str, form: SoundFormat, stack: ExitStack) -> SteadySpeaker:
    """Open ``voice:URI``, what it hears, behind the ring that all loudspeakers have."""
    peer = Peer.of(uri.partition(":")[2])
    speaker = SteadySpeaker(_Loudspeaker(peer, form.sample_rate_hz), form)
    stack.callback(speaker.close)
    return speaker
