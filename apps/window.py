"""A desktop window as sink."""

from __future__ import annotations

from prunus.apps.opencv import load_cv2
from prunus.apps.sinks import Stop
from prunus.apps.sources import Frame, Image
from prunus.runtime.errors import HostError

_END_KEYS = (27, ord("q"))


class WindowSink:
    """Show frames; q or Esc ends the run.

    Args:
        title: Of the window.

    Raises:
        HostError: this OpenCV was built without windows, or there is no display.
    """

    def __init__(self, title: str) -> None:
        self.name = "window:"
        self._title, self._cv2 = title, load_cv2("A window")
        try:
            self._cv2.namedWindow(title, self._cv2.WINDOW_NORMAL)
        except self._cv2.error:
            raise HostError(
                "This OpenCV cannot open windows (a headless build, or no display).",
                "Use --sink web:8080, or install opencv-python instead of its headless build.",
            ) from None
        self._open = True

    def write(self, frame: Frame, drawn: Image) -> None:
        """Show the frame and serve the window's events."""
        if not self._open:
            return
        self._cv2.imshow(self._title, drawn)
        if self._cv2.waitKey(1) & 0xFF in _END_KEYS:
            raise Stop

    def close(self) -> None:
        """Close the window."""
        if self._open:
            self._open = False
            self._cv2.destroyWindow(self._title)
