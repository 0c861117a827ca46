"""The command that makes the clip of two voices: what it reads, what it writes, what it refuses."""

import json

import numpy as np
import pytest

from benchmarks.separation import make_two_voices
from benchmarks.separation.make_two_voices import (
    HEIGHT,
    RECORDINGS,
    WIDTH,
    film,
    find_recording,
    fit,
)
from prunus.apps.demo.two_voices import RATE_HZ, read_clean, read_moments
from prunus.runtime.audio.quality import si_sdr_db
from prunus.runtime.errors import ArtifactError

pytest.importorskip("av")


def _babble(seed: int, seconds: float) -> np.ndarray:
    """Noise below 2 kHz in bursts, as AAC expects of speech."""
    rng = np.random.default_rng(seed)
    samples = round(seconds * RATE_HZ)
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum[round(2000 * seconds) :] = 0
    time = np.arange(samples) / RATE_HZ
    burst = 0.5 - 0.5 * np.cos(2 * np.pi * (2 + seed) * time)
    return (0.1 * burst * np.fft.irfft(spectrum, samples)).astype(np.float32)


@pytest.fixture
def cache(tmp_path):
    """A speech cache with the two recordings, each behind another one."""
    folder = tmp_path / "speech"
    folder.mkdir()
    rows = []
    for seed, (source, file) in enumerate(RECORDINGS):
        sound = (20_000 * _babble(seed, 3.0)).astype(np.int16)
        np.save(folder / f"{source}.sound.npy", sound)
        clips = [{"file": "other", "start": 0, "samples": 1600},
                 {"file": file, "start": 1600, "samples": 40_000}]  # fmt: skip
        rows.append({"name": source, "split": "test", "clips": clips})
    (folder / "manifest.json").write_text(json.dumps(rows))
    return folder


def test_recordings_come_from_the_cache_at_one_level(cache):
    for source, file in RECORDINGS:
        whole = np.load(cache / f"{source}.sound.npy").astype(np.float32) / 32768
        sound = find_recording(cache, source, file)
        np.testing.assert_array_equal(sound, whole[1600:41_600])
        placed = fit(sound, 60_000)
        assert np.sqrt((placed**2).mean()) == pytest.approx(0.06, rel=1e-4)
        assert not placed[:10_000].any() and not placed[50_000:].any()
        assert np.corrcoef(placed[10_000:50_000], sound)[0, 1] > 0.9999
        assert len(fit(sound, 800)) == 800
    with pytest.raises(ArtifactError, match="has no asterisk_fr/none"):
        find_recording(cache, "asterisk_fr", "none")


def test_the_file_has_pictures_the_mixture_and_both_voices_in_step(tmp_path):
    voices = np.stack([_babble(1, 1.6), _babble(2, 1.6)])  # 25 packets of AAC, 40 pictures
    path = tmp_path / "clip.mp4"
    grey = [np.full((HEIGHT, WIDTH, 3), 40 + 3 * k, np.uint8) for k in range(40)]
    make_two_voices.write_clip(path, iter(grey), voices)
    pictures, mixture = read_moments(path)
    assert len(pictures) == 40
    levels = [float(picture.mean()) for picture in pictures]
    np.testing.assert_allclose(levels, [40 + 3 * k for k in range(40)], atol=4)
    assert si_sdr_db(voices.sum(axis=0), mixture) > 15  # a sample off costs 10 dB
    for own, read in zip(voices, read_clean(path), strict=True):
        assert si_sdr_db(own, read[: len(own)]) > 15


def test_without_a_cache_nothing_is_written(tmp_path, capsys):
    out = tmp_path / "clip.mp4"
    assert make_two_voices.main(["--cache", str(tmp_path), "-o", str(out)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-2].startswith("error: There is no speech cache") and "hint: " in lines[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_heads_of_the_film_move_with_their_voices() -> None:
    pytest.importorskip("anny")
    pytest.importorskip("moderngl")
    still, loud = np.zeros(12_800, np.float32), _babble(1, 0.8)
    pictures = np.stack(list(film(np.stack([still, loud]))))
    assert pictures.shape == (20, HEIGHT, WIDTH, 3) and pictures.dtype == np.uint8
    mouths = pictures[:, 170:215].astype(float)
    left, right = (np.abs(np.diff(m, axis=0)).mean() for m in
                   (mouths[:, :, 80:160], mouths[:, :, 320:400]))  # fmt: skip
    assert right > 1.5 * left > 0
