"""Label the pitch of clean speech: normalised cross-correlation and the cheapest path through it.

The score of a candidate is the correlation of a frame with itself one period later, as in RAPT
(Talkin, 1995); the path maximises scores less the cost of jumps and of voicing changes. It looks at
all of a recording, so it makes targets, not features.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from prunus.models.codec.nsfcodec.pitch_grid import PITCHES, pitch_hertz

Array = npt.NDArray[np.float32]
SAMPLE_RATE_HZ, HOP = 16000, 320
_WIDTH, _LONGEST = 640, 320  # samples compared; the longest period, 50 Hz
_SPAN = _WIDTH + _LONGEST
_UNVOICED_SCORE = 0.45  # a correlation below this is rather noise
_SHORT_BIAS = 0.03  # per octave: a multiple of the period correlates as well as the period
_JUMP_COST = 0.012  # per step of the grid and frame
_REACH = 24  # steps of the grid that a voice moves in one frame at most
_SWITCH_COST = 0.3
_QUIET = 10.0 ** (-55.0 / 20.0)  # RMS below which nothing is called a voice
_BLOCK = 4096  # frames at once


def correlations(sound: Array) -> Array:
    """Return (frames, PITCHES) float32 normalised correlations at the periods of the grid.

    Args:
        sound: (T,) float32 at 16 kHz; frame t is centred at sample 320 t + 160.
    """
    frames = -(-len(sound) // HOP)
    before = _SPAN // 2 - HOP // 2
    padded = np.concatenate(
        (np.zeros(before, np.float32), sound, np.zeros(_SPAN + HOP, np.float32))
    )
    periods = SAMPLE_RATE_HZ / pitch_hertz()
    low = np.floor(periods).astype(np.int64)
    share = (periods - low).astype(np.float32)
    found = np.zeros((frames, PITCHES), np.float32)
    for first in range(0, frames, _BLOCK):
        count = min(_BLOCK, frames - first)
        starts = (first + np.arange(count)) * HOP
        window = padded[starts[:, None] + np.arange(_SPAN + 1)]
        window = window - window.mean(axis=1, keepdims=True)
        size = 2048
        spectrum = np.fft.rfft(window, size)
        head = np.fft.rfft(window[:, :_WIDTH], size)
        cross = np.fft.irfft(spectrum * head.conj(), size)[:, : _LONGEST + 2]
        total = np.cumsum(np.pad(window**2, ((0, 0), (1, 0))), axis=1)
        lags = np.arange(_LONGEST + 2)
        energy = total[:, np.minimum(lags + _WIDTH, _SPAN + 1)] - total[:, lags]
        norm = np.sqrt(np.maximum(energy[:, :1] * energy, 0.0)) + _WIDTH * 1e-7
        ratio = (cross / norm).astype(np.float32)
        found[first : first + count] = ratio[:, low] * (1 - share) + ratio[:, low + 1] * share
    return found


def track_pitch(sound: Array) -> npt.NDArray[np.uint8]:
    """Return (frames,) uint8 pitch indices: 0 where there is no voice, else 1 + place on the grid.

    Args:
        sound: (T,) float32 in [-1, 1] at 16 kHz. Frames are ceil(T / 320), 20 ms each.
    """
    scores = correlations(sound)
    octaves = np.log2(pitch_hertz() / pitch_hertz()[0]).astype(np.float32)
    scores = scores + _SHORT_BIAS * octaves
    frames = len(scores)
    padded = np.concatenate((sound, np.zeros(frames * HOP - len(sound), np.float32)))
    quiet = np.sqrt((padded.reshape(frames, HOP) ** 2).mean(axis=1)) < _QUIET
    scores[quiet] = -1.0
    return _best_path(scores)


def _best_path(scores: Array) -> npt.NDArray[np.uint8]:
    frames, states = scores.shape
    offsets = np.arange(-_REACH, _REACH + 1)
    costs = (_JUMP_COST * np.abs(offsets)).astype(np.float32)
    voiced, silent = np.zeros(states, np.float32), np.float32(0.0)
    came_voiced = np.zeros((frames, states), np.int16)  # previous place, -1: no voice
    came_silent = np.zeros(frames, np.int16)
    padded = np.full(states + 2 * _REACH, -1e9, np.float32)
    gather = np.arange(states)[:, None] + np.arange(2 * _REACH + 1)
    for t in range(frames):
        padded[_REACH:-_REACH] = voiced
        options = padded[gather] - costs
        place = options.argmax(axis=1)
        stay = options[np.arange(states), place]
        start = silent - _SWITCH_COST
        came_voiced[t] = np.where(start > stay, -1, np.arange(states) + offsets[place])
        best = int(voiced.argmax())
        end = voiced[best] - _SWITCH_COST
        came_silent[t] = best if end > silent else -1
        next_voiced = np.maximum(stay, start) + scores[t]
        silent = np.float32(max(silent, end) + _UNVOICED_SCORE)
        level = max(float(next_voiced.max()), float(silent))  # keeps float32 exact on long sounds
        voiced, silent = next_voiced - level, np.float32(silent - level)
    labels = np.zeros(frames, np.uint8)
    state = -1 if silent >= voiced.max() else int(voiced.argmax())
    for t in range(frames - 1, -1, -1):
        labels[t] = state + 1
        state = int(came_silent[t] if state < 0 else came_voiced[t, state])
    return labels
