"""What is really said in recordings: ``NAME.txt`` beside ``NAME.wav``, or a table of names.

A line of a table is ``NAME<tab>TEXT``, or ``TEXT (NAME)`` as NIST's tools and Sphinx have it; what
stands in angle brackets there is no word.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from prunus.apps.judges.words import require_words
from prunus.runtime.errors import SourceError

_TRN = re.compile(r"(.*)\(([^()\s]+)\)\s*")


class Texts:
    """Finds the text of a recording, and remembers which were asked for.

    Args:
        table: File as above; None: texts lie beside their recordings alone.

    Raises:
        SourceError: the table cannot be read.
    """

    def __init__(self, table: Path | None = None) -> None:
        self._table = table
        self._rows = {} if table is None else read_table(table)
        self._used: set[str] = set()

    def of(self, sound: Path) -> str | None:
        """Return what is said in a recording, None where nobody wrote it down.

        Raises:
            SourceError: both places have one, or it is no text that words can be counted in.
        """
        beside, row = sound.with_suffix(".txt"), self._rows.get(sound.stem)
        if row is not None:
            self._used.add(sound.stem)
            if beside.is_file():
                raise SourceError(
                    f"{sound.name} has a text in {self._table} and in {beside.name}.", "Keep one."
                )
            return row
        return require_words(_read(beside), str(beside)) if beside.is_file() else None

    def notes(self, folders: Sequence[Path], sounds: Sequence[Path]) -> list[str]:
        """Name the texts that belong to no recording.

        Args:
            folders: Where texts may lie.
            sounds: The recordings, all of them asked for by now.

        Raises:
            SourceError: none of the table's rows was of use.
        """
        loose = sorted(set(self._rows) - self._used)
        if self._rows and not self._used:
            raise SourceError(
                f"{self._table} names none of the {len(sounds)} recordings; it has '{loose[0]}', "
                f"they have '{sounds[0].stem}'.",
                "Name recordings as their files are named, without the ending.",
            )
        known = {s.with_suffix(".txt") for s in sounds}
        loose += [str(p) for f in folders for p in sorted(f.rglob("*.txt")) if p not in known]
        shown = ", ".join(loose[:3]) + (f" and {len(loose) - 3} more" if len(loose) > 3 else "")
        return [f"texts without a recording: {shown}"] if loose else []


def read_table(path: Path) -> dict[str, str]:
    """Return name -> text of a table.

    Raises:
        SourceError: a line has no name, or one that came before, or no text to count words in.
    """
    rows: dict[str, str] = {}
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line.strip():
            continue
        where = f"Line {number} of {path}"
        name, tab, text = line.partition("\t")
        if not tab:
            if (found := _TRN.fullmatch(line)) is None:
                raise SourceError(
                    f"{where} names no recording: '{line[:60]}'.",
                    "Expected NAME<tab>TEXT, or TEXT (NAME).",
                )
            name, text = found[2], re.sub(r"<[^<>]*>", " ", found[1])
        name = re.sub(r"\.(wav|flac|ogg|opus)$", "", name.strip())
        if name in rows:
            raise SourceError(f"{where} names '{name}' a second time.", "Keep one text for each.")
        rows[name] = require_words(text.strip(), where)
    if not rows:
        raise SourceError(f"{path} holds no texts.", "Expected NAME<tab>TEXT, or TEXT (NAME).")
    return rows


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"Cannot read {path}: {error}.", "Give a text file in UTF-8.") from None
