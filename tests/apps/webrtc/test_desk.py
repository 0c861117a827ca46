"""Offers of cameras: one is taken, others wait, and what is none gets one clear answer."""

import contextlib
import threading

import numpy as np
import pytest
from aiortc.rtcicetransport import RTCIceGatherer

from prunus.apps.webrtc import peer as peers
from prunus.apps.webrtc.desk import Desk
from prunus.apps.webrtc.ends import PeerCamera
from prunus.runtime.errors import HostError, UsageError
from prunus.runtime.pipeline.queue import END


@pytest.fixture
def desk():
    with contextlib.closing(Desk(sound=False)) as opened:
        opened.page = lambda: None
        yield opened


@pytest.fixture
def speaking():
    with contextlib.closing(Desk(sound=True)) as opened:
        opened.page = lambda: None
        yield opened


def test_a_camera_is_taken_and_its_pictures_come(desk, phone):
    one = phone()
    one.accept(desk.take({"sdp": one.offer()}))
    peer = desk.wait()
    pictures = peer.tap("video")
    first, second = pictures.get(), pictures.get()
    assert (first.frame.width, first.frame.height) == (160, 120)
    assert 0.0 < second.frame.time - first.frame.time < 1.0  # seconds, by RTP


def test_a_camera_of_odd_size_is_as_good(desk, phone):
    one = phone(lambda index: picture_of(161, 121))
    one.accept(desk.take({"sdp": one.offer()}))
    with contextlib.closing(PeerCamera(desk.wait())) as camera:
        frame = next(iter(camera))
    assert frame.image.shape == (121, 161, 3)
    np.testing.assert_allclose(frame.image[60, 160], (30, 120, 220), atol=12)


def picture_of(width, height):
    return np.full((height, width, 3), (30, 120, 220), np.uint8)


def test_others_wait_until_it_has_gone_and_who_comes_again_need_not(desk, phone):
    one, two = phone(), phone()
    one.accept(desk.take({"sdp": one.offer(), "camera": "one"}))
    first = desk.wait()
    offer = two.offer()
    with pytest.raises(HostError, match="Another camera is on"):
        desk.take({"sdp": offer, "camera": "two"})
    again = phone()
    again.accept(desk.take({"sdp": again.offer(), "camera": "one"}))
    assert first.gone and first.reason == "it came again"
    second = desk.wait()
    assert second.tap("video").get() is not END
    again.hang_up()
    while not second.gone:
        second.tap("video").get()
    two.accept(desk.take({"sdp": offer, "camera": "two"}))
    assert desk.wait().tap("video").get() is not END


def test_who_is_let_go_is_told_why(desk, phone):
    one = phone()
    one.accept(desk.take({"sdp": one.offer()}))
    peer = desk.wait()
    assert peer.tap("video").get() is not END
    peer.leave("enough")
    assert one.spoken.wait(20) and one.words == [{"ended": "enough"}]
    peer.close()
    assert peer.reason == "enough"


def test_a_camera_that_sends_nothing_is_let_go(desk, phone, monkeypatch):
    monkeypatch.setattr(peers, "PICTURE_S", 0.2)
    one = phone()
    desk.take({"sdp": one.offer()})  # the answer never reaches it
    peer = desk.wait()
    assert peer.tap("video").get() is END
    assert peer.gone and peer.reason == "no picture came for 0.2 s"


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({}, "an offer without a description"),
        ({"sdp": 3}, "an offer without a description"),
        ({"sdp": "v=0", "camera": "x" * 65}, "an offer without a description"),
        ({"sdp": ""}, "an offer"),
        ({"sdp": "hello"}, "an offer"),
        ({"sdp": "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\nm=video\r\n"}, "an offer"),
        ({"sdp": "\x00\ud800"}, "an offer"),
    ],
)
def test_what_is_no_offer_is_told_and_the_next_is_taken(desk, phone, message, said):
    with pytest.raises(UsageError) as caught:
        desk.take(message)
    assert said in caught.value.message and len(caught.value.message) < 250
    one = phone()
    desk.take({"sdp": one.offer()})
    assert not desk.wait().gone


def test_an_offer_that_is_cut_anywhere_gets_an_answer_or_one_error(desk, phone):
    whole = phone().offer()
    for part in range(1, 40):
        cut = whole[: len(whole) * part // 40]
        try:
            desk.take({"sdp": cut, "camera": "one"})
        except UsageError as error:
            assert "offer" in error.message
    desk.take({"sdp": whole, "camera": "one"})
    assert not desk.wait().gone


def test_the_camera_is_a_must_and_the_microphone_where_it_is_wanted(desk, speaking, phone):
    with pytest.raises(UsageError, match="an offer without a camera"):
        desk.take({"sdp": phone(camera=False, microphone=True).offer()})
    with pytest.raises(UsageError, match="an offer without a microphone"):
        speaking.take({"sdp": phone().offer()})
    answer = speaking.take({"sdp": phone(microphone=True).offer()})
    assert "m=audio" in answer["sdp"] and "a=sendrecv" in answer["sdp"]


def test_so_many_parts_and_no_more(desk, phone):
    offer = phone().offer()
    head, _, media = offer.partition("m=video")
    with pytest.raises(UsageError, match="the number of its parts is 7"):
        desk.take({"sdp": head + 6 * ("m=video" + media.partition("m=application")[0])
                   + "m=application" + media.partition("m=application")[2]})  # fmt: skip


def test_nothing_is_asked_of_servers_elsewhere(desk, phone, monkeypatch):
    asked = []
    monkeypatch.setattr(
        RTCIceGatherer, "getDefaultIceServers", classmethod(lambda cls: asked.append(cls) or [])
    )
    answer = desk.take({"sdp": phone().offer()})["sdp"]
    kinds = {line.split(" typ ")[1].split()[0] for line in answer.splitlines() if " typ " in line}
    assert kinds == {"host"} and not asked


def test_waiting_ends_when_a_camera_comes_and_a_closed_desk_takes_none(desk, phone):
    found = []
    waiter = threading.Thread(target=lambda: found.append(desk.wait()))
    waiter.start()
    one = phone()
    offer = one.offer()
    desk.take({"sdp": offer})
    waiter.join(20)
    assert len(found) == 1
    desk.close()
    desk.close()
    assert found[0].gone
    with pytest.raises(HostError, match="ends"):
        desk.take({"sdp": offer})
