"""How late a picture is shown by a live app: each frame carries a number, read after drawing.

The source draws the number of the frame as black and white cells along the lower edge, and keeps
when; the sink reads it off what the app has drawn. Between the two lies all that a frame goes
through but a camera and a screen.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from prunus.apps.common.model_files import find_model
from prunus.apps.io.ends import Ends
from prunus.apps.io.frames import Frame, Image, Sink, Source, SourceInfo
from prunus.apps.io.sources.synthetic import open_synthetic
from prunus.apps.registry import APPS
from prunus.runtime.card.artifact import read_card
from prunus.runtime.errors import CheckFailedError, UsageError
from prunus.runtime.references import load

if TYPE_CHECKING:
    from prunus.apps.common.options import BackendChoice

_BITS, _CHECK = 16, 4
_CELLS = 2 + _BITS + _CHECK  # a white and a black one come first: what counts as either
_RATE = 25


def draw_number(image: Image, number: int) -> None:
    """Draw a number below 2^16 into a picture, along its lower edge.

    Args:
        image: uint8 (height, width, 3), at least 132 pixels wide.
        number: What is drawn.
    """
    word = number | (_sum(number) << _BITS)
    bits = [1, 0, *((word >> k) & 1 for k in range(_BITS + _CHECK))]
    side = image.shape[1] // _CELLS
    for k, bit in enumerate(bits):
        image[-side:, k * side : (k + 1) * side] = 255 * bit


def read_number(image: Image) -> int | None:
    """Return the number that was drawn into a picture, None where it cannot be read for sure."""
    side = image.shape[1] // _CELLS
    inner = slice(side // 4, side - side // 4)
    row = image[-side:][inner].astype(np.float32).mean(axis=(0, 2))
    cells = [float(row[k * side : (k + 1) * side][inner].mean()) for k in range(_CELLS)]
    middle = (cells[0] + cells[1]) / 2
    if cells[0] - cells[1] < 32:
        return None
    word = sum(int(level > middle) << k for k, level in enumerate(cells[2:]))
    number = word & ((1 << _BITS) - 1)
    return number if word >> _BITS == _sum(number) else None


def _sum(number: int) -> int:
    return sum((number >> k) & 15 for k in range(0, _BITS, _CHECK)) * 7 % 16


@dataclass(frozen=True, slots=True)
class PictureDelay:
    """What one run of an app has measured.

    Attributes:
        model: What ran.
        frames: How many were shown to it.
        seen: How many of them came out and could be read.
        unreadable: How many came out and could not.
        p50_ms: Median from the frame's being there to its being drawn.
        p99_ms: 99th percentile.
        stages_ms: Median of each stage, as the run tells.
        delays_ms: Of each frame.
    """

    model: str
    frames: int
    seen: int
    unreadable: int
    p50_ms: float
    p99_ms: float
    stages_ms: dict[str, float]
    delays_ms: tuple[float, ...] = dataclasses.field(repr=False)

    def to_text(self) -> str:
        """Return two lines."""
        stages = ", ".join(f"{name} {ms:.1f}" for name, ms in self.stages_ms.items())
        return (
            f"{self.model}: frame to drawn frame p50/p99 {self.p50_ms:.1f}/{self.p99_ms:.1f} ms; "
            f"{self.seen} of {self.frames} frames came out, {self.unreadable} unreadable\n"
            f"  median of stages, ms: {stages}"
        )


class Glass(Ends):
    """Both ends of one run.

    Args:
        frames: How many are shown, at 25 a second: the bundled portrait, moving.

    Attributes:
        shown: When each frame was there, by its number.
        delays: Seconds until each was drawn.
        unreadable: How many that were drawn could not be read.
    """

    scheme = "clock"

    def __init__(self, frames: int) -> None:
        super().__init__()
        self.frames = frames
        self.shown: dict[int, float] = {}
        self.delays: list[float] = []
        self.unreadable = 0


class _Camera:
    def __init__(self, glass: Glass) -> None:
        self._source = open_synthetic(f"synthetic:640x480@{_RATE}*{glass.frames}")
        self._glass, self.info = glass, self._source.info
        self.warnings: list[str] = []

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._source:
            draw_number(frame.image, frame.index)
            self._glass.shown[frame.index] = time.perf_counter()
            yield frame

    def close(self) -> None:
        self._source.close()


class _Screen:
    def __init__(self, glass: Glass) -> None:
        self.name, self._glass = glass.uri, glass

    def write(self, frame: Frame, drawn: Image) -> None:
        now, number = time.perf_counter(), read_number(drawn)
        if number is None or number not in self._glass.shown:
            self._glass.unreadable += 1
        else:
            self._glass.delays.append(now - self._glass.shown[number])

    def close(self) -> None:
        """Nothing is held."""


def open_camera(uri: str) -> Source[Frame]:
    """Open the camera of a `Glass`."""
    return _Camera(Glass.of(uri))


def open_screen(uri: str, info: SourceInfo) -> Sink[Frame]:
    """Open the screen of a `Glass`."""
    return _Screen(Glass.of(uri))


def measure_glass(
    model: str, compute: BackendChoice, seconds: float, through: str = ""
) -> PictureDelay:
    """Run the app of a model live between two ends, and measure.

    Args:
        model: Name or file of a network for pictures.
        compute: Where it runs.
        seconds: Length of the run.
        through: Nothing: for sound alone.

    Raises:
        UsageError: a task whose app has no pictures, or `through`.
        CheckFailedError: no frame came out that could be read.
    """
    path = find_model(model)
    task = read_card(path).task
    apps = {app.task: app for app in APPS if app.runner}  # those from picture to drawn picture
    if through or task not in apps:
        raise UsageError(
            f"Got --through {through}." if through else f"{model} is of the task '{task}'.",
            f"glass_to_glass measures {' and '.join(apps)}, in memory.",
        )
    app = apps[task]
    wanted: Any = load(app.options)
    names = {field.name for field in dataclasses.fields(wanted)}
    one = {"models": (str(path),)} if "models" in names else {"model": str(path)}
    with closing(Glass(max(1, round(seconds * _RATE)))) as glass:
        options = wanted((glass.uri,), (glass.uri,), **one, compute=compute)
        run = load(app.run)(options, quiet=True)
    times = 1000.0 * np.array(glass.delays)
    if not len(times):
        raise CheckFailedError(
            f"None of {len(glass.shown)} frames came out with a number that could be read.",
            "A changed background hides it; measure the overlay.",
        )
    return PictureDelay(
        model=run.model, frames=len(glass.shown), seen=len(times), unreadable=glass.unreadable,
        p50_ms=float(np.median(times)), p99_ms=float(np.percentile(times, 99)),
        stages_ms={name: p50 for name, p50, _ in run.stages},
        delays_ms=tuple(round(float(t), 2) for t in times),
    )  # fmt: skip
