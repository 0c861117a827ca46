"""A picture of sound before and after a codec: two spectrograms, one above the other.

Memory stays constant: when the picture is full, neighbouring columns become one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.audio.reblock import Held
from prunus.runtime.card.artifact import atomic_path
from prunus.runtime.pictures.opencv import load_cv2

Audio = npt.NDArray[np.float32]
_COLUMNS = 1600  # kept at most
_WIDTH, _HEIGHT = 960, 220  # of one spectrogram, pixels
_LEFT, _TOP, _GAP = 60, 30, 46
_RANGE_DB = 80.0
_WINDOW_SECONDS, _HOP_SECONDS = 0.032, 0.01


class Spectrogram:
    """Power over time and frequency of sound that comes in pieces.

    Args:
        sample_rate_hz: Samples per second.

    Example:
        >>> spectrogram = Spectrogram(16000)
        >>> spectrogram.push(np.zeros(16000, np.float32))
        >>> spectrogram.decibels().shape
        (257, 97)
    """

    def __init__(self, sample_rate_hz: int) -> None:
        self.sample_rate_hz = sample_rate_hz
        self._window = int(2 ** np.round(np.log2(sample_rate_hz * _WINDOW_SECONDS)))
        self._hop = round(sample_rate_hz * _HOP_SECONDS)
        self._hann = np.hanning(self._window + 1)[:-1]
        self._held = Held()
        self._columns = np.zeros((self._window // 2 + 1, 0))
        self._pending: list[npt.NDArray[np.float64]] = []
        self._pool = 1  # analysis frames per column
        self.samples = 0

    @property
    def seconds(self) -> float:
        """Length of the sound."""
        return self.samples / self.sample_rate_hz

    def push(self, sound: Audio) -> None:
        """Take (T,) float32."""
        self.samples += len(sound)
        self._held.push(sound)
        count = (len(self._held) - self._window) // self._hop + 1
        if count < 1:
            return
        frames = np.lib.stride_tricks.sliding_window_view(self._held.items, self._window)
        frames = frames[:: self._hop][:count]
        power = np.abs(np.fft.rfft(frames * self._hann, axis=1)) ** 2
        self._held.forget(self._held.start + count * self._hop)
        for column in power:
            self._pending.append(column)
            if len(self._pending) == self._pool:
                self._add(np.mean(self._pending, axis=0))
                self._pending.clear()

    def decibels(self) -> npt.NDArray[np.float64]:
        """Return (bins, columns), low frequencies first; 0 dB is a sine at full scale."""
        full = (self._hann.sum() / 2.0) ** 2
        level: npt.NDArray[np.float64] = np.log10(np.maximum(self._columns / full, 1e-12))
        return 10.0 * level

    def _add(self, column: npt.NDArray[np.float64]) -> None:
        if self._columns.shape[1] >= _COLUMNS:
            pairs = self._columns.reshape(len(self._columns), -1, 2)
            self._columns = pairs.mean(axis=2)
            self._pool *= 2
        self._columns = np.concatenate((self._columns, column[:, None]), axis=1)


def draw(
    path: Path, before: Spectrogram, after: Spectrogram, titles: tuple[str, str]
) -> None:
    """Write a picture of both; the file appears when it is complete.

    Args:
        path: Target, ``.png`` or what else OpenCV writes.
        before: What went in.
        after: What came out.
        titles: Line above each.

    Raises:
        MissingDependencyError: OpenCV is not installed.
        PrunusError: the picture cannot be written.
    """
    cv2 = load_cv2("Drawing spectrograms")
    height = _TOP + 2 * _HEIGHT + _GAP + 40
    canvas = np.full((height, _LEFT + _WIDTH + 20, 3), 255, np.uint8)
    loudest = max((float(s.decibels().max()) for s in (before, after) if s.samples), default=0.0)
    for k, (spectrogram, title) in enumerate(zip((before, after), titles, strict=True)):
        top = _TOP + k * (_HEIGHT + _GAP)
        panel = _panel(cv2, spectrogram.decibels(), loudest)
        canvas[top : top + _HEIGHT, _LEFT : _LEFT + _WIDTH] = panel
        _write(cv2, canvas, title, _LEFT, top - 8)
        for kilohertz in range(0, spectrogram.sample_rate_hz // 2000 + 1, 2):
            share = 2000 * kilohertz / spectrogram.sample_rate_hz
            y = top + _HEIGHT - round(share * _HEIGHT)
            _write(cv2, canvas, f"{kilohertz} kHz", 4, min(y + 5, top + _HEIGHT))
    for k in range(5):
        label = f"{before.seconds * k / 4:.2f} s"
        x = _LEFT + k * _WIDTH // 4 - (40 if k == 4 else 0)
        _write(cv2, canvas, label, x, height - 18)
    with atomic_path(path) as temporary:
        if not cv2.imwrite(str(temporary), canvas):
            raise OSError(5, "the picture cannot be encoded", str(temporary))


def _panel(cv2: Any, decibels: npt.NDArray[np.float64], loudest: float) -> npt.NDArray[np.uint8]:
    """Return (height, width, 3) BGR, low frequencies at the bottom."""
    if not decibels.shape[1]:
        return np.zeros((_HEIGHT, _WIDTH, 3), np.uint8)
    shade = np.clip((decibels - loudest + _RANGE_DB) / _RANGE_DB, 0.0, 1.0)
    grey = (255 * shade[::-1]).astype(np.uint8)
    resized = cv2.resize(grey, (_WIDTH, _HEIGHT), interpolation=cv2.INTER_AREA)
    coloured: npt.NDArray[np.uint8] = cv2.applyColorMap(resized, cv2.COLORMAP_MAGMA)
    return coloured


def _write(cv2: Any, canvas: npt.NDArray[np.uint8], text: str, x: int, y: int) -> None:
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(canvas, text, (x, y), font, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
