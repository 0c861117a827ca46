"""Decode codes with holes: what did not come is continued, then faded out.

A lost frame is decoded as the last one that came, again: the network's memory carries pitch and
colour on. What repeats for long sounds like a buzz, so after `HOLD_MS` it fades, and is silent
after `FADE_MS`. The gain moves linearly inside frames: no step, no click.
"""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt

from prunus.runtime.audio.packets import Group
from prunus.runtime.errors import TensorError
from prunus.runtime.protocols import Stream
from prunus.runtime.tasks.calls import OneStream, in_turn
from prunus.runtime.tasks.codec.codec import Audio, Codes, SpeechCodec, StreamDecoder, check_codes

HOLD_MS, FADE_MS = 40.0, 160.0


class LossyDecoder(Stream[Group, Audio]):
    """Codes in pieces, some of them missing -> sound in pieces, none of it missing.

    One object a stream; the codec behind it may be shared.

    Attributes:
        lost: Frames that were made up.

    Args:
        codec: With its decoder.
        voice: Voice vector of codecs that have one; until it is set, frames are silent.
        eager: As for `SpeechCodec.decoder`.
    """

    def __init__(
        self,
        codec: SpeechCodec,
        voice: npt.NDArray[np.float32] | None = None,
        *,
        eager: bool = True,
    ) -> None:
        self.format, self.voice = codec.format, voice
        self.sample_rate_hz = codec.format.sample_rate_hz
        self._codec, self._eager = codec, eager
        self._stream: AbstractContextManager[None] = OneStream("A lossy decoder")
        self._decoder: StreamDecoder | None = None
        self.reset()

    @in_turn
    def reset(self) -> None:
        """See `Stream`; the voice stays."""
        self.lost = 0
        if self._decoder is not None:
            self._decoder.reset()
        self._last: dict[str, npt.NDArray[np.int64]] = {}
        self._missing = 0  # frames since the last one that came
        self._gain = 1.0  # at the end of the newest frame
        self._gains: deque[tuple[float, float]] = deque()  # begin and end of frames in the decoder

    @property
    def latency(self) -> int:
        """Samples by which the sound lags behind its codes; 0 until there is a voice."""
        return 0 if self._decoder is None else self._decoder.latency

    @in_turn
    def push(self, group: Group) -> Audio:
        """Take frames that came or did not; return the sound complete by now.

        Raises:
            TensorError: as of `StreamDecoder.push`, or lost frames that are no whole number of the
                codec's strides.
        """
        return self._lost(group.frames) if group.codes is None else self._came(group.codes)

    def _came(self, codes: Codes) -> Audio:
        checked = {s.name: check_codes(codes, s) for s in self.format.streams}
        frames = min(v.shape[1] * self._stride_of(n) for n, v in checked.items())
        if not frames:
            return np.zeros(0, np.float32)
        if not self._ready():
            return self._silence(frames)
        self._missing = 0
        self._last = {name: values[:, -1:] for name, values in checked.items()}
        return self._through(checked, [1.0] * frames)

    def _lost(self, frames: int) -> Audio:
        if frames < 0 or frames % self.format.stride:
            raise TensorError(
                f"Got {frames} lost frames; expected a multiple of {self.format.stride}."
            )
        self.lost += frames
        if not frames or not self._ready():
            return self._silence(frames)
        if not self._last:  # nothing came yet: any code will do, unheard
            self._last = {s.name: np.zeros((s.codebooks, 1), np.int64) for s in self.format.streams}
            self._gain = 0.0
            self._missing = 1 << 30
        repeated = {
            name: np.repeat(last, frames // self._stride_of(name), axis=1)
            for name, last in self._last.items()
        }
        gains = []
        for _ in range(frames):
            self._missing += 1
            gains.append(self._faded())
        return self._through(repeated, gains)

    @in_turn
    def flush(self) -> Audio:
        """End the codes; return the rest of the sound."""
        if self._decoder is None:
            return np.zeros(0, np.float32)
        return self._shaped(self._decoder.flush())

    def _ready(self) -> bool:
        if self._decoder is None and (self.voice is not None or not self.format.voice):
            self._decoder = self._codec.decoder(self.voice, eager=self._eager)
        return self._decoder is not None

    def _silence(self, frames: int) -> Audio:
        self._gain = 0.0
        return np.zeros(frames * self.format.hop, np.float32)

    def _through(self, codes: Codes, gains: list[float]) -> Audio:
        for gain in gains:
            self._gains.append((self._gain, gain))
            self._gain = gain
        if self._decoder is None:  # `_ready` has been asked
            raise TensorError("Got codes before a voice.")
        return self._shaped(self._decoder.push(codes))

    def _shaped(self, sound: Audio) -> Audio:
        hop = self.format.hop
        frames = -(-len(sound) // hop)
        edges = [self._gains.popleft() if self._gains else (1.0, 1.0) for _ in range(frames)]
        if all(begin == end == 1.0 for begin, end in edges):
            return sound
        ramp = (np.arange(hop, dtype=np.float32) + 1.0) / hop
        gain = np.concatenate([begin + (end - begin) * ramp for begin, end in edges])
        shaped: Audio = (sound * gain[: len(sound)]).astype(np.float32)
        return shaped

    def _faded(self) -> float:
        gone_ms = 1000.0 * self._missing * self.format.hop / self.format.sample_rate_hz
        return float(np.clip((FADE_MS - gone_ms) / (FADE_MS - HOLD_MS), 0.0, 1.0))

    def _stride_of(self, name: str) -> int:
        return next(s.stride for s in self.format.streams if s.name == name)
