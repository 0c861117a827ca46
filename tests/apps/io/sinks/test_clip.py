"""Videos as they are written: as long as what they show, with its times, sound and pixels."""

import contextlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from prunus.apps.io.frames import Frame, SourceInfo
from prunus.apps.io.sinks import video as video_sink
from prunus.apps.io.sinks.clip import ClipWriter
from prunus.apps.io.sinks.registry import open_sink
from prunus.apps.io.sources.clip import Clip
from prunus.apps.io.sources.registry import open_source
from prunus.apps.io.timeline import joined
from prunus.runtime.errors import HostError, PrunusError

av = pytest.importorskip("av")
RATE = 16_000


def _image(k: int) -> np.ndarray:
    return np.full((48, 64, 3), 20 + 8 * k, np.uint8)


def _record(path: Path, times, info: SourceInfo) -> None:
    with contextlib.closing(open_sink(str(path), info)) as sink:
        for k, seconds in enumerate(times):
            sink.write(Frame(k, _image(k), "", 0, seconds=seconds), _image(k))


def _seconds(path: Path) -> float:
    with av.open(str(path)) as container:
        return container.duration / 1e6


def _times(path: Path) -> list[float]:
    return [seconds for seconds, _ in Clip(path).frames()]


@pytest.mark.parametrize("ending", [".mp4", ".mkv", ".mov", ".avi"])
def test_five_pictures_a_second_give_five_seconds_whatever_rate_was_assumed(
    tmp_path, ending
) -> None:
    path, times = tmp_path / f"out{ending}", np.arange(25) / 5
    _record(path, times, SourceInfo("stream", 64, 48, 25.0, 0, live=True))
    if ending == ".avi":  # an even pace: pictures are repeated, the last one lasts one step
        assert _seconds(path) == pytest.approx(4.84, abs=0.01)
        assert len(_times(path)) == 121
    else:
        assert _seconds(path) == pytest.approx(5.0, abs=0.01)
        np.testing.assert_allclose(_times(path), times, atol=2e-3)


def test_a_variable_rate_keeps_the_time_of_every_picture(tmp_path) -> None:
    times = np.cumsum([0.0, *([0.02, 0.3, 0.04] * 4)])
    info = SourceInfo("video", 64, 48, 25.0, 0, False, time_base=Fraction(1, 1000))
    _record(tmp_path / "out.mp4", times, info)
    np.testing.assert_allclose(_times(tmp_path / "out.mp4"), times, atol=1e-3)


def _clip(path: Path, times, sound: np.ndarray, **kept) -> Path:
    with contextlib.closing(ClipWriter(path, 64, 48, 25, RATE, **kept)) as writer:
        for k, seconds in enumerate(times):
            writer.picture(_image(k), seconds)
        writer.sound(sound)
    return path


def test_the_sound_pixels_and_clock_of_the_source_come_along(tmp_path) -> None:
    at = np.arange(RATE) / RATE
    tones = 0.3 * np.sin(2 * np.pi * np.array([[440.0], [880.0]]) * at).astype(np.float32)
    clip = _clip(tmp_path / "clip.mkv", np.arange(25) / 25, tones,
                 layout="stereo", pixel_aspect=Fraction(4, 3))  # fmt: skip
    out = tmp_path / "out.mp4"
    with contextlib.closing(open_source(str(clip))) as source:
        assert source.info.pixel_aspect == Fraction(4, 3)
        with contextlib.closing(open_sink(str(out), source.info)) as sink:
            for frame in source:
                sink.write(frame, frame.image)
    written = Clip(out)
    assert written.info.pixel_aspect == Fraction(4, 3)
    assert (written.info.channels, written.info.layout) == (2, "stereo")
    rate = written.info.sample_rate_hz
    sound = np.concatenate(list(joined(written.sound(mix=False), rate)), axis=1)
    assert sound.shape[1] / rate == pytest.approx(1.0, abs=0.06)
    for channel, hertz in zip(sound, (440, 880), strict=True):
        piece = channel[: rate // 2] * np.hanning(rate // 2)
        assert abs(np.argmax(np.abs(np.fft.rfft(piece))) * 2 - hertz) <= 2
    assert len(_times(out)) == 25


def test_a_recording_that_stops_early_keeps_the_sound_until_then(tmp_path) -> None:
    sound = np.full(2 * RATE, 0.25, np.float32)
    clip = _clip(tmp_path / "clip.mp4", np.arange(26) / 25, sound)
    out = tmp_path / "out.mp4"
    with contextlib.closing(open_source(str(clip))) as source:
        with contextlib.closing(open_sink(str(out), source.info)) as sink:
            for frame, _ in zip(source, range(10), strict=False):
                sink.write(frame, frame.image)
    assert _seconds(out) == pytest.approx(0.4, abs=0.05)


def test_without_pyav_the_pace_is_even_and_the_length_right(
    tmp_path, monkeypatch, frames_of, caplog
) -> None:
    from prunus.runtime.errors import MissingDependencyError

    def absent(*_, **__):
        raise MissingDependencyError("av", "clips", "Clips")

    monkeypatch.setattr(video_sink, "ClipWriter", absent)
    video_sink._tell_even_pace.cache_clear()
    info = SourceInfo("stream", 64, 48, 10.0, 0, live=True)
    for name in ("a.mp4", "b.mp4"):
        _record(tmp_path / name, [0.0, 0.5, 0.6, 0.61, 2.0], info)
    values = [int(f.mean().round()) for f in frames_of(tmp_path / "a.mp4")]
    assert len(values) == 21
    np.testing.assert_allclose(values[:5] + values[-1:], [20] * 5 + [52], atol=3)
    assert sum("PyAV is not installed" in r.message for r in caplog.records) == 1


def test_sound_that_goes_on_behind_the_pictures_is_no_cut_video(tmp_path) -> None:
    sound = np.full(3 * RATE, 0.25, np.float32)
    clip = _clip(tmp_path / "clip.mkv", np.arange(25) / 25, sound)
    with contextlib.closing(open_source(str(clip))) as source:
        assert len(list(source)) == 25
    assert source.warnings == []


@pytest.mark.parametrize("ending", [".mkv", ".avi"])
def test_a_cut_video_is_told(tmp_path, ending) -> None:
    times, noise = np.arange(50) / 25, np.random.default_rng(0)
    path = tmp_path / f"cut{ending}"
    with contextlib.closing(ClipWriter(path, 64, 48, 25)) as writer:
        for seconds in times:
            writer.picture(noise.integers(0, 255, (48, 64, 3), np.uint8), seconds)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with contextlib.closing(open_source(str(path))) as source:
        assert 0 < len(list(source)) < 50
    assert "of 50 frames" in source.warnings[0]


def test_what_a_full_disk_leaves_of_a_video_plays(tmp_path):
    """Not a byte more may be written: no index at the end, and the last pieces are missing."""
    import resource

    out = tmp_path / "out.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (80, 60, 64, 3), np.uint8)
    sink = open_sink(str(out), SourceInfo("camera", 64, 60, 10.0, 0, live=True))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.raises(PrunusError, match=r"while writing \S*/out\.mp4"):
        try:
            for index, image in enumerate(noise):
                sink.write(Frame(index, image, "", 0, seconds=index / 10), image)
                if index == 60:
                    [growing] = tmp_path.glob(".out-*")
                    resource.setrlimit(resource.RLIMIT_FSIZE, (growing.stat().st_size, limits[1]))
            sink.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    with contextlib.suppress(PrunusError):
        sink.close()
    with contextlib.closing(open_source(str(out))) as source:
        assert 10 <= sum(1 for _ in source) < 80
    assert not list(tmp_path.glob(".*"))


def test_a_video_without_frames_says_what_broke_its_end(tmp_path, monkeypatch):
    sink = open_sink(str(tmp_path / "out.mp4"), SourceInfo("camera", 64, 60, 10.0, 0, live=True))

    def broken(self):
        raise HostError("No space is left.")

    monkeypatch.setattr(ClipWriter, "close", broken)
    with pytest.raises(HostError, match="No space"):
        sink.close()
    assert not list(tmp_path.iterdir())
