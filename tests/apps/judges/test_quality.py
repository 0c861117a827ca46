"""PESQ, STOI, DNSMOS and PLCMOS on sounds whose order is known."""

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


def test_plcmos_hears_gaps_and_says_the_same_twice(sentence):
    pytest.importorskip("speechmos")
    judge = _judge("plcmos", "onnxruntime")
    sound, broken = sentence[0], sentence[0].copy()
    for at in range(2000, len(broken), 4000):
        broken[at : at + 1200] = 0.0
    whole, holes = (judge.score(Heard(sound, s)) for s in (sound, broken))
    assert 1.0 <= holes < whole - 0.5 and whole <= 5.0
    assert judge.score(Heard(sound, broken)) == holes
    assert np.isnan(judge.score(Heard(sound, sound[:0])))


def test_plcmos_is_fed_what_its_own_code_feeds(spoken):
    pytest.importorskip("speechmos")
    from speechmos.plcmos import PLCMOS

    theirs = PLCMOS()
    judge = _judge("plcmos", "onnxruntime")
    sound = spoken[:5000].copy()
    sound[:700] = 0.0
    for case in (sound, np.zeros(600, np.float32)):
        expected = theirs.stft_transform(case.astype(np.float64))
        np.testing.assert_allclose(judge.levels(case), expected, atol=1e-5)
