"""A copy of a model with fixed sizes, made for the verb that was given ``--shape``."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from prunus.runtime import host
from prunus.runtime.errors import UsageError


def fixed(path: Path, words: Sequence[str]) -> Path:
    """Return a copy of a model whose inputs have these shapes; the file itself stays as it is.

    The copy lies in the user's cache under the hash of its own bytes: weights beside the file, long
    names of inputs and the program that fixes sizes all have their part in it.

    Args:
        path: ONNX file.
        words: ``NAME:1x3x224x224``, one for each input to fix.

    Raises:
        UsageError: a shape that does not fit, an engine, or a model too large for one file.
        ArtifactError: the file is damaged, or has no constant sizes even so.
        MissingDependencyError: onnx is not installed.
        HostError: there is no place to keep the copy.
    """
    from prunus.export.graph.shapes import fix_shapes, is_split, read_shapes
    from prunus.runtime.card.artifact import atomic_path, sha256_of, write_error

    shapes = read_shapes(words)
    if path.suffix != ".onnx":
        raise UsageError(
            f"Got --shape for {path}, whose sizes cannot be changed.", "Give the .onnx file."
        )
    model = fix_shapes(path, shapes)
    if is_split(model):
        raise UsageError(
            f"Got --shape for {path}, whose weights are too large for one file.",
            f"Write a fixed file there, once: prunus card add {path} "
            + " ".join(f"--shape {word}" for word in words)
            + f" -o {path.with_name(f'{path.stem}-fixed.onnx')}",
        )
    data = model.SerializeToString(deterministic=True)
    digest = hashlib.sha256(data).hexdigest()
    target = host.user_cache() / "graphs" / digest[:24] / path.name
    if not (target.is_file() and sha256_of(target) == digest):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(error, target) from error
        with atomic_path(target) as temporary:
            temporary.write_bytes(data)
    print(f"fixed {' '.join(words)} in a copy of {path.name}: {target}", file=sys.stderr)
    return target
