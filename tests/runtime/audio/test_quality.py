"""Distances between sounds, and counts of codes, where the answer is known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.runtime.audio.quality import (
    MOST_DB,
    CodeCounter,
    _from_slaney,
    _to_slaney,
    aligned,
    entropy_bits,
    mel_bands,
    mel_distance_db,
    si_sdr_db,
    stft_distance,
)
from prunus.runtime.errors import TensorError
from prunus.runtime.tasks.codec.card import CodeStream

RATE = 16000


def _noise(count=RATE, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def test_equal_sounds_have_no_distance():
    sound = _noise()
    assert si_sdr_db(sound, sound) == MOST_DB
    assert mel_distance_db(sound, sound, RATE) == 0.0
    assert stft_distance(sound, sound) == 0.0


@settings(max_examples=25, deadline=None)
@given(st.floats(-10, 40), st.floats(0.05, 4.0), st.integers(0, 1000))
def test_si_sdr_is_the_ratio_of_orthogonal_parts_at_any_gain(decibels, gain, seed):
    x = _noise(seed=seed).astype(np.float64)
    n = _noise(seed=seed + 1).astype(np.float64)
    x, n = x - x.mean(), n - n.mean()
    n -= (n @ x) / (x @ x) * x
    n *= np.sqrt((x @ x) / (n @ n)) * 10 ** (-decibels / 20)
    decoded = (gain * (x + n) + 0.01).astype(np.float32)
    assert si_sdr_db(x.astype(np.float32), decoded) == pytest.approx(decibels, abs=0.01)


def test_mel_distance_of_a_gain_is_the_gain():
    sound = _noise()
    assert mel_distance_db(sound, 0.5 * sound, RATE) == pytest.approx(6.0206, abs=0.01)
    assert stft_distance(sound, 0.5 * sound) == pytest.approx(0.5 + np.log(2), abs=0.01)
    # What lies more than 80 dB below the loudest band counts for nothing.
    quiet = sound.copy()
    quiet[RATE // 2 :] *= 1e-6
    silent = quiet.copy()
    silent[RATE // 2 :] = 0.0
    assert mel_distance_db(quiet, silent, RATE) == pytest.approx(0.0, abs=1e-6)


def test_silence_and_short_sounds_have_finite_distances():
    silent, sound = np.zeros(RATE, np.float32), _noise()
    for x, y in ((silent, sound), (sound, silent), (silent, silent), (sound[:9], sound[:9])):
        values = si_sdr_db(x, y), mel_distance_db(x, y, RATE), stft_distance(x, y)
        assert np.isfinite(values).all()
    assert si_sdr_db(silent, silent) == MOST_DB and si_sdr_db(silent, sound) == -MOST_DB
    with pytest.raises(TensorError, match="one length"):
        si_sdr_db(sound, sound[:-1])


@pytest.mark.parametrize("lag", [-700, -1, 0, 1, 333])
def test_alignment_finds_the_lag(lag):
    sound = _noise(RATE + 2000)
    one, other = sound[1000:-1000], sound[1000 - lag : len(sound) - 1000 - lag]
    a, b = aligned(one, other, 800)
    assert len(a) == RATE - abs(lag)
    np.testing.assert_array_equal(a, b)
    if lag > 0:  # beyond what is searched the best of the wrong places is taken, not a crash
        assert len(aligned(one, other, 0)[0]) == RATE


def test_mel_bands_cover_the_axis():
    bands = mel_bands(RATE, 400, 40)
    assert bands.shape == (40, 201) and (bands >= 0).all() and (bands.max(axis=1) > 0.3).all()
    assert np.allclose(bands.sum(axis=0)[8:180], 1.0)  # neighbouring triangles add up to one
    # The Slaney scale: 1000 Hz is mel 15, linear below; the first band spans 0 to twice its centre.
    slaney = mel_bands(RATE, 2048, 40, slaney=True)
    area = slaney.sum(axis=1) * (RATE / 2048)
    np.testing.assert_allclose(area[5:], 1.0, atol=0.02)


def test_entropy_and_use_of_codebooks():
    assert entropy_bits(np.array([3, 3, 3, 3, 0, 0])) == 2.0
    assert entropy_bits(np.zeros(4, np.int64)) == 0.0
    assert entropy_bits(np.array([7])) == 0.0
    streams = (CodeStream("a", 2, 8), CodeStream("b", 1, 16, 4))
    counter = CodeCounter(streams)
    for _ in range(2):
        counter.add({"a": np.array([[0, 1, 2, 3], [5, 5, 5, 5]]), "b": np.array([[9, 10]])})
    first, second, third = counter.use()
    assert (first.used, first.used_percent, first.entropy_bits, first.codes) == (4, 50.0, 2.0, 8)
    assert (second.used, second.entropy_bits) == (1, 0.0)
    assert (third.stream, third.used, third.entropy_bits, third.codes) == ("b", 2, 1.0, 4)
    assert counter.entropy_per_second(50.0) == pytest.approx(2.0 * 50 + 0.0 + 1.0 * 50 / 4)


def test_slaneys_scale_is_straight_up_to_a_kilohertz_and_then_grows_by_ratios():
    hertz = np.array([0.0, 200, 1000, 1000 * 6.4 ** (1 / 27), 6400])
    mel = np.array([0.0, 3, 15, 16, 42])
    np.testing.assert_allclose(_to_slaney(hertz), mel)
    np.testing.assert_allclose(_from_slaney(mel), hertz)
