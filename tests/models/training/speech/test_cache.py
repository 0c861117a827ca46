"""The speech cache on recordings that are made here: what is kept, labelled and split."""

import dataclasses
import json
import shutil
import subprocess

import numpy as np
import pytest

from prunus.models.codec.nsfcodec.pitch_grid import pitch_hertz
from prunus.models.training.speech import cache as speech_cache
from prunus.models.training.speech.batches import (
    Recording,
    SpeechAugment,
    SpeechBatches,
    piece_at,
    read_recordings,
)
from prunus.models.training.speech.cache import SOURCES, build_cache, join, trim
from prunus.models.training.speech.pitch import track_pitch
from prunus.runtime.card.artifact import sha256_of
from prunus.runtime.errors import ArtifactError, HostError, SourceError

RATE = 16000
PLAIN = SpeechAugment(resampled=0.0, gain_db=(0.0, 0.0), noise=0.0)


def buzz(hertz, level=0.2):
    """Sum harmonics of a pitch curve (one value per sample)."""
    phase = 2 * np.pi * np.cumsum(hertz) / RATE
    sound = sum(np.cos(k * phase) / k for k in range(1, 12))
    return (level * sound / np.abs(sound).max()).astype(np.float32)


def as_int16(sound):
    return np.rint(sound * 32767).astype(np.int16)


def test_a_gliding_voice_is_followed_and_noise_is_not():
    hertz = np.linspace(110, 220, RATE * 2)
    rng = np.random.default_rng(0)
    hiss = (0.02 * rng.standard_normal(RATE)).astype(np.float32)
    sound = np.concatenate((np.zeros(RATE, np.float32), buzz(hertz), hiss))
    labels = track_pitch(sound)
    assert labels.dtype == np.uint8 and len(labels) == 200
    assert not labels[:48].any() and not labels[152:].any()
    found = pitch_hertz()[labels[55:145].astype(int) - 1]
    wanted = hertz[(np.arange(5, 95) * 320) + 160]
    assert (labels[55:145] > 0).all()
    assert np.abs(np.log2(found / wanted)).max() < 0.03


@pytest.mark.parametrize("hertz", [70.0, 140.0, 300.0, 450.0])
def test_no_octave_is_lost(hertz):
    labels = track_pitch(buzz(np.full(RATE, hertz)))[3:-3]
    found = pitch_hertz()[labels.astype(int) - 1]
    assert np.abs(np.log2(found / hertz)).max() < 0.02


def test_silence_at_the_ends_goes_and_short_recordings_are_left_out():
    voice = as_int16(buzz(np.full(RATE, 150.0)))
    quiet = np.zeros(RATE // 2, np.int16)
    kept = trim(np.concatenate((quiet, voice, quiet)))
    assert RATE <= len(kept) <= RATE + 2 * 960 + 640
    assert len(trim(quiet)) == 0
    sound, clips = join([("a", voice), ("short", voice[:3000]), ("b", voice)])
    assert [c.file for c in clips] == ["a", "b"]
    assert all(c.start % 320 == 0 and c.samples % 320 == 0 for c in clips)
    assert len(sound) == sum(c.samples for c in clips)


def test_no_speaker_stands_on_both_sides_but_by_sentences_that_are_named():
    trained = {s.speaker for s in SOURCES if s.split == "train"}
    tested = {s.speaker for s in SOURCES if s.split == "test"}
    assert "June" in tested - trained
    shared = [s for s in SOURCES if s.speaker in trained & tested]
    spans = [(s.first, s.last) for s in shared]
    assert spans == [(0, 560), (560, None)]
    assert not [s for s in SOURCES if "GPL" in s.licence]


@pytest.fixture
def package(tmp_path):
    """A Debian package of three made-up recordings."""
    if shutil.which("dpkg-deb") is None or shutil.which("ffmpeg") is None:
        pytest.skip("dpkg-deb or ffmpeg is not installed")
    soundfile = pytest.importorskip("soundfile")
    root = tmp_path / "root"
    (root / "DEBIAN").mkdir(parents=True)
    (root / "DEBIAN" / "control").write_text(
        "Package: voices\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b.c>\nDescription: x\n"
    )
    (root / "sounds").mkdir()
    for k, hertz in enumerate((120.0, 150.0, 180.0)):
        sound = buzz(np.full(RATE, hertz))
        soundfile.write(root / "sounds" / f"{k}.wav", sound, RATE, subtype="PCM_16")
    folder = tmp_path / "packages"
    folder.mkdir()
    target = folder / "voices_1_all.deb"
    subprocess.run(["dpkg-deb", "-b", str(root), str(target)], check=True, capture_output=True)
    return target


def _sources(package):
    base = dataclasses.replace(
        SOURCES[-1], name="one", package="voices", version="1", sha256=sha256_of(package),
        folder="sounds", pattern="*.wav", split="train", first=0, last=2,
    )  # fmt: skip
    return base, dataclasses.replace(base, name="two", split="test", first=2, last=None)


def test_a_cache_is_built_once_and_continued(package, tmp_path, monkeypatch):
    monkeypatch.setattr(speech_cache, "SOURCES", _sources(package))
    out = tmp_path / "cache"
    rows = build_cache(package.parent, out)
    assert [len(row["clips"]) for row in rows] == [2, 1]
    assert json.loads((out / "manifest.json").read_text()) == rows
    assert not [p for p in out.iterdir() if p.is_dir()]
    package.unlink()  # what is there is not made again
    assert build_cache(package.parent, out) == rows
    train = read_recordings(out, "train")
    assert [r.name for r in train] == ["one"] and len(train[0].pitch) * 320 == len(train[0].sound)
    assert (train[0].pitch[5:40] > 0).all()
    for name in ("one.sound.npy", "one.pitch.npy"):
        whole = (out / name).read_bytes()
        (out / name).write_bytes(whole[:-8])
        with pytest.raises(SourceError, match=rf"{name} is not a complete .* and \d+ are there"):
            read_recordings(out, "train")
        (out / name).write_bytes(whole)
    (out / "one.json").unlink()
    with pytest.raises(HostError, match="apt-get download"):
        build_cache(package.parent, out)


def test_a_changed_package_and_an_empty_one_are_refused(package, tmp_path, monkeypatch):
    first, second = _sources(package)
    odd = dataclasses.replace(first, sha256="0" * 64)
    monkeypatch.setattr(speech_cache, "SOURCES", (odd,))
    with pytest.raises(ArtifactError, match="not the file"):
        build_cache(package.parent, tmp_path / "cache")
    empty = dataclasses.replace(second, pattern="*.flac")
    monkeypatch.setattr(speech_cache, "SOURCES", (empty,))
    with pytest.raises(SourceError, match="No recordings"):
        build_cache(package.parent, tmp_path / "cache")
    with pytest.raises(ArtifactError, match="no speech cache"):
        read_recordings(tmp_path / "cache", "train")


def _recording(seconds=20):
    hertz = 120 + 40 * np.sin(2 * np.pi * 0.5 * np.arange(RATE * seconds) / RATE)
    sound = buzz(hertz)
    return Recording("made", as_int16(sound), track_pitch(sound))


def test_a_faster_piece_is_higher_in_sound_and_label():
    recording = _recording()
    sound, pitch = piece_at(recording, 100, 50, 1.0)
    assert sound.shape == (16000,) and pitch.shape == (50,)
    np.testing.assert_array_equal(sound, recording.sound[32000:48000] / np.float32(32768))
    fast, labels = piece_at(recording, 100, 50, 1.15)
    heard = track_pitch(fast)
    inside = slice(4, -4)
    assert np.abs(heard[inside].astype(int) - labels[inside]).max() <= 4
    assert labels[inside].mean() > pitch[inside].mean() + 8


def test_batches_depend_on_seed_and_number_alone():
    recordings = [_recording(6), _recording(9)]
    first = SpeechBatches(recordings, 20, 4, 5, SpeechAugment())
    second = SpeechBatches(recordings, 20, 4, 5, SpeechAugment())
    first[0]
    for a, b in zip(first[3], second[3], strict=True):
        assert a.equal(b)
    assert not first[3][0].equal(first[4][0])
    sound, pitch = SpeechBatches(recordings, 20, 4, 5, PLAIN)[0]
    assert sound.shape == (4, 6400) and pitch.shape == (4, 20)
    assert float(sound.abs().max()) <= 1
