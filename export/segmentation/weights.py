"""Which numbers go into an exported EDAFormer, and what the card says about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from prunus.export.common.weights import Ways, find, find_again, shipped_entry
from prunus.models import zoo
from prunus.models.checkpoints.edaformer import ImportedSegmentation, convert_edaformer
from prunus.models.checkpoints.header import read_entry
from prunus.models.checkpoints.read import load_raw
from prunus.models.segmentation.classes import Colour, class_names, palette
from prunus.models.segmentation.edaformer import EDAFormer, edaformer_config
from prunus.models.segmentation.isr import IsrSetting
from prunus.runtime.card.artifact import sha256_of
from prunus.runtime.card.card import Weights
from prunus.runtime.errors import ArtifactError

PERSON = "person"
_GIVE_A_FILE = "Give a file with --checkpoint, or --checkpoint random."


@dataclass(frozen=True, slots=True)
class SegmentationWeights:
    """Weights, what they tell apart, and their provenance.

    Attributes:
        spec: What the card says.
        variant: ``t`` or ``b``.
        classes: Class names.
        palette: RGB colour of each class.
        state: Parameter name -> tensor; None for random weights.
        seed: Seed of random weights.
    """

    spec: Weights
    variant: str
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    state: Mapping[str, torch.Tensor] | None
    seed: int = 0

    def build(self, isr: IsrSetting) -> EDAFormer:
        """Return the network with these weights and an ISR setting, in evaluation mode."""
        config = edaformer_config(self.variant, classes=len(self.classes), isr=isr)
        if self.state is None:
            return _random(config, self.seed)
        with torch.device("meta"):
            network = EDAFormer(config)
        network.load_state_dict(dict(self.state), assign=True)
        return network.eval()


def find_weights(
    checkpoint: str | Path | None,
    variant: str | None = None,
    classes: int | None = None,
    seed: int = 0,
) -> SegmentationWeights:
    """Choose the weights of an export.

    Args:
        checkpoint: A file made by ``prunus models import``, a published one, ``person`` (shipped,
            two classes, T), ``random``, or None: the shipped ones as long as neither variant nor
            classes are asked for, random ones otherwise.
        variant: ``t`` or ``b``; None takes the file's, ``t`` without one.
        classes: Number of classes; None takes the file's, 150 without one.
        seed: Seed of random weights.

    Raises:
        ArtifactError: the file is missing, damaged or of another network; nothing is shipped.
        UsageError: it does not fit.
    """
    if str(checkpoint) == PERSON:
        found = _shipped(variant, classes)
        if found is None:
            raise ArtifactError("No EDAFormer weights ship with this installation.", _GIVE_A_FILE)
        return found
    asked = variant is not None or classes is not None
    return find(_ways(variant, classes, ships=not asked), checkpoint, seed)


def weights_of(
    spec: Weights, variant: str, classes: int, checkpoint: str | Path | None = None
) -> SegmentationWeights:
    """Find the very weights that a card names, see `prunus.export.common.weights.find_again`."""
    return find_again(_ways(variant, classes), spec, checkpoint)


def _ways(
    variant: str | None, classes: int | None, *, ships: bool = True
) -> Ways[SegmentationWeights]:
    def untrained(spec: Weights, seed: int) -> SegmentationWeights:
        config = edaformer_config(variant or "t", classes=classes or 150)
        names = class_names(config.classes)
        return SegmentationWeights(spec, config.variant, names, palette(len(names)), None, seed)

    return Ways(
        lambda path: _from_file(path, variant, classes),
        untrained,
        lambda sha256: _shipped(variant, classes, sha256) if ships else None,
    )


def _shipped(
    variant: str | None, classes: int | None, sha256: str | None = None
) -> SegmentationWeights | None:
    entry = shipped_entry(sha256, model="edaformer")
    if entry is None:
        return None
    zoo.verify(entry)
    found = _from_file(entry.path, variant, classes)
    return replace(found, spec=Weights(entry.origin, entry.sha256, entry.licence, True))


def _from_file(path: Path, variant: str | None, classes: int | None) -> SegmentationWeights:
    imported = convert_edaformer(load_raw(path), variant=variant, classes=classes)
    names, colours, fresh = _names(path, imported)
    origin = f"EDAFormer checkpoint {path.name}"
    if fresh:
        origin += f", {fresh} parameters untrained"
    spec = Weights(origin, sha256_of(path), "see checkpoint", not fresh)
    return SegmentationWeights(spec, imported.config.variant, names, colours, imported.state)


def _names(
    path: Path, imported: ImportedSegmentation
) -> tuple[tuple[str, ...], tuple[Colour, ...], int]:
    """Return class names, colours and the number of untrained parameters of a file.

    A file that ``prunus models import`` wrote keeps them beside its tensors.
    """
    about = _about(path)
    names, colours = imported.classes, imported.palette
    if len(about.get("classes", ())) == len(names):
        names = tuple(about["classes"])
    if len(about.get("palette", ())) == len(colours):
        colours = tuple((int(r), int(g), int(b)) for r, g, b in about["palette"])
    return names, colours, len(about.get("fresh", imported.fresh))


def _about(path: Path) -> dict[str, Any]:
    try:
        return read_entry(path, "prunus")
    except ArtifactError:  # somebody else's entry of that name
        return {}


def _random(config: Any, seed: int) -> EDAFormer:
    """Build a network whose activations are alive: matrices with unit gain, small biases.

    The usual initialisation (std 0.02) leaves all logits nearly equal, so that class maps, number
    formats and back ends could not be compared by them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = EDAFormer(config)
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=float(parameter[0].numel()) ** -0.5)
                elif name.endswith("bias"):
                    parameter.normal_(std=0.02)
    return network.eval()
