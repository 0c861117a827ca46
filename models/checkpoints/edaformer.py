"""Strict import of published EDAFormer checkpoints (arXiv 2407.17261), as mmseg wrote them.

The file is a dict with ``state_dict`` and ``meta`` (class names, palette); the parameter names are
ours already. Tolerated: ``module.`` in front, a missing `conv_seg` (the network never calls it).
Encoder files of the ImageNet training lack ``backbone.`` and the decoder, and may hold the
classifier of that training: the decoder then stays untrained and is reported. Anything else that
does not fit is refused, all of it in one message, and nothing is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from prunus.models.checkpoints.fit import require_fit, save_imported
from prunus.models.checkpoints.read import load_raw, unwrap
from prunus.models.checkpoints.registry import Importer, ImportOptions, fresh_note
from prunus.models.segmentation.classes import Colour, class_names, palette
from prunus.models.segmentation.edaformer import EDAFormer, EDAFormerConfig, edaformer_config
from prunus.runtime.errors import UsageError

_ENCODER, _DECODER = "backbone.", "decode_head."
_FIRST, _LAST = f"{_ENCODER}patch_embed1.proj.weight", f"{_DECODER}linear_pred.weight"
_UNUSED = f"{_DECODER}conv_seg."
_CLASSIFIER = ("head.", "fc.")  # of the ImageNet training
_WIDTHS = {32: "t", 64: "b"}  # channels of the first stage


@dataclass(frozen=True, slots=True)
class ImportedSegmentation:
    """A checkpoint as EDAFormer reads it.

    Attributes:
        config: The network, without ISR.
        state: Complete state dict of `EDAFormer(config)`, float32.
        classes: Class names.
        palette: RGB colour of each class.
        fresh: Parameters that the file has no source for; they are freshly initialised.
        dropped: Names in the file that were not needed.
    """

    config: EDAFormerConfig
    state: dict[str, Tensor]
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]
    fresh: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


def convert_edaformer(
    checkpoint: Mapping[str, object],
    *,
    variant: str | None = None,
    classes: int | None = None,
    seed: int = 0,
) -> ImportedSegmentation:
    """Turn what a published file holds into a state dict of `EDAFormer`.

    Args:
        checkpoint: What the file held, wrappers included.
        variant: ``t`` or ``b``; None takes the one that the file's first layer shows.
        classes: Number of classes; None takes the file's.
        seed: Seed of what stays fresh.

    Raises:
        ArtifactError: no tensors.
        UsageError: not an EDAFormer, or names or shapes that do not fit, all of them listed.
    """
    tensors, dropped = _bare(unwrap(checkpoint))
    config = edaformer_config(variant or _variant(tensors), classes=classes or _classes(tensors))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        own = EDAFormer(config).state_dict()
    headless = not any(name.startswith(_DECODER) for name in tensors)
    fresh = {n for n in own if n not in tensors and _may_be_fresh(n, headless)}
    title = f"EDAFormer-{config.variant.upper()} with {config.classes} classes"
    require_fit(own, tensors, title, fresh=fresh, advice=lambda wrong: _advice(wrong, tensors))
    state = {n: tensors.get(n, v).to(v.dtype).contiguous() for n, v in own.items()}
    for name in fresh:
        if name.startswith(_UNUSED):
            state[name] = torch.zeros_like(state[name])
    named = tuple(sorted(n for n in fresh if not _plays_no_part(n)))
    names, colours = _meta(checkpoint, config.classes)
    return ImportedSegmentation(config, state, names, colours, named, dropped)


def import_checkpoint(
    checkpoint: str | Path,
    target: str | Path,
    *,
    variant: str | None = None,
    classes: int | None = None,
) -> ImportedSegmentation:
    """Convert a published file into a safetensors file that the exporter takes.

    Args:
        checkpoint: ``.pth`` or ``.safetensors``.
        target: The file to write; it appears only when complete.
        variant: ``t`` or ``b``; None: what the file is.
        classes: Number of classes; None: the file's.

    Raises:
        ArtifactError: a file that cannot be read.
        UsageError: a checkpoint that does not fit.
    """
    raw = load_raw(checkpoint)
    imported = convert_edaformer(raw, variant=variant, classes=classes)
    _save(imported, Path(checkpoint), Path(target))
    return imported


def _bare(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Put ``backbone.`` before the names of an encoder file, and leave its classifier out."""
    if any(name.startswith((_ENCODER, _DECODER)) for name in tensors):
        return tensors, ()
    dropped = tuple(n for n in tensors if n.startswith(_CLASSIFIER))
    return {_ENCODER + n: v for n, v in tensors.items() if n not in dropped}, dropped


def _variant(tensors: Mapping[str, Tensor]) -> str:
    first = tensors.get(_FIRST)
    if first is None or first.dim() != 4 or first.shape[0] not in _WIDTHS:
        shown = ", ".join(sorted(tensors)[:4])
        got = "none" if first is None else str(list(first.shape))
        raise UsageError(
            f"The checkpoint is not an EDAFormer: {_FIRST} is {got}, expected [32 or 64, 3, 7, 7]; "
            f"its names begin with: {shown}.",
            "Give EDAFormer-T or -B, as published.",
        )
    return _WIDTHS[first.shape[0]]


def _classes(tensors: Mapping[str, Tensor]) -> int:
    last = tensors.get(_LAST)
    return 150 if last is None or not last.dim() else last.shape[0]


def _may_be_fresh(name: str, headless: bool) -> bool:
    return _plays_no_part(name) or (headless and name.startswith(_DECODER))


def _plays_no_part(name: str) -> bool:
    return name.startswith(_UNUSED) or name.endswith("num_batches_tracked")


def _advice(wrong: list[str], tensors: Mapping[str, Tensor]) -> str:
    if _FIRST in wrong:
        return f"Its first layer has {tensors[_FIRST].shape[0]} channels: choose another variant."
    if _LAST in wrong:
        return f"Its classifier has {tensors[_LAST].shape[0]} classes: ask for that many."
    return "Give the file as it was published; nothing was written."


def _meta(
    checkpoint: Mapping[str, object], count: int
) -> tuple[tuple[str, ...], tuple[Colour, ...]]:
    """Return class names and colours of the file's ``meta``, or ours where it has none that fit."""
    meta = checkpoint.get("meta")
    meta = meta if isinstance(meta, Mapping) else {}
    names, colours = meta.get("CLASSES"), _colours(meta.get("PALETTE"), count)
    if not isinstance(names, list | tuple) or len(names) != count:
        names = class_names(count)
    return tuple(map(str, names)), colours or palette(count)


def _colours(raw: object, count: int) -> tuple[Colour, ...]:
    """Return the colours, none when they are not `count` times three bytes."""
    rows = raw if isinstance(raw, list | tuple) and len(raw) == count else ()
    fine = [
        (int(c[0]), int(c[1]), int(c[2]))
        for c in rows
        if isinstance(c, list | tuple)
        and len(c) == 3
        and all(isinstance(v, int) and 0 <= v <= 255 for v in c)
    ]
    return tuple(fine) if len(fine) == count else ()


def _save(imported: ImportedSegmentation, source: Path, target: Path) -> None:
    about = {
        "classes": imported.classes,
        "fresh": imported.fresh,
        "model": "edaformer",
        "palette": imported.palette,
        "variant": imported.config.variant,
    }
    save_imported(imported.state, source, target, about)


def read_in(
    checkpoint: Path, target: Path, importer: Importer, options: ImportOptions
) -> tuple[str, str]:
    """Import a file for `prunus.models.checkpoints.registry`."""
    imported = import_checkpoint(
        checkpoint, target, variant=options.variant, classes=options.classes
    )
    config = imported.config
    return (
        f"EDAFormer-{config.variant.upper()} with {config.classes} classes"
        f"{fresh_note(imported.fresh)}",
        f"edaformer --checkpoint {target}",
    )
