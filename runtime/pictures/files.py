"""Picture files: read whole, or refused by name.

Decoders fill what a cut file lacks with grey and say nothing, or kill the process over a declared
size. Everything that reads a picture of the user's comes through here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import SourceError, TensorError
from prunus.runtime.pictures.crop import as_bgr8
from prunus.runtime.pictures.opencv import MAX_PIXELS, load_cv2, quiet_stderr

Image = npt.NDArray[np.uint8]
PICTURES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
# May hold 16-bit or float pixels, which must not be cut to 8 bits blindly.
_DEEP = (".tif", ".tiff")
# In a scan's data: a marker that is neither a stuffed byte, nor a restart, nor filling.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def read_picture(path: Path) -> Image:
    """Read a picture as uint8 (height, width, 3) BGR, upright by its EXIF orientation.

    Raises:
        SourceError: missing, empty, truncated, too large, not a picture, or with NaN pixels.
    """
    return picture_of(read_bytes(path), path)


def picture_of(data: bytes, path: Path) -> Image:
    """Return the bytes of a picture file as `read_picture` does; `path` is for messages."""
    image = decode(data, path, as_is=path.suffix.lower() in _DEEP)
    if image is None or _ends_early(data):
        raise _damaged(path, len(data))
    try:
        return as_bgr8(image)
    except TensorError as error:
        raise SourceError(f"{path}: {error.message}", error.hint) from None


def decode(data: bytes, path: Path, *, as_is: bool) -> npt.NDArray[Any] | None:
    """Return the pixels of a file's bytes, BGR where it has colours; None where it is damaged.

    Args:
        data: The bytes.
        path: For messages.
        as_is: Keep depth and channels; otherwise 8 bits and three channels.

    Raises:
        SourceError: it declares more pixels than permitted.
    """
    cv2 = load_cv2()
    flags = cv2.IMREAD_UNCHANGED if as_is else cv2.IMREAD_COLOR
    try:
        with quiet_stderr():
            pixels: npt.NDArray[Any] | None = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if "pixels" in str(error).lower() or "CV_IO_MAX_IMAGE" in str(error):
            raise SourceError(
                f"{path} has more than {MAX_PIXELS / 1e6:.0f} million pixels.",
                "Make it smaller first: a person needs a few hundred pixels.",
            ) from None
        return None
    return pixels


def read_bytes(path: Path) -> bytes:
    """Return what a file holds; raises SourceError when it cannot be read or is empty."""
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
