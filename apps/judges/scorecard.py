"""Scores of one condition over all recordings, and how they are shown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_WORDS = "WER"
_DIGITS = {"SI-SDR dB": 1, "STOI": 3, "speaker": 3}


@dataclass(frozen=True, slots=True)
class Scorecard:
    """One row of a table.

    Attributes:
        name: ``original``, a codec, a peer, a condition.
        scores: Column -> one value per recording, NaN where a judge could not tell.
        words: Per recording, of its true text; 0 without one.
    """

    name: str
    scores: Mapping[str, Sequence[float]]
    words: Sequence[int]

    def mean(self, column: str) -> float:
        """Return the mean over the recordings that could be judged, NaN without any.

        Word errors are counted over all words: a long recording weighs more.
        """
        values = self.scores.get(column, ())
        weights = self.words if column.startswith(_WORDS) else [1] * len(values)
        told = [(v, w) for v, w in zip(values, weights, strict=True) if not math.isnan(v)]
        whole = sum(w for _, w in told)
        return sum(v * w for v, w in told) / whole if whole else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Return means and single scores, ready for JSON: NaN is null."""
        return {
            "means": {name: plain(self.mean(name)) for name in self.scores},
            "scores": {name: [plain(v) for v in values] for name, values in self.scores.items()},
        }


def columns(rows: Iterable[Scorecard]) -> list[str]:
    """Return the columns of all rows, in the order in which they come first."""
    return list(dict.fromkeys(name for row in rows for name in row.scores))


def word_notes(columns: Sequence[str], words: Sequence[int]) -> list[str]:
    """Say what a column of word errors counts, or why it is empty."""
    if not any(name.startswith(_WORDS) for name in columns):
        return []
    told = sum(1 for count in words if count)
    if told:
        return [f"word errors: over the {sum(words)} words of {told} of {len(words)} recordings"]
    return [
        "word errors: no recording has its text, so their columns are empty. Write what is said "
        "in NAME.txt beside NAME.wav."
    ]


def plain(value: float) -> float | None:
    """Return None for NaN."""
    return None if math.isnan(value) else value


def shown(value: float, column: str) -> str:
    """Return a cell of a table."""
    if math.isnan(value):
        return "-"
    digits = 1 if column.startswith(_WORDS) else _DIGITS.get(column, 2)
    return f"{value:.{digits}f}"
