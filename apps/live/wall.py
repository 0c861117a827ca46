"""One page or window for several sources: all of them side by side, or the one that is chosen.

Pictures keep their shape and are scaled into tiles of one size; what a page draws itself is scaled
with them. The tile of a source that has ended says so.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from prunus.apps.io.frames import Frame, Image, Sink, SourceInfo
from prunus.apps.io.rows import named
from prunus.apps.io.sinks.registry import SINKS, Stop, open_sink
from prunus.apps.live.controls import ALL, SHOWN, Controls
from prunus.apps.live.feeds import Feed, Feeds
from prunus.apps.live.pages import Page
from prunus.apps.pose.overlay import draw_panel
from prunus.runtime.errors import PrunusError
from prunus.runtime.pictures.opencv import load_cv2

_WIDEST = 1280  # pixels of all columns together; tiles are not enlarged
_GREY = 48


class Walls:
    """Opens the sinks of the sources of a run: what is no file is opened once, for all.

    Args:
        feeds: The sources.
    """

    def __init__(self, feeds: Feeds) -> None:
        self._feeds = feeds
        self._walls: dict[str, _Wall] = {}

    def opener(self, feed: Feed) -> Any:
        """Return what opens the sinks of one source, as `open_sink` does."""

        def opened(uri: str, info: SourceInfo) -> Sink[Frame]:
            row = named(SINKS, uri, "frames")
            if self._feeds.alone or row is None or row.scheme in ("", "null"):
                return open_sink(uri, info)
            if uri not in self._walls:
                self._walls[uri] = _Wall(uri, self._feeds)
            wall = self._walls[uri]
            kind = _PageTile if isinstance(wall.sink, Page) else _Tile
            return kind(wall, feed)

        return opened


class _Wall:
    """A sink that several sources share."""

    def __init__(self, uri: str, feeds: Feeds) -> None:
        infos = [feed.info for feed in feeds.open]
        self.columns = math.ceil(math.sqrt(len(infos)))
        rows = -(-len(infos) // self.columns)
        scale = min(1.0, _WIDEST / self.columns / max(info.width for info in infos))
        self.size = (
            max(round(scale * max(info.height for info in infos)), 1),
            max(round(scale * max(info.width for info in infos)), 1),
        )
        shape = (rows * self.size[0], self.columns * self.size[1], 3)
        info = dataclasses.replace(infos[0], width=shape[1], height=shape[0], frames=0, sound="")
        self.sink: Sink[Frame] = open_sink(uri, info)
        self.names = feeds.names
        self.controls: Controls | None = None
        self.pictures = {clean: np.full(shape, _GREY, np.uint8) for clean in (False, True)}
        self.told: dict[int, dict[str, Any]] = {}  # of each tile: its latest data
        self.plain: set[int] = set()  # tiles that have a picture without drawing
        self.left = set(range(len(infos)))
        self.failed: BaseException | None = None

    @property
    def shown(self) -> str:
        return ALL if self.controls is None else str(self.controls[SHOWN])

    def introduce(self, head: Mapping[str, Any], controls: Controls) -> None:
        if self.controls is None and isinstance(self.sink, Page):
            self.controls = controls
            self.sink.introduce({**head, "source": ", ".join(self.names)}, controls)

    def write(
        self, feed: Feed, frame: Frame, drawn: Image, clean: Image | None, data: Mapping[str, Any]
    ) -> None:
        """Show what became of a frame, alone or among the latest ones of the others."""
        if self.failed is not None:  # it went with the tile of another source
            raise self.failed
        shown = self.shown
        if shown not in (ALL, feed.name):
            return
        try:
            if shown == ALL:
                scale, left, top = self._paint(feed.number, feed.name, drawn, clean)
                shapes = [moved(s, scale, left, top) for s in data.get("overlay", ())]
                self.told[feed.number] = {**data, "overlay": shapes}
                every = clean is not None and self.plain >= self.told.keys()
                drawn = self.pictures[False].copy()
                clean = self.pictures[True].copy() if every else None
                data = together([self.told[k] for k in sorted(self.told)], self.told[feed.number])
            if isinstance(self.sink, Page):
                self.sink.tell(clean, data)
            self.sink.write(frame, drawn)
        except (Stop, PrunusError, OSError) as error:
            self.failed = error
            raise

    def leave(self, feed: Feed) -> None:
        """Mark the tile of a source that has ended; the last one closes the sink."""
        self.left.discard(feed.number)
        if not self.left:
            self.sink.close()
            return
        if self.controls is not None and self.shown == feed.name:
            self.controls.set({SHOWN: ALL})  # nothing more would come
        top, left = self._corner(feed.number)
        for picture in self.pictures.values():
            tile = picture[top : top + self.size[0], left : left + self.size[1]]
            tile //= 2
            draw_panel(tile, [f"{feed.name}: ended"], bottom=True)
        if feed.number in self.told:
            self.told[feed.number]["overlay"] = []

    def _paint(
        self, number: int, name: str, drawn: Image, clean: Image | None
    ) -> tuple[float, int, int]:
        """Put a picture into its tile; return its scale and where it begins."""
        cv2 = load_cv2()
        height, width = drawn.shape[:2]
        scale = min(self.size[0] / height, self.size[1] / width)
        size = max(round(scale * width), 1), max(round(scale * height), 1)
        top, left = self._corner(number)
        if clean is None:
            self.plain.discard(number)
        else:
            self.plain.add(number)
        inner = (self.size[1] - size[0]) // 2, (self.size[0] - size[1]) // 2
        for plain, image in ((False, drawn), (True, clean)):
            if image is not None:
                tile = self.pictures[plain][top : top + self.size[0], left : left + self.size[1]]
                tile[:] = _GREY
                tile[inner[1] : inner[1] + size[1], inner[0] : inner[0] + size[0]] = cv2.resize(
                    image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
                )
                draw_panel(tile, [name], bottom=True)
        return scale, left + inner[0], top + inner[1]

    def _corner(self, number: int) -> tuple[int, int]:
        row, column = divmod(number, self.columns)
        return row * self.size[0], column * self.size[1]


class _Tile:
    """The place of one source."""

    def __init__(self, wall: _Wall, feed: Feed) -> None:
        self.name, self._wall, self._feed = wall.sink.name, wall, feed
        self._told: tuple[Image | None, Mapping[str, Any]] = (None, {})
        self._closed = False

    def write(self, frame: Frame, drawn: Image) -> None:
        """Show a frame."""
        told, self._told = self._told, (None, {})
        self._wall.write(self._feed, frame, drawn, *told)

    def close(self) -> None:
        """Leave the place."""
        if not self._closed:
            self._closed = True
            self._wall.leave(self._feed)


class _PageTile(_Tile):
    """The place of one source on a page."""

    @property
    def watched(self) -> bool:
        """Whether anybody looks at it."""
        sink = self._wall.sink
        shown = self._wall.shown in (ALL, self._feed.name)
        return shown and isinstance(sink, Page) and sink.watched

    def introduce(self, head: Mapping[str, Any], controls: Controls) -> None:
        """Take what holds for the whole run."""
        self._wall.introduce(head, controls)

    def tell(self, clean: Image | None, data: Mapping[str, Any]) -> None:
        """Take what goes with the frame that is written next."""
        self._told = (clean, data)


def moved(shape: Mapping[str, Any], scale: float, left: float, top: float) -> dict[str, Any]:
    """Return a shape of a page, scaled and then moved.

    >>> moved({"id": 1, "box": [0, 0, 4, 8], "joints": [[2, 2, 0.5]]}, 0.5, 10, 0)
    {'id': 1, 'box': [10.0, 0.0, 12.0, 4.0], 'joints': [[11.0, 1.0, 0.5]]}
    """

    def line(values: Any) -> list[float]:
        return [round(scale * v + (top if k % 2 else left), 1) for k, v in enumerate(values)]

    found = dict(shape)
    if "box" in found:
        found["box"] = line(found["box"])
    if "joints" in found:
        found["joints"] = [[*line(joint[:2]), *joint[2:]] for joint in found["joints"]]
    if "rings" in found:
        found["rings"] = [line(ring) for ring in found["rings"]]
    return found


def together(tiles: list[dict[str, Any]], newest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the data of all tiles as those of one picture.

    Facts that differ stand side by side, and so do counts, which would read as a sum.

    >>> tiles = [{"facts": {"Model": "a", "People": "2"}}, {"facts": {"Model": "a", "People": "2"}}]
    >>> together(tiles, tiles[1])["facts"]
    {'Model': 'a', 'People': '2 | 2'}
    """
    facts: dict[str, list[str]] = {}
    for tile in tiles:
        for label, text in tile.get("facts", {}).items():
            facts.setdefault(label, []).append(text)
    return {
        "facts": {
            label: " | ".join(v) if len(set(v)) > 1 or v[0].isdigit() else v[0]
            for label, v in facts.items()
        },
        "stages": newest.get("stages", {}),
        "overlay": [shape for tile in tiles for shape in tile.get("overlay", ())],
    }
