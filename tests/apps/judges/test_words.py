"""Word errors on pairs that were counted by hand."""

import numpy as np
import pytest

from prunus.apps.judges.judge import Heard
from prunus.apps.judges.registry import open_judges
from prunus.apps.judges.words import WordErrors, normalised, require_words, word_distance
from prunus.runtime.errors import SourceError


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [
        ("a b c d", "a c d", 1),
        ("", "x", 1),
        ("x", "", 1),
        ("the cat sat", "a cat sat down", 2),
        ("one two three", "one two three", 0),
        ("one two three four", "four three two one", 4),
    ],
)
def test_errors_of_pairs_are_the_known_ones(said, heard, errors):
    assert word_distance(said.split(), heard.split()) == errors


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's o'clock, Tom!", ["it's", "o'clock", "tom"]),
        ("Mr. and MRS. Dash-wood", ["mister", "and", "missus", "dash", "wood"]),
        ("‘Tis Zoë’s naïve café", ["tis", "zoe's", "naive", "cafe"]),
        ("' '' -- ...", []),
    ],
)
def test_texts_are_normalised(text, words):
    assert normalised(text) == words


def test_rates_are_counted_against_the_true_text_alone():
    class Says:
        def transcribe(self, sound):
            return "Go forward." if sound[0] == 0 else "Go, Mr. Back"

    judge = WordErrors(Says(), "WER %")
    one, other = np.zeros(10, np.float32), np.ones(10, np.float32)
    assert judge.score(Heard(one, one, "Go forward, ten meters!")) == 50.0
    assert judge.score(Heard(one, other, "go forward")) == 100.0  # one wrong, one too many
    assert np.isnan(judge.score(Heard(one, one))) and np.isnan(judge.score(Heard(one, one, "")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("at 5 o'clock", "the number '5'"),
        ("the 2nd time", "the number '2nd'"),
        ("привет", "the letter 'п'"),
        ("Straße", "the letter 'ß'"),
        (" \n", "has no words"),
        ("?!", "has no words"),
    ],
)
def test_texts_that_cannot_be_counted_are_refused(text, message):
    with pytest.raises(SourceError, match=message) as refused:
        require_words(text, "talk.txt")
    assert refused.value.message.startswith("talk.txt has") and refused.value.hint


def test_pocketsphinx_hears_a_real_sentence(sentence):
    pytest.importorskip("pocketsphinx")
    sound, said = sentence
    judge = open_judges(["wer-sphinx"])[0][0]
    found = judge.score(Heard(sound, sound, said))
    assert judge.name == "WER % (pocketsphinx)" and 0.0 <= found <= 50.0
    assert judge.score(Heard(sound, 0 * sound, said)) >= 80.0
