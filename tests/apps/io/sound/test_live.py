"""Threads between devices and programs: lengths, gaps, ends."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from prunus.apps.io.frames import SoundFormat
from prunus.apps.io.sound.live import Recorder, SteadySpeaker
from prunus.runtime.errors import SourceError

RATE = 16_000


class _Microphone:
    sample_rate_hz = 48_000

    def __init__(self, blocks: list[np.ndarray], error: Exception | None = None) -> None:
        self._blocks, self._error = blocks, error
        self.closed = False

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        yield from self._blocks
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        self.closed = True


def test_a_recorder_gives_pieces_of_any_length_at_the_wanted_rate() -> None:
    sound = np.sin(np.arange(48_000) / 20).astype(np.float32)
    microphone = _Microphone(list(sound.reshape(-1, 480)))
    recorder = Recorder(microphone, RATE, 480)
    pieces = [recorder.take(640) for _ in range(24)]
    assert all(len(p) == 640 for p in pieces)
    assert recorder.take(3200) is None  # it has ended, and less than that is left
    recorder.close()
    assert microphone.closed
    middle = np.concatenate(pieces)[2000:12_000]
    assert np.abs(middle).max() == pytest.approx(1, abs=0.01)


def test_a_recorder_drops_the_oldest_and_counts_it() -> None:
    microphone = _Microphone([np.full(4800, k, np.float32) for k in range(30)])
    recorder = Recorder(microphone, RATE, 480, seconds=1.0)
    recorder._thread.join(10)
    first = recorder.take(640)
    assert recorder.late > 0
    assert first is not None and first[-1] > 15
    assert recorder.late + recorder.waiting + 640 == pytest.approx(48_000, abs=50)


@pytest.mark.parametrize("held", [0.0, 1000.0])
def test_what_a_microphone_holds_back_is_as_old_as_it_says(held) -> None:
    microphone = _Microphone([np.ones(4800, np.float32)])
    microphone.held_s = held
    recorder = Recorder(microphone, RATE, 480)
    begun = time.perf_counter()
    assert recorder.take(640) is not None
    assert held - 1.0 < begun - recorder.taken_until < held + 500.0


def test_a_lost_microphone_is_told_after_what_it_gave() -> None:
    lost = SourceError("The microphone was lost.")
    recorder = Recorder(_Microphone([np.ones(4800, np.float32)], lost), RATE, 480)
    assert recorder.take(640) is not None
    with pytest.raises(SourceError, match="lost"):
        recorder.take(16_000)


class _Loudspeaker:
    name = "fake"

    def __init__(self, room: int) -> None:
        self.heard: list[np.ndarray] = []
        self.finished = self.closed = False
        self._room = threading.Semaphore(room)

    def write(self, sound: np.ndarray) -> None:
        if not self._room.acquire(timeout=5):
            return
        self.heard.append(sound)

    def more(self, blocks: int) -> None:
        self._room.release(blocks)

    def finish(self, samples: int | None) -> None:
        self.finished = True

    def close(self) -> None:
        self.closed = True


def test_a_steady_speaker_tells_of_a_device_that_has_gone() -> None:
    class Gone(_Loudspeaker):
        def write(self, sound: np.ndarray) -> None:
            raise SourceError("The speaker was lost.")

    loudspeaker = Gone(0)
    speaker = SteadySpeaker(loudspeaker, SoundFormat(RATE, 0.02, live=True))
    with pytest.raises(SourceError, match="lost"):  # whether or not anything was written since
        speaker.finish(None)
    speaker.close()
    assert loudspeaker.closed and not loudspeaker.finished


def test_a_steady_speaker_plays_everything_and_never_makes_its_writer_wait() -> None:
    loudspeaker = _Loudspeaker(0)
    speaker = SteadySpeaker(loudspeaker, SoundFormat(RATE, 0.02, live=True), 0.02)
    for _ in range(10):
        speaker.write(np.full(640, 2.0, np.float32))  # too loud: it is limited
    loudspeaker.more(1000)
    speaker.finish(None)
    speaker.close()
    played = np.concatenate(loudspeaker.heard)
    assert loudspeaker.finished and loudspeaker.closed
    assert played.max() == 1.0
    assert (played > 0.0).sum() == pytest.approx(6400, rel=0.01)  # both ends are faded


def test_sound_that_was_dropped_leaves_no_click_behind() -> None:
    tone = np.sin(2 * np.pi * 200 * np.arange(48_000 * 3) / 48_000).astype(np.float32)
    recorder = Recorder(_Microphone(np.split(tone, 150)), RATE, 960, seconds=1.003)
    recorder._thread.join(10)
    assert recorder.counts()["microphone_dropped_ms"] > 1900
    sound = recorder.take(8_000)
    assert np.abs(sound).max() == pytest.approx(1.0, abs=0.01)
    assert np.abs(np.diff(sound, 2)).max() < 5 * (2 * np.pi * 200 / RATE) ** 2
