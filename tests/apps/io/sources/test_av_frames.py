"""Picture and sound in step, whatever rates and lengths they come in."""

import contextlib
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from prunus.apps.io.frames import AudioBlock, Frame, SourceInfo
from prunus.apps.io.sinks.clip import ClipWriter
from prunus.apps.io.sound.live import Recorder
from prunus.apps.io.sources import av_frames
from prunus.apps.io.sources.av_frames import ClipAVFrames, LiveAVFrames, open_av_frames
from prunus.apps.io.sources.clip import ClipInfo
from prunus.runtime.errors import SourceError, UsageError

RATE = 16_000


def _image(number: int) -> np.ndarray:
    return np.full((4, 6, 3), number, np.uint8)


class _Clip:
    """A clip in memory: pictures at given times, and a ramp of sound that tells its place."""

    title = "clip"

    def __init__(
        self, times, samples: int, *, channels=1, fps=25.0, first=0.0, hole=(0, 0)
    ) -> None:
        self.times, self.first, self.hole = list(times), first, hole
        self.warnings: list[str] = []
        self.ramp = (np.arange(samples) / 2**20).astype(np.float32)
        self.info = ClipInfo(6, 4, fps, samples / RATE, RATE if samples else 0, channels)

    def frames(self) -> Iterator[tuple[float, np.ndarray]]:
        for k, seconds in enumerate(self.times):
            yield seconds, _image(k)

    def sound(self) -> Iterator[tuple[float, np.ndarray]]:
        low, high = self.hole
        for k in range(0, len(self.ramp), 1000):
            if not low <= k < high:
                yield AudioBlock(self.first + k / RATE, self.ramp[k : k + 1000])


def _all(clip: _Clip) -> tuple[list, list[str]]:
    moments = ClipAVFrames(clip, "", 25, RATE)
    return list(moments), moments.warnings


def test_equal_rates_pair_each_picture_with_its_sound() -> None:
    moments, notes = _all(_Clip(np.arange(50) / 25, 32_000))
    assert [m.image[0, 0, 0] for m in moments] == list(range(50))
    assert all(m.fresh for m in moments) and all(m.samples == 640 for m in moments)
    sound = np.concatenate([m.sound for m in moments])
    np.testing.assert_array_equal(sound, (np.arange(32_000) / 2**20).astype(np.float32))
    assert notes == []


def test_a_slow_camera_repeats_pictures_and_is_told() -> None:
    moments, notes = _all(_Clip(np.arange(20) / 10, 32_000, fps=10.0))
    numbers = [int(m.image[0, 0, 0]) for m in moments]
    assert len(moments) == 50 and numbers[::5] == list(range(0, 20, 2))
    assert sum(m.fresh for m in moments) == 20
    assert any("10 pictures a second; expected 25" in n for n in notes)


def test_a_fast_camera_skips_pictures() -> None:
    moments, notes = _all(_Clip(np.arange(100) / 50, 32_000, fps=50.0))
    steps = np.diff([int(m.image[0, 0, 0]) for m in moments])
    assert (steps == 2).all() and notes == []


def test_a_variable_rate_is_placed_by_its_time_stamps_and_told() -> None:
    times = np.cumsum([0.0, *([0.02, 0.1] * 20)])
    moments, notes = _all(_Clip(times, int(times[-1] * RATE)))
    for moment in moments:
        wanted = np.searchsorted(times, (moment.index + 0.5) / 25) - 1
        assert int(moment.image[0, 0, 0]) == wanted
    assert any("variable frame rate, 20 to 100 ms" in n for n in notes)


@pytest.mark.parametrize(("pictures", "samples", "word"), [
    (50, 16_000, "silence"), (25, 32_000, "last picture"),
])  # fmt: skip
def test_the_shorter_of_picture_and_sound_is_continued_and_told(pictures, samples, word) -> None:
    moments, notes = _all(_Clip(np.arange(pictures) / 25, samples))
    assert len(moments) == 50
    assert sum(m.samples for m in moments) == samples
    assert any(word in n for n in notes), notes
    assert not np.concatenate([m.sound for m in moments])[samples:].any()


def test_sound_that_starts_late_or_has_a_hole_stays_in_its_place() -> None:
    moments, _ = _all(_Clip(np.arange(50) / 25, 24_000, first=0.5))
    sound = np.concatenate([m.sound for m in moments])
    assert not sound[:8000].any() and sound[8000 + 5000] == np.float32(5000 / 2**20)
    moments, _ = _all(_Clip(np.arange(50) / 25, 32_000, hole=(8000, 16_000)))
    sound = np.concatenate([m.sound for m in moments])
    assert not sound[8001:16_000].any() and sound[20_000] == np.float32(20_000 / 2**20)


def test_silence_and_channels_are_told() -> None:
    clip = _Clip(np.arange(25) / 25, 16_000, channels=2)
    clip.ramp[:] = 0
    _, notes = _all(clip)
    assert any("silent" in n for n in notes) and any("averaged over 2" in n for n in notes)


def test_no_sound_no_picture_and_odd_rates_are_refused() -> None:
    with pytest.raises(SourceError, match="holds no sound"):
        ClipAVFrames(_Clip([0.0], 0), "", 25, RATE)
    blind = _Clip([], 16_000)
    blind.info = ClipInfo(0, 0, 0.0, 1.0, RATE, 1)
    with pytest.raises(SourceError, match="holds no picture"):
        ClipAVFrames(blind, "", 25, RATE)
    with pytest.raises(UsageError, match="no multiple"):
        ClipAVFrames(_Clip([0.0], 640), "", 24, RATE)


@pytest.mark.parametrize(("uri", "words"), [
    ("none.mp4", "Clip not found"), ("face.jpg", "no sound"), ("voice.wav", "no picture"),
    ("0", "no sound of its own"), ("clip.mp4+camera", "expected mic: or a sound file"),
])  # fmt: skip
def test_sources_that_cannot_be_are_told(uri: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        open_av_frames(uri, 25, RATE)


def test_a_clip_and_a_sound_file_make_one_source(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with contextlib.closing(ClipWriter(path, 64, 48, 25, RATE)) as writer:
        for k in range(25):
            writer.picture(np.full((48, 64, 3), 8 * k, np.uint8))
        writer.sound(np.zeros(16_000, np.float32))
    stereo = np.stack([np.full(48_000, 0.5), np.full(48_000, 0.1)], 1)
    soundfile.write(tmp_path / "voice.wav", stereo, 48_000)
    moments = open_av_frames(f"{path}+{tmp_path / 'voice.wav'}", 25, RATE)
    found = list(moments)
    assert len(found) == 25
    assert found[12].sound.mean() == pytest.approx(0.3, abs=1e-3)
    assert any("2 channels" in n for n in moments.warnings)


def test_a_sound_file_that_broke_off_or_cancels_itself_is_told(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    voice = (0.2 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", np.stack([voice, -voice], 1), RATE)
    soundfile.write(tmp_path / "b.flac", np.tile(voice, 2), RATE)
    (tmp_path / "b.flac").write_bytes((tmp_path / "b.flac").read_bytes()[:30_000])
    for name, words in (("a.wav", "each other's negative"), ("b.flac", "promises 2.00 s")):
        moments = ClipAVFrames(_Clip(np.arange(25) / 25, 0), str(tmp_path / name), 25, RATE)
        assert len(list(moments)) >= 25
        assert any(words in note for note in moments.warnings), name


class _Camera:
    def __init__(self, count: int) -> None:
        self.info = SourceInfo("camera", 6, 4, 30.0, 0, True)
        self.warnings: list[str] = []
        self._count, self._end = count, threading.Event()

    def __iter__(self) -> Iterator[Frame]:
        for k in range(self._count):
            yield Frame(k, _image(k), "", 0)
        self._end.wait(10)  # a camera does not end by itself

    @property
    def closed(self) -> bool:
        return self._end.is_set()

    def close(self) -> None:
        self._end.set()


class _Microphone:
    sample_rate_hz = RATE

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        for k in range(10):
            yield np.full(640, k / 10, np.float32)

    def close(self) -> None:
        pass


def test_live_moments_follow_the_microphone_and_show_the_newest_picture() -> None:
    camera = _Camera(5)
    moments = LiveAVFrames(camera, Recorder(_Microphone(), RATE, 640), 25, RATE)
    with contextlib.closing(moments):
        found = list(moments)
    assert len(found) == 10 and camera.closed
    np.testing.assert_allclose([m.sound[0] for m in found], np.arange(10) / 10, atol=1e-6)
    assert found[-1].image[0, 0, 0] == 4 and not found[-1].fresh
    assert not moments.info.live  # late moments wait; none is dropped for a newer one


class _Room:
    """A microphone at 48 kHz in which 70 ms have been said, and then nothing more."""

    live, sample_rate_hz = True, 48_000

    def __init__(self) -> None:
        self.ended = threading.Event()

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        for _ in range(3360 // size):
            yield np.ones(size, np.float32)
        self.ended.wait(10)

    def close(self) -> None:
        self.ended.set()


def test_a_step_does_not_wait_for_the_sound_of_the_next(monkeypatch) -> None:
    """The resampler holds sound back: read in whole steps, each came a whole step late."""
    room = _Room()
    row = types.SimpleNamespace(load=lambda: lambda sound, form: room)
    monkeypatch.setattr(av_frames, "open_source", lambda uri, reconnect: _Camera(5))
    monkeypatch.setattr(av_frames, "resolve", lambda uri, kind: row)
    with contextlib.closing(av_frames.open_live("0+mic:", 25, RATE)) as moments:
        ending = threading.Timer(5.0, moments.close)
        ending.start()
        found = next(iter(moments))
        ending.cancel()
        assert len(found.sound) == 640 and not room.ended.is_set()  # nothing more was needed


class _Stage:
    """A camera and a microphone in one room whose clock goes on when both have been heard."""

    def __init__(self, rate: int, event: float, seconds: float, monkeypatch) -> None:
        self.sample_rate_hz, self._event, self._until = rate, event, seconds
        self.now, self._shown, self._ended = 0.0, 0.0, False
        self._changed = threading.Condition()
        self.info = SourceInfo("camera", 6, 4, 25.0, 0, True)
        self.warnings: list[str] = []
        monkeypatch.setattr("prunus.apps.io.sound.live.time.perf_counter", lambda: 7 + self.now)

    def __iter__(self) -> Iterator[Frame]:
        for k in range(int(25 * self._until)):
            with self._changed:
                while self.now < k / 25 and not self._ended:
                    self._changed.wait()
            image = _image(255 if k / 25 == self._event else 0)
            yield Frame(k, image, "", round(1e9 * (7 + k / 25)))
            with self._changed:
                self._shown = (k + 1) / 25
                self._changed.notify_all()
        with self._changed:  # a camera does not end by itself
            self._changed.wait_for(lambda: self._ended, 10)

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        for start in range(0, int(self._until * self.sample_rate_hz), size):
            sound = np.zeros(size, np.float32)
            click = round(self._event * self.sample_rate_hz) - start
            if 0 <= click < size:
                sound[click] = 1.0
            with self._changed:
                self.now = (start + size) / self.sample_rate_hz
                self._changed.notify_all()
                while self._shown < self.now - 1e-9 and not self._ended:
                    self._changed.wait(5)
            yield sound

    def close(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000, 8_000])
def test_a_click_and_a_flash_at_once_come_in_one_step(rate: int, monkeypatch) -> None:
    stage = _Stage(rate, 0.6, 1.2, monkeypatch)
    moments = LiveAVFrames(stage, Recorder(stage, RATE, rate // 25), 25, RATE)
    with contextlib.closing(moments):
        found = list(moments)
    flash = next(k for k, m in enumerate(found) if m.image[0, 0, 0] == 255)
    loudest = max(range(len(found)), key=lambda k: np.abs(found[k].sound).max())
    assert (flash, loudest) == (15, 15)
