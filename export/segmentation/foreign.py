"""The card of a segmentation network that another exporter wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from prunus.export.foreign.add import misfit, require_one_input
from prunus.models.segmentation.classes import palette
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import ArtifactError, nearest
from prunus.runtime.pictures.tensor import picture_size
from prunus.runtime.tasks.adopting import AFTER, fill, picture_part
from prunus.runtime.tasks.segmentation.card import MaskPostprocess, ScenePreprocess

_WANTED = (
    "class numbers [n, height, width], logits [n, classes, rows, columns] or one probability "
    "[n, 1, rows, columns]"
)


def adopt(card: ModelCard, before: Mapping[str, Any], after: Mapping[str, Any]) -> ModelCard:
    """Complete a card: how a frame goes in, and how the first output becomes a class map.

    Decoder and stride follow from the shapes, colours are dealt out; what the classes are called is
    for the words to say, and that a single channel is a probability.

    Raises:
        ArtifactError: tensors or words that do not fit.
    """
    require_one_input(card)
    scene = picture_part(card, ScenePreprocess, before)
    words = dict(after)
    decoder, channels, stride = _read(card, str(words.get("decoder", "")))
    names = words.get("classes")
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or (channels and len(names) != channels):
        count = f"{channels} are wanted" if channels else "one name for each number"
        raise ArtifactError(
            f"Nothing names the classes of {card.model}: {count}, got "
            f"{len(names) if isinstance(names, list) else 'none'}.",
            f"Give {AFTER} classes=background,person or {AFTER} classes=@names.txt",
        )
    known = [str(name) for name in names]
    kept = words.get("foreground", -1)
    if isinstance(kept, str):
        if kept not in known:
            raise ArtifactError(
                f"There is no class '{kept}'{nearest(kept, known)}.",
                f"Classes: {', '.join(known)}.",
            )
        kept = known.index(kept)
    given = {
        "palette": [list(colour) for colour in palette(len(known))],
        **words, "decoder": decoder, "stride": stride, "classes": known, "foreground": kept,
    }  # fmt: skip
    return replace(card, preprocess=scene, postprocess=fill(MaskPostprocess, given, AFTER))


def _read(card: ModelCard, said: str) -> tuple[str, int, int]:
    """Return decoder, number of classes (0: not told by the shape) and stride."""
    spec, size = card.outputs[0], picture_size(card.inputs[0])
    whole = spec.dtype.startswith(("int", "uint"))
    if whole and spec.shape == (card.inputs[0].shape[0], *size):
        found, channels, stride = "class_ids", 0, 1
    elif spec.dtype.startswith("float") and len(spec.shape) == 4:
        stride = size[0] // spec.shape[2]
        if not stride or (spec.shape[2] * stride, spec.shape[3] * stride) != size:
            raise misfit(card, f"{_WANTED}, rows and columns the input's divided by one number")
        channels = spec.shape[1]
        found = "logits" if channels > 1 else "probability"
        if channels == 1 and said != found:
            raise ArtifactError(
                f"{spec.describe()} has one channel; nothing says that it is a probability.",
                f"Give {AFTER} decoder=probability if it lies in 0..1 (behind a sigmoid).",
            )
        channels = 2 if channels == 1 else channels
    else:
        raise misfit(card, _WANTED)
    if said and said != found:
        raise ArtifactError(
            f"Got {AFTER} decoder={said}, but {spec.describe()} is read as {found}.",
            "Leave the decoder out.",
        )
    return found, channels, stride
