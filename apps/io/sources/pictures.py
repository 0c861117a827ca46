"""Pictures as sources: one file, or a folder in name order."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from prunus.apps.io.frames import Frame, Image, SourceInfo
from prunus.runtime.errors import SourceError
from prunus.runtime.pictures.files import PICTURES, read_picture

_NUMBERED = re.compile(r"(?:COCO_[a-z-]+\d*_)?(\d{1,18})", re.ASCII)


def picture_ids(names: Sequence[str]) -> dict[str, int]:
    """Return COCO's ids of the pictures of one folder, by one scheme for all.

    The numbers in the names where every name is one, or one of COCO's long names, and no two are
    alike; else the positions in the order of the names.

    >>> picture_ids(["000000000139.jpg", "COCO_val2014_000000000042.jpg"])
    {'000000000139.jpg': 139, 'COCO_val2014_000000000042.jpg': 42}
    >>> picture_ids(["2.jpg", "2.png"])
    {'2.jpg': 0, '2.png': 1}
    """
    numbers = [int(m[1]) for m in (_NUMBERED.fullmatch(Path(n).stem) for n in names) if m]
    unique = len(names) == len(set(numbers))
    return dict(zip(names, numbers if unique else range(len(names)), strict=True))


class PictureSource:
    """One or more pictures. Damaged ones of a folder are skipped and named in `warnings`.

    Args:
        paths: Files in the order in which they are read.
        kind: ``picture`` or ``folder``.

    Attributes:
        ids: File name -> `Frame.picture_id`, of all pictures, damaged ones included.

    Raises:
        SourceError: not one of them can be read.
    """

    def __init__(self, paths: Sequence[Path], kind: str) -> None:
        self.warnings: list[str] = []
        self._paths = list(paths)
        self.ids = picture_ids([path.name for path in paths])
        self._first, self._start = self._find_first(kind)
        height, width = self._first.shape[:2]
        self.info = SourceInfo(kind, width, height, 0.0, len(self._paths) - self._start, live=False)

    def _find_first(self, kind: str) -> tuple[Image, int]:
        for i, path in enumerate(self._paths):
            try:
                return read_picture(path), i
            except SourceError as error:
                if kind == "picture" or i == len(self._paths) - 1:
                    raise
                self.warnings.append(f"skipped: {error.message}")
        raise SourceError("Got no pictures; expected at least one.", "Give a picture file.")

    def __iter__(self) -> Iterator[Frame]:
        """Yield the pictures; the names are file names without their folder."""
        name = self._paths[self._start].name
        yield Frame(0, self._first, name, time.perf_counter_ns(), self.ids[name])
        index = 1
        for path in self._paths[self._start + 1 :]:
            try:
                image = read_picture(path)
            except SourceError as error:
                self.warnings.append(f"skipped: {error.message}")
                continue
            yield Frame(index, image, path.name, time.perf_counter_ns(), self.ids[path.name])
            index += 1

    def close(self) -> None:
        """Do nothing: files are closed as soon as they are read."""


def open_picture(path: str | Path) -> PictureSource:
    """Open one picture; raises SourceError when it cannot be read."""
    return PictureSource([Path(path)], "picture")


def open_folder(folder: str | Path) -> PictureSource:
    """Open all pictures of a folder, in name order.

    Raises:
        SourceError: the folder holds no picture, cannot be listed, or all are damaged.
    """
    folder = Path(folder)
    try:
        names = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES)
    except OSError as error:
        raise SourceError(f"Cannot list {folder}: {error.strerror}.", "Check its rights.") from None
    if not names:
        raise SourceError(
            f"The folder {folder} holds no picture.", f"Expected files like {', '.join(PICTURES)}."
        )
    return PictureSource(names, "folder")
