"""Inputs of several callers in one run, for graphs whose card calls the first axis a batch.

Only a card can say that the places of an axis do not touch each other: where the first axis of any
tensor has another name, nothing is joined.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.matching import check_inputs
from prunus.runtime.errors import TensorError

Feed = Mapping[str, npt.NDArray[Any]]


def places_of(card: ModelCard) -> int:
    """Return how many inputs of one item a run takes; 1 where the card does not say a batch."""
    specs = (*card.inputs, *card.outputs)
    sizes = {spec.shape[0] if spec.shape and spec.axes[0] == "batch" else 1 for spec in specs}
    return sizes.pop() if len(sizes) == 1 else 1


def items_in(card: ModelCard, feed: Feed) -> int:
    """Return how many places an input takes, checked: the length of its first axis.

    It is one, whatever the lengths are, where the card says no batch: the input is the whole run's.

    Raises:
        TensorError: more than the batch, none, or arrays that do not fit the card otherwise.
    """
    most = places_of(card)
    if most == 1:
        check_inputs(card, feed)
        return 1
    lengths = {array.shape[0] for array in feed.values() if array.ndim}
    count = lengths.pop() if len(lengths) == 1 else most
    if not 1 <= count <= most:
        raise TensorError(
            f"Got {count} items; {card.name} takes 1 to {most} of them.", "Split them."
        )
    specs = tuple(replace(s, shape=(count, *s.shape[1:])) for s in card.inputs)
    check_inputs(replace(card, inputs=specs), feed)
    return count


def join(card: ModelCard, feeds: Sequence[Feed]) -> dict[str, npt.NDArray[Any]]:
    """Return one input of the card's shape: the items one after another, then zeros.

    Args:
        card: One whose batch holds them all.
        feeds: Arrays (items, ...) by input name.
    """
    joined = {}
    for spec in card.inputs:
        array = np.zeros(spec.shape, spec.dtype)
        at = 0
        for feed in feeds:
            part = feed[spec.name]
            array[at : at + len(part)] = part
            at += len(part)
        joined[spec.name] = array
    return joined


def split(outputs: Feed, counts: Sequence[int]) -> list[dict[str, npt.NDArray[Any]]]:
    """Return the outputs of each caller, who gave so many items."""
    ends = np.cumsum(counts)
    return [
        {name: array[end - count : end].copy() for name, array in outputs.items()}
        for count, end in zip(counts, ends, strict=True)
    ]
