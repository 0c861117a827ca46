"""Videos that open and show nothing: refused when they are opened, with PyAV and without it."""

from __future__ import annotations

import contextlib
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest

from prunus.apps.io.sources import clip
from prunus.apps.io.sources.av_frames import open_av_frames
from prunus.apps.io.sources.registry import open_source
from prunus.apps.io.sources.video import CaptureSource
from prunus.runtime.errors import MissingDependencyError, SourceError

av = pytest.importorskip("av")


def _film(path: Path, *, spoil: bool) -> Path:
    """Write a container with a whole header and 20 pictures, spoilt: of zeros instead."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        frames = [av.VideoFrame.from_ndarray(np.full((120, 160, 3), 9 * k, np.uint8), "bgr24")
                  for k in range(20)]  # fmt: skip
        for k, frame in enumerate(frames):
            frame.pts, frame.time_base = k, Fraction(1, 25)
        for packet in [p for f in (*frames, None) for p in stream.encode(f)]:
            written = packet
            if spoil:
                written = av.Packet(bytes(packet.size))
                written.pts, written.dts, written.stream = packet.pts, packet.dts, stream
                written.time_base = packet.time_base
            container.mux(written)
    return path


@pytest.fixture(params=["PyAV", "OpenCV"])
def decoder(request, monkeypatch):
    if request.param == "OpenCV":

        def absent():
            raise MissingDependencyError("av", "apps", "Clips with sound")

        monkeypatch.setattr(clip, "load_av", absent)
    return request.param


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".avi"])
def test_a_film_whose_pictures_cannot_be_decoded_is_refused(tmp_path, capfd, decoder, ending):
    whole = _film(tmp_path / f"whole{ending}", spoil=False)
    with contextlib.closing(open_source(str(whole))) as source:
        assert len(list(source)) == 20
    spoilt = _film(tmp_path / f"spoilt{ending}", spoil=True)
    with pytest.raises(SourceError, match=r"not a video|gives no picture") as caught:
        open_source(str(spoilt))
    assert str(spoilt) in caught.value.message and "H.264" in caught.value.hint
    assert capfd.readouterr().err == ""


def test_sound_alone_is_no_video(tmp_path, decoder):
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    with pytest.raises(SourceError, match=r"not a video|gives no picture"):
        open_source(str(path))


def test_pictures_that_cannot_be_decoded_are_refused_beside_sound(tmp_path):
    spoilt = _film(tmp_path / "spoilt.mp4", spoil=True)
    with pytest.raises(SourceError, match="stream of picture that gives nothing"):
        open_av_frames(str(spoilt), 25, 16000)


class _Blind:
    """An OpenCV capture that says that it is open and never gives a picture."""

    def __init__(self) -> None:
        self.released = False

    def read(self):
        return False, None

    def get(self, what):
        return {cv2.CAP_PROP_FPS: 25.0, cv2.CAP_PROP_FRAME_COUNT: 100.0}.get(what, 0.0)

    def release(self) -> None:
        self.released = True


@pytest.mark.parametrize("kind", ["video", "camera", "stream"])
def test_a_source_without_a_first_picture_is_refused_and_let_go(kind):
    capture = _Blind()
    with pytest.raises(SourceError, match="Door opens but gives no picture"):
        CaptureSource(capture, kind, "Door")
    assert capture.released
