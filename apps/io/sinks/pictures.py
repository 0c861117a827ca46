"""Pictures as sinks: one file, or a folder with one file per frame. Each file appears complete."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy.typing as npt

from prunus.apps.io.frames import Frame, Image, SourceInfo
from prunus.apps.io.sinks.registry import require_space
from prunus.runtime.card.artifact import atomic_path, write_error
from prunus.runtime.errors import SourceError
from prunus.runtime.pictures.opencv import load_cv2


def write_picture(path: Path, image: npt.NDArray[Any]) -> None:
    """Write a picture atomically in the format of its ending.

    Args:
        path: File with the ending of a picture format.
        image: uint8 (height, width, 3) BGR; for ``.png`` also uint8 or uint16 (height, width).

    Raises:
        SourceError: the folder cannot be written.
        HostError: the disk is full.
    """
    cv2 = load_cv2()
    try:
        done, data = cv2.imencode(path.suffix.lower(), image)
    except cv2.error as error:
        raise SourceError(f"Cannot encode {path}: {error.err}.", "Use .png or .jpg.") from None
    if not done:
        raise SourceError(f"Cannot encode {path} as {path.suffix}.", "Use .png or .jpg.")
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())


class PictureSink:
    """One picture file; every further frame replaces it.

    Args:
        path: File with the ending of a picture format.
    """

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._path = path
        _require_writable(path)

    def write(self, frame: Frame, drawn: Image) -> None:
        """Write the frame."""
        write_picture(self._path, drawn)

    def close(self) -> None:
        """Do nothing: each picture is complete when written."""


class FolderSink:
    """A folder that gets one picture per frame.

    Args:
        folder: Made when missing.
    """

    def __init__(self, folder: Path) -> None:
        self.name = str(folder)
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(error, folder) from None
        _require_writable(folder / "frame.png")

    def write(self, frame: Frame, drawn: Image) -> None:
        """Write the frame under the name that it had in the source, or under its number."""
        write_picture(self._folder / (frame.name or f"frame_{frame.index:06d}.jpg"), drawn)

    def close(self) -> None:
        """Do nothing: each picture is complete when written."""


def open_picture_sink(uri: str, info: SourceInfo) -> PictureSink:
    """Open a picture file as sink."""
    return PictureSink(Path(uri))


def open_folder_sink(uri: str, info: SourceInfo) -> FolderSink:
    """Open a folder as sink."""
    return FolderSink(Path(uri))


def _require_writable(path: Path) -> None:
    """Find out before the work starts, not after it, whether the result can be written."""
    if not path.absolute().parent.is_dir():
        raise write_error(FileNotFoundError(2, "No such file or directory"), path)
    try:
        handle, probe = tempfile.mkstemp(dir=path.absolute().parent)
        os.close(handle)
        os.unlink(probe)
    except OSError as error:
        raise write_error(error, path) from None
    require_space(path)
