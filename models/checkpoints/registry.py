"""Whose official checkpoints prunus reads: one row each, and one refusal of foreign options.

`prunus models import` and `import_model` come from here. A new family is a module beside this one
with a function like those at `IMPORTERS`, and a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from prunus.runtime.errors import UsageError, nearest
from prunus.runtime.options import argument, group, option
from prunus.runtime.references import load


@dataclass(frozen=True)
class ImportOptions:
    """What may be said about a checkpoint; each family reads some of it."""

    variant: str | None = option(
        "Size: small or base; t or b (default: small, or the file's).", default=None
    )
    classes: int | None = option("Number of classes; default: the file's.", default=None, minimum=1)
    head: Literal["classic", "simple", "subpixel", "token", "regression"] | None = option(
        "Head of the checkpoint; default: what the file has.", default=None
    )
    expert: int = option("Data set of a ++ checkpoint: 0 is COCO.", default=0)
    names: Path | None = option(
        "JSON of pattern -> replacement for files with other names.", default=None
    )


# Gets the checkpoint, the file to write, the row and the options; returns two lines: what was
# read, and the words after ``prunus export`` that use it.
Read = Callable[[Path, Path, "Importer", ImportOptions], tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Importer:
    """A family of official checkpoints.

    Attributes:
        name: Word of ``--model``, and name of the export that takes the result.
        papers: Whose files they are.
        read: ``module:function`` below `prunus.models.checkpoints`, see `Read`.
        options: Fields of `ImportOptions` that it reads.
    """

    name: str
    papers: str
    read: str
    options: tuple[str, ...]

    def load(self) -> Read:
        """Return the function."""
        found: Read = load(f"prunus.models.checkpoints.{self.read}")
        return found


IMPORTERS = (
    Importer("vitpose", "ViTPose, ViTPose++, MAE", "vitpose:read_in",
             ("variant", "head", "expert")),
    Importer("dinov2", "DINOv2 ViT-S/14 as the trunk of EViTPose", "dinov2:read_in",
             ("variant", "head")),
    Importer("edaformer", "EDAFormer", "edaformer:read_in", ("variant", "classes")),
    Importer("dolphin", "Dolphin", "dolphin:read_in", ("variant",)),
    Importer("wavtokenizer", "WavTokenizer", "codecs:read_in", ("names",)),
    Importer("fusecodec", "FuseCodec, SpeechTokenizer, DM-Codec", "codecs:read_in", ("names",)),
    Importer("freecodec", "FreeCodec or parts of it: SuperCodec, ECAPA-TDNN", "codecs:read_in",
             ("names",)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ImportCommand:
    """What `prunus models import` does.

    \b
    Examples:
      prunus models import vitpose-b.pth --variant base -o vitpose-b.safetensors
      prunus models import EDAFormer_T_ade20k.pth --model edaformer -o edaformer-t.safetensors
    """

    checkpoint: Path = argument("Official file: .pth, .pt or .safetensors.")
    model: str = option(
        "Whose checkpoint it is; fusecodec also stands for SpeechTokenizer and DM-Codec, freecodec "
        "for parts of it (SuperCodec, ECAPA-TDNN).",
        default="vitpose", choices=tuple(row.name for row in IMPORTERS),
    )  # fmt: skip
    about: ImportOptions = group(ImportOptions)
    output: Path | None = option(
        "Where the result goes.", default=None, flags=("--output", "-o"), metavar="PATH"
    )


def find_importer(name: str) -> Importer:
    """Return a row by name.

    Raises:
        UsageError: there is none.
    """
    for importer in IMPORTERS:
        if importer.name == name:
            return importer
    known = [importer.name for importer in IMPORTERS]
    raise UsageError(
        f"No checkpoints of '{name}' are imported{nearest(name, known)}.",
        f"Use one of: {', '.join(known)}",
    )


def import_model(
    name: str, checkpoint: Path, target: Path, options: ImportOptions | None = None
) -> list[str]:
    """Turn an official checkpoint into a safetensors file that prunus exports.

    Args:
        name: Name of a row.
        checkpoint: ``.pth``, ``.pt``, ``.bin`` or ``.safetensors``.
        target: The file to write; it appears only when complete.
        options: What is known about it.

    Returns:
        Two lines: what was read, and how to use what was written.

    Raises:
        UsageError: an unknown name, an option that is foreign to this family, or a checkpoint
            that does not fit.
        ArtifactError: a file that cannot be read.
    """
    importer, options = find_importer(name), options or ImportOptions()
    _refuse_foreign(importer, options)
    found, use = importer.load()(checkpoint, target, importer, options)
    return [f"read {found}", f"wrote {target}; use it with: prunus export {use}"]


def _refuse_foreign(importer: Importer, options: ImportOptions) -> None:
    given = [f.name for f in fields(options) if getattr(options, f.name) != f.default]
    if foreign := [f"--{name}" for name in given if name not in importer.options]:
        takes = ", ".join(f"--{name}" for name in importer.options)
        raise UsageError(
            f"{' and '.join(foreign)} {'is' if len(foreign) == 1 else 'are'} not for "
            f"{importer.name}.",
            f"Leave it out; {importer.name} takes {takes}.",
        )


def fresh_note(fresh: tuple[str, ...]) -> str:
    """Return what to add about parameters that the file has no source for."""
    return f", {len(fresh)} parameters start fresh" if fresh else ""
