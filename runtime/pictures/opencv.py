"""OpenCV, imported late and kept quiet: its messages on stderr would bury our one clear line."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import MissingDependencyError
from prunus.runtime.limits import PICTURE_PIXELS

Image = npt.NDArray[np.uint8]

# A picture of this many pixels takes 400 MB as BGR; beyond it a decoder is more likely being
# attacked than used. OpenCV reads the limit once, when it is loaded.
MAX_PIXELS = PICTURE_PIXELS.most

_SETTINGS = {
    "OPENCV_LOG_LEVEL": "OFF",
    "OPENCV_FFMPEG_LOGLEVEL": "-8",
    "OPENCV_IO_MAX_IMAGE_PIXELS": str(MAX_PIXELS),
    # Without it every camera index that does not exist is tried on every driver.
    "OPENCV_VIDEOIO_PRIORITY_OBSENSOR": "0",
}
_OWN_LEVEL = "OPENCV_LOG_LEVEL" not in os.environ
_quietened: list[bool] = []
_stderr_lock = threading.Lock()


def load_cv2(purpose: str = "Reading and writing pictures") -> Any:
    """Import OpenCV with its own messages off; settings of the user's environment win.

    Raises:
        MissingDependencyError: it is not installed.
    """
    if not _quietened:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
    try:
        import cv2
    except ImportError:
        raise MissingDependencyError("cv2", "apps", purpose) from None
    if not _quietened:  # once: this is asked for with every crop
        _quietened.append(True)
        if _OWN_LEVEL:  # somebody may have loaded OpenCV before the variable was set
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    return cv2


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Silence the C libraries that write to file descriptor 2 (libjpeg, libpng) for a moment."""
    with _stderr_lock:
        try:
            saved = os.dup(2)
        except OSError:  # stderr is closed: nothing to silence
            yield
            return
        void = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(void, 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(void)
            os.close(saved)


def in_colours(image: Image, rgb: bool) -> Image:
    """Return a BGR picture, or a new one in RGB.

    Reversed by numpy, in steps of single bytes, the colours of a crop cost more than its warp.

    Args:
        image: uint8 (h, w, 3) BGR, no side of which is 0.
        rgb: Whether RGB is wanted.

    Raises:
        MissingDependencyError: OpenCV is not installed.
    """
    if not rgb:
        return image
    cv2 = load_cv2()
    swapped: Image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return swapped
