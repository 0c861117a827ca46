"""Means, weights and cells."""

import math

import pytest

from prunus.apps.judges.scorecard import Scorecard, columns, shown, word_notes


def test_all_words_count_alike_and_other_scores_per_recording():
    nan = math.nan
    card = Scorecard("codec", {"WER %": (50.0, nan, 0.0), "PESQ": (1.0, 2.0, nan)}, (2, 0, 8))
    assert card.mean("WER %") == 10.0  # one of ten words
    assert card.mean("PESQ") == 1.5
    assert math.isnan(card.mean("STOI"))
    assert card.to_dict()["scores"]["WER %"] == [50.0, None, 0.0]
    assert card.to_dict()["means"]["PESQ"] == 1.5
    assert columns([card, Scorecard("", {"STOI": ()}, ())]) == ["WER %", "PESQ", "STOI"]


def test_an_empty_column_says_why():
    assert word_notes(["PESQ"], [0, 0]) == []
    assert "no recording has its text" in word_notes(["WER %"], [0, 0])[0]
    assert word_notes(["WER % (pocketsphinx)"], [3, 0])[0].endswith("3 words of 1 of 2 recordings")


@pytest.mark.parametrize(
    ("value", "column", "cell"),
    [(math.nan, "PESQ", "-"), (12.34, "WER % (pocketsphinx)", "12.3"), (0.8765, "STOI", "0.876"),
     (1.234, "PESQ", "1.23")],
)  # fmt: skip
def test_cells(value, column, cell):
    assert shown(value, column) == cell
