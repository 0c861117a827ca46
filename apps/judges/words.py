"""Word errors: what a recogniser hears, counted against what is really said.

Both are normalised first: lower case, accents and punctuation away (hyphens part words), the
titles Mr, Mrs, Dr and Prof in full. Numbers have to be words on both sides: Whisper is kept from
writing digits, and a text with digits is refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from prunus.apps.judges.judge import Audio, Heard, load
from prunus.runtime.errors import SourceError

_TITLES = {"mr": "mister", "mrs": "missus", "dr": "doctor", "prof": "professor"}


class Recogniser(Protocol):
    """Writes down what is said in English."""

    def transcribe(self, sound: Audio) -> str:
        """Return what is heard in (T,) float32 at 16 kHz."""


class WordErrors:
    """Word error rate in per cent, against the true text alone; NaN without one.

    Args:
        recogniser: Whose errors are counted.
        name: Head of the column.
    """

    compares = False

    def __init__(self, recogniser: Recogniser, name: str) -> None:
        self.recogniser, self.name = recogniser, name

    def score(self, heard: Heard) -> float:
        """See `Judge`."""
        words = normalised(heard.text or "")
        if not words:
            return float("nan")
        got = normalised(self.recogniser.transcribe(heard.decoded))
        return 100.0 * word_distance(words, got) / len(words)


class Sphinx:
    """pocketsphinx with the US English model that comes with it."""

    def __init__(self) -> None:
        self._decoder = load("pocketsphinx", "This word error rate").Decoder(loglevel="FATAL")

    def transcribe(self, sound: Audio) -> str:
        """See `Recogniser`."""
        data = np.rint(np.clip(sound, -1.0, 1.0) * 32767.0).astype("<i2").tobytes()
        self._decoder.start_utt()
        self._decoder.process_raw(data, full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return re.sub(r"\(\d+\)", "", found.hypstr) if found is not None else ""


def normalised(text: str) -> list[str]:
    """Return the words of an English text; see the head of this module.

    >>> normalised("Mr. O’Hara's ill-disposed café!")
    ['mister', "o'hara's", 'ill', 'disposed', 'cafe']
    """
    words = re.findall(r"[a-z']*[a-z][a-z']*", _plain(text))
    return [_TITLES.get(word, word) for word in words]


def require_words(text: str, where: str) -> str:
    """Return a text that word errors can be counted against.

    Args:
        text: What somebody wrote down.
        where: It lies, for the message.

    Raises:
        SourceError: it is empty, has digits, or letters that are not English.
    """
    plain = _plain(text)
    if digit := re.search(r"\w*\d\w*", plain):
        raise SourceError(
            f"{where} has the number '{digit[0]}'; expected words alone.",
            "Write numbers as they are said: recognisers are held to words.",
        )
    if letter := next((c for c in plain if c.isalpha() and not "a" <= c <= "z"), None):
        raise SourceError(
            f"{where} has the letter '{letter}'; expected English: the recognisers know no other.",
            "Take the text away; the other scores need none.",
        )
    if not normalised(text):
        raise SourceError(f"{where} has no words.", "Write what is said, or take the text away.")
    return text


def word_distance(reference: Sequence[str], heard: Sequence[str]) -> int:
    """Return the fewest insertions, deletions and substitutions between two lists of words.

    >>> word_distance(["a", "b", "c"], ["a", "x", "c", "d"])
    2
    """
    row = list(range(len(heard) + 1))
    for i, word in enumerate(reference, 1):
        before, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (word != other))
    return row[-1]


def _plain(text: str) -> str:
    apart = unicodedata.normalize("NFKD", text.replace("’", "'")).lower()
    return "".join(c for c in apart if not unicodedata.combining(c))
