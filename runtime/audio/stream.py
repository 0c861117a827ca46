"""Sound and codes through graphs of constant length: step by step with state, or in windows.

Both flows take pieces of any length and give the same as one long piece would. Time is counted in
frames; the last axis of every array is time, at a constant number of items per frame.

`Steps` drives a step graph: its state travels from run to run, its output lags by a constant
number of frames, and the result equals the offline network's. `Windows` drives a graph that looks
at all of its input: windows overlap, the context at their ends is dropped, seams are blended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from prunus.runtime.audio.reblock import Array, Lane, Reblocker
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.tensors import StateSpec
from prunus.runtime.errors import TensorError
from prunus.runtime.protocols import Stream
from prunus.runtime.tasks.codec.card import CodecPreprocess

Arrays = Mapping[str, Array]
Flow = Stream[Arrays, dict[str, Array]]
Run = Callable[[Arrays], Arrays]  # what it returns belongs to the caller, as of `BaseSession.run`


class Steps(Flow):
    """Drive a step graph.

    Args:
        run: Runs the graph once, states included.
        card: Of the graph.
        lanes: Inputs without states, and outputs without states.
    """

    def __init__(self, run: Run, card: ModelCard, inputs: Mapping[str, Lane],
                 outputs: Mapping[str, Lane]) -> None:  # fmt: skip
        pre, streaming = card.preprocess, card.streaming
        if streaming is None or not isinstance(pre, CodecPreprocess):
            raise TensorError(f"{card.name} has no state; expected a step graph.")
        self._run, self._frames, self._outputs = run, pre.frames, outputs
        self.sample_rate_hz, self._hop = pre.sample_rate_hz, pre.hop
        self._delay = streaming.algorithmic_delay // pre.hop
        self._specs = streaming.states
        self._blocks = partial(Reblocker, inputs, _shapes(card, inputs))
        self.reset()

    def reset(self) -> None:
        """See `Stream`."""
        self._states = zero_states(self._specs)
        self._buffer = self._blocks()
        self._done = 0  # frames that went through the graph
        self._given = 0  # frames that came out

    @property
    def latency(self) -> int:
        """Samples by which the output lags behind whole steps of the input."""
        return self._delay * self._hop

    def push(self, pieces: Arrays) -> dict[str, Array]:
        """Take items of every input lane; return the output that is complete by now."""
        self._buffer.push(pieces)
        out: list[Arrays] = []
        while self._buffer.end - self._done >= self._frames:
            out.append(self._step())
        return _joined(out)

    def flush(self, fill: Arrays | None = None) -> dict[str, Array]:
        """End the stream; return the rest: as many frames as came in, a started one completed.

        Args:
            fill: What follows the end, `delay` frames or more of it; zeros behind that.
        """
        total = self._buffer.complete(1)
        if fill is not None:
            self._buffer.push(fill)
        out: list[Arrays] = []
        while self._given < total:
            out.append(self._step(total))
        return _joined(out)

    def _step(self, total: int | None = None) -> Arrays:
        feed = self._buffer.take(self._done, self._frames)
        result = self._run({**feed, **self._states})
        for spec in self._specs:
            self._states[spec.name] = result[f"{spec.name}_next"]
        first = max(0, self._delay - self._done)  # frames that lie before the start
        last = self._frames
        self._done += self._frames
        if total is not None:
            last = min(last, first + total - self._given)
        self._given += max(0, last - first)
        self._buffer.forget(self._done)
        return {n: _cut(result[n], lane, first, last) for n, lane in self._outputs.items()}

class Windows(Flow):
    """Drive a graph that takes overlapping windows.

    Args:
        run: Runs the graph once on inputs of one window, and is told how many frames are valid.
        card: Of the graph.
        inputs: Input lanes.
        outputs: Output lanes; float ones are blended over `fade` samples at seams.
        eager: Give each piece as soon as its right context is there, with less on the left at
            first; otherwise wait for full windows, which is less work and exact for short sounds.
    """

    def __init__(
        self,
        run: Callable[[Arrays, int], Arrays],
        card: ModelCard,
        inputs: Mapping[str, Lane],
        outputs: Mapping[str, Lane],
        *,
        eager: bool = False,
    ) -> None:
        pre = card.preprocess
        if not isinstance(pre, CodecPreprocess):
            raise TensorError(f"{card.name} has no windows; expected a graph of a codec.")
        self._run, self._pre, self._outputs, self._eager = run, pre, outputs, eager
        self.sample_rate_hz = pre.sample_rate_hz
        self._blocks = partial(Reblocker, inputs, _shapes(card, inputs))
        self._stride = max(lane.frames for lane in (*inputs.values(), *outputs.values()))
        self.reset()

    def reset(self) -> None:
        """See `Stream`."""
        self._buffer = self._blocks()
        self._next = 0  # first frame that has not come out
        self._tails: dict[str, Array] = {}

    @property
    def latency(self) -> int:
        """Samples of context on the right that must come before a frame can go out."""
        return self._pre.right * self._pre.hop

    def push(self, pieces: Arrays) -> dict[str, Array]:
        """Take items of every input lane; return the output that is complete by now."""
        self._buffer.push(pieces)
        out: list[Arrays] = []
        pre = self._pre
        while True:
            begin, end, until = self._plan()
            # What ends with a window is the last one's to decode, with all its context.
            if self._buffer.end < end or (self._buffer.begun == end and not self._eager):
                break
            out.append(self._window(begin, end, until))
            self._next = until
            keep = self._next + (pre.commit + pre.right - pre.frames if self._eager else -pre.left)
            self._buffer.forget(max(0, keep))
        return _joined(out)

    def flush(self, fill: Arrays | None = None) -> dict[str, Array]:
        """As for `Steps`; `fill` does not matter to windows, which end where the sound does."""
        total = self._buffer.complete(self._stride)
        out: list[Arrays] = []
        if self._next < total:
            out.append(self._window(self._buffer.start, total, total))
            self._next = total
        return _joined(out)

    def _plan(self) -> tuple[int, int, int]:
        """Return begin and end of the next window, and the frame up to which it counts."""
        pre = self._pre
        if self._eager:
            until = self._next + pre.commit
            end = until + pre.right
            return max(0, end - pre.frames), end, until
        begin = max(0, self._next - pre.left)
        return begin, begin + pre.frames, begin + pre.frames - pre.right

    def _window(self, begin: int, end: int, until: int) -> Arrays:
        feed = self._buffer.take(begin, self._pre.frames)
        result = self._run(feed, end - begin)
        first, last = self._next - begin, until - begin
        out = {}
        for name, lane in self._outputs.items():
            values = result[name]
            piece = _cut(values, lane, first, last)
            out[name] = self._blended(name, lane, values, piece, last)
        return out

    def _blended(self, name: str, lane: Lane, values: Array, piece: Array, last: int) -> Array:
        fade = self._pre.fade
        if not fade or not np.issubdtype(values.dtype, np.floating):
            return piece
        before = self._tails.get(name)
        if before is not None:
            width = min(fade, piece.shape[-1], before.shape[-1])
            ramp = ((np.arange(width) + 0.5) / width).astype(values.dtype)
            piece[..., :width] = before[..., :width] * (1 - ramp) + piece[..., :width] * ramp
        self._tails[name] = values[..., lane.count(last) : lane.count(last) + fade].copy()
        return piece

def zero_states(specs: tuple[StateSpec, ...]) -> dict[str, Array]:
    """Return the states of a stream that has not begun."""
    return {s.name: np.full(s.shape, s.zero, dtype=s.dtype) for s in specs}


def _joined(parts: list[Arrays]) -> dict[str, Array]:
    names = parts[0] if parts else ()
    return {n: np.concatenate([p[n] for p in parts], axis=-1) for n in names}


def _cut(values: Array, lane: Lane, first: int, last: int) -> Array:
    return values[..., lane.count(first) : lane.count(max(first, last))]


def _shapes(card: ModelCard, lanes: Mapping[str, Lane]) -> dict[str, tuple[Any, ...]]:
    return {s.name: (s.shape, s.dtype) for s in card.inputs if s.name in lanes}
