"""Turn what a user typed after ``--model`` into files: a path, a folder, or a shipped name."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from prunus.runtime.errors import ArtifactError, UsageError, nearest

_SUFFIXES = (".onnx", ".engine", ".plan")
_FOLDERS = (Path(), Path("demo"))  # where `prunus export` and `make demo` leave their files
DEFAULT_MODEL = "evitpose-tiny"
DEFAULT_LEVEL = "L2"
FALLBACK = "movenet_lightning"
DEFAULT_CODEC = "nsfcodec"
DEFAULT_SEPARATOR = "dolphin-nano"
LEVELS = ("L0", "L1", "L2", "L3")


def find_model(name: str) -> Path:
    """Return the file of a model given by path or by its name in the zoo.

    Raises:
        ArtifactError: there is no such file and no such name.
    """
    path = Path(name)
    if path.is_file():
        return path
    from prunus.models import zoo

    known = sorted(shipped_graphs())
    plain = name.removesuffix(".onnx").replace("-", "_")
    if plain in known:
        return zoo.model_path(plain)
    if path.suffix in _SUFFIXES or len(path.parts) > 1:
        raise ArtifactError(
            f"Model file not found: {name}.",
            "Make one with: prunus export; list the names with: prunus models",
        )
    raise ArtifactError(
        f"There is no model file and no shipped model '{name}'{nearest(plain, known)}.",
        f"Give a .onnx file, or one of: {', '.join(known)}",
    )


def shipped_graphs() -> dict[str, str]:
    """Return name -> file name of the graphs that come with prunus and run as they are."""
    from prunus.models import zoo

    return {e.name: e.file for e in zoo.entries() if e.kind == "artifact"}


def pose_models(names: Sequence[str], level: str | None) -> list[Path]:
    """Return the pose model files of one network, one per batch size.

    Args:
        names: What the user gave, empty for the default network.
        level: Pruning level, which picks the default file.

    Returns:
        Files of one network; the shipped MoveNet Lightning when nothing is named or exported.

    Raises:
        ArtifactError: nothing fits.
        UsageError: an unknown level.
    """
    if level is not None and level not in LEVELS:
        raise UsageError(
            f"Unknown level '{level}'{nearest(level, list(LEVELS))}.",
            f"Use one of: {', '.join(LEVELS)}",
        )
    if not names:
        return _default_models(level)
    files: list[Path] = []
    for name in names:
        folder = Path(name)
        if folder.is_dir():
            shown = (p for p in folder.iterdir() if not p.name.startswith("."))
            found = sorted(p for p in shown if p.suffix in _SUFFIXES)
            if not found:
                raise ArtifactError(
                    f"The folder {folder} holds no model.",
                    "Export one with: prunus export evitpose",
                )
            files += found
        else:
            files.append(find_model(name))
    return files


def segmentation_model(name: str | None) -> Path:
    """Return the file of a segmentation model: what was named, else the one that ships.

    Raises:
        ArtifactError: nothing fits.
    """
    if name is not None:
        return find_model(name)
    from prunus.models import zoo

    shipped = [e for e in zoo.entries() if e.kind == "artifact" and e.task == "segmentation"]
    if not shipped:
        raise ArtifactError(
            "No --model was given and no segmentation model ships.",
            "Make one with: prunus export edaformer --checkpoint FILE",
        )
    return zoo.model_path(shipped[0].name)


def codec_name(name: str) -> str:
    """Return NAME of a codec's files: what was named, or the files of one that ships.

    Raises:
        ArtifactError: a shipped file is missing or damaged.
    """
    if Path(f"{name}-encoder.onnx").is_file() or Path(f"{name}-decoder.onnx").is_file():
        return name
    from prunus.models import zoo

    plain = name.replace("-", "_")
    for entry in zoo.entries():
        stem = entry.name.removesuffix("_encoder")
        if entry.task == "codec" and stem != entry.name and stem.startswith(plain):
            encoder = zoo.model_path(entry.name)
            zoo.model_path(f"{stem}_decoder")  # compared with its hash
            return str(encoder).removesuffix("-encoder.onnx")
    return name


def separation_models(name: str | None) -> tuple[Path, Path]:
    """Return the two graphs of a separator, lips and voice.

    Args:
        name: NAME of NAME-lips.onnx and NAME-voice.onnx, either file, or the name of a shipped
            pair; None: the newest pair here or in demo/, else the shipped one.

    Raises:
        ArtifactError: one or both are missing or damaged.
    """
    if name is None:
        found = [p for folder in _FOLDERS for p in folder.glob("dolphin-*-voice.onnx")]
        if not found:
            shipped = shipped_separator()
            if shipped is not None:
                return shipped
            raise ArtifactError(
                "No --model was given, and there is no dolphin-*-voice.onnx here or in demo/.",
                "Make both graphs with: prunus export dolphin --variant nano --seconds 2",
            )
        name = str(max(found, key=lambda p: p.stat().st_mtime))
    suffix = Path(name).suffix if Path(name).suffix in _SUFFIXES else ".onnx"
    stem = name.removesuffix(suffix).removesuffix("-lips").removesuffix("-voice")
    pair = Path(f"{stem}-lips{suffix}"), Path(f"{stem}-voice{suffix}")
    missing = [str(path) for path in pair if not path.is_file()]
    if missing:
        shipped = shipped_separator(stem) if len(missing) == len(pair) else None
        if shipped is not None:
            return shipped
        raise ArtifactError(
            f"Model file not found: {' and '.join(missing)}.",
            f"Make both graphs with: prunus export dolphin -o {Path(stem).name}",
        )
    return pair


def shipped_separator(name: str = DEFAULT_SEPARATOR) -> tuple[Path, Path] | None:
    """Return the shipped lip and voice graphs of that name, None when none ship.

    Raises:
        ArtifactError: a shipped file is missing or damaged.
    """
    from prunus.models import zoo

    plain = name.replace("-", "_")
    if {f"{plain}_lips", f"{plain}_voice"} <= set(shipped_graphs()):
        return zoo.model_path(f"{plain}_lips"), zoo.model_path(f"{plain}_voice")
    return None


def no_export_found(level: str | None) -> str:
    """Return the clause that says which file was looked for, and how it is made."""
    stem = f"{DEFAULT_MODEL}-{level or DEFAULT_LEVEL}"
    return (
        f"there is no {stem}.onnx here or in demo/ (make it, once, with: "
        f"prunus export evitpose --level {level or DEFAULT_LEVEL} -o {stem}.onnx)"
    )


def _default_models(wanted: str | None) -> list[Path]:
    """Return the exported network of this level, else the graph that ships.

    An export needs PyTorch, which a device may not have: without one, and when no level is asked
    for, MoveNet Lightning runs. The caller says so.
    """
    level = wanted or DEFAULT_LEVEL
    stem = f"{DEFAULT_MODEL}-{level}"
    # The name in our hints, and the one that the exporter gives when it gets none.
    names = (stem, f"{DEFAULT_MODEL}-subpixel-{level}-fp32")
    for folder, name in itertools.product(_FOLDERS, names):
        first = folder / f"{name}.onnx"
        if first.is_file():
            more = [
                first.with_name(f"{name.replace(level, f'{level}-B{n}')}.onnx") for n in (2, 4, 8)
            ]
            return [first, *(path for path in more if path.is_file())]
    if wanted is None:
        return [find_model(FALLBACK)]
    raise ArtifactError(
        f"No --model was given and there is no {stem}.onnx here or in demo/.",
        f"Make it (once) with: prunus export evitpose --level {level} -o {stem}.onnx",
    )
