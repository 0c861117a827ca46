"""Folders of mixtures: what was mixed, the clean voices, and the mouths that go with them.

    FOLDER/mix/NAME.wav            the mixture
    FOLDER/s1/NAME.wav, s2/...     the clean voices, as long as the mixture
    FOLDER/s1/NAME.txt             what that voice says, where word errors are wanted
    FOLDER/mouths/s1/NAME.npz      mouth crops of s1 at 25 a second, and so on

That is LRS2-2Mix, LRS3-2Mix and VoxCeleb2-2Mix (each of tr, cv and tt is such a folder) as far as
the sound goes; their mouths lie elsewhere as ID.npz, and the ids are part of NAME: ``--mouths``
names that folder. A mouth file holds ``data`` (F, 96, 96) or (F, 88, 88) uint8, grey; 96 is cut to
its middle 88.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prunus.runtime.arrays import read_array
from prunus.runtime.audio.files import SoundReader
from prunus.runtime.audio.resample import resample
from prunus.runtime.errors import SourceError

Audio = npt.NDArray[np.float32]
Crops = npt.NDArray[np.uint8]
# 11 characters of a clip and the number of the piece; LRS2 has 19 digits instead.
_YOUTUBE = re.compile(r"(?:^|_)(.{11}_\d{5})(?=_|$|\.)")
_LRS2 = re.compile(r"(?:^|_)(\d{15,}_\d{5})(?=_|$|\.)")


@dataclass(frozen=True, slots=True)
class Mixture:
    """One mixture and where its parts lie.

    Attributes:
        name: File name without its ending.
        mix: Sound file.
        voices: Sound files of the clean voices.
        mouths: Mouth files in the same order.
    """

    name: str
    mix: Path
    voices: tuple[Path, ...]
    mouths: tuple[Path, ...]


def find_mixtures(
    folder: Path, mouths: Path | None = None, limit: int | None = None
) -> list[Mixture]:
    """List the mixtures of a folder in name order.

    Args:
        folder: With ``mix``, ``s1``, ``s2`` and so on.
        mouths: Folder of mouths; None: ``FOLDER/mouths``.
        limit: At most so many.

    Raises:
        SourceError: the folder is no such folder, or a part of a mixture is missing.
    """
    speakers = sorted(p.name for p in folder.glob("s[0-9]*") if p.is_dir())
    files = sorted(p for p in (folder / "mix").glob("*") if p.suffix in (".wav", ".flac"))
    if not files or not speakers:
        raise SourceError(
            f"{folder} holds no mixtures: expected mix/NAME.wav, s1/NAME.wav, s2/NAME.wav.",
            "Give the folder of one split, for example wav16k/min/tt.",
        )
    where = mouths or folder / "mouths"
    found = []
    for file in files[:limit]:
        voices = tuple(folder / speaker / file.name for speaker in speakers)
        ids = [_mouth_file(where, speaker, k, file.stem) for k, speaker in enumerate(speakers)]
        missing = [p for p in (*voices, *ids) if not p.is_file()]
        if missing:
            raise SourceError(
                f"The mixture {file.name} lacks {missing[0]}.",
                "Name the folder of mouths with --mouths.",
            )
        found.append(Mixture(file.stem, file, voices, tuple(ids)))
    return found


def _mouth_file(folder: Path, speaker: str, index: int, name: str) -> Path:
    """Return the mouth file of one voice, by its place or by the id in the mixture's name."""
    own = folder / speaker / f"{name}.npz"
    ids = clip_ids(name)
    if own.is_file() or index >= len(ids):
        return own
    return folder / f"{ids[index]}.npz"


def clip_ids(name: str) -> list[str]:
    """Return the ids of the clips that a published mixture was made of.

    >>> clip_ids("6330311066473698535_00011_0.63_6331559613336179781_00018_-0.63")
    ['6330311066473698535_00011', '6331559613336179781_00018']
    >>> clip_ids("0Fi83BHQsMA_00002_1.5_2gW5lT-sx_E_00003_-1.5")
    ['0Fi83BHQsMA_00002', '2gW5lT-sx_E_00003']
    """
    return _LRS2.findall(name) or _YOUTUBE.findall(name)


def read_sound(path: Path, rate_hz: int) -> Audio:
    """Return (T,) float32 at the wanted rate; raises SourceError."""
    with SoundReader(path) as reader:
        sound = np.concatenate([np.zeros(0, np.float32), *reader.blocks()])
        return resample(sound, reader.sample_rate_hz, rate_hz)


def read_mouths(path: Path, size: int) -> Crops:
    """Return (F, size, size) uint8 crops.

    Raises:
        SourceError: the file holds no such crops.
    """
    crops = read_array(path, "data", "mouth", hint="Save it with numpy.savez(path, data=crops).")
    rows = crops.shape[-1] if crops.ndim == 3 else 0
    if crops.dtype != np.uint8 or crops.ndim != 3 or crops.shape[1] != rows or rows < size:
        raise SourceError(
            f"{path} holds {crops.dtype} {list(crops.shape)}; expected 'data', uint8 "
            f"(frames, {size}, {size}) or larger squares, grey.",
        )
    edge = (rows - size) // 2
    return np.ascontiguousarray(crops[:, edge : edge + size, edge : edge + size])
