"""Resampling against stored numbers, and pieces against the whole."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.runtime.audio.resample import Resampler, resample, resample_blocks
from prunus.runtime.errors import UsageError

ROOT = Path(__file__).resolve().parents[3]
FOLDER = Path(os.environ.get("PRUNUS_PARITY_DIR", ROOT.parent / "shared" / "parity"))
PAIRS = [(16000, 24000), (44100, 24000), (48000, 24000), (24000, 16000), (48000, 16000)]


@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_published_numbers(old, new):
    path = FOLDER / "audio_resample" / "cases.npz"
    if not path.is_file():
        pytest.skip(f"no fixtures in {FOLDER}; set PRUNUS_PARITY_DIR")
    arrays = np.load(path)
    expected = arrays[f"{old}_to_{new}/out"][0]
    got = resample(arrays[f"{old}_to_{new}/in"][0], old, new)
    assert got.shape == expected.shape and got.dtype == np.float32
    assert np.abs(got - expected).max() <= 2e-6


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([*PAIRS, (16000, 16000), (8000, 16000), (22050, 16000)]),
    st.lists(st.integers(0, 700), max_size=8),
    st.integers(0, 2**32 - 1),
)
def test_pieces_give_the_whole(pair, sizes, seed):
    audio = np.random.default_rng(seed).uniform(-1, 1, sum(sizes)).astype(np.float32)
    resampler = Resampler(*pair)
    pieces, at = [], 0
    for size in sizes:
        pieces.append(resampler.push(audio[at : at + size]))
        at += size
    joined = np.concatenate([*pieces, resampler.flush()])
    whole = resample(audio, *pair)
    assert len(joined) == len(whole) == -(-len(audio) * pair[1] // pair[0])
    np.testing.assert_allclose(joined, whole, atol=1e-6)


def test_a_tone_keeps_its_pitch_and_level():
    seconds = np.arange(48000) / 48000
    tone = np.sin(2 * np.pi * 1000 * seconds).astype(np.float32)
    slow = resample(tone, 48000, 16000)
    expected = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    assert np.abs(slow[100:-100] - expected[100:-100]).max() < 2e-3
    above = np.sin(2 * np.pi * 12000 * seconds).astype(np.float32)
    assert np.abs(resample(above, 48000, 16000)[100:-100]).max() < 1e-2  # no alias at 4 kHz


def test_blocks_and_wrong_rates():
    blocks = [np.ones(100, np.float32)] * 3
    assert sum(len(b) for b in resample_blocks(iter(blocks), 8000, 16000)) == 600
    with pytest.raises(UsageError, match="positive"):
        Resampler(0, 16000)
