"""PESQ, STOI, DNSMOS and PLCMOS on sounds whose order is known."""

import math

import numpy as np
import pytest

from prunus.apps.judges.judge import Heard
from prunus.apps.judges.registry import open_judges


def _judge(name, package):
    pytest.importorskip(package)
    return open_judges([name])[0][0]


def _noisy(sound, level, seed):
    noise = np.random.default_rng(seed).standard_normal(len(sound))
    return (sound + level * noise).astype(np.float32)


def test_pesq_of_equal_sounds_is_the_top_of_its_scale(spoken):
    judge = _judge("pesq", "pesq")
    assert judge.score(Heard(spoken, spoken)) == pytest.approx(4.644, abs=0.001)
    assert judge.score(Heard(spoken, _noisy(spoken, 0.05, 1))) < 2.5
    assert np.isnan(judge.score(Heard(spoken[:100], spoken[:100])))


def test_stoi_falls_from_one_to_nothing(spoken):
    judge = _judge("stoi", "pystoi")
    assert judge.score(Heard(spoken, spoken)) == pytest.approx(1.0, abs=1e-6)
    assert judge.score(Heard(spoken, _noisy(0 * spoken, 0.1, 2))) < 0.4
    assert np.isnan(judge.score(Heard(spoken[:800], spoken[:800])))


def test_dnsmos_prefers_the_voice_to_noise(spoken):
    pytest.importorskip("speechmos")
    judge = _judge("dnsmos", "onnxruntime")
    noisy = _noisy(0 * spoken, 0.3, 3)
    clean, noise = (judge.score(Heard(spoken, s)) for s in (spoken, noisy))
    assert 1.0 <= noise < clean <= 5.0
    assert np.isnan(judge.score(Heard(spoken, spoken[:0])))


def test_plcmos_hears_gaps_and_says_the_same_twice(spoken):
    pytest.importorskip("speechmos")
    judge = _judge("plcmos", "onnxruntime")
    broken = spoken.copy()
    for at in range(2000, len(broken), 4000):
        broken[at : at + 1200] = 0.0
    whole, holes = (judge.score(Heard(spoken, s)) for s in (spoken, broken))
    assert 1.0 <= holes < whole <= 5.0
    assert judge.score(Heard(spoken, broken)) == holes
    assert np.isnan(judge.score(Heard(spoken, spoken[:0])))


def test_plcmos_is_fed_what_its_paper_says(spoken):
    """A literal restatement, frame by frame: hamming windows of 512 every 256, from -256 on."""
    pytest.importorskip("speechmos")
    judge = _judge("plcmos", "onnxruntime")
    sound = spoken[:1500].astype(np.float64)
    sound[:700] = 0.0
    found = judge.levels(sound.astype(np.float32))
    window = [0.54 - 0.46 * math.cos(2 * math.pi * n / 512) for n in range(512)]
    rows = []
    for start in range(-256, len(sound), 256):
        cut = [sound[start + n] if 0 <= start + n < len(sound) else 0.0 for n in range(512)]
        rows.append(np.abs(np.fft.rfft(np.multiply(cut, window))) ** 2)
    power = np.array(rows)
    expected = np.full(power.shape, math.log(power[power > 0].min()) - 12 * math.log(10))
    expected[power > 0] = np.log(power[power > 0])
    assert found.shape == expected.shape and found.dtype == np.float32
    # Bins that are silent but for rounding say nothing.
    loud = power > 1e-12
    np.testing.assert_allclose(found[loud], expected[loud] / 20, atol=1e-5)
    assert (found[0] == found[0, 0]).all()  # digital silence
    np.testing.assert_allclose(judge.levels(np.zeros(600, np.float32)), math.log(1e-8) / 20)
