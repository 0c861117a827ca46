"""Sentences that Smart Turn is judged on: whole, and broken off in their middle."""

import numpy as np
import pytest

from benchmarks.reduction import turn
from prunus.runtime.audio.files import write_wav


def _said(loud: float) -> np.ndarray:
    """Silence, a second of sound that is quiet for a moment at 0.55 of it, silence."""
    sound = np.full(16_000, loud, np.float32)
    sound[8_600:9_000] = 0.02
    return np.concatenate((np.zeros(4_000, np.float32), sound, np.zeros(9_000, np.float32)))


def test_sentences_of_one_clause_come_whole_and_broken_off(tmp_path):
    folder = tmp_path / "usr" / "share" / "sounds"
    folder.mkdir(parents=True)
    lines = ["one: That pin is invalid for this conference.", "two: Please hold on, I am here.",
             "three: Enter the number and press the key.", "four: Please hold on the line now!",
             "again: That pin is invalid for this conference.",
             "five: the party you are calling"]  # fmt: skip
    (tmp_path / "core-sounds-en.txt").write_text("\n".join(lines))
    for line, loud in zip(lines, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), strict=True):
        write_wav(folder / f"{line.partition(':')[0]}.wav", iter([_said(loud)]), 16_000)
    sounds, whole = turn.read_turns(tmp_path)
    assert whole.tolist() == [True, False, True, False]
    assert sounds.shape == (4, 128_000) and sounds.dtype == np.float32
    assert np.abs(sounds).max(1) == pytest.approx([0.1, 0.1, 0.4, 0.4], abs=1e-3)
    for sound in sounds:
        assert not sound[-3_200:].any() and sound[-3_201]
    lengths = [np.flatnonzero(sound)[-1] - np.flatnonzero(sound)[0] + 1 for sound in sounds]
    assert lengths[0] == 16_000 and 8_600 <= lengths[1] <= 9_000


def test_what_is_longer_keeps_its_end():
    said = np.linspace(0.1, 1, 16_000 * 9, dtype=np.float32)
    asked = turn._asked(said)
    assert len(asked) == 128_000 and asked[-3_201] == 1 and asked[0] == said[19_200]


def test_a_decision_is_right_on_the_side_of_its_label():
    scores = turn.right_decisions(np.array([[2.0], [2.0], [-0.1], [-0.1]]),
                                  np.array([True, False, True, False]))  # fmt: skip
    assert scores.right.tolist() == [1, 0, 0, 1] and scores.accuracy == 0.5


def test_features_are_those_of_eight_seconds():
    pytest.importorskip("transformers")
    sounds = np.random.default_rng(0).standard_normal((2, 128_000)).astype(np.float32)
    mels = turn.log_mels(sounds)
    assert mels.shape == (2, 80, 800) and mels.dtype == np.float32
    quieter = turn.log_mels(0.5 * sounds)
    np.testing.assert_allclose(mels, quieter, atol=1e-3)  # the level is taken out, as in pipecat
