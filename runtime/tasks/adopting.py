"""Words that say what the file of another exporter does not: how inputs are made, outputs read.

The fields of a card's own dataclasses are the vocabulary: ``mean=123.7,116.3,103.5`` sets `mean`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.reading import build
from prunus.runtime.errors import ArtifactError, SourceError, UsageError
from prunus.runtime.pictures.tensor import picture_size, picture_spec

_T = TypeVar("_T")
BEFORE, AFTER = "--before", "--after"
_PICTURE = {  # what no default may stand for: a wrong guess gives wrong numbers without a word
    "colour": "rgb or bgr",
    "mean": "three numbers on the scale 0..255",
    "std": "three numbers on the scale 0..255",
}


def read_words(words: Sequence[str], flag: str) -> dict[str, Any]:
    """Read ``KEY=VALUE`` words.

    A value is JSON, a list with commas, ``@FILE`` for the lines of a text file, or a text.

    Raises:
        UsageError: a word of another form, or a key twice.
        SourceError: the text file cannot be read.

    >>> read_words(["mean=1,2.5,3", "colour=rgb", "stride=4"], "--before")
    {'mean': [1, 2.5, 3], 'colour': 'rgb', 'stride': 4}
    """
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals and value) or key in found:
            again = " a second time" if key in found else ""
            raise UsageError(
                f"Got {flag} {word}{again}; expected KEY=VALUE, each key once.",
                f"Example: {flag} colour=rgb",
            )
        found[key] = _lines(value[1:]) if value[0] == "@" else _value(value)
    return found


def _lines(name: str) -> list[str]:
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SourceError(f"Cannot read {name}: {error}.", "Give a text file.") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _value(text: str) -> Any:
    parts = text.split(",")
    if len(parts) > 1 and text[0] not in "[{":
        return [_value(part.strip()) for part in parts]
    try:
        return json.loads(text)
    except ValueError:
        return text


def fill(cls: type[_T], values: Mapping[str, Any], flag: str) -> _T:
    """Return a processing part of a card made of words.

    Raises:
        ArtifactError: a key that it does not have, a value that does not fit, or one that misses.
    """
    try:
        return build(cls, dict(values), flag)
    except ArtifactError as error:
        fields = dataclasses.fields(cls)  # type: ignore[arg-type]
        needed = [f.name for f in fields if f.default is dataclasses.MISSING]
        free = [f.name for f in fields if f.default is not dataclasses.MISSING and f.name != "kind"]
        raise ArtifactError(
            error.message,
            f"Give {flag} KEY=VALUE; needed: {', '.join(needed)}; free: {', '.join(free)}.",
        ) from None


def picture_part(card: ModelCard, cls: type[_T], words: Mapping[str, Any], **more: Any) -> _T:
    """Return how pictures become the one input of a card that takes them.

    Height, width and the place of the channels are the input's own.

    Args:
        card: Whose inputs.
        cls: Dataclass of the card's part; it has height, width, colour, mean and std.
        words: What `read_words` gave for ``--before``.
        more: Values where the words say nothing.

    Raises:
        ArtifactError: no input takes pictures, colour, mean or std are not said, or a word fits
            none of the fields.
    """
    spec = picture_spec(card.inputs, card.name)
    bytes_in = spec.dtype == "uint8"
    silent = [key for key in (("colour",) if bytes_in else _PICTURE) if key not in words]
    if silent:
        raise ArtifactError(
            f"Nothing says how a picture becomes {spec.describe()}: {', '.join(silent)} missing.",
            "Give " + " ".join(f"{BEFORE} {k}=... ({_PICTURE[k]})" for k in silent),
        )
    height, width = picture_size(spec)
    given = {"height": height, "width": width, **more, **words, "normalised_in_graph": bytes_in}
    return fill(cls, given, BEFORE)
