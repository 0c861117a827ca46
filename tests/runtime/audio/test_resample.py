"""Resampling against exact sines and stored numbers, and pieces against the whole."""

import math
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.runtime.audio.resample import Resampler, resample
from prunus.runtime.errors import MissingDependencyError, UsageError

pytest.importorskip("soxr")
PAIRS = [(16000, 24000), (44100, 24000), (48000, 24000), (24000, 16000), (48000, 16000)]
ODD = [(22254, 24000), (47999, 16000), (16001, 16000), (11025, 16000), (1000, 768000)]
FORMULAS = ["soxr", "torchaudio"]


def _tone(hertz, rate, count):
    return np.cos(2 * np.pi * hertz * np.arange(count) / rate + 0.3)


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_published_numbers(parity, old, new):
    arrays = parity("audio_resample")
    expected = arrays[f"{old}_to_{new}/out"][0]
    got = resample(arrays[f"{old}_to_{new}/in"][0], old, new, "torchaudio")
    assert got.shape == expected.shape and got.dtype == np.float32
    assert np.abs(got - expected).max() <= 2e-6


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([*PAIRS, *ODD[:4], (16000, 16000), (8000, 16000), (22050, 16000)]),
    st.lists(st.integers(0, 700), max_size=8),
    st.sampled_from(FORMULAS),
    st.integers(0, 2**32 - 1),
)
def test_pieces_give_the_whole(pair, sizes, formula, seed):
    audio = np.random.default_rng(seed).uniform(-1, 1, sum(sizes)).astype(np.float32)
    resampler = Resampler(*pair, formula)
    pieces, at = [], 0
    for size in sizes:
        pieces.append(resampler.push(audio[at : at + size]))
        at += size
    joined = np.concatenate([*pieces, resampler.flush()])
    whole = resample(audio, *pair, formula)
    assert len(joined) == len(whole) == -(-len(audio) * pair[1] // pair[0])
    assert len(resampler.flush()) == 0
    np.testing.assert_allclose(joined, whole, atol=1e-6)


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize("rate", [1000, 8000, 11025, 16001, 44056, 44100, 48000, 768000])
@pytest.mark.parametrize("wanted", [16000, 24000])
def test_lengths_are_exact(rate, wanted, formula):
    for count in (0, 1, 2, 159, 160, 441, 4411):
        got = resample(np.ones(count, np.float32), rate, wanted, formula)
        assert len(got) == math.ceil(count * wanted / rate)


@pytest.mark.parametrize(("old", "new"), [*PAIRS, *ODD[:4]])
@pytest.mark.parametrize(("formula", "decibels"), [("soxr", 120), ("torchaudio", 55)])
def test_a_tone_keeps_its_pitch_phase_and_level(old, new, formula, decibels):
    """The formula's own ripple is 55 dB below the tone; soxr's is at the edge of float32."""
    heard = resample(_tone(1000, old, old).astype(np.float32), old, new, formula)
    expected = _tone(1000, new, len(heard))
    middle = slice(new // 5, -new // 5)
    error = np.mean((heard - expected)[middle] ** 2) / np.mean(expected[middle] ** 2)
    assert -10 * np.log10(error) > decibels


@pytest.mark.parametrize("old", [22050, 44100, 47999, 48000])
@pytest.mark.parametrize("hertz", [8001, 8500, 9900])
def test_nothing_above_nyquist_comes_back_as_an_alias(old, hertz):
    heard = resample(_tone(hertz, old, old).astype(np.float32), old, 16000)
    middle = heard[3200:-3200].astype(np.float64)
    assert 10 * np.log10(2 * np.mean(middle**2)) < -100


@pytest.mark.parametrize("formula", FORMULAS)
@pytest.mark.parametrize(("old", "new"), ODD)
def test_memory_does_not_follow_the_rates(old, new, formula):
    """A table of every phase took gigabytes where the rates have no common factor."""
    sound = np.zeros(old // 10, np.float32)
    tracemalloc.start()
    resample(sound, old, new, formula)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 24e6


def test_the_delay_is_what_waits():
    resampler = Resampler(48000, 16000)
    for _ in range(40):
        resampler.push(np.zeros(480, np.float32))
    assert 480 <= resampler.latency <= 48000 * 0.05
    assert Resampler(16000, 16000).latency == 0


@pytest.mark.parametrize(("old", "new"), [(0, 16000), (999, 16000), (768001, 16000), (16000, 1)])
def test_rates_that_no_sound_has_are_refused(old, new):
    with pytest.raises(UsageError, match=f"{old if new == 16000 else new} Hz; expected 1000 to"):
        Resampler(old, new)


def test_a_missing_library_is_named_where_rates_differ(monkeypatch):
    monkeypatch.setitem(sys.modules, "soxr", None)
    assert len(resample(np.ones(10, np.float32), 16000, 16000)) == 10
    with pytest.raises(MissingDependencyError, match="'soxr'") as caught:
        Resampler(48000, 16000)
    assert "prunus[audio]" in caught.value.hint
