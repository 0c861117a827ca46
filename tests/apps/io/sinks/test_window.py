"""The desktop window with a fake OpenCV: keys and clicks reach whoever listens."""

import numpy as np
import pytest

from prunus.apps.io.sinks import window
from prunus.apps.io.sinks.registry import Stop
from prunus.apps.io.sinks.window import WindowSink
from prunus.apps.io.sources.registry import Frame


class _OpenCV:
    error = RuntimeError
    WINDOW_NORMAL, EVENT_LBUTTONDOWN = 0, 1

    def __init__(self) -> None:
        self.keys: list[int] = []
        self.mouse = None

    def namedWindow(self, *_: object) -> None:  # noqa: N802
        pass

    def setMouseCallback(self, title: str, callback) -> None:  # noqa: N802
        self.mouse = callback

    def imshow(self, *_: object) -> None:
        pass

    def waitKey(self, _: int) -> int:  # noqa: N802
        return self.keys.pop(0) if self.keys else -1

    def destroyWindow(self, _: str) -> None:  # noqa: N802
        pass


@pytest.fixture
def opencv(monkeypatch: pytest.MonkeyPatch) -> _OpenCV:
    fake = _OpenCV()
    monkeypatch.setattr(window, "load_cv2", lambda *_: fake)
    return fake


def test_keys_and_clicks_are_handed_on_and_q_ends(opencv: _OpenCV) -> None:
    sink = WindowSink("test")
    image = np.zeros((4, 4, 3), np.uint8)
    frame = Frame(0, image, "", 0)
    sink.write(frame, image)  # nobody listens, no key
    keys: list[int] = []
    clicks: list[tuple[int, int]] = []
    sink.on_key, sink.on_click = keys.append, lambda x, y: clicks.append((x, y))
    opencv.keys = [ord("2"), ord("q")]
    sink.write(frame, image)
    opencv.mouse(opencv.EVENT_LBUTTONDOWN, 3, 7, 0, None)
    opencv.mouse(99, 1, 1, 0, None)
    assert keys == [ord("2")] and clicks == [(3, 7)]
    with pytest.raises(Stop):
        sink.write(frame, image)
    sink.close()
