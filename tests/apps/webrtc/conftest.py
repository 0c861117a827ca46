"""A browser of the tests: a camera, a microphone and ears, over WebRTC in this process."""

import asyncio
import contextlib
import fractions
import json
import threading

import ifaddr
import numpy as np
import pytest
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import VIDEO_TIME_BASE, MediaStreamError
from av import AudioFrame, VideoFrame

AWAY = any(
    ip.ip != "127.0.0.1" and ip.is_IPv4 for card in ifaddr.get_adapters() for ip in card.ips
)
TONE_HZ = 440


def picture(index, size=(160, 120)):
    """Return BGR of one colour that tells the index."""
    return np.full((size[1], size[0], 3), 40 + 8 * (index % 16), np.uint8)


class Camera(MediaStreamTrack):
    """Ten pictures a second."""

    kind = "video"

    def __init__(self, paint):
        super().__init__()
        self.paint, self.index, self.begun = paint, 0, None

    async def recv(self):
        loop = asyncio.get_running_loop()
        self.begun = self.begun or loop.time()
        await asyncio.sleep(max(0.0, self.begun + self.index / 10 - loop.time()))
        frame = VideoFrame.from_ndarray(self.paint(self.index), format="bgr24")
        frame.pts, frame.time_base = round(90000 * (loop.time() - self.begun)), VIDEO_TIME_BASE
        self.index += 1
        return frame


class Tone(MediaStreamTrack):
    """A microphone that hears a tone."""

    kind = "audio"

    def __init__(self):
        super().__init__()
        self.sent, self.begun = 0, None

    async def recv(self):
        loop = asyncio.get_running_loop()
        self.begun = self.begun or loop.time()
        await asyncio.sleep(max(0.0, self.begun + self.sent / 48000 - loop.time()))
        time = (self.sent + np.arange(960)) / 48000
        sound = np.round(12000 * np.sin(2 * np.pi * TONE_HZ * time)).astype(np.int16)
        frame = AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 48000, self.sent
        frame.time_base = fractions.Fraction(1, 48000)
        self.sent += 960
        return frame


class Phone:
    """A browser: `offer`, then `accept`; what comes back is kept.

    Attributes:
        words: Messages over the data channel.
        heard: (T,) int16 pieces of the voice.
    """

    def __init__(self, paint=picture, camera=True, microphone=False):
        self.words, self.heard, self.spoken = [], [], threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._tracks = [Camera(paint)] if camera else []
        self._tracks += [Tone()] if microphone else []
        self._ears = None

    def _do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def offer(self):
        return self._do(self._offer())

    async def _offer(self):
        self._connection = RTCPeerConnection(RTCConfiguration([]))
        channel = self._connection.createDataChannel("words")
        channel.on("message", self._read)
        self._connection.on("track", self._listen)
        for track in self._tracks:
            self._connection.addTrack(track)
        await self._connection.setLocalDescription(await self._connection.createOffer())
        return self._connection.localDescription.sdp

    def _read(self, message):
        self.words.append(json.loads(message))
        self.spoken.set()

    def _listen(self, track):
        self._ears = asyncio.ensure_future(self._hear(track))

    async def _hear(self, track):
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                self.heard.append(frame.to_ndarray().reshape(-1, 2)[:, 0])

    def accept(self, answer):
        self._do(self._connection.setRemoteDescription(RTCSessionDescription(**answer)))

    def hang_up(self):
        """Go, as a page does that is closed."""
        self._do(self._connection.close())

    def close(self):
        with contextlib.suppress(AttributeError):  # it has never offered
            self.hang_up()
        self._do(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self):
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def phone():
    """Return a maker of browsers."""
    if not AWAY:
        pytest.skip("this machine has no network address besides loopback")
    with contextlib.ExitStack() as stack:
        yield lambda *words, **more: stack.enter_context(
            contextlib.closing(Phone(*words, **more))
        )


def came(image, seconds, arrived=None):
    """Return what a `Peer` passes on for a picture with that RTP stamp."""
    from prunus.apps.webrtc.peer import Came

    frame = VideoFrame.from_ndarray(image, format="bgr24")
    frame.pts, frame.time_base = round(seconds * 90000), VIDEO_TIME_BASE
    return Came(frame, 100.0 + seconds if arrived is None else arrived)


def heard(sound, seconds, rate=48000):
    """Return what a `Peer` passes on for (channels, T) sound in [-1, 1]."""
    from prunus.apps.webrtc.peer import Came

    packed = np.round(32767 * sound.T.reshape(1, -1)).astype(np.int16)
    layout = "stereo" if len(sound) == 2 else "mono"
    frame = AudioFrame.from_ndarray(packed, format="s16", layout=layout)
    frame.sample_rate, frame.pts = rate, round(seconds * rate)
    frame.time_base = fractions.Fraction(1, rate)
    return Came(frame, 100.0 + seconds)


@pytest.fixture
def sent():
    """Return makers of what comes in: pictures and sound."""
    return came, heard
