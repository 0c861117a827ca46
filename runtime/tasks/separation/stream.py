"""Sound and mouths in pieces -> the voice in pieces: overlapping windows on one clock.

Window k of F frames ends `lookahead` frames behind the `hop` frames that it gives:

    | context ................. | hop: given | lookahead |
                                ^ frame k * hop

Its first `fade` samples are blended with what window k - 1 had computed for them. Which windows
there are depends on frame numbers alone, so pieces of any size give the very same samples, live or
from a file. Lip features are computed once per frame, with the whole context that they depend on;
the last `reach` frames of a window have their future still before them and are computed again.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from prunus.runtime.audio.reblock import Held
from prunus.runtime.errors import UsageError
from prunus.runtime.protocols import Stream
from prunus.runtime.tasks.calls import in_turn
from prunus.runtime.tasks.codec.codec import check_sound
from prunus.runtime.tasks.faces.mouth_grid import MouthGrid
from prunus.runtime.tasks.separation.card import (
    MixturePreprocess,
    MouthPreprocess,
    SeparatorPostprocess,
)

if TYPE_CHECKING:
    from prunus.runtime.session.base import Session

Audio = npt.NDArray[np.float32]
Array = npt.NDArray[Any]
LOOKAHEAD_S = 0.32
FADE_S = 0.04


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """How a stream cuts its windows, in video frames.

    Attributes:
        frames: Of a window.
        hop: Frames that each window gives.
        lookahead: Frames of a window behind those.
        fade: Samples over which two windows are blended.
        samples_per_frame: Samples behind one frame.
        frame_rate_hz: Frames per second.
        lip_frames: Frames of one run of the lip graph.
        reach: Frames to each side on which lip features depend.
    """

    frames: int
    hop: int
    lookahead: int
    fade: int
    samples_per_frame: int
    frame_rate_hz: int
    lip_frames: int
    reach: int

    @staticmethod
    def of(
        lips: MouthPreprocess,
        voice: MixturePreprocess,
        hop_s: float | None = None,
        lookahead_s: float | None = None,
    ) -> StreamPlan:
        """Plan the windows of two graphs.

        Args:
            lips: Of the lip graph.
            voice: Of the voice graph.
            hop_s: Seconds between windows; None: a quarter of a window, or what the lip graph
                allows.
            lookahead_s: Seconds of a window behind what it gives; None: 0.32 s, at most a quarter.

        Raises:
            UsageError: windows that do not fit the graphs.
        """
        rate, frames = voice.frame_rate_hz, voice.frames
        quarter = max(1, frames // 4)
        wanted = LOOKAHEAD_S if lookahead_s is None else lookahead_s
        lookahead = round(wanted * rate)
        if lookahead_s is None:
            lookahead = min(lookahead, quarter)
        most = lips.frames - lips.reach - max(lips.reach, lookahead)
        hop = max(1, min(quarter, most)) if hop_s is None else round(hop_s * rate)
        if hop < 1 or lookahead < 1 or hop + lookahead > frames:
            raise UsageError(
                f"A hop of {hop / rate:g} s and a lookahead of {lookahead / rate:g} s do not fit "
                f"into windows of {frames / rate:g} s; both must be 0.04 s or more.",
                "Shorten them, or export longer windows with --seconds.",
            )
        if hop > most:
            raise UsageError(
                f"A hop of {hop / rate:g} s needs {hop + lips.frames - most} frames of the lip "
                f"graph, {lips.reach} to each side; it has {lips.frames}.",
                "Choose a shorter hop, or export with a longer --lip-seconds.",
            )
        per_frame = voice.samples_per_frame
        fade = min(round(FADE_S * voice.sample_rate_hz), per_frame * min(hop, lookahead))
        return StreamPlan(frames, hop, lookahead, fade, per_frame, rate, lips.frames, lips.reach)

    @property
    def delay(self) -> int:
        """Samples that may have to follow a sample before it comes out."""
        return (self.hop + self.lookahead) * self.samples_per_frame

    @property
    def hop_s(self) -> float:
        """Seconds between two windows: the time in which one has to be computed."""
        return self.hop / self.frame_rate_hz


class VoiceStream(Stream[npt.ArrayLike, Audio]):
    """One speaker's voice out of a stream of sound; made by `SpeechSeparator.stream`.

    It belongs to one speaker of one stream. Sound and mouths may come from two threads: calls wait
    for each other.

    Attributes:
        plan: The windows.
        given: Samples that went out.
        silent: Windows of digital silence, which are answered without running the network.
    """

    def __init__(
        self, lips: Session, voice: Session, plan: StreamPlan, patience_s: float | None = None
    ) -> None:
        look = cast(MouthPreprocess, lips.card.preprocess)
        post = cast(SeparatorPostprocess, voice.card.postprocess)
        self._relative = post.level == "relative"
        self.plan, self._mouth = plan, look
        self.sample_rate_hz = plan.samples_per_frame * plan.frame_rate_hz
        self._lips, self._voice = lips, voice
        self._stream: AbstractContextManager[Any] = threading.RLock()
        self._patience = None if patience_s is None else round(patience_s * self.sample_rate_hz)
        self._width = next(s.shape[1] for s in voice.card.inputs if s.name == "lips")
        self.reset()

    @in_turn
    def reset(self) -> None:
        """See `Stream`; mouths begin anew as well."""
        look = self._mouth
        self.given = self.silent = 0
        self.mouths = MouthGrid(look.size, look.frame_rate_hz, round(255 * look.mean))
        self._sound = Held()
        self._window = 0
        self._features = np.zeros((self._width, 0), np.float32)
        self._features_end = 0
        self._tail = np.zeros(0, np.float32)
        self._finished = False

    @property
    def taken(self) -> int:
        """Samples that came in."""
        return self._sound.end

    @property
    def latency(self) -> int:
        """See `Stream`; of what the separator says, not of late mouths."""
        return self.plan.delay

    @in_turn
    def push(self, sound: npt.ArrayLike) -> Audio:
        """Take (T,) float32 samples of the mixture; return the voice that is complete by now."""
        self._require_open()
        self._sound.push(check_sound(sound, empty=True))
        return self._advance()

    @in_turn
    def watch(self, crop: npt.ArrayLike | None, time_s: float) -> Audio:
        """Take the mouth of a moment (None: no face); return the voice that is complete by now."""
        self._require_open()
        self.mouths.push(crop, time_s)
        return self._advance()

    @in_turn
    def flush(self) -> Audio:
        """End the stream; return the rest: as many samples as came in, in all."""
        self._require_open()
        self._finished = True
        plan, parts = self.plan, [np.zeros(0, np.float32)]
        while self.given < self.taken:
            end = (self._window + 1) * plan.hop + plan.lookahead
            self.mouths.hold(end)
            piece = self._next(end)[: self.taken - self.given]
            self.given += len(piece)
            parts.append(piece)
        return np.concatenate(parts)

    def _require_open(self) -> None:
        if self._finished:
            raise UsageError("This stream has ended.", "Call reset(), or begin another one.")

    def _advance(self) -> Audio:
        plan, parts = self.plan, [np.zeros(0, np.float32)]
        while True:
            end = (self._window + 1) * plan.hop + plan.lookahead
            complete = self.taken - end * plan.samples_per_frame
            if complete < 0:
                break
            if self.mouths.decided < end:
                if self._patience is None or complete < self._patience:
                    break
                self.mouths.hold(end)
            parts.append(self._next(end))
            self.given += len(parts[-1])
        return np.concatenate(parts)

    def _next(self, end: int) -> Audio:
        """Compute the window that ends before frame `end`; return what it gives."""
        plan = self.plan
        features = self._look(end)
        begin = end - plan.frames
        mixture = self._sound.take(begin * plan.samples_per_frame, end * plan.samples_per_frame)
        if mixture.any():
            feed = {"mixture": mixture[None], "lips": features[None]}
            voice: Audio = self._voice.run(feed)["voice"][0]
            if self._relative:
                voice *= np.sqrt(np.mean(np.square(mixture, dtype=np.float64)), dtype=np.float32)
        else:
            self.silent += 1
            voice = np.zeros_like(mixture)
        last = (plan.frames - plan.lookahead) * plan.samples_per_frame
        piece = voice[last - plan.hop * plan.samples_per_frame : last]
        if len(self._tail):
            ramp = ((np.arange(plan.fade) + 0.5) / plan.fade).astype(np.float32)
            piece[: plan.fade] = self._tail * (1 - ramp) + piece[: plan.fade] * ramp
        self._tail = voice[last : last + plan.fade].copy()
        self._window += 1
        self._forget(end + plan.hop)
        return piece

    def _look(self, end: int) -> Array:
        """Return the lip features (V, frames) of the frames before `end`."""
        plan = self.plan
        crops = self.mouths.take(end - plan.lip_frames, end)
        seen = self._lips.run({"mouth": crops[None]})["lips"][0]
        known = self._features.shape[1]
        if not known:  # nothing lies before the first run: its oldest frame is held
            before = np.repeat(seen[:, :1], plan.frames, axis=1)
            joined = np.concatenate((before, seen), axis=1)
        else:
            final = known - (self._features_end - (end - plan.hop)) - plan.reach
            fresh = plan.hop + plan.reach
            joined = np.concatenate((self._features[:, :final], seen[:, -fresh:]), axis=1)
        self._features = joined[:, -plan.frames - plan.reach :]
        self._features_end = end
        return np.ascontiguousarray(joined[:, -plan.frames :])

    def _forget(self, next_end: int) -> None:
        """Drop what the window that ends before frame `next_end`, and later ones, do not need."""
        plan = self.plan
        self.mouths.drop_before(next_end - plan.lip_frames)
        self._sound.forget((next_end - plan.frames) * plan.samples_per_frame)
