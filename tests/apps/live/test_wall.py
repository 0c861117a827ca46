"""One page for several sources: all side by side, or the one that was chosen."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import pytest

from prunus.apps.io.frames import Frame
from prunus.apps.io.sinks.registry import Stop
from prunus.apps.live.controls import Controls
from prunus.apps.live.feeds import Feeds
from prunus.apps.live.pages import Page
from prunus.apps.live.wall import Walls
from prunus.apps.pose.options import PoseOptions
from prunus.runtime.errors import UsageError

WIDE, SQUARE = (40, 80), (40, 40)


@pytest.fixture
def wall(page):
    """Two sources of 80x40 and 40x40 pixels, the tiles of each on one page, and the controls."""
    with ExitStack() as stack:
        feeds = Feeds(("synthetic:80x40@0*1", "synthetic:40x40@0*1"), stack, quiet=True)
        walls = Walls(feeds)
        tiles = [walls.opener(feed)("web:1", feed.info) for feed in feeds.open]
        controls = Controls(PoseOptions(), {})
        controls.choose_among(feeds.names)
        for tile in tiles:
            tile.introduce({"model": "net", "source": "one of them"}, controls)
        yield feeds, walls, tiles, controls


def show(tile, size, value, shape=None, **facts):
    drawn = np.full((*size, 3), value, np.uint8)
    tile.tell(drawn // 2, {"facts": facts, "stages": {"infer": value}, "overlay": [shape or {}]})
    tile.write(Frame(0, drawn, "", 0), drawn)


def test_all_are_shown_side_by_side(wall, page):
    _, _, tiles, _ = wall
    assert all(isinstance(tile, Page) and tile.watched for tile in tiles)
    assert page.head["source"] == "synthetic-80x40-0-1, synthetic-40x40-0-1"
    show(tiles[0], WIDE, 200, {"box": [0, 0, 80, 40]}, Model="net", People="1")
    show(tiles[1], SQUARE, 100, {"box": [0, 0, 40, 40]}, Model="net", People="2")
    clean, data, drawn = page.told[1]
    assert drawn.shape == (40, 160, 3)
    assert (drawn[:, :80] == 200).all() and (drawn[:, 100:140] == 100).all()
    assert (drawn[:, 80:100] == drawn[0, 81]).all()  # grey beside what is narrower
    assert (clean[:, :80] == 100).all() and (clean[:, 100:140] == 50).all()
    assert data["overlay"] == [{"box": [0, 0, 80, 40]}, {"box": [100, 0, 140, 40]}]
    assert data["facts"] == {"Model": "net", "People": "1 | 2"}
    assert data["stages"] == {"infer": 100}
    assert (page.told[0][2][:, 80:] < 100).all()  # what was shown does not change later


def test_the_chosen_one_is_shown_alone(wall, page):
    feeds, _, tiles, controls = wall
    controls.set({"shown": feeds.names[1]})
    assert [tile.watched for tile in tiles] == [False, True]
    show(tiles[0], WIDE, 200)
    show(tiles[1], SQUARE, 100, {"id": 1}, People="2")
    [(clean, data, drawn)] = page.told
    assert drawn.shape == clean.shape == (40, 40, 3) and data["overlay"] == [{"id": 1}]
    with pytest.raises(UsageError, match="Unknown shown 'nobody'"):
        controls.set({"shown": "nobody"})


def test_without_one_clean_picture_there_is_none(wall, page):
    _, _, tiles, _ = wall
    show(tiles[0], WIDE, 200)
    tiles[1].tell(None, {"overlay": []})
    tiles[1].write(Frame(0, None, "", 0), np.full((*SQUARE, 3), 100, np.uint8))
    assert page.told[0][0] is not None and page.told[1][0] is None


def test_the_tile_of_a_source_that_ended_is_dim_and_the_page_stays_open(wall, page):
    _, _, tiles, _ = wall
    closed = []
    page.close = lambda: closed.append(True)
    show(tiles[0], WIDE, 200, {"box": [0, 0, 80, 40]})
    tiles[0].close()
    tiles[0].close()
    assert not closed
    show(tiles[1], SQUARE, 100)
    _, data, drawn = page.told[1]
    assert (drawn[:20, :80] <= 100).all() and (drawn[:, 100:140] == 100).all()
    assert data["overlay"] == [{}]
    tiles[1].close()
    assert closed == [True]


def test_another_source_that_ends_changes_nothing(wall, page):
    feeds, _, tiles, controls = wall
    controls.set({"shown": feeds.names[0]})
    tiles[1].close()
    assert controls["shown"] == feeds.names[0]
    tiles[0].close()  # the last one: nobody is left to look


def test_the_chosen_source_that_ends_gives_way_to_all(wall, page):
    feeds, _, tiles, controls = wall
    controls.set({"shown": feeds.names[0]})
    tiles[0].close()
    assert controls["shown"] == "all" and tiles[1].watched


def test_a_page_that_fails_fails_for_all(wall, page):
    _, _, tiles, _ = wall

    def fails(frame, drawn):
        raise Stop

    page.write = fails
    for tile, size in zip(tiles, (WIDE, SQUARE), strict=True):
        with pytest.raises(Stop):
            show(tile, size, 1)


def test_files_and_single_sources_have_sinks_of_their_own(wall, page):
    feeds, walls, _, _ = wall
    assert walls.opener(feeds.open[0])("null:", feeds.open[0].info).name == "null:"
    with ExitStack() as stack:
        feeds = Feeds(("synthetic:80x40@0*1",), stack, quiet=True)
        assert Walls(feeds).opener(feeds.open[0])("web:1", feeds.open[0].info) is page
