"""A desktop window as sink."""

from __future__ import annotations

from collections.abc import Callable

from prunus.apps.io.frames import Frame, Image, SourceInfo
from prunus.apps.io.sinks.registry import Stop
from prunus.runtime.errors import HostError
from prunus.runtime.pictures.opencv import load_cv2

_END_KEYS = (27, ord("q"))
_NO_KEY = 255


class WindowSink:
    """Show frames; q or Esc ends the run.

    Args:
        title: Of the window.

    Raises:
        HostError: this OpenCV was built without windows, or there is no display.
    """

    def __init__(self, title: str) -> None:
        self.name = "window:"
        self.on_key: Callable[[int], None] | None = None  # gets the code of a key
        self.on_click: Callable[[int, int], None] | None = None  # gets a pixel's column and row
        self._title, self._cv2 = title, load_cv2("A window")
        try:
            self._cv2.namedWindow(title, self._cv2.WINDOW_NORMAL)
        except self._cv2.error:
            raise HostError(
                "This OpenCV cannot open windows (a headless build, or no display).",
                "Use --sink web:8080, or install opencv-python instead of its headless build.",
            ) from None
        self._open = True
        self._cv2.setMouseCallback(title, self._mouse)

    def _mouse(self, event: int, x: int, y: int, flags: int, extra: object) -> None:
        if event == self._cv2.EVENT_LBUTTONDOWN and self.on_click is not None:
            self.on_click(x, y)

    def write(self, frame: Frame, drawn: Image) -> None:
        """Show the frame and serve the window's events."""
        if not self._open:
            return
        self._cv2.imshow(self._title, drawn)
        key = self._cv2.waitKey(1) & 0xFF
        if key in _END_KEYS:
            raise Stop
        if key != _NO_KEY and self.on_key is not None:
            self.on_key(key)

    def close(self) -> None:
        """Close the window."""
        if self._open:
            self._open = False
            self._cv2.destroyWindow(self._title)


def open_window(uri: str, info: SourceInfo) -> WindowSink:
    """Open ``window:`` or ``window:TITLE``."""
    return WindowSink(uri.partition(":")[2] or "prunus")
