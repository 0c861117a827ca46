"""Turn what a user typed after ``--model`` into files: a path, a folder, or a shipped name."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from prunus.apps.common.options import LEVELS
from prunus.runtime.errors import ArtifactError, UsageError, nearest

_SUFFIXES = (".onnx", ".engine", ".plan")
_FOLDERS = (Path(), Path("demo"))  # where `prunus export` and `make demo` leave their files
DEFAULT_MODEL = "evitpose-tiny"
BEST_POSE = "movenet_lightning"  # of the shipped pose models, the one with the highest AP
DEFAULT_CODEC = "nsfcodec"
DEFAULT_SEPARATOR = "dolphin-nano"


def find_model(name: str, shapes: Sequence[str] = ()) -> Path:
    """Return the file of a model given by path or by its name in `prunus models`.

    Args:
        name: Path or name.
        shapes: What stands after ``--shape``; given any, the result is a copy with these sizes.

    Raises:
        ArtifactError: there is no such file and no such name.
        UsageError: shapes that do not fit.
        MissingDependencyError: the name is a checkpoint's, and PyTorch is not installed, or shapes
            are to be fixed, and onnx is not.
    """
    if shapes:
        from prunus.apps.common.fixed import fixed

        return fixed(find_model(name), shapes)
    path = Path(name)
    if path.is_file():
        return path
    from prunus.models import zoo

    listed = {entry.name: entry for entry in zoo.entries()}
    plain = name.removesuffix(".onnx").replace("-", "_")
    if plain in listed and listed[plain].kind == "artifact":
        return zoo.model_path(plain)
    if plain in listed:
        from prunus.apps.common.exported import exported

        return exported(listed[plain])
    known = sorted(listed)
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
        Files of one network; the best one that ships when nothing is named.

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

    shipped = zoo.graphs_for("segmentation")
    if not shipped:
        raise ArtifactError(
            "No --model was given and no segmentation model ships.",
            "Make one with: prunus export edaformer --checkpoint FILE",
        )
    return zoo.model_path(shipped[0].name)


def codec_name(name: str | None) -> str:
    """Return NAME of a codec's files: what was named, or the files of one that ships.

    Args:
        name: NAME, or the listed name of a codec or of one of its graphs; None: the one that ships.

    Raises:
        ArtifactError: a shipped file is missing or damaged.
    """
    own = (Path(f"{name}-{part}.onnx") for part in ("encoder", "decoder"))
    if name is not None and any(path.is_file() for path in own):
        return name
    from prunus.models import zoo

    plain = (name or DEFAULT_CODEC).replace("-", "_")
    plain = plain.removesuffix("_encoder").removesuffix("_decoder")
    for entry in zoo.graphs_for("codec"):
        stem = entry.name.removesuffix("_encoder")
        if stem != entry.name and stem.startswith(plain):
            encoder = zoo.model_path(entry.name)
            zoo.model_path(f"{stem}_decoder")  # compared with its hash
            return str(encoder).removesuffix("-encoder.onnx")
    return name or DEFAULT_CODEC


def separation_models(name: str | None) -> tuple[Path, Path]:
    """Return the two graphs of a separator, lips and voice.

    Args:
        name: NAME of NAME-lips.onnx and NAME-voice.onnx, either file, or the listed name of a
            shipped pair or of either graph; None: the shipped pair, else the newest here or in
            demo/.

    Raises:
        ArtifactError: one or both are missing or damaged.
    """
    if name is None:
        if (shipped := shipped_separator()) is not None:
            return shipped
        found = [p for folder in _FOLDERS for p in folder.glob("dolphin-*-voice.onnx")]
        if not found:
            raise ArtifactError(
                "No --model was given, and there is no dolphin-*-voice.onnx here or in demo/.",
                "Make both graphs with: prunus export dolphin --variant nano --seconds 2",
            )
        name = str(max(found, key=lambda p: p.stat().st_mtime))
    stem, pair = _separator_files(name)
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

    plain = name.replace("-", "_").removesuffix("_lips").removesuffix("_voice")
    if {f"{plain}_lips", f"{plain}_voice"} <= set(shipped_graphs()):
        return zoo.model_path(f"{plain}_lips"), zoo.model_path(f"{plain}_voice")
    return None


def separator_parts(name: str) -> tuple[Path, Path] | None:
    """Return the lip and voice graphs that a name means, None where it means something else.

    Args:
        name: As of `separation_models`.

    Raises:
        ArtifactError: one of the two is missing, or a shipped one is damaged.
    """
    _, pair = _separator_files(name)
    if not any(path.is_file() for path in pair) and shipped_separator(name) is None:
        return None
    return separation_models(name)


def _separator_files(name: str) -> tuple[str, tuple[Path, Path]]:
    """Return NAME of NAME-lips.onnx and NAME-voice.onnx, given it or either file, and both."""
    suffix = Path(name).suffix if Path(name).suffix in _SUFFIXES else ".onnx"
    stem = name.removesuffix(suffix).removesuffix("-lips").removesuffix("-voice")
    return stem, (Path(f"{stem}-lips{suffix}"), Path(f"{stem}-voice{suffix}"))


def why_default() -> str:
    """Return the clause that says which pose model runs when none is named, and how to choose."""
    return (
        f"{BEST_POSE}, the best that ships by measured accuracy; --level L0 to L3 takes the pruned "
        f"network that prunus export {DEFAULT_MODEL.partition('-')[0]} makes"
    )


def _default_models(wanted: str | None) -> list[Path]:
    """Return the best graph that ships, or the exported network of a level that was asked for.

    A file that lies in the folder is never a reason to leave the better model.
    """
    if wanted is None:
        return [find_model(BEST_POSE)]
    stem = f"{DEFAULT_MODEL}-{wanted}"
    # The name in our hints, and the one that the exporter gives when it gets none.
    names = (stem, f"{DEFAULT_MODEL}-subpixel-{wanted}-fp32")
    for folder, name in itertools.product(_FOLDERS, names):
        first = folder / f"{name}.onnx"
        if first.is_file():
            more = [
                first.with_name(f"{name.replace(wanted, f'{wanted}-B{n}')}.onnx") for n in (2, 4, 8)
            ]
            return [first, *(path for path in more if path.is_file())]
    raise ArtifactError(
        f"No --model was given and there is no {stem}.onnx here or in demo/.",
        f"Make it (once) with: prunus export evitpose --level {wanted} -o {stem}.onnx",
    )
