"""Silence while the lips are shut: the face decides who speaks, the sound alone who is heard.

Deciding by the face and separating by the sound need no network that does both (2S-AVTSE, arXiv
2505.22229). Here the face mesh decides: nobody speaks for long with shut lips. Lips count as shut
once they were it for 0.2 s, so that the closures of p, b and m (a tenth of a second) stay; what is
shut so long is silent from 80 ms behind its begin to 80 ms before its end, since a voice begins and
ends off the lips. A mouth that is not seen lets everything through: without a sight of it, nothing
is known. So does one that stays open, smiles or chews: this gate takes away, it never picks.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import TensorError

Audio = npt.NDArray[np.float32]
_MEMORY = 1500  # frames, a minute: more than any separator lags


@dataclass(frozen=True, slots=True)
class LipGateOptions:
    """Settings of a gate; times in frames of the lips, 25 a second.

    Attributes:
        shut: Lips are shut below this opening, in mouth widths. Shut lips of a face mesh lie at
            0.01 to 0.05, speaking ones between 0.05 and 0.4.
        hold: Shut lips are silent once they were shut for so many frames.
        margin: Frames at each end of such a time that stay audible.
        floor_db: Level of silence, relative to the voice.
    """

    shut: float = 0.06
    hold: int = 5
    margin: int = 2
    floor_db: float = -40.0


@dataclass(slots=True, eq=False)
class LipGate:
    """The gain of one face's voice over time; each face needs a gate of its own.

    Args:
        samples_per_frame: Samples of sound behind one frame.
        first_frame: Number of the first frame that it will see; before it the mouth was unseen.
        options: Settings.

    Example:
        >>> gate = LipGate(640)
        >>> for opening in (0.2, 0.2, *[0.01] * 25):
        ...     gate.see(opening)
        >>> [round(float(gain), 2) for gain in gate.gains(640 * 20, 2)]
        [0.01, 0.01]
    """

    samples_per_frame: int
    first_frame: int = 0
    options: LipGateOptions = field(default_factory=LipGateOptions)
    _runs: deque[int] = field(default_factory=lambda: deque(maxlen=_MEMORY))
    _said: deque[float] = field(default_factory=lambda: deque(maxlen=_MEMORY))
    _seen: int = field(init=False)
    _decided: int = 0

    def __post_init__(self) -> None:
        self._seen = self.first_frame

    def see(self, opening: float | None) -> None:
        """Take the next frame's opening of the lips in mouth widths; None: the mouth is unseen."""
        shut = opening is not None and opening < self.options.shut
        before = self._runs[-1] if self._runs else 0
        self._runs.append(before + 1 if shut else 0)
        self._seen += 1

    def gains(self, start: int, count: int) -> Audio:
        """Return the gain of each sample: 1 where the voice passes, the floor where it is silent.

        A frame's gain is decided once, when it is first asked for, by the lips seen until then.

        Args:
            start: First sample, counted from the first frame's; at most a minute behind the last.
            count: Samples that follow. What lies behind the frames seen so far goes on as the last
                of them.

        Returns:
            (count,) float32; it reaches a frame's gain in a straight line, at the frame's end.

        Raises:
            TensorError: a place before the first sample, or one that is forgotten.
        """
        step = self.samples_per_frame
        first = max(0, start // step - 1)
        last = max(first, (start + count - 1) // step)
        if first > self._decided:
            self._said.clear()
            self._decided = first
        while self._decided <= last:
            self._said.append(self._decide(self._decided))
            self._decided += 1
        known = self._decided - len(self._said)
        if start < 0 or first < known:
            raise TensorError(
                f"Got samples from {start}; expected none before {known * step}.",
                "A gate is asked in the order of time.",
            )
        ends = np.arange(first + 1, last + 2) * step
        said = list(self._said)[first - known : last + 1 - known]
        gains: Audio = np.interp(np.arange(start, start + count) + 1, ends, said).astype(
            np.float32
        )
        return gains

    def _decide(self, frame: int) -> float:
        """Return the gain of a frame by how long the lips are shut around it, as far as seen."""
        own, known = self.options, self._seen - len(self._runs)
        place = min(frame, self._seen - 1) - known
        if place < 0 or not self._runs[place]:
            return 1.0
        ahead = list(self._runs)[place : place + own.hold + own.margin + 1]
        opens = ahead.index(0) if 0 in ahead else None
        shut_before = self._runs[place]
        shut = shut_before - 1 + (len(ahead) if opens is None else opens)
        audible = shut_before <= own.margin or (opens is not None and opens <= own.margin)
        if shut < own.hold or audible:
            return 1.0
        return float(10 ** (own.floor_db / 20))
