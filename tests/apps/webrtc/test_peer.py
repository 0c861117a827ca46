"""What a browser hears: 20 ms at a time, in time, and silence where nothing comes."""

import asyncio
import time

import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError

from prunus.apps.webrtc.peer import VOICE_HZ, Peer, Voice
from prunus.runtime.pipeline.queue import END


def heard(voice, count):
    async def listen():
        return [await voice.recv() for _ in range(count)]

    return asyncio.run(listen())


def test_a_voice_is_sent_in_packets_and_silence_fills_them():
    voice = Voice()
    sound = np.linspace(-0.5, 0.5, 1440, dtype=np.float32)
    voice.put(sound)
    frames = heard(voice, 3)
    assert [frame.pts for frame in frames] == [0, 960, 1920]
    assert {(frame.samples, frame.sample_rate) for frame in frames} == {(960, VOICE_HZ)}
    joined = np.concatenate([frame.to_ndarray()[0] for frame in frames]) / 32767
    np.testing.assert_allclose(joined[:1440], sound, atol=1e-4)
    assert not joined[1440:].any()
    assert voice.underflows == 1


def test_packets_keep_the_time_of_the_clock():
    begun = time.perf_counter()
    heard(Voice(), 6)
    assert time.perf_counter() - begun >= 0.1  # the first comes at once


def test_a_voice_that_nobody_takes_is_not_kept():
    voice = Voice()
    for _ in range(3):
        voice.put(np.ones(VOICE_HZ, np.float32))
    assert len(voice._held) <= 9600


def test_a_voice_that_has_ended_is_over():
    voice = Voice()
    voice.stop()
    with pytest.raises(MediaStreamError):
        heard(voice, 1)


def test_a_browser_that_goes_ends_all_that_is_taken_from_it_once():
    told = []
    peer = Peer("somebody", lambda: None, lambda: told.append(1))
    pictures, sounds = peer.tap("video"), peer.tap("audio")
    peer.leave("it went")
    peer.leave("it went again")
    peer.close()
    assert pictures.get() is END and sounds.get() is END and peer.tap("video").get() is END
    assert peer.reason == "it went" and told == [1]


def test_the_newest_picture_replaces_what_nobody_takes():
    peer = Peer("somebody", lambda: None)
    pictures = peer.tap("video")
    for number in range(10):
        pictures.put(number)
    assert pictures.get() >= 8 and pictures.dropped == 8
    peer.close()
