"""The card of a pose network that another exporter wrote: one person's crop in, joints out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunus.export.foreign.add import misfit, require_one_input
from prunus.models.pose.skeleton import SKELETONS
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import ArtifactError, nearest
from prunus.runtime.tasks.adopting import AFTER, fill, picture_part
from prunus.runtime.tasks.pose.card import ImagePreprocess, KeypointPostprocess
from prunus.runtime.tasks.pose.heatmaps import SMALLEST

_WANTED = "heatmaps [n, joints, rows, columns] or rows [n, joints, 3]"
_ROWS = ("regression", "movenet")


def adopt(card: ModelCard, before: Mapping[str, Any], after: Mapping[str, Any]) -> ModelCard:
    """Complete a card: how a person is cropped, and how the first output becomes joints.

    Heatmaps are decoded outside the graph (`runtime.tasks.pose.heatmaps`). The joints are those of
    a skeleton that is named, or the names in ``joints``.

    Raises:
        ArtifactError: tensors or words that do not fit.
    """
    require_one_input(card)
    crop = picture_part(card, ImagePreprocess, before, fit="udp_affine")
    if crop.fit != "udp_affine":
        raise ArtifactError(
            f"Got fit={crop.fit}; crops of people are made by udp_affine alone.", "Leave it out."
        )
    words = dict(after)
    decoder = _decoder(card, words.get("decoder"))
    joints = _joints(words)
    if len(joints["joints"]) != card.outputs[0].shape[1]:
        raise ArtifactError(
            f"Got {len(joints['joints'])} joints ({joints['skeleton']}); "
            f"{card.outputs[0].describe()} has {card.outputs[0].shape[1]}.",
            f"Name each: {AFTER} joints=nose,left_eye,...",
        )
    given = {**joints, **words, "decoder": decoder, "skeleton": joints["skeleton"]}
    return replace(card, preprocess=crop, postprocess=fill(KeypointPostprocess, given, AFTER))


def _decoder(card: ModelCard, said: Any) -> str:
    spec = card.outputs[0]
    floating, shape = spec.dtype.startswith("float"), spec.shape
    if not floating or shape[:1] != card.inputs[0].shape[:1]:
        raise misfit(card, _WANTED)
    if len(shape) == 4 and min(shape[2:]) >= SMALLEST:
        if said in (None, "heatmaps"):
            return "heatmaps"
    elif len(shape) == 3 and shape[2] == 3:
        if said in _ROWS:
            return str(said)
        raise ArtifactError(
            f"Nothing says what the rows of {spec.describe()} are.",
            f"Give {AFTER} decoder=regression (x, y in pixels of the input, score) or "
            f"{AFTER} decoder=movenet (y, x, score in 0..1).",
        )
    else:
        raise misfit(card, f"{_WANTED}, maps of {SMALLEST} rows and columns at least")
    raise ArtifactError(
        f"Got {AFTER} decoder={said}, but {spec.describe()} is read as heatmaps.",
        "Leave the decoder out.",
    )


def _joints(words: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the card about joints, from a skeleton's name or the joints' own."""
    if isinstance(words.get("joints"), list):
        empty: list[Any] = []
        named = str(words.get("skeleton", "own"))
        return {"skeleton": named, "joints": words["joints"], "limbs": empty, "flip_pairs": empty,
                "sigmas": empty}  # fmt: skip
    name, known = str(words.get("skeleton", "")), list(SKELETONS)
    if name not in SKELETONS:
        raise ArtifactError(
            f"Nothing names the joints: got the skeleton '{name}'{nearest(name, known)}.",
            f"Give {AFTER} skeleton={known[0]} (known: {', '.join(known)}), or "
            f"{AFTER} joints=nose,left_eye,...",
        )
    found = SKELETONS[name]
    return {
        "skeleton": name,
        "joints": list(found.joints),
        "limbs": [list(pair) for pair in found.limbs],
        "flip_pairs": [list(pair) for pair in found.flip_pairs],
        "sigmas": list(found.sigmas),
    }
