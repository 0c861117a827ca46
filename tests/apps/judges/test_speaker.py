"""Speakers are told apart."""

import importlib.util

import numpy as np
import pytest

from prunus.apps.judges.judge import Heard
from prunus.apps.judges.registry import open_judges


def test_speakers_are_told_apart(spoken):
    pytest.importorskip("torch")
    if importlib.util.find_spec("resemblyzer") is None:
        pytest.skip("resemblyzer is not installed")
    judge = open_judges(["speaker"])[0][0]
    assert judge.score(Heard(spoken, spoken)) == pytest.approx(1.0, abs=1e-6)
    # Quiet sounds are raised to one level; loud ones stay, as the encoder was trained.
    assert judge.score(Heard(0.02 * spoken, 0.005 * spoken)) == pytest.approx(1.0, abs=1e-5)
    noise = (0.1 * np.random.default_rng(4).standard_normal(len(spoken))).astype(np.float32)
    assert judge.score(Heard(spoken, noise)) < 0.8
    assert np.isnan(judge.score(Heard(spoken, np.zeros_like(spoken))))
