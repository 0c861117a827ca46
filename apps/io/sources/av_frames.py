"""Picture and sound in step: an AV frame is a picture and the sound until the next.

The sound is the clock: an AV frame has a constant number of samples, whatever the pictures do. For
each the latest picture is taken, so a slow or uneven camera repeats pictures and a fast one skips
some; nothing drifts, because both are placed by their time stamps.

========================  ==========================================================
``clip.mp4``              a clip with sound
``clip.mp4+speech.wav``   a clip whose sound is in another file
``0+mic:``                a camera and the microphone; ``mic:NAME`` for another one
========================  ==========================================================
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from prunus.apps.io.frames import (
    Audio,
    AVFrame,
    Frame,
    Image,
    SoundFormat,
    SoundSource,
    Source,
    SourceInfo,
)
from prunus.apps.io.rows import by_suffix, named
from prunus.apps.io.sound.live import Recorder
from prunus.apps.io.sources.clip import CLIPS, Clip
from prunus.apps.io.sources.registry import SOURCES, open_source, resolve
from prunus.apps.io.timeline import joined
from prunus.runtime.audio.files import SoundReader
from prunus.runtime.audio.reblock import Held
from prunus.runtime.audio.resample import Resampler
from prunus.runtime.errors import SourceError, UsageError
from prunus.runtime.pictures.files import PICTURES

_UNEVEN = 1.6  # ratio of long to short frame intervals from which a rate is called variable
_LENGTHS = 0.2  # seconds by which picture and sound may differ in length without a note
# Read at once from a microphone: the resampler holds sound back, and a step would wait for more.
_READ_SECONDS = 0.01
_PICTURES = 32  # of a camera that wait for their sound
_SOUNDS = (".wav", ".flac", ".ogg", ".aif", ".aiff")


def open_av_frames(
    uri: str, fps: int, sample_rate_hz: int, *, reconnect: bool = True
) -> Source[AVFrame]:
    """Open what a URI names (see the table in the module docstring).

    Args:
        uri: Source of pictures and sound.
        fps: AV frames per second.
        sample_rate_hz: Of the sound that comes out; a multiple of `fps`.
        reconnect: Open a network camera again when it breaks off.

    Raises:
        SourceError: nothing there, no picture, or no sound.
        HostError: no microphone.
        MissingDependencyError: a package is missing.
    """
    pictures, sound = _parts(uri)
    suffix = Path(pictures).suffix.lower()
    if not sound and suffix not in (*CLIPS, *PICTURES, *_SOUNDS) and not Path(pictures).is_file():
        raise SourceError(
            f"Source '{uri}' has no sound of its own.",
            f"Add a microphone, --source {pictures}+mic:, or give a clip with sound.",
        )
    row = named(SOURCES, uri, "av") or by_suffix(SOURCES, suffix, "av")
    opener = open_clip if row is None else row.load()
    source: Source[AVFrame] = opener(uri, fps, sample_rate_hz, reconnect=reconnect)
    return source


def _parts(uri: str) -> tuple[str, str]:
    """Return the names of picture and sound; the latter is empty for a clip's own."""
    pictures, plus, sound = uri.rpartition("+")
    return (pictures, sound) if plus and not Path(uri).exists() else (uri, "")


def open_clip(uri: str, fps: int, sample_rate_hz: int, *, reconnect: bool = True) -> ClipAVFrames:
    """Open a clip, alone or with a sound file, see `open_av_frames`; files do not break off."""
    pictures, sound = _parts(uri)
    if sound and Path(sound).suffix.lower() not in _SOUNDS:
        raise SourceError(
            f"Got '{sound}' as the sound of '{pictures}'; expected mic: or a sound file.",
            "For example --source 0+mic: or --source clip.mp4+speech.wav",
        )
    suffix = Path(pictures).suffix.lower()
    if suffix in (*PICTURES, *_SOUNDS):
        what = "no sound" if suffix in PICTURES else "no picture"
        raise SourceError(
            f"{pictures} holds {what}; expected a clip with both.",
            "Give an .mp4 file with sound, or --source clip.mp4+speech.wav",
        )
    return ClipAVFrames(Clip(pictures), sound, fps, sample_rate_hz)


class ClipAVFrames:
    """AV frames of a clip, as fast as they are taken.

    Args:
        clip: With pictures.
        sound: Path of a sound file, empty for the clip's own sound.
        fps: AV frames per second.
        sample_rate_hz: Of the sound that comes out.

    Raises:
        SourceError: no picture, or no sound.
        UsageError: `sample_rate_hz` is no multiple of `fps`.
    """

    def __init__(self, clip: Clip, sound: str, fps: int, sample_rate_hz: int) -> None:
        info = clip.info
        if not info.width:
            raise SourceError(f"{clip.title} holds no picture.", "Give a video file with sound.")
        if not sound and not info.sample_rate_hz:
            raise SourceError(
                f"{clip.title} holds no sound; expected picture and sound.",
                f"Add it from a file: --source {clip.title}+speech.wav",
            )
        self._step = _samples_per_step(fps, sample_rate_hz)
        self._clip, self._sound, self._fps, self._rate = clip, sound, fps, sample_rate_hz
        self._closed = False
        self.warnings: list[str] = []
        count = round(info.seconds * fps)
        self.info = SourceInfo("clip", info.width, info.height, float(fps), count, live=False)
        if 0 < info.fps < fps - 0.5:
            self.warnings.append(
                f"{info.fps:.3g} pictures a second; expected {fps}: pictures are repeated, and "
                "lips are read less well"
            )

    def __iter__(self) -> Iterator[AVFrame]:
        """Yield AV frames."""
        pictures = _Pictures(self._clip.frames(), self._fps)
        blocks = _Blocks(self._resampled(), self._step)
        index = 0
        while not self._closed:
            image, fresh = pictures.at(index)
            sound, samples = blocks.next()
            if pictures.ended and not samples:
                break
            yield AVFrame(
                index, image, fresh, sound, samples, time.perf_counter_ns(),
                seconds=index / self._fps,
            )  # fmt: skip
            index += 1
        if not self._closed:
            self._judge(pictures, blocks)

    def _judge(self, pictures: _Pictures, blocks: _Blocks) -> None:
        short, long = pictures.intervals
        if long > _UNEVEN * short:
            self.warnings.append(
                f"variable frame rate, {1000 * short:.0f} to {1000 * long:.0f} ms between "
                "pictures: they were placed by their time stamps"
            )
        self.warnings += self._clip.warnings
        seen, heard = pictures.seconds, blocks.samples / self._rate
        if abs(seen - heard) > _LENGTHS:
            self.warnings.append(
                f"{seen:.2f} s of picture and {heard:.2f} s of sound: the shorter one was "
                + ("filled with silence" if heard < seen else "continued by its last picture")
            )
        if blocks.peak < 1e-4:
            self.warnings.append("the sound is silent: there is nothing to separate")

    def _resampled(self) -> Iterator[Audio]:
        if self._sound:
            with closing(SoundReader(self._sound)) as reader:
                resampler = self._resampler(reader.sample_rate_hz, reader.channels)
                for block in reader.blocks():
                    yield resampler.push(block)
                yield resampler.flush()
                if reader.ends_early:
                    self.warnings.append(f"the sound has no end: {reader.ends_early}")
                if reader.unmeasured:
                    self.warnings.append(
                        f"the sound is taken as whole: a cut {reader.unmeasured} looks like a "
                        "short one"
                    )
                if reader.cancels:
                    self.warnings.append("its channels are each other's negative: averaged, silent")
            return
        info = self._clip.info
        resampler = self._resampler(info.sample_rate_hz, info.channels)
        for block in joined(self._clip.sound(), info.sample_rate_hz):
            yield resampler.push(block)
        yield resampler.flush()

    def _resampler(self, rate: int, channels: int) -> Resampler:
        if channels > 1:
            self.warnings.append(f"the sound was averaged over {channels} channels")
        return Resampler(rate, self._rate)

    def close(self) -> None:
        """End the iteration."""
        self._closed = True


def _samples_per_step(fps: int, sample_rate_hz: int) -> int:
    if fps < 1 or sample_rate_hz % fps:
        raise UsageError(f"{sample_rate_hz} samples are no multiple of {fps} AV frames a second.")
    return sample_rate_hz // fps


@dataclass(slots=True)
class _Pictures:
    """The latest picture at each step."""

    frames: Iterator[tuple[float, Image]]
    fps: int
    ended: bool = False
    seconds: float = 0.0
    _shown: Image | None = None
    _next: tuple[float, Image] | None = None
    _intervals: list[float] = field(default_factory=list)

    def at(self, index: int) -> tuple[Image, bool]:
        until, fresh = (index + 0.5) / self.fps, False
        while not self.ended:
            if self._next is None:
                self._next = next(self.frames, None)
                if self._next is None:
                    self.ended = self.seconds + 0.5 / self.fps <= index / self.fps + 1e-9
                    break
                step = self._next[0] - self.seconds
                if self._shown is not None and step > 0:
                    self._intervals.append(step)
                self.seconds = max(self.seconds, self._next[0])
            if self._next[0] >= until and self._shown is not None:
                break
            self._shown, self._next, fresh = self._next[1], None, True
        if self._shown is None:
            raise SourceError("The clip gives no picture.", "Play it with another program.")
        return self._shown, fresh

    @property
    def intervals(self) -> tuple[float, float]:
        """Return the 5th and the 95th percentile of the time between pictures."""
        if len(self._intervals) < 8:
            return 1.0, 1.0
        low, high = np.percentile(self._intervals, (5, 95))
        return float(low), float(high)


@dataclass(slots=True)
class _Blocks:
    """Sound in pieces of one step; zeros behind its end."""

    blocks: Iterator[Audio]
    step: int
    samples: int = 0
    peak: float = 0.0
    _held: Held = field(default_factory=Held)

    def next(self) -> tuple[Audio, int]:
        while len(self._held) < self.step:
            block = next(self.blocks, None)
            if block is None:
                break
            self._held.push(block)
        piece = self._held.cut(self.step)
        count = len(piece)
        self.samples += count
        if count:
            self.peak = max(self.peak, float(np.abs(piece).max()))
        return np.pad(piece, (0, self.step - count)), count


class LiveAVFrames:
    """AV frames of a camera and a microphone, in their own time.

    Sound comes later than it was heard: the change of its rate holds some back. Each step shows the
    picture that was the latest in the middle of its sound, as those of a clip do.

    Args:
        camera: Source of pictures; read in a thread of its own.
        recorder: The clock.
        fps: AV frames per second.
        sample_rate_hz: Of the microphone.
    """

    def __init__(
        self, camera: Source[Frame], recorder: Recorder, fps: int, sample_rate_hz: int
    ) -> None:
        self._camera, self.recorder = camera, recorder
        self._step = _samples_per_step(fps, sample_rate_hz)
        self._seen: deque[Frame] = deque(maxlen=_PICTURES)
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._closed = False
        seen = camera.info
        # Late AV frames wait, up to what the recorder holds: none is dropped for a newer one.
        self.info = SourceInfo("camera", seen.width, seen.height, float(fps), 0, live=False)
        self._thread = threading.Thread(target=self._watch, name="camera", daemon=True)
        self._thread.start()

    @property
    def warnings(self) -> list[str]:
        """Return what the camera has to say, interruptions for example."""
        return self._camera.warnings

    def _watch(self) -> None:
        try:
            for frame in self._camera:
                with self._changed:
                    self._seen.append(frame)
                    self._changed.notify_all()
                if self._closed:
                    return
        except BaseException as error:  # raised where the AV frames are taken
            self._error = error
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.recorder.close()

    def __iter__(self) -> Iterator[AVFrame]:
        """Yield AV frames until the camera ends or everything is closed."""
        with self._changed:
            while not self._seen and not self._closed:
                self._changed.wait()
        index, shown = 0, -1
        while not self._closed and self._seen:
            sound = self.recorder.take(self._step)
            if sound is None:
                break
            frame = self._picture(self.recorder.taken_until - 0.5 / self.info.fps)
            # A copy: drawing must not touch what the next one may show again.
            yield AVFrame(
                index, frame.image.copy(), frame.index != shown, sound, self._step,
                time.perf_counter_ns(), seconds=index / self.info.fps,
            )  # fmt: skip
            index, shown = index + 1, frame.index
        if self._error is not None:
            raise self._error

    def _picture(self, until: float) -> Frame:
        """Return the latest picture captured before a time, the oldest that is left if none was."""
        with self._changed:
            while len(self._seen) > 1 and self._seen[1].captured_ns <= 1e9 * until:
                self._seen.popleft()
            return self._seen[0]

    def close(self) -> None:
        """Release camera and microphone."""
        self._closed = True
        self.recorder.close()
        self._camera.close()


def open_live(uri: str, fps: int, sample_rate_hz: int, *, reconnect: bool = True) -> LiveAVFrames:
    """Open ``CAMERA+mic:``, ``CAMERA+mic:NAME`` or a browser, see `open_av_frames`."""
    pictures, sound = re.split(r"\+(?=(?:mic|webrtc|clicks):)", uri, maxsplit=1)
    camera = open_source(pictures, reconnect=reconnect)
    try:
        if not camera.info.live:
            raise SourceError(
                f"{pictures} is a file; expected a camera beside a microphone.",
                "For example --source 0+mic:, or a clip with its own sound.",
            )
        form = SoundFormat(sample_rate_hz, 1 / fps, live=True)
        microphone: SoundSource = resolve(sound, "sound").load()(sound, form)
        block = round(_READ_SECONDS * microphone.sample_rate_hz)
        recorder = Recorder(microphone, sample_rate_hz, block)
        return LiveAVFrames(camera, recorder, fps, sample_rate_hz)
    except BaseException:
        camera.close()
        raise
