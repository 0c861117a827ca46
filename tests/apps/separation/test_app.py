"""The separation app end to end: true faces, and a separator whose answer is known."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest

from prunus.apps.io.sinks.clip import ClipWriter
from prunus.apps.io.sinks.pictures import FolderSink
from prunus.apps.io.sinks.sound import WavSink
from prunus.apps.io.sound import devices as sound_devices
from prunus.apps.io.sound import live as sound_live
from prunus.apps.io.sources import av_frames as moments
from prunus.apps.io.sources.clip import Clip
from prunus.apps.io.sources.registry import Frame, SourceInfo
from prunus.apps.separation import app as separation

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("av")
RATE, FPS, STEP = 16_000, 25, 640


def _scene(portrait: Path, k: int) -> np.ndarray:
    """Two faces: one as it is, one darkened to half."""
    picture = cv2.imread(str(portrait))[20:260, 100:340]
    scene = np.full((280, 560, 3), 96, np.uint8)
    x = 20 + k % 5
    scene[20:260, x : x + 240] = picture
    scene[20:260, 300:540] = picture[:, ::-1] // 2
    return scene


def _sound(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(3)
    return (0.1 * rng.standard_normal(int(seconds * RATE))).astype(np.float32)


@pytest.fixture(scope="session")
def talk(tmp_path_factory: pytest.TempPathFactory, portrait: Path) -> Path:
    """Return 1.6 s of two faces and noise."""
    path = tmp_path_factory.mktemp("talk") / "talk.mkv"
    with contextlib.closing(ClipWriter(path, 560, 280, FPS, RATE)) as writer:
        for k in range(40):
            writer.picture(_scene(portrait, k))
        writer.sound(_sound(1.6))
    return path


def _words(source, separator, *more):
    return ("run", "separation", "--source", source, "--model", separator, "--threads", 1,
            "--backend", "onnxruntime", *more)  # fmt: skip


def _mixture(source: Path) -> np.ndarray:
    """The sound as the app hears it."""
    from prunus.apps.io.sources.av_frames import open_av_frames

    return np.concatenate([m.sound[: m.samples] for m in open_av_frames(str(source), FPS, RATE)])


def _gain(voice: np.ndarray, mixture: np.ndarray) -> float:
    low, high = len(mixture) // 3, 2 * len(mixture) // 3
    return float((voice[low:high] * mixture[low:high]).sum() / (mixture[low:high] ** 2).sum())


def test_each_face_has_its_own_voice_and_no_sample_is_lost(prunus, tmp_path, talk, separator):
    gains = []
    mixture = _mixture(talk)
    for face in (1, 2):
        out = tmp_path / f"{face}.wav"
        ran = prunus(*_words(talk, separator, "--face", face, "-o", out, "--json", "--quiet"))
        assert ran.code == 0, ran.err
        voice, rate = soundfile.read(out, dtype="float32")
        assert rate == RATE and len(voice) == len(mixture)
        low, high = len(voice) // 3, 2 * len(voice) // 3
        assert np.corrcoef(voice[low:high], mixture[low:high])[0, 1] > 0.98  # in step to a sample
        gains.append(_gain(voice, mixture))
        summary = json.loads(ran.out)
        assert summary["chosen"] == face and set(summary["faces"]) == {"1", "2"}
        assert summary["seconds"] == pytest.approx(len(mixture) / RATE, abs=1e-3)
    assert gains[0] > 1.6 * gains[1] > 0.1  # the second mouth is half as bright


def test_the_clip_that_comes_out_has_picture_meters_and_voice(prunus, tmp_path, talk, separator):
    out = tmp_path / "voice.mp4"
    ran = prunus(*_words(talk, separator, "--sink", out))
    assert ran.code == 0, ran.err
    assert "real-time factor" in ran.out and "p50/p90 ms: capture" in ran.out
    before, after = Clip(talk), Clip(out)
    frames, plain = ([image for _, image in clip.frames()] for clip in (after, before))
    assert len(frames) >= len(plain) == 40
    change = np.abs(frames[20].astype(int) - plain[20]).mean(axis=2)
    assert change[-12:, 60:].max() > 60  # meters
    sound = np.concatenate([block.samples for block in after.sound()])
    assert len(sound) / after.info.sample_rate_hz == pytest.approx(1.6, abs=0.15)
    assert np.sqrt((sound**2).mean()) > 0.01


def test_a_page_chooses_the_face(prunus, page, talk, separator):
    page.settings = {10: {"face": 2}}
    ran = prunus(*_words(talk, separator, "--sink", "web:1"))
    assert ran.code == 0 and "-> a page" in ran.err  # its address, without which nobody finds it
    assert page.head["choose"] == "face" and len(page.told) == 40
    heard = [data["facts"]["Voice of face"] for _, data, _ in page.told]
    assert heard[0] == "1" and heard[-1] == "2"
    clean, data, drawn = page.told[-1]
    strong = {face["id"]: face["strong"] for face in data["overlay"]}
    assert strong == {1: False, 2: True} and "2 heard" in {f["label"] for f in data["overlay"]}
    for face in data["overlay"]:
        assert len(face["rings"][0]) >= 12 and len(face["box"]) == 4
    assert (clean != drawn).any() and {"faces", "separate", "draw"} == set(data["stages"])


@pytest.mark.parametrize("owner", [FolderSink, WavSink])
def test_a_sink_that_fails_takes_nothing_of_the_others_along(
    prunus, tmp_path, talk, separator, full_disk, owner
):
    frames, clip, sound = tmp_path / "frames", tmp_path / "out.mp4", tmp_path / "out.wav"
    calls = full_disk(owner, at=3)
    ran = prunus(*_words(talk, separator, "-o", frames, "-o", clip, "-o", sound))
    lost = frames if owner is FolderSink else sound
    assert ran.code == 1 and len(calls) == 3, ran.err
    told = ran.out.splitlines()
    assert f"warning: No space left while writing {lost}" in ran.out
    assert f"wrote {lost}" not in told and f"wrote {clip}" in told
    assert len(list(Clip(clip).frames())) >= 40
    assert len(list(frames.iterdir())) == (2 if owner is FolderSink else 40)
    assert sound.exists() == (owner is FolderSink)


def test_a_face_that_is_not_there_is_told_and_nothing_is_written(prunus, tmp_path, talk, separator):
    out = tmp_path / "none.wav"
    ran = prunus(*_words(talk, separator, "--face", 3, "-o", out, "--quiet"))
    assert ran.code == 1
    assert "Face 3 was not seen" in ran.err and "faces seen: 1 (1." in ran.err
    assert not list(tmp_path.iterdir())


def test_a_clip_without_faces_is_told(prunus, tmp_path, separator):
    path = tmp_path / "empty.mkv"
    with contextlib.closing(ClipWriter(path, 160, 120, FPS, RATE)) as writer:
        for _ in range(10):
            writer.picture(np.full((120, 160, 3), 90, np.uint8))
        writer.sound(_sound(0.4))
    ran = prunus(*_words(path, separator, "-o", tmp_path / "x.mp4", "--quiet"))
    assert ran.code == 1 and "no face was seen at all" in ran.err
    assert [p.name for p in tmp_path.iterdir()] == ["empty.mkv"]


def test_a_clip_without_sound_is_refused_and_another_sound_serves(
    prunus, tmp_path, video, talk, separator
):
    ran = prunus(*_words(video, separator, "-o", tmp_path / "x.wav"))
    assert ran.code == 2 and "holds no sound" in ran.err and "+speech.wav" in ran.err
    stereo = np.stack([_sound(1.6), -0.5 * _sound(1.6)], 1)
    soundfile.write(tmp_path / "two.wav", stereo, RATE)
    out = tmp_path / "out.wav"
    source = f"{talk}+{tmp_path / 'two.wav'}"
    ran = prunus(*_words(source, separator, "-o", out, "--seconds", 1.0))
    assert ran.code == 0, ran.err
    assert "averaged over 2 channels" in ran.out
    assert len(soundfile.read(out)[0]) == RATE


def test_a_mouth_out_of_the_picture_and_silence_are_told(prunus, tmp_path, portrait, separator):
    path = tmp_path / "leaving.mkv"
    with contextlib.closing(ClipWriter(path, 560, 280, FPS, RATE)) as writer:
        for k in range(40):
            scene = _scene(portrait, k)
            scene[:, :290] = 96 if k >= 20 else scene[:, :290]
            writer.picture(scene)
        writer.sound(np.zeros(25_600, np.float32))
    ran = prunus(*_words(path, separator, "-o", tmp_path / "x.wav"))
    assert ran.code == 0, ran.err
    assert "the sound is silent" in ran.out
    assert "% of the time; elsewhere its last crop was repeated" in ran.out
    assert not soundfile.read(tmp_path / "x.wav")[0].any()


@pytest.mark.parametrize(("more", "words", "code"), [
    (("--face", 0), "--face", 2), (("--hop", 3.0), "do not fit", 2),
    (("--sink", "out.xyz"), "xyz", 2), (("--model", "none"), "not found", 2),
])  # fmt: skip
def test_options_that_cannot_be_are_refused(prunus, tmp_path, talk, separator, more, words, code):
    ran = prunus(*_words(talk, separator, "-o", tmp_path / "x.wav", *more))
    assert ran.code == code and words in ran.err
    assert not list(tmp_path.iterdir())


def test_the_source_is_not_overwritten(prunus, talk, separator):
    before = talk.read_bytes()
    ran = prunus(*_words(talk, separator, "-o", talk))
    assert ran.code == 2 and "both source and output" in ran.err
    assert talk.read_bytes() == before


@pytest.mark.slow
def test_a_stopped_run_leaves_complete_files(tmp_path, portrait, separator):
    path = tmp_path / "long.mkv"
    with contextlib.closing(ClipWriter(path, 560, 280, FPS, RATE)) as writer:
        scenes = [_scene(portrait, k) for k in range(5)]
        for k in range(500):
            writer.picture(scenes[k % 5])
        writer.sound(_sound(20.0))
    words = [str(w) for w in _words(path, separator, "--sink", "out.mp4", "-o", "out.wav")]
    process = subprocess.Popen(
        [sys.executable, "-m", "prunus.apps.cli.main", *words],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for line in process.stderr:  # the first line of progress: AV frames are coming out
            if line.startswith("separation:"):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err and "stopped with Ctrl-C" in out
    voice = soundfile.read(tmp_path / "out.wav")[0]
    frames = list(Clip(tmp_path / "out.mp4").frames())
    assert 0 < len(frames) < 500 and len(voice) == len(frames) * STEP
    assert sorted(p.name for p in tmp_path.iterdir()) == ["long.mkv", "out.mp4", "out.wav"]


class _Camera:
    """The scene, thirty times a second of its own time, until it is closed."""

    shown = 0  # pictures that were taken so far

    def __init__(self, portrait: Path) -> None:
        self.info = SourceInfo("camera", 560, 280, 30.0, 0, True)
        self.warnings: list[str] = []
        self._scenes = [_scene(portrait, k) for k in range(5)]
        self._end = threading.Event()

    def __iter__(self):
        index = 0
        while not self._end.wait(0.02):
            yield Frame(index, self._scenes[index % 5], "", 0)
            index += 1
            _Camera.shown = index

    def close(self) -> None:
        self._end.set()


class _Microphone:
    """Two seconds of noise at 48 kHz; every block waits for a new picture, on any machine."""

    sample_rate_hz = 48_000

    def __init__(self, device: str, wanted_hz: int, block_seconds: float) -> None:
        assert (device, wanted_hz) == ("desk", RATE)
        self._closed = threading.Event()

    def blocks(self, size: int):
        rng = np.random.default_rng(0)
        for _ in range(2 * self.sample_rate_hz // size):
            seen = _Camera.shown
            while _Camera.shown == seen and not self._closed.wait(0.002):
                continue
            yield (0.1 * rng.standard_normal(size)).astype(np.float32)

    def close(self) -> None:
        self._closed.set()


class _Speaker:
    name = "speaker 'fake'"
    played: ClassVar[list[np.ndarray]] = []

    def __init__(self, device: str, rate: int, block_seconds: float) -> None:
        self._pace = threading.Event()

    def write(self, sound: np.ndarray) -> None:
        self._pace.wait(0.001)
        self.played.append(sound)

    def finish(self, samples: int | None) -> None:
        pass

    def close(self) -> None:
        pass


def test_camera_and_microphone_to_loudspeaker(prunus, tmp_path, portrait, separator, monkeypatch):
    monkeypatch.setattr(moments, "open_source", lambda _, **__: _Camera(portrait))
    monkeypatch.setattr(sound_devices, "Microphone", _Microphone)
    monkeypatch.setattr(sound_devices, "Speaker", _Speaker)
    out = tmp_path / "live.wav"
    words = ("--sink", "speaker:", "--sink", out, "--sink", "null:", "--json", "--quiet")
    ran = prunus(*_words("0+mic:desk", separator, *words))
    assert ran.code == 0, ran.err
    summary = json.loads(ran.out)
    voice, _ = soundfile.read(out, dtype="float32")
    assert summary["seconds"] == pytest.approx(2.0, abs=0.1)
    assert len(voice) == round(summary["seconds"] * RATE)
    assert summary["delay_seconds"] < 0.7 and summary["dropped_seconds"] == 0
    told = summary["devices"]
    assert told["speaker_waits_ms"] == 60 and told["microphone_dropped_ms"] == 0
    assert summary["declared_ms"] == pytest.approx(1000 * summary["delay_seconds"] + 60, abs=2)
    assert 0 < summary["real_time_factor"] < 50
    assert summary["faces"]["1"] > 0.5
    assert np.abs(np.concatenate(_Speaker.played)).max() > 0.01
    assert np.abs(voice).max() > 0.01


def test_a_clip_makes_the_speaker_its_clock(prunus, tmp_path, talk, separator, monkeypatch):
    """It comes faster than it is played, and waits: nothing is dropped or stretched."""
    monkeypatch.setattr(sound_devices, "Speaker", _Speaker)
    monkeypatch.setattr(sound_live, "_BACKLOG_SECONDS", 0.01)
    monkeypatch.setattr(_Speaker, "played", [])
    out = tmp_path / "voice.wav"
    words = ("--sink", "speaker:", "--sink", out, "--json", "--quiet")
    ran = prunus(*_words(talk, separator, *words))
    assert ran.code == 0, ran.err
    told = json.loads(ran.out)["devices"]
    assert set(told) == {"underflows"}
    voice, played = soundfile.read(out, dtype="float32")[0], np.concatenate(_Speaker.played)
    assert np.abs(voice).max() > 0.01
    heard = np.count_nonzero(np.abs(played) > 1e-6)  # a machine that is too slow leaves gaps
    assert heard == pytest.approx(np.count_nonzero(voice), rel=0.02)
    if not told["underflows"]:
        np.testing.assert_allclose(played, voice, atol=1e-4)


def test_a_live_run_that_cannot_keep_up_says_by_how_much(
    prunus, tmp_path, portrait, separator, monkeypatch
):
    monkeypatch.setattr(moments, "open_source", lambda _, **__: _Camera(portrait))
    monkeypatch.setattr(sound_devices, "Microphone", _Microphone)
    monkeypatch.setattr(separation, "_BEHIND", 0.0)  # any sound that waits is too much
    ran = prunus(*_words("0+mic:desk", separator, "--sink", "null:", "--seconds", 1.0))
    assert ran.code == 0, ran.err
    assert "times too slow to separate live" in ran.out
