"""One mixture as the files that `prunus eval separation` reads.

See `prunus.apps.separation.mixtures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.audio.files import write_wav
from prunus.runtime.card.artifact import atomic_path

RATE_HZ = 16_000


def write_mixture_files(
    folder: Path,
    name: str,
    mixture: npt.NDArray[np.float32],
    voices: Sequence[npt.NDArray[np.float32]],
    mouths: Sequence[npt.NDArray[np.uint8]],
) -> Path:
    """Write ``mix``, ``s1``, ``s2`` ... and ``mouths`` of one mixture; return the mixture's file.

    Args:
        folder: Made where it is missing.
        name: File name without its ending.
        mixture: (T,) at 16 kHz.
        voices: (T,) each.
        mouths: uint8 (F, 88, 88) each, 25 a second, in the voices' order.

    Raises:
        SourceError: the folder cannot be written.
    """
    for number, (voice, crops) in enumerate(zip(voices, mouths, strict=True), 1):
        _write_sound(folder / f"s{number}" / f"{name}.wav", voice)
        path = folder / "mouths" / f"s{number}" / f"{name}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, data=crops)
    return _write_sound(folder / "mix" / f"{name}.wav", mixture)


def _write_sound(path: Path, sound: npt.NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        write_wav(temporary, iter([sound]), RATE_HZ)
    return path
