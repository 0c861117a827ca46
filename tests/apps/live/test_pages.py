"""What pages among the sinks are told."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from prunus.apps.live.controls import Controls
from prunus.apps.live.pages import Page, Pages, card_facts, rounded, shown_source
from prunus.apps.pose.options import PoseOptions
from prunus.apps.web.server import WebSink
from prunus.models import zoo
from prunus.runtime.card.artifact import read_card
from prunus.runtime.card.tokens import TokenPlan

IMAGE = np.zeros((4, 6, 3), np.uint8)


def test_the_browser_sink_is_a_page(page):
    assert isinstance(page, Page) and not isinstance(object(), Page)
    assert all(hasattr(WebSink, name) for name in ("watched", "introduce", "tell"))


def test_nothing_is_made_that_nobody_watches(page):
    page.watched = False
    pages = Pages([page, object()], Controls(PoseOptions(), {}), "net", "a/b.mp4", {"more": 1})
    assert page.head == {"model": "net", "source": "b.mp4", "more": 1}
    assert pages.clean(IMAGE) is None
    pages.tell(None, {}, {}, lambda: pytest.fail("nobody watches"))
    page.watched = True
    copy = pages.clean(IMAGE)
    assert copy is not IMAGE and (copy == IMAGE).all()
    pages.tell(copy, {"People": 2}, {"infer": 1.23456}, lambda: [{"id": 1}])
    page.write(None, IMAGE)
    _, data, _ = page.told[0]
    assert data["facts"]["People"] == "2" and float(data["facts"]["Frames a second"]) > 0
    assert data["stages"] == {"infer": 1.23} and data["overlay"] == [{"id": 1}]


def test_without_a_clean_picture_there_are_no_shapes(page):
    pages = Pages([page], Controls(PoseOptions(), {}), "net", "0")
    pages.tell(None, {}, {}, lambda: pytest.fail("they would be drawn twice"))
    page.write(None, IMAGE)
    assert page.told[0][1]["overlay"] == []


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("0", "camera 0"), ("/dev/video1", "video1"), ("/home/me/street.mp4", "street.mp4"),
        ("rtsp://me:secret@camera:554/1?key=secret", "rtsp://me:***@camera:554/1"),
        ("http://camera/stream?token=secret", "http://camera/stream"),
        ("synthetic:640x480@25", "synthetic:640x480@25"), ("talk.mp4+mic:", "talk.mp4+mic:"),
    ],
)  # fmt: skip
def test_a_source_is_named_without_secrets(source, shown):
    assert shown_source(source) == shown


def test_numbers_are_always_json():
    assert json.dumps(rounded([[1.25, np.nan], [np.inf, -3.14]])) == "[[1.2, 0.0], [0.0, -3.1]]"


def test_what_a_network_keeps_is_told():
    card = read_card(zoo.model_path("movenet_lightning"))
    plain = {"Model": "movenet lightning", "Number format": "fp32"}
    assert card_facts(card) == plain
    plan = TokenPlan("L2", (2, 5), (120, 60), 192, 17, "cls", "zero", 300, 1000)
    assert card_facts(dataclasses.replace(card, tokens=plan)) == {
        **plain, "Level": "L2", "Tokens": "K 192 > 120 > 60", "Tokens kept": "31%",
        "Work": "30% of dense",
    }  # fmt: skip
    pooled = dataclasses.replace(plan, blocks=())
    assert "Tokens kept" not in card_facts(dataclasses.replace(card, tokens=pooled))
