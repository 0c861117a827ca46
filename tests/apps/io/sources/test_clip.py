"""Clips with sound: written and read again, odd ones told in one line."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from prunus.apps.io.sinks.clip import ClipWriter
from prunus.apps.io.sources.clip import Clip
from prunus.apps.io.timeline import joined
from prunus.runtime.errors import SourceError

pytest.importorskip("av")
RATE = 16_000


def _picture(k: int, size=(120, 160)) -> np.ndarray:
    """Grey picture whose brightness tells its number."""
    return np.full((*size, 3), 20 + 8 * k, np.uint8)


def _tone(seconds: float) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


def _write(path: Path, pictures: int, seconds: float, size=(120, 160)) -> Path:
    with contextlib.closing(ClipWriter(path, size[1], size[0], 25, RATE)) as writer:
        for k in range(pictures):
            writer.picture(_picture(k, size))
        sound = _tone(seconds)
        for k in range(0, len(sound), 700):
            writer.sound(sound[k : k + 700])
    return path


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".mov"])
def test_picture_and_sound_come_back_in_step(tmp_path, ending) -> None:
    clip = Clip(_write(tmp_path / f"clip{ending}", 25, 1.0))
    assert (clip.info.width, clip.info.height) == (160, 120)
    assert clip.info.fps == pytest.approx(25, abs=0.1)
    frames = list(clip.frames())
    assert len(frames) == 25
    for k, (seconds, image) in enumerate(frames):
        assert seconds - frames[0][0] == pytest.approx(k / 25, abs=2e-3)
        assert abs(float(image.mean()) - (20 + 8 * k)) < 4
    blocks = list(clip.sound())
    sound = np.concatenate([b.samples for b in blocks])
    assert clip.info.channels == 1
    assert len(sound) / clip.info.sample_rate_hz == pytest.approx(1.0, abs=0.06)
    middle = sound[len(sound) // 4 : len(sound) // 2]
    assert np.sqrt(2 * (middle**2).mean()) == pytest.approx(0.3, rel=0.1)
    assert abs(blocks[0].seconds - frames[0][0]) < 0.06


def test_odd_sizes_lose_one_line(tmp_path) -> None:
    clip = Clip(_write(tmp_path / "odd.mp4", 3, 0.1, (121, 163)))
    assert (clip.info.width, clip.info.height) == (162, 120)


def test_a_clip_of_a_turned_camera_comes_upright(tmp_path) -> None:
    path = tmp_path / "turned.mp4"
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[:60, :80] = 200  # upper left
    with contextlib.closing(ClipWriter(path, 160, 120, 25, RATE)) as writer:
        for _ in range(3):
            writer.picture(picture)
    # The display matrix of the first track: a quarter turn clockwise, as a phone writes it.
    one, minus = (1 << 16).to_bytes(4, "big"), (-(1 << 16)).to_bytes(4, "big", signed=True)
    none, whole = bytes(4), (1 << 30).to_bytes(4, "big")
    straight = one + none * 3 + one + none * 3 + whole
    turned = none + one + none + minus + none * 4 + whole
    data = path.read_bytes()
    at = data.index(straight, data.index(b"tkhd"))
    path.write_bytes(data[:at] + turned + data[at + len(turned) :])
    clip = Clip(path)
    assert (clip.info.width, clip.info.height) == (120, 160)
    (_, image), *_ = clip.frames()
    assert image.shape == (160, 120, 3)
    assert image[20, 90].mean() > 150 > 50 > image[20, 30].mean()  # upper right now


def test_a_clip_without_sound_has_none(tmp_path, video) -> None:
    clip = Clip(video)
    assert clip.info.sample_rate_hz == 0
    assert len(list(clip.frames())) == 12
    with pytest.raises(SourceError, match="no sound"):
        next(clip.sound())


def test_what_is_no_clip_is_refused(tmp_path) -> None:
    with pytest.raises(SourceError, match="not found"):
        Clip(tmp_path / "none.mp4")
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"no video" * 50)
    with pytest.raises(SourceError, match="cannot be read"):
        Clip(bad)
    whole = _write(tmp_path / "whole.mkv", 25, 1.0)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    frames = list(Clip(cut).frames())
    assert 0 < len(frames) < 25  # what came before the break is there


def test_an_unknown_ending_is_refused(tmp_path) -> None:
    with pytest.raises(SourceError, match="No encoder writes"):
        ClipWriter(tmp_path / "out.xyz", 160, 120, 25, RATE)


@pytest.mark.parametrize("name", ["clip.mkv", "12:30.mkv"])
def test_metadata_and_names_may_be_of_any_kind(tmp_path, monkeypatch, name) -> None:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "plain.mkv", 10, 0.4)
    data = (tmp_path / "plain.mkv").read_bytes()
    # The name of the writing library, in another encoding, of the same length.
    damaged = data.replace(b"Lavf", b"L\xe9vf")
    assert damaged != data
    Path(name).write_bytes(damaged)
    clip = Clip(name)
    assert clip.info.fps == pytest.approx(25, abs=0.1)
    assert len(list(clip.frames())) == 10


def _muxed(path: Path, packets, *, codec="mpeg4", **how) -> Path:
    """Write 25 pictures a second; `packets` moves the stamp of each packet, in ticks of 1/25."""
    from fractions import Fraction

    import av

    with av.open(str(path), "w", **how) as container:
        options = {"bf": "2"} if codec == "libx264" else {}
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        count = 0
        for k in range(25):
            frame = av.VideoFrame.from_ndarray(_picture(k), format="bgr24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            for packet in stream.encode(frame):
                packets(packet, count)
                container.mux(packet)
                count += 1
        for packet in stream.encode(None):
            packets(packet, count)
            container.mux(packet)
            count += 1
    return path


def test_h264_in_avi_comes_in_order_and_in_time(tmp_path) -> None:
    def paced(packet, count) -> None:
        packet.pts = packet.dts = count

    clip = Clip(_muxed(tmp_path / "b.avi", paced, codec="libx264"))
    frames = list(clip.frames())
    np.testing.assert_allclose([seconds for seconds, _ in frames], np.arange(25) / 25, atol=1e-3)
    levels = [float(image.mean()) for _, image in frames]
    assert (np.diff(levels) > 4).all()
    assert clip.info.fps == pytest.approx(25)
    assert clip.info.seconds == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("leap", [3600 * 25, 10**9])
def test_stamps_that_leap_by_hours_are_placed_and_told(tmp_path, leap) -> None:
    def leaping(packet, count) -> None:
        if count >= 15:
            packet.pts, packet.dts = packet.pts + leap, packet.dts + leap

    clip = Clip(_muxed(tmp_path / "leap.mkv", leaping))
    times = [seconds for seconds, _ in clip.frames()]
    np.testing.assert_allclose(times, np.arange(25) / 25, atol=2e-3)
    assert "leap (1)" in clip.warnings[0]


def test_a_rate_that_changes_inside_a_clip_keeps_the_pitch(tmp_path) -> None:
    from fractions import Fraction

    import av

    path, data = tmp_path / "joined.ts", b""
    for number, rate in enumerate((48_000, 44_100)):
        part = tmp_path / f"part{number}.ts"
        with av.open(str(part), "w", format="mpegts") as container:
            stream = container.add_stream("aac", rate=rate, layout="mono")
            tone = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(rate) / rate)
            for k in range(0, rate - 1023, 1024):
                block = tone[None, k : k + 1024].astype(np.float32)
                frame = av.AudioFrame.from_ndarray(block, "fltp", "mono")
                frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = k + number * rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        data += part.read_bytes()
    path.write_bytes(data)
    clip = Clip(path)
    rate = clip.info.sample_rate_hz
    sound = np.concatenate(list(joined(clip.sound(), rate)))
    assert len(sound) / rate == pytest.approx(2.0, abs=0.06)
    for begin in (0.3, 1.3):
        piece = sound[int(begin * rate) :][: rate // 2]
        peak = np.argmax(np.abs(np.fft.rfft(piece * np.hanning(len(piece))))) * rate / len(piece)
        assert peak == pytest.approx(1000, abs=2)


def test_a_list_of_other_files_is_no_clip(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"not opened")
    for name, text in (
        ("list.mp4", "ffconcat version 1.0\nfile a.mp4\n"),
        ("list.mkv", "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(SourceError):
            Clip(tmp_path / name)
