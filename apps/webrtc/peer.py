"""One browser that lends its camera: a WebRTC connection, what comes in, and the voice back.

The connection lives in the event loop of the `Desk` that took it; runs, which live in threads of
their own, take what came by `tap`, and give a voice with `Voice.put`. WebRTC is RFC 8825; media are
encrypted and both ends prove the keys that their descriptions name (RFC 8827). Nobody outside is
asked for the way (no STUN, no TURN): the two must be in one network.
"""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCBundlePolicy,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from aiortc.sdp import SessionDescription
from av import AudioFrame

from prunus.apps.io.ends import Ends
from prunus.apps.io.frames import Audio
from prunus.apps.web.showing import Showing
from prunus.runtime.audio.reblock import Held
from prunus.runtime.errors import UsageError
from prunus.runtime.json_text import json_text
from prunus.runtime.limits import OFFER_PARTS, PICTURE_S
from prunus.runtime.pipeline.queue import Channel

VOICE_HZ = 48_000  # of Opus
_BLOCK = VOICE_HZ // 50  # 20 ms, which one packet has
_AHEAD = 2 * _BLOCK  # of the voice that may wait; whoever writes more waits
_WAITING = {"video": 2, "audio": 100}  # pictures, and blocks of 20 ms, that nobody has taken yet
_ENDED = "the browser ended it"
_FAREWELL_S = 0.2  # for the last words to leave


@dataclass(frozen=True, slots=True)
class Came:
    """A decoded frame of a track.

    Attributes:
        frame: ``av.VideoFrame`` or ``av.AudioFrame``; its time is that of its RTP stamp.
        arrived: `time.perf_counter` when it was decoded.
    """

    frame: Any
    arrived: float


class Voice(MediaStreamTrack):
    """Sound to the browser, 20 ms at a time; silence where there is none."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._held = Held()
        self._moved = threading.Condition()
        self._begun, self._sent, self._heard = 0.0, 0, False
        self.underflows = 0

    def put(self, sound: Audio) -> None:
        """Append (T,) float32 at 48 kHz; returns when there is room, or the track does not move."""
        with self._moved:
            self._held.push(sound)
            self._heard = True
            self._moved.wait_for(lambda: len(self._held) <= _AHEAD, timeout=10 * _BLOCK / VOICE_HZ)
            self._held.cut(max(0, len(self._held) - 10 * _BLOCK))  # nobody listens

    async def recv(self) -> AudioFrame:
        """Return the next 20 ms when it is time."""
        if self.readyState != "live":
            raise MediaStreamError
        now = time.perf_counter()
        self._begun = self._begun or now
        await asyncio.sleep(max(0.0, self._begun + self._sent / VOICE_HZ - now))
        with self._moved:
            piece = self._held.cut(_BLOCK)
            self._moved.notify_all()
        self.underflows += self._heard and 0 < len(piece) < _BLOCK
        samples = np.zeros(_BLOCK, np.int16)
        samples[: len(piece)] = np.round(32767 * np.clip(piece, -1.0, 1.0))
        frame = AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = VOICE_HZ, self._sent
        frame.time_base = fractions.Fraction(1, VOICE_HZ)
        self._sent += _BLOCK
        return frame


class Peer(Ends):
    """A browser, from its offer until it has gone.

    Args:
        who: What it calls itself, so that it can come again.
        page: Makes the sink of a run.
        on_gone: Called once when it has gone, in any thread.

    Attributes:
        reason: Why it has gone.
        voice: What it hears.
        rest: The first picture of another shape, with which its next run begins.
    """

    scheme: ClassVar[str] = "webrtc"
    what: ClassVar[str] = "browser"
    made_by: ClassVar[str] = "prunus serve live APP"

    def __init__(
        self, who: str, page: Callable[[], Showing], on_gone: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__()
        self.who, self.page, self.reason = who, page, ""
        self.voice = Voice()
        self.rest: Came | None = None
        self._on_gone = on_gone
        self._lock = threading.Lock()
        self._gone = False
        self._taps: dict[str, Channel] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: RTCPeerConnection | None = None
        self._channel: Any = None
        self._pumps: dict[str, asyncio.Task[None]] = {}
        self._end: Any = None

    @property
    def gone(self) -> bool:
        """Whether nothing comes any more."""
        return self._gone

    def tap(self, kind: str) -> Channel:
        """Return a channel of what comes from now on; the newest replaces what nobody takes.

        Args:
            kind: ``video`` or ``audio``.
        """
        channel = Channel(_WAITING[kind], newest=True)
        with self._lock:
            self._taps[kind] = channel
            if kind == "video" and self.rest is not None:
                channel.put(self.rest)
                self.rest = None
            if self._gone:
                channel.close()
        return channel

    async def answer(self, sdp: str, sound: bool) -> str:
        """Return the answer to an offer, both as SDP (RFC 8866).

        Args:
            sdp: The offer, complete with the addresses of the browser.
            sound: Whether a microphone has to come along, and a voice goes back.

        Raises:
            UsageError: it is no such offer.
        """
        self._loop = asyncio.get_running_loop()
        _check(sdp, sound)
        configuration = RTCConfiguration([], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        self._connection = connection = RTCPeerConnection(configuration)
        connection.add_listener("track", self._begin)
        connection.add_listener("datachannel", self._talk)
        connection.add_listener("connectionstatechange", self._look)
        try:
            await connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
            if sound:
                connection.addTrack(self.voice)
            await connection.setLocalDescription(await connection.createAnswer())
        except Exception as error:  # whatever the library meets in a text from outside
            raise _no_offer(f"({type(error).__name__}: {str(error)[:80]})") from None
        if self._gone:  # nobody waits for the answer any more
            await connection.close()
        answered: str = connection.localDescription.sdp
        return answered

    def _begin(self, track: Any) -> None:
        if track.kind not in self._pumps:
            self._pumps[track.kind] = asyncio.ensure_future(self._pump(track))

    def _talk(self, channel: Any) -> None:
        self._channel = channel

    def _look(self) -> None:
        state = "" if self._connection is None else self._connection.connectionState
        if state == "failed":
            self.leave("the connection is lost")
        elif state == "closed":
            self.leave(_ENDED)

    async def _pump(self, track: Any) -> None:
        what = {"video": "picture", "audio": "sound"}[track.kind]
        try:
            while not self._gone:
                frame = await asyncio.wait_for(track.recv(), PICTURE_S)
                came = Came(frame, time.perf_counter())
                if (tap := self._taps.get(track.kind)) is not None:
                    tap.put(came)
        except asyncio.TimeoutError:
            self.leave(f"no {what} came for {PICTURE_S:g} s")
        except MediaStreamError:
            self.leave(_ENDED)

    def leave(self, reason: str) -> None:
        """Let it go, for a reason that it is told; from any thread, and more than once."""
        with self._lock:
            if self._gone:
                return
            self._gone, self.reason = True, reason
            for tap in self._taps.values():
                tap.close()
        if self._loop is not None:
            self._end = asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop)
        super().close()
        self._on_gone()

    async def _hang_up(self) -> None:
        if self._channel is not None and self._channel.readyState == "open":
            self._channel.send(json_text({"ended": self.reason}))
            await asyncio.sleep(_FAREWELL_S)
        if self._connection is not None:
            await self._connection.close()
        for pump in self._pumps.values():
            pump.cancel()

    def close(self) -> None:
        """Let it go, and wait for a moment until its connection is closed."""
        self.leave("the run has ended")
        if self._end is not None:
            with contextlib.suppress(Exception):  # whatever it is, nobody is there to see it
                self._end.result(2 * _FAREWELL_S + 1.0)


def _check(sdp: str, sound: bool) -> None:
    """Refuse what is no offer of a camera; raises UsageError."""
    try:
        parts = SessionDescription.parse(sdp).media
    except Exception:
        raise _no_offer("that cannot be read") from None
    OFFER_PARTS.check(len(parts), "The offer")
    kinds = [part.kind for part in parts if part.direction in ("sendrecv", "sendonly")]
    for kind, device in (("video", "camera"), *((("audio", "microphone"),) if sound else ())):
        if kind not in kinds:
            raise UsageError(
                f"Got an offer without a {device}.", f"Let the page use the {device}."
            )
    if any(part.kind != "application" and part.dtls is None for part in parts):
        raise _no_offer("without a key")


def _no_offer(what: str) -> UsageError:
    return UsageError(
        f"Got an offer {what}; expected the session description of a browser.",
        "It may be cut short. Load the page anew.",
    )
