"""The ring between two clocks: lengths, drift, and that none of its seams clicks."""

from collections.abc import Callable

import numpy as np
import pytest

from prunus.apps.io.sound.live import MARGIN_SECONDS
from prunus.apps.io.sound.ring import SoundRing, blended, ramp
from prunus.runtime.errors import UsageError

RATE = 16_000
STEP = 320  # 20 ms
TONE = np.sin(2 * np.pi * 200 * np.arange(20 * RATE) / RATE).astype(np.float32)


def _edge(sound: np.ndarray) -> float:
    """Return the largest bend of a sound, in those that a tone of 200 Hz has at most.

    A second difference sees steps and corners, and hardly the tone: a step of its height is 160.
    """
    bend = np.abs(np.diff(sound.astype(np.float64), 2)).max()
    return float(bend / (2 * np.pi * 200 / RATE) ** 2)


def test_the_measure_of_seams_sees_clicks() -> None:
    cut = np.concatenate((TONE[:1020], np.zeros(100, np.float32)))
    assert _edge(TONE) <= 1.0 < 100 < _edge(cut)


def test_a_ring_fills_once_and_then_gives_what_came() -> None:
    ring = SoundRing(400, 4000)
    assert not ring.pull(500).any()  # nothing came yet
    ring.push(np.arange(1, 1001, dtype=np.float32))
    silence = np.concatenate([ring.pull(100) for _ in range(4)])
    assert not silence.any() and ring.ready  # the first sample has waited for 400
    out = np.concatenate([ring.pull(100) for _ in range(3)])
    np.testing.assert_allclose(out[80:], np.arange(81, 301), atol=2.0)  # it runs up to 0.5 % fast
    np.testing.assert_allclose(out[:80], ramp(80) * np.arange(1, 81), atol=1.0)
    assert ring.missing == ring.gaps == 0


def test_without_a_clock_of_its_own_a_sound_is_played_as_it_is() -> None:
    ring, sound = SoundRing(1000, 4000, steady=False), TONE[:8000]
    ring.push(sound)  # more than the limit, which is none for files
    out = [ring.pull(STEP) for _ in range(20)]
    np.testing.assert_array_equal(np.concatenate([*out, ring.rest()]), sound)
    assert ring.dropped == ring.gaps == 0 and ring.drift_ppm == 0


@pytest.mark.parametrize("drift", [-1e-3, 1e-3])
def test_drift_between_two_clocks_is_corrected(drift: float) -> None:
    ring, came = SoundRing(2000, 40_000), 0.0
    for _ in range(20_000):  # 6400 samples apart at the end, three times what the ring holds
        came += 320 * (1 + drift)
        ring.push(np.zeros(int(came), np.float32))
        came -= int(came)
        ring.pull(320)
    assert ring.missing == 0 and ring.dropped == 0
    assert ring.drift_ppm == pytest.approx(1e6 * drift, rel=0.15)


@pytest.mark.parametrize(
    ("ppm", "seconds"), [pytest.param(200, 3600, marks=pytest.mark.slow), (-200, 600)]
)
@pytest.mark.parametrize("burst", [0.02, 0.48])  # a codec's blocks, a separator's hops
def test_clocks_apart_by_200_ppm_meet_for_an_hour(ppm: float, seconds: int, burst: float) -> None:
    """As in the apps: blocks that come up to 8 ms late, a speaker that takes 20 ms."""
    block, rng = round(RATE * burst), np.random.default_rng(0)
    target = int(MARGIN_SECONDS * RATE)
    ring = SoundRing(target, target + block + 2 * RATE, RATE, block)
    step = burst / (1 + ppm * 1e-6)  # the microphone's block by the speaker's clock
    come = step * np.arange(1, int(seconds / step) + 1)
    late = iter(come + rng.uniform(0.0, 0.008, len(come)))
    sound, fills, due = np.zeros(block, np.float32), [], next(late)
    for now in 0.02 * np.arange(1, seconds * 50):
        while due <= now:
            fills.append(ring.waiting)
            ring.push(sound)
            due = next(late, np.inf)
        ring.pull(STEP)
    assert ring.missing == ring.gaps == ring.dropped == ring.overruns == 0
    # The clocks are 0.72 s apart after the hour; the delay stays what it was.
    steady = np.array(fills[len(fills) // 10 :])
    assert np.abs(steady - target).max() < 0.03 * RATE
    assert ring.drift_ppm == pytest.approx(ppm, abs=40)


def _fed(ring: SoundRing, at: int, blocks: int) -> tuple[list[np.ndarray], int]:
    out = []
    for _ in range(blocks):
        ring.push(TONE[at : at + STEP])
        at += STEP
        out.append(ring.pull(STEP))
    return out, at


def _start(ring: SoundRing) -> list[np.ndarray]:
    ring.push(TONE[20:3000])  # in the middle of a swing
    return [ring.pull(STEP) for _ in range(6)]


def _underrun(ring: SoundRing) -> list[np.ndarray]:
    ring.push(TONE[:1300])
    out = [ring.pull(STEP) for _ in range(11)]  # runs dry
    assert ring.gaps == 1 and ring.missing > 2 * STEP
    ring.push(TONE[1300:3500])
    return [*out, *(ring.pull(STEP) for _ in range(8))]


def _overrun(ring: SoundRing) -> list[np.ndarray]:
    out, at = _fed(ring, 0, 8)
    ring.push(TONE[at : at + RATE])  # a second at once, as after a pause of the process
    ring.push(TONE[at + RATE : at + RATE + 40])
    assert ring.overruns == 1 and ring.dropped > RATE / 2 and ring.waiting < 2 * ring.target + STEP
    more, _ = _fed(ring, at + RATE + 40, 8)
    return out + more


def _drift(ring: SoundRing) -> list[np.ndarray]:
    out, at = _fed(ring, 0, 8)
    for k in range(200):  # 0.3 % too fast, then too slow: speeds change all the time
        ring.push(TONE[at : at + STEP + (1 if k < 100 else -1)])
        at += STEP + (1 if k < 100 else -1)
        out.append(ring.pull(STEP))
    assert ring.gaps == ring.overruns == 0
    return out


def _end(ring: SoundRing) -> list[np.ndarray]:
    out, _ = _fed(ring, 0, 8)
    return [*out, ring.rest(), np.zeros(STEP, np.float32)]


@pytest.mark.parametrize("seam", [_start, _underrun, _overrun, _drift, _end])
def test_no_seam_clicks(seam: Callable[[SoundRing], list[np.ndarray]]) -> None:
    ring = SoundRing(900, 900 + RATE // 2, RATE, STEP)
    out = np.concatenate(seam(ring))
    assert np.abs(out).max() > 0.9  # something was heard
    assert _edge(out) < 5.0, "a hard cut of this tone is up to 160"


def test_drift_correction_keeps_high_tones() -> None:
    """Between samples a straight line would take 3 dB off 4 kHz, and flutter with the drift."""
    tone = np.sin(2 * np.pi * 4000 * np.arange(10 * RATE) / RATE).astype(np.float32)
    ring, out = SoundRing(500, 40_000), []
    for k in range(0, len(tone) - STEP, STEP + 1):
        ring.push(tone[k : k + STEP + 1])
        out.append(ring.pull(STEP))
    assert 1000 < ring.drift_ppm < 4000
    pieces = np.concatenate(out[20:]).reshape(-1, STEP)
    levels = 20 * np.log10(np.sqrt((pieces**2).mean(axis=1)) * np.sqrt(2))
    assert levels.max() < 0.1 and levels.min() > -0.3


def test_an_empty_ring_gives_silence_and_counts() -> None:
    ring = SoundRing(100, 1000)
    ring.push(np.ones(200, np.float32))
    assert not ring.pull(100).any() and ring.missing == 0
    out = ring.pull(400)
    assert out[50:100].all() and not out[200:].any()
    assert 200 <= ring.missing <= 210 and ring.gaps == 1
    before = ring.missing
    ring.pull(30)
    assert ring.missing == before + 30 and ring.gaps == 1
    ring.push(np.ones(3000, np.float32))
    assert ring.overruns == 1 and ring.dropped == pytest.approx(2900, abs=20)
    assert ring.waiting == pytest.approx(100, abs=1)


def test_a_block_takes_up_where_another_sound_was_lost() -> None:
    block = np.full(400, 0.5, np.float32)
    joined = np.concatenate((np.full(100, -0.5, np.float32), blended(-0.5, block, 80)))
    assert np.abs(np.diff(joined)).max() < 0.03 and (joined[180:] == 0.5).all()


def test_a_ring_needs_sizes_that_make_sense() -> None:
    with pytest.raises(UsageError, match="target"):
        SoundRing(10, 10)
