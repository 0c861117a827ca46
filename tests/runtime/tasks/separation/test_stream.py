"""Windows on one clock, against a re-statement frame by frame; and how windows are planned."""

import types

import numpy as np
import pytest

from prunus.runtime.errors import TensorError, UsageError
from prunus.runtime.tasks.separation.card import (
    MixturePreprocess,
    MouthPreprocess,
    SeparatorPostprocess,
)
from prunus.runtime.tasks.separation.stream import StreamPlan, VoiceStream

SIZE, RATE, PER_FRAME, WIDTH = 3, 25, 8, 2


def _seen(crops, reach):
    """Return (2, L): the sum over what a frame depends on, cut at both ends, and the frame."""
    means = crops.astype(np.float32).mean(axis=(1, 2))
    sums = [means[max(0, k - reach) : k + reach + 1].sum() for k in range(len(means))]
    return np.stack([sums, means]).astype(np.float32)


def _heard(mixture, lips):
    """Return a voice that depends on the place in the window and on the lips of each frame."""
    place = np.arange(len(mixture), dtype=np.float32) / len(mixture)
    return mixture + place + np.repeat(lips.sum(axis=0), PER_FRAME) / 100


class _Graph:
    def __init__(self, work, **card):
        self.card, self._work, self.runs = types.SimpleNamespace(**card), work, []

    def run(self, inputs):
        self.runs.append({name: value.copy() for name, value in inputs.items()})
        return self._work(inputs)


def _graphs(plan, level="free"):
    lips = _Graph(
        lambda given: {"lips": _seen(given["mouth"][0], plan.reach)[None]},
        preprocess=MouthPreprocess(plan.lip_frames, size=SIZE, reach=plan.reach),
    )
    spec = types.SimpleNamespace(name="lips", shape=(1, WIDTH, plan.frames))
    voice = _Graph(
        lambda given: {"voice": _heard(given["mixture"][0], given["lips"][0])[None]},
        postprocess=SeparatorPostprocess("voice", level=level),
        inputs=[types.SimpleNamespace(name="mixture", shape=(1, 80)), spec],
    )
    return lips, voice


def _expected(plan, sound, means, windows):
    """Return the voice and the lip features of each window, one frame after the other."""
    at, out, given, tail = {}, [], [], None
    for k in range(windows):
        end = (k + 1) * plan.hop + plan.lookahead
        first = end - plan.lip_frames
        crops = np.stack([np.full((SIZE, SIZE), means[max(0, f)]) for f in range(first, end)])
        run = _seen(crops, plan.reach)
        fresh = plan.lip_frames if k == 0 else plan.hop + plan.reach
        for f in range(end - fresh, end):
            at[f] = run[:, f - first]
        lips = np.stack([at.get(f, run[:, 0]) for f in range(end - plan.frames, end)], axis=1)
        given.append(lips)
        begin = (end - plan.frames) * PER_FRAME
        mixture = np.array(
            [sound[n] if 0 <= n < len(sound) else 0 for n in range(begin, end * PER_FRAME)],
            np.float32,
        )
        voice = _heard(mixture, lips) if mixture.any() else np.zeros_like(mixture)
        last = (plan.frames - plan.lookahead) * PER_FRAME
        piece = voice[last - plan.hop * PER_FRAME : last].copy()
        if tail is not None:
            for n in range(plan.fade):
                share = (n + 0.5) / plan.fade
                piece[n] = tail[n] * (1 - share) + piece[n] * share
        tail = voice[last : last + plan.fade]
        out.append(piece)
    return np.concatenate(out), given


def _fed(stream, sound, means):
    """Return what comes out before the end, and all of it: sound and mouths frame by frame."""
    parts = []
    for k in range(len(means)):
        parts.append(stream.push(sound[k * PER_FRAME : (k + 1) * PER_FRAME]))
        parts.append(stream.watch(np.full((SIZE, SIZE), means[k], np.uint8), k / RATE))
    live = np.concatenate(parts)
    return live, np.concatenate([live, stream.flush()])


@pytest.mark.parametrize(
    ("frames", "hop", "lookahead", "fade", "lip_frames", "reach"),
    [(10, 2, 1, 5, 12, 3), (10, 3, 2, 16, 9, 2), (6, 1, 1, 8, 4, 0), (8, 4, 3, 1, 14, 3),
     (12, 3, 4, 24, 12, 2)],
)  # fmt: skip
def test_a_stream_is_its_windows_frame_by_frame(frames, hop, lookahead, fade, lip_frames, reach):
    plan = StreamPlan(frames, hop, lookahead, fade, PER_FRAME, RATE, lip_frames, reach)
    rng = np.random.default_rng(hop)
    sound = rng.uniform(0.1, 1, 26 * PER_FRAME - 3).astype(np.float32)
    means = rng.integers(0, 255, 26)
    lips, voice = _graphs(plan)
    stream = VoiceStream(lips, voice, plan)
    live, whole = _fed(stream, sound, means)
    windows = -(-len(sound) // (hop * PER_FRAME))
    padded = np.append(means, np.full(frames, means[-1]))
    expected, features = _expected(plan, sound, padded, windows)
    np.testing.assert_allclose(whole, expected[: len(sound)], rtol=1e-5, atol=1e-5)
    assert len(voice.runs) == len(lips.runs) == windows and stream.silent == 0
    for run, told in zip(voice.runs, features, strict=True):
        np.testing.assert_allclose(run["lips"][0], told, rtol=1e-5)
    # Before the end a window comes once its last frame is decided: the next mouth has been seen.
    ended = (len(means) - 1 - lookahead) // hop
    assert len(live) == ended * hop * PER_FRAME
    assert stream.given == stream.taken == len(sound)
    with pytest.raises(UsageError, match="has ended"):
        stream.push(sound)
    with pytest.raises(UsageError, match="has ended"):
        stream.watch(None, 2.0)
    with pytest.raises(UsageError, match="has ended"):
        stream.flush()
    stream.reset()
    assert (stream.given, stream.taken, stream.silent) == (0, 0, 0)
    np.testing.assert_array_equal(_fed(stream, sound, means)[1], whole)


PLAN = StreamPlan(10, 2, 1, 5, PER_FRAME, RATE, 12, 3)


def test_a_relative_voice_is_as_loud_as_its_window():
    sound = np.full(12 * PER_FRAME, 0.5, np.float32)
    free, relative = (
        _fed(VoiceStream(*_graphs(PLAN, level), PLAN), sound, [7] * 12)[1]
        for level in ("free", "relative")
    )
    # The last window that lies in the sound whole: its mean square is that of the sound.
    at = slice(9 * PER_FRAME, 10 * PER_FRAME)
    np.testing.assert_allclose(relative[at], 0.5 * free[at], rtol=1e-5)
    begun = np.sqrt(3 / 10) * 0.5  # of the first window, three of ten frames are sound
    np.testing.assert_allclose(relative[:PER_FRAME], begun * free[:PER_FRAME], rtol=1e-5)


def test_windows_of_digital_silence_run_no_network():
    sound = np.zeros(30 * PER_FRAME, np.float32)
    sound[20 * PER_FRAME] = 0.5
    lips, voice = _graphs(PLAN)
    stream = VoiceStream(lips, voice, PLAN)
    whole = _fed(stream, sound, [7] * 30)[1]
    # Frame 20 lies in the windows that end behind it and begin by it: ends 21, 23, 25, 27, 29.
    assert (len(voice.runs), stream.silent) == (5, 10) and len(lips.runs) == 15
    assert not whole[: 18 * PER_FRAME].any() and not whole[28 * PER_FRAME + PLAN.fade :].any()


def test_late_mouths_are_waited_for_as_long_as_the_patience_says():
    sound = np.ones(20 * PER_FRAME, np.float32)
    for patience, expected in ((None, 0), (0.0, 18), (0.08, 16), (0.04, 18), (0.12, 16)):
        stream = VoiceStream(*_graphs(PLAN), PLAN, patience)
        assert stream.sample_rate_hz == RATE * PER_FRAME
        assert len(stream.push(sound)) == expected * PER_FRAME, patience
        assert stream.mouths.decided == (expected + PLAN.lookahead if expected else 0)


def test_what_no_window_needs_any_more_is_forgotten():
    stream = VoiceStream(*_graphs(PLAN), PLAN)
    for k in range(200):
        stream.push(np.ones(PER_FRAME, np.float32))
        stream.watch(np.zeros((SIZE, SIZE), np.uint8), k / RATE)
    assert len(stream._sound) <= (PLAN.frames + PLAN.hop) * PER_FRAME
    assert stream.mouths.decided - stream.mouths._start <= PLAN.lip_frames + PLAN.hop
    assert stream._features.shape[1] <= PLAN.frames + PLAN.reach


def test_what_is_no_sound_or_no_mouth_is_refused():
    stream = VoiceStream(*_graphs(PLAN), PLAN)
    assert len(stream.push([])) == 0
    for wrong in (np.zeros((2, 8), np.float32), [np.nan]):
        with pytest.raises(TensorError):
            stream.push(wrong)
    with pytest.raises(TensorError):
        stream.watch(np.zeros((SIZE, SIZE + 1), np.uint8), 0.0)
    assert stream.taken == 0 and stream.latency == PLAN.delay == 3 * PER_FRAME


def _plan(frames=50, lip_frames=60, reach=11, **seconds):
    voice = MixturePreprocess(frames * 640, frames)
    return StreamPlan.of(MouthPreprocess(lip_frames, reach=reach), voice, **seconds)


@pytest.mark.parametrize(
    ("graphs", "seconds", "hop", "lookahead", "fade"),
    [
        ((50, 60, 11), {}, 12, 8, 640),  # a quarter of a window; 0.32 s
        ((20, 60, 11), {}, 5, 5, 640),  # of short windows a quarter lies behind
        ((3, 60, 11), {}, 1, 1, 640),
        ((50, 30, 11), {}, 8, 8, 640),  # the lip graph allows no more
        ((50, 30, 3), {}, 12, 8, 640),
        ((50, 23, 11), {}, 1, 8, 640),
        ((50, 60, 11), {"hop_s": 0.2}, 5, 8, 640),
        ((50, 60, 11), {"hop_s": 0.04, "lookahead_s": 0.04}, 1, 1, 640),
        ((50, 60, 11), {"lookahead_s": 0.8}, 12, 20, 640),
        ((50, 60, 11), {"hop_s": 1.52, "lookahead_s": 0.4}, 38, 10, 640),
        ((50, 60, 0), {"hop_s": 1.68}, 42, 8, 640),  # hop and lookahead fill the window
    ],
)  # fmt: skip
def test_windows_are_planned_by_what_the_graphs_allow(graphs, seconds, hop, lookahead, fade):
    plan = _plan(*graphs, **seconds)
    assert (plan.hop, plan.lookahead, plan.fade) == (hop, lookahead, fade)
    assert (plan.frames, plan.lip_frames, plan.reach) == graphs
    assert plan.hop_s == pytest.approx(hop / 25)
    assert plan.delay == (hop + lookahead) * 640


def test_a_blend_is_no_longer_than_what_two_windows_share():
    lips = MouthPreprocess(20, reach=2, frame_rate_hz=50)
    plan = StreamPlan.of(lips, MixturePreprocess(20 * 160, 20, 8000, 50), 0.02, 0.1)
    assert (plan.hop, plan.lookahead, plan.fade) == (1, 5, 160)
    plan = StreamPlan.of(lips, MixturePreprocess(20 * 160, 20, 8000, 50), 0.1, 0.02)
    assert (plan.hop, plan.lookahead, plan.fade) == (5, 1, 160)
    assert StreamPlan.of(lips, MixturePreprocess(20 * 160, 20, 8000, 50), 0.1, 0.1).fade == 320


@pytest.mark.parametrize(
    ("graphs", "seconds", "said"),
    [
        ((50, 60, 11), {"hop_s": 0.0}, "hop of 0 s"),
        ((50, 60, 11), {"lookahead_s": 0.0}, "lookahead of 0 s"),
        ((50, 60, 0), {"hop_s": 1.72}, "windows of 2 s"),
        ((50, 60, 11), {"hop_s": 1.6}, "needs 62 frames of the lip graph, 11 to each side"),
        ((50, 22, 11), {}, "needs 23 frames of the lip graph"),
    ],
)
def test_windows_that_do_not_fit_are_refused(graphs, seconds, said):
    with pytest.raises(UsageError) as caught:
        _plan(*graphs, **seconds)
    assert said in str(caught.value)
