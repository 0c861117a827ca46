"""From the words after ``--input`` to the arrays of a network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.arrays import read_array, read_arrays
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.matching import check_array
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import PrunusError, TensorError, UsageError, nearest

Array = npt.NDArray[Any]
_SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".opus")


def with_words(card: ModelCard, words: Sequence[str]) -> ModelCard:
    """Return a card that says, by the words after ``--before``, how a picture goes in."""
    if not words:
        return card
    from prunus.runtime.tasks.adopting import BEFORE, picture_part, read_words
    from prunus.runtime.tasks.segmentation.card import ScenePreprocess

    part = picture_part(card, ScenePreprocess, read_words(words, BEFORE))
    return replace(card, preprocess=part)


def read_feed(
    card: ModelCard, words: Sequence[str], *, noise: bool = False, rate: int | None = None
) -> tuple[dict[str, Array], tuple[str, ...]]:
    """Read the inputs of a network.

    Args:
        card: Which inputs there are, and how pictures go in.
        words: ``NAME=FILE``, ``NAME=NUMBER``, or ``FILE.npz`` with an array for each name.
        noise: Fill the rest with uniform noise.
        rate: Sounds are brought to this rate in Hz; None: taken at their own.

    Returns:
        One array per input, exactly of its shape and type, and a line about each.

    Raises:
        UsageError: a word of another form, an unknown or missing name.
        SourceError: a file that is missing or damaged.
        TensorError: an array of another shape or type.
    """
    specs = {spec.name: spec for spec in card.inputs}
    feed: dict[str, Array] = {}
    notes: list[str] = []
    for word in words:
        for name, array, note in _read(card, specs, word, rate):
            if name in feed:
                raise UsageError(f"Got --input {name} twice.", "Give each input once.")
            check_array(specs[name], array)
            feed[name] = array
            notes.append(f"{name}: {note}")
    missing = [spec for spec in card.inputs if spec.name not in feed]
    if missing and not noise:
        raise UsageError(
            f"Nothing is given for {', '.join(spec.describe() for spec in missing)}.",
            "Give " + " ".join(f"--input {s.name}=FILE" for s in missing) + ", or --noise.",
        )
    if missing:
        from prunus.runtime.measure.runner import example_inputs

        made = example_inputs(card)
        feed |= {spec.name: made[spec.name] for spec in missing}
        notes += [f"{spec.name}: uniform noise" for spec in missing]
    return feed, tuple(notes)


def _read(
    card: ModelCard, specs: Mapping[str, TensorSpec], word: str, rate: int | None
) -> list[tuple[str, Array, str]]:
    name, equals, value = word.partition("=")
    if not equals and word.endswith(".npz"):
        return [(n, a, word) for n, a in _archive(Path(word), specs)]
    if not (name and equals and value):
        raise UsageError(
            f"Got --input {word}; expected NAME=FILE, or FILE.npz.",
            f"Names: {', '.join(specs)}.",
        )
    if name not in specs:
        raise UsageError(
            f"{card.name} has no input '{name}'{nearest(name, list(specs))}.",
            f"It takes: {', '.join(s.describe() for s in specs.values())}.",
        )
    try:
        return [(name, *_one(card, specs[name], value, rate))]
    except PrunusError as error:
        error.message = f"--input {name}: {error.message}"
        raise


def _one(card: ModelCard, spec: TensorSpec, value: str, rate: int | None) -> tuple[Array, str]:
    """Return one input and a few words about it."""
    path = Path(value)
    suffix = path.suffix.lower()
    if not path.is_file() and (number := _number(value)) is not None:
        return _filled(spec, number), value
    if suffix == ".npy":
        return read_array(path, hint="Save it with numpy.save."), value
    if suffix in _SOUNDS:
        return _sound(path, spec, rate)
    from prunus.runtime.pictures.files import read_picture
    from prunus.runtime.tasks.generic.feed import picture_feed

    feed = picture_feed(card, read_picture(path))
    if spec.name not in feed:
        raise TensorError(
            f"{spec.describe()} takes no picture; '{next(iter(feed))}' does.",
            "Give an array (.npy).",
        )
    return feed[spec.name], value


def _number(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, (int, float, bool, list)) else None


def _filled(spec: TensorSpec, number: Any) -> Array:
    """Return an array from a number, which fills any shape, or from a list of them."""
    try:
        values = np.asarray(number)
        made = values.astype(spec.dtype, casting="same_kind" if values.ndim else "unsafe")
        if made.dtype.kind in "iub" and (made.astype(values.dtype) != values).any():
            raise ValueError(f"{number} does not fit into {spec.dtype}")
        if made.size == int(np.prod(spec.shape)):
            return made.reshape(spec.shape)
        return np.broadcast_to(made, spec.shape).copy()
    except (ValueError, TypeError, OverflowError) as error:
        raise TensorError(
            f"Got {str(number)[:80]} for {spec.describe()}: {error}.", "Give an array (.npy)."
        ) from None


def _archive(path: Path, specs: Mapping[str, TensorSpec]) -> list[tuple[str, Array]]:
    arrays = read_arrays(path)
    if strange := [name for name in arrays if name not in specs]:
        raise UsageError(
            f"{path} holds arrays named {strange}; the inputs are {list(specs)}.",
            "Save each under the name of its input.",
        )
    return list(arrays.items())


def _sound(path: Path, spec: TensorSpec, rate: int | None) -> tuple[Array, str]:
    """Return the first samples of a sound as the input, float32 in [-1, 1]."""
    from prunus.runtime.audio.files import SoundReader
    from prunus.runtime.audio.resample import resample

    wanted = int(np.prod(spec.shape))
    if spec.dtype != "float32" or not spec.shape or spec.shape[-1] != wanted:
        raise TensorError(
            f"Got a sound for {spec.describe()}; one goes into float32 [..., samples] with no "
            "other axis above 1.",
            "Compute what the network takes (a spectrogram?) and give it as .npy.",
        )
    with SoundReader(path) as reader:
        own = reader.sample_rate_hz
        pieces = [*reader.blocks()]
    sound = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    if rate is not None:
        sound = resample(sound, own, rate)
    if len(sound) < wanted:
        raise TensorError(
            f"{path} has {len(sound)} samples at {rate or own} Hz; {spec.describe()} takes "
            f"{wanted}.",
            "Give a longer sound, or the padded samples as .npy.",
        )
    how = f"resampled from {own} Hz" if rate not in (None, own) else "not resampled"
    note = f"{path}, the first {wanted} of {len(sound)} samples at {rate or own} Hz, {how}"
    return np.ascontiguousarray(sound[:wanted].reshape(spec.shape)), note
