"""Pictures as sources: one file, or a folder in name order."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from prunus.apps.common.opencv import MAX_PIXELS, load_cv2, quiet_stderr
from prunus.apps.io.frames import PICTURES, Frame, Image, SourceInfo
from prunus.runtime.errors import SourceError, TensorError

# May hold 16-bit or float pixels, which must not be cut to 8 bits blindly.
_DEEP = (".tif", ".tiff")
_NUMBERED = re.compile(r"(?:COCO_[a-z-]+\d*_)?(\d{1,18})", re.ASCII)
# In a scan's data: a marker that is neither a stuffed byte, nor a restart, nor filling.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def read_picture(path: Path) -> Image:
    """Read a picture as uint8 (height, width, 3) BGR, upright by its EXIF orientation.

    Raises:
        SourceError: missing, empty, truncated, too large, not a picture, or with NaN pixels.
    """
    from prunus.runtime.pictures.crop import as_bgr8

    cv2 = load_cv2()
    data = _read_bytes(path)
    flags = cv2.IMREAD_UNCHANGED if path.suffix.lower() in _DEEP else cv2.IMREAD_COLOR
    try:
        with quiet_stderr():
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if "pixels" in str(error).lower() or "CV_IO_MAX_IMAGE" in str(error):
            raise SourceError(
                f"{path} has more than {MAX_PIXELS / 1e6:.0f} million pixels.",
                "Make it smaller first: a person needs a few hundred pixels.",
            ) from None
        raise _damaged(path, len(data)) from None
    if image is None or _ends_early(data):
        raise _damaged(path, len(data))
    try:
        return as_bgr8(image)
    except TensorError as error:
        raise SourceError(f"{path}: {error.message}", error.hint) from None


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise SourceError(
            f"Cannot read {path}: {reason}.", "Check the path and its rights."
        ) from None
    if not data:
        raise SourceError(f"{path} is empty (0 bytes).", "Copy the picture again.")
    return data


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


def _ends_early(data: bytes) -> bool:
    """Tell whether a JPEG lacks its end marker; its decoder fills the rest with grey, silently.

    The marker is looked for where the format has it: thumbnails have one of their own, and phones
    append a film to the picture.
    """
    if data[:2] != b"\xff\xd8":
        return False
    at = 2
    while (found := _MARKER.search(data, at)) is not None:
        marker, at = data[found.start() + 1], found.end()
        if marker == 0xD9:
            return False
        if marker not in (0x01, 0xD8):  # the others begin with their length
            at += int.from_bytes(data[at : at + 2], "big")
    return True


def _damaged(path: Path, size: int) -> SourceError:
    return SourceError(
        f"{path} is not a complete picture ({size} bytes): damaged, cut off or of another format.",
        f"Give one of {', '.join(PICTURES)}, or copy the file again.",
    )


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
