"""How late a picture is shown by a live app: each frame carries a number, read after drawing.

The source draws the number of the frame as black and white cells along the lower edge, and keeps
when; the sink reads it off what the app has drawn. Between the two lies all that a frame goes
through but a camera and a screen. Through a browser, the sink is the page of ``web:``, and a script
in it reads the cells off its canvas whenever the browser is about to draw.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from prunus.apps.bench.browser import Browser
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
    from prunus.apps.web.server import WebSink

_BITS, _CHECK = 16, 4
_CELLS = 2 + _BITS + _CHECK  # a white and a black one come first: what counts as either
_RATE = 25
BROWSER = "browser"  # what --through says
_MORE_MS = {"memory": 10, BROWSER: 60}  # that a frame may take besides network and interval
_OURS = ("capture", "draw", "glass_to_glass")  # stages without a network
_PATIENCE_S = 30.0  # for the page to ask for pictures
_LAST_S = 0.5  # for the last picture to come onto the canvas
# Reports the time and the mean level of each cell, as `_levels`, once the cells have changed.
_SCRIPT = """(() => {
  let last = "";
  const look = () => {
    requestAnimationFrame(look);
    const now = performance.now(), view = document.getElementById("view");
    if (!view || view.dataset.frame === undefined) return;
    const side = Math.floor(view.width / CELLS), edge = Math.floor(side / 4);
    const inner = side - 2 * edge, width = side * CELLS;
    const { data } = view.getContext("2d")
      .getImageData(0, view.height - side + edge, width, inner);
    const levels = Array.from({ length: CELLS }, (_, k) => {
      let sum = 0;
      for (let y = 0; y < inner; y++)
        for (let x = k * side + edge; x < k * side + edge + inner; x++)
          for (let c = 0; c < 3; c++) sum += data[4 * (y * width + x) + c];
      return Math.round(sum / (3 * inner * inner));
    });
    if (last === (last = levels.join())) return;
    report(JSON.stringify([now, levels]));
  };
  requestAnimationFrame(look);
})()""".replace("CELLS", str(_CELLS))


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
    return _number_of(_levels(image))


def _levels(image: Image) -> list[float]:
    side = image.shape[1] // _CELLS
    inner = slice(side // 4, side - side // 4)
    row = image[-side:][inner].astype(np.float32).mean(axis=(0, 2))
    return [float(row[k * side : (k + 1) * side][inner].mean()) for k in range(_CELLS)]


def _number_of(cells: Sequence[float]) -> int | None:
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
        through: ``memory``, or ``browser``.
        frames: How many were shown to it.
        seen: How many of them came out and could be read.
        unreadable: How many came out and could not.
        p50_ms: Median from the frame's being there to its being drawn.
        p90_ms: 90th percentile.
        p99_ms: 99th percentile.
        networks_ms: Median of the stages that run networks, crops included.
        interval_ms: Between two frames.
        clock_error_ms: How wrong the browser's clock may be; 0 without one.
        stages_ms: Median of each stage, as the run tells.
        delays_ms: Of each frame.
    """

    model: str
    through: str
    frames: int
    seen: int
    unreadable: int
    p50_ms: float
    p90_ms: float
    p99_ms: float
    networks_ms: float
    interval_ms: float
    clock_error_ms: float
    stages_ms: dict[str, float]
    delays_ms: tuple[float, ...] = dataclasses.field(repr=False)

    @property
    def aim_ms(self) -> float:
        """What `p50_ms` should be at most: stages with networks, an interval, and a little."""
        return self.networks_ms + self.interval_ms + _MORE_MS[self.through]

    def to_text(self) -> str:
        """Return three lines."""
        stages = ", ".join(f"{name} {ms:.1f}" for name, ms in self.stages_ms.items())
        where = "drawn frame" if self.through != BROWSER else "canvas of a browser"
        clock = f" (clocks to {self.clock_error_ms:.1f} ms)" if self.clock_error_ms else ""
        told = "held" if self.p50_ms <= self.aim_ms else "not held"
        return (
            f"{self.model}: frame to {where} p50/p90/p99 {self.p50_ms:.1f}/{self.p90_ms:.1f}/"
            f"{self.p99_ms:.1f} ms{clock}; "
            f"{self.seen} of {self.frames} frames came out, {self.unreadable} unreadable\n"
            f"  stages with networks p50 {self.networks_ms:.1f} + interval {self.interval_ms:.1f}"
            f" + {_MORE_MS[self.through]} = {self.aim_ms:.1f} ms for p50: {told}\n"
            f"  median of stages, ms: {stages}"
        )


class Glass(Ends):
    """Both ends of one run.

    Args:
        frames: How many are shown, at 25 a second: the bundled portrait, moving.
        browser: Shows them; None: they are read as they were drawn.

    Attributes:
        shown: When each frame was there, by its number.
        delays: Seconds until each was drawn.
        unreadable: How many that were drawn could not be read.
    """

    scheme = "clock"

    def __init__(self, frames: int, browser: Browser | None = None) -> None:
        super().__init__()
        self.frames, self.browser = frames, browser
        self.page: WebSink | None = None
        self.shown: dict[int, float] = {}
        self.delays: list[float] = []
        self.unreadable = 0
        self._seen: set[int] = set()

    def see(self, number: int | None, now: float) -> None:
        """Note what was read, and when; only the first time of a number counts."""
        if number is None or number not in self.shown:
            self.unreadable += 1
        elif number not in self._seen:
            self._seen.add(number)
            self.delays.append(now - self.shown[number])

    def wait_for_page(self) -> None:
        """Wait until the page asks for pictures, then compare its clock with ours.

        Raises:
            CheckFailedError: it does not.
        """
        if self.browser is None or self.page is None:
            return
        until = time.monotonic() + _PATIENCE_S
        while not self.page.watched:
            if time.monotonic() > until:
                raise CheckFailedError(
                    f"The page asked for no picture within {_PATIENCE_S:.0f} s.",
                    "Measure on a machine with less to do.",
                )
            time.sleep(0.01)
        self.browser.read_clock()


class _Camera:
    def __init__(self, glass: Glass) -> None:
        self._source = open_synthetic(f"synthetic:640x480@{_RATE}*{glass.frames}")
        self._glass, self.info = glass, self._source.info
        self.warnings: list[str] = []

    def __iter__(self) -> Iterator[Frame]:
        self._glass.wait_for_page()
        for frame in self._source:
            draw_number(frame.image, frame.index)
            self._glass.shown[frame.index] = time.perf_counter()
            yield frame
        if self._glass.browser is not None:
            time.sleep(_LAST_S)  # the page would be told of the end

    def close(self) -> None:
        self._source.close()


class _Screen:
    def __init__(self, glass: Glass) -> None:
        self.name, self._glass = glass.uri, glass

    def write(self, frame: Frame, drawn: Image) -> None:
        self._glass.see(read_number(drawn), time.perf_counter())

    def close(self) -> None:
        """Nothing is held."""


def open_camera(uri: str) -> Source[Frame]:
    """Open the camera of a `Glass`."""
    return _Camera(Glass.of(uri))


def open_screen(uri: str, info: SourceInfo) -> Sink[Frame]:
    """Open the screen of a `Glass`: in memory, or the page that its browser shows."""
    glass = Glass.of(uri)
    if glass.browser is None:
        return _Screen(glass)
    from prunus.apps.web.server import open_web

    page: Any = open_web("0")
    glass.page = page
    glass.browser.open(page.name, _SCRIPT)
    return cast(Sink[Frame], page)


def measure_glass(
    model: str, compute: BackendChoice, seconds: float, through: str = ""
) -> PictureDelay:
    """Run the app of a model live between two ends, and measure.

    Args:
        model: Name or file of a network for pictures.
        compute: Where it runs.
        seconds: Length of the run.
        through: ``browser``: to the canvas of the page in Chromium; empty: to what is drawn.

    Raises:
        UsageError: a task whose app has no pictures, or another `through`.
        HostError: there is no Chromium.
        CheckFailedError: no frame came out that could be read.
    """
    path = find_model(model)
    task = read_card(path).task
    apps = {app.task: app for app in APPS if app.runner}  # those from picture to drawn picture
    if through not in ("", BROWSER) or task not in apps:
        raise UsageError(
            f"Got --through {through}." if task in apps else f"{model} is of the task '{task}'.",
            f"glass_to_glass measures {' and '.join(apps)}, in memory or --through {BROWSER}.",
        )
    app = apps[task]
    wanted: Any = load(app.options)
    names = {field.name for field in dataclasses.fields(wanted)}
    one = {"models": (str(path),)} if "models" in names else {"model": str(path)}
    reports: list[str] = []
    with ExitStack() as stack:
        browser = stack.enter_context(closing(Browser(reports.append))) if through else None
        glass = stack.enter_context(closing(Glass(max(1, round(seconds * _RATE)), browser)))
        options = wanted((glass.uri,), (glass.uri,), **one, compute=compute)
        run = load(app.run)(options, quiet=True)
    if browser is not None:
        for now, levels in map(json.loads, reports):
            glass.see(_number_of(levels), now / 1000 + browser.offset_s)
    times = 1000.0 * np.array(glass.delays)
    if not len(times):
        raise CheckFailedError(
            f"None of {len(glass.shown)} frames came out with a number that could be read.",
            "A changed background hides it; measure the overlay.",
        )
    p50, p90, p99 = (float(v) for v in np.percentile(times, (50, 90, 99)))
    stages = {name: ms for name, ms, _ in run.stages}
    return PictureDelay(
        model=run.model, through=through or "memory", frames=len(glass.shown), seen=len(times),
        unreadable=glass.unreadable, p50_ms=p50, p90_ms=p90, p99_ms=p99,
        networks_ms=sum(ms for name, ms in stages.items() if name not in _OURS),
        interval_ms=1000.0 / _RATE,
        clock_error_ms=0.0 if browser is None else 1000.0 * browser.error_s, stages_ms=stages,
        delays_ms=tuple(round(float(t), 2) for t in times),
    )  # fmt: skip
