"""A browser as the ends of a run: times by RTP, sizes that change, sound with holes, the voice."""

import contextlib
import time

import numpy as np
import pytest

from prunus.apps.io.frames import SoundFormat
from prunus.apps.io.sinks.registry import open_sink
from prunus.apps.io.sinks.registry import resolve as resolve_sink
from prunus.apps.io.sources.av_frames import open_av_frames
from prunus.apps.io.sources.registry import open_source
from prunus.apps.webrtc.ends import PeerCamera, PeerMicrophone
from prunus.apps.webrtc.peer import VOICE_HZ, Peer
from prunus.runtime.errors import SourceError
from prunus.runtime.limits import Limit


@pytest.fixture
def peer():
    with contextlib.closing(Peer("somebody", lambda: "its page")) as opened:
        yield opened


def grey(value, width=64, height=48):
    return np.full((height, width, 3), value, np.uint8)


def frames_of(peer, *pictures, then="it went"):
    """Return the camera of a browser that sends these and goes, and its frames."""
    peer.rest = pictures[0]
    camera = PeerCamera(peer)
    tap = peer._taps["video"]
    tap.capacity = len(pictures)
    for one in pictures[1:]:
        tap.put(one)
    tap.close()
    return camera, list(camera)


def test_frames_have_the_times_of_their_stamps_not_of_their_arrival(peer, sent):
    picture, _ = sent
    # Each 40 ms; the third was held up by 50 ms, and the fourth came right behind it.
    late = (0.0, 0.0, 0.05, 0.012, 0.0)
    came = [picture(grey(k), 0.04 * k, 100.0 + 0.04 * k + late[k]) for k in range(5)]
    camera, frames = frames_of(peer, *came)
    assert (camera.info.width, camera.info.height, camera.info.live) == (64, 48, True)
    times = [frame.captured_ns / 1e9 for frame in frames]
    np.testing.assert_allclose(times, 100.0 + 0.04 * np.arange(5), atol=2e-4)
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]


def test_colours_and_odd_sizes_come_through(peer, sent):
    picture, _ = sent
    image = grey(0, 61, 47)
    image[:, 30:] = (30, 120, 220)
    camera, [frame] = frames_of(peer, picture(image, 0.0))
    assert frame.image.shape == (47, 61, 3) and camera.info.width == 61
    np.testing.assert_allclose(frame.image[20, 50], (30, 120, 220), atol=6)
    np.testing.assert_allclose(frame.image[20, 10], (0, 0, 0), atol=6)


def test_smaller_pictures_are_enlarged_and_a_turned_one_begins_the_next_run(peer, sent):
    picture, _ = sent
    came = [picture(grey(9), 0.0), picture(grey(80, 33, 24), 0.04),
            picture(grey(90, 48, 64), 0.08), picture(grey(99, 48, 64), 0.12)]  # fmt: skip
    camera, frames = frames_of(peer, *came)
    assert [frame.image.shape for frame in frames] == [(48, 64, 3)] * 2
    assert abs(int(frames[1].image[20, 20, 0]) - 80) <= 2
    assert peer.rest is came[2] and not peer.gone
    camera.close()
    again = PeerCamera(peer)
    assert (again.info.width, again.info.height) == (48, 64) and peer.rest is None


def test_a_picture_that_is_too_large_ends_it(peer, sent, monkeypatch):
    picture, _ = sent
    monkeypatch.setattr("prunus.apps.webrtc.ends.CAMERA_PIXELS", Limit("the size", 4000, "pixels"))
    with pytest.raises(SourceError, match="the size is 4800 pixels"):
        frames_of(peer, picture(grey(1, 60), 0.0), picture(grey(1, 100), 0.04))
    peer.rest = picture(grey(1, 100), 0.1)
    with pytest.raises(SourceError, match="the size is 4800 pixels"):
        PeerCamera(peer)
    assert peer.gone and "4800" in peer.reason


def test_decoding_that_falls_behind_for_good_ends_it(peer, sent):
    picture, _ = sent
    # Each picture takes twice its time: 3 s late at the 76th, and ten seconds later given up.
    came = [picture(grey(1, 4, 2), 0.04 * k, 100.0 + 0.08 * k) for k in range(400)]
    _, frames = frames_of(peer, *came)
    assert 180 <= len(frames) <= 215 and "late" in peer.reason


def test_a_moment_of_trouble_does_not(peer, sent):
    picture, _ = sent
    # The line stands still for six seconds, then everything comes at once, and goes on in time.
    came = [picture(grey(1, 4, 2), 0.04 * k, 100.0 + max(0.04 * k, 7.0 if k > 25 else 0.0))
            for k in range(800)]  # fmt: skip
    _, frames = frames_of(peer, *came)
    assert len(frames) == 800 and not peer.gone


def test_a_browser_that_goes_before_its_first_picture_is_one_error(peer):
    peer.leave("the browser ended it")
    with pytest.raises(SourceError, match="the browser ended it"):
        PeerCamera(peer)


def test_sources_and_sinks_are_found_by_the_name_of_a_browser(peer, sent):
    picture, _ = sent
    peer.rest = picture(grey(5), 0.0, time.perf_counter())
    with contextlib.closing(open_source(peer.uri)) as source:
        assert source.info.kind == "camera" and next(iter(source)).seconds == 0.0
    assert open_sink(peer.uri, source.info) == "its page"
    row = resolve_sink(f"voice:{peer.uri}", "av", "frames", "sound")
    assert row.items == "sound"
    peer.close()
    with pytest.raises(SourceError, match="There is no browser named webrtc:"):
        open_source(peer.uri)


def blocks_of(peer, size, came):
    microphone = PeerMicrophone(peer)
    tap = peer._taps["audio"]
    tap.capacity = len(came) + 1
    for one in came:
        tap.put(one)
    tap.close()
    return microphone, list(microphone.blocks(size))


def tone(begin, count, channels=2):
    one = 0.4 * np.sin(2 * np.pi * 200 * (begin + np.arange(count)) / VOICE_HZ)
    return np.tile(one, (channels, 1))


def test_sound_is_mono_in_blocks_and_what_was_lost_is_silence_without_a_click(peer, sent):
    _, sound = sent
    steps = [k for k in range(50) if k not in (20, 21)]  # two packets of 20 ms are lost
    came = [sound(tone(960 * k, 960), 0.02 * k) for k in steps]
    microphone, blocks = blocks_of(peer, 1920, came)
    assert {len(block) for block in blocks} == {1920} and len(blocks) == 25
    joined, wanted = np.concatenate(blocks), tone(0, 48000)[0]
    np.testing.assert_allclose(joined[: 20 * 960], wanted[: 20 * 960], atol=1e-3)
    np.testing.assert_allclose(joined[22 * 960 + 240 :], wanted[22 * 960 + 240 :], atol=1e-3)
    assert np.abs(joined[20 * 960 + 240 : 22 * 960]).max() == 0.0
    bend = np.abs(np.diff(joined, 2)).max() / np.abs(np.diff(wanted, 2)).max()
    assert bend < 5.0
    assert microphone.counts()["microphone_missing_ms"] == 40
    assert microphone.counts()["overflows"] == 0


def test_a_long_silence_is_not_made_up(peer, sent):
    _, sound = sent
    came = [sound(tone(0, 960), t) for t in (0.0, 0.02, 100.0, 100.02)]
    microphone, blocks = blocks_of(peer, 960, came)
    assert len(blocks) == 4 and microphone.counts()["overflows"] == 1


def test_telephone_codecs_come_at_the_same_rate(peer, sent):
    _, sound = sent
    quiet = 0.4 * np.sin(2 * np.pi * 200 * np.arange(1600) / 8000)[None]
    _, blocks = blocks_of(peer, 960, [sound(quiet, 0.0, rate=8000)])
    joined = np.concatenate(blocks)
    assert len(joined) == 9600
    np.testing.assert_allclose(joined[960:-960], tone(0, 9600)[0][960:-960], atol=0.02)


def test_camera_and_microphone_are_one_source_in_step(peer, sent):
    picture, sound = sent
    peer.rest = picture(grey(7), 0.0, time.perf_counter())
    with contextlib.closing(open_av_frames(f"{peer.uri}+{peer.uri}", 25, 16000)) as source:
        for k in range(25):
            peer._taps["audio"].put(sound(tone(960 * k, 960), 0.02 * k))
        first = next(iter(source))
        assert first.image.shape == (48, 64, 3) and len(first.sound) == 640
        assert first.sound.any() and first.fresh
        peer.leave("it went")


def test_the_voice_reaches_the_browser(peer):
    with contextlib.ExitStack() as stack:
        row = resolve_sink(f"voice:{peer.uri}", "sound")
        speaker = row.load()(f"voice:{peer.uri}", SoundFormat(16000, 0.04, live=True), stack)
        assert speaker.name == "the browser"
        rising = (0.5 * np.sin(2 * np.pi * 200 * np.arange(16000) / 16000)).astype(np.float32)
        speaker.write(rising)
        got = np.zeros(0)
        while np.abs(got).max(initial=0) < 0.45:  # as it comes, behind its 60 ms
            with peer.voice._moved:
                got = peer.voice._held.cut(960)
                peer.voice._moved.notify_all()
