"""Streams of sound and mouths: any schedule gives the same samples, exactly as many as came in."""

import dataclasses
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError, TensorError, UsageError
from prunus.runtime.tasks.faces.mouth_grid import MouthGrid
from prunus.runtime.tasks.separation.card import (
    MixturePreprocess,
    MouthPreprocess,
    SeparatorPostprocess,
)
from prunus.runtime.tasks.separation.separator import SpeechSeparator, find_parts
from prunus.runtime.tasks.separation.stream import StreamPlan

PROPERTY = settings(max_examples=15, deadline=None)
FRAMES, LIP_FRAMES, WIDTH, REACH = 10, 12, 2, 3
RATE, PER_FRAME = 16000, 640


def _card(part, **changes):
    """Return the card of a separator with windows of 10 frames."""
    lips = TensorSpec("lips", "float32", (1, WIDTH, LIP_FRAMES), ("batch", "channel", "frame"))
    if part == "lips":
        crops = TensorSpec("mouth", "uint8", (1, LIP_FRAMES, 88, 88), ("b", "f", "y", "x"))
        inputs, outputs, pre = (crops,), (lips,), MouthPreprocess(LIP_FRAMES, reach=REACH)
    else:
        near = dataclasses.replace(lips, shape=(1, WIDTH, FRAMES))
        mixture = TensorSpec("mixture", "float32", (1, FRAMES * PER_FRAME), ("b", "sample"))
        inputs, outputs = (mixture, near), (dataclasses.replace(mixture, name="voice"),)
        pre = MixturePreprocess(FRAMES * PER_FRAME, FRAMES)
    card = ModelCard(
        task="separation", model="dolphin", variant=f"nano-{part}", paper="none",
        licence="Apache-2.0", exporter="test", weights=Weights("random", "random:0", "none", False),
        inputs=inputs, outputs=outputs, preprocess=pre, postprocess=SeparatorPostprocess(part),
    )  # fmt: skip
    return dataclasses.replace(card, **changes)


class Session:
    """A graph in numpy; counts its runs."""

    def __init__(self, card, work):
        self.card, self._work, self.runs, self.closed = card, work, 0, False

    def run(self, inputs):
        for spec in self.card.inputs:
            assert inputs[spec.name].shape == spec.shape and inputs[spec.name].dtype == spec.dtype
        self.runs += 1
        return self._work(inputs)

    def close(self):
        self.closed = True


def _lips(inputs):
    """Mean brightness over `REACH` frames to each side, beyond the clip zeros; and its square."""
    bright = inputs["mouth"][0].astype(np.float32).mean(axis=(1, 2))
    near = np.convolve(bright, np.ones(2 * REACH + 1, np.float32), "same").astype(np.float32)
    return {"lips": np.stack((near, near**2))[None]}


def _identity(inputs):
    return {"voice": inputs["mixture"].copy()}


def _gated(inputs):
    """The mixture, louder where the mouth is brighter; depends on the whole window."""
    gain = np.repeat(inputs["lips"][0, 0], PER_FRAME) / 1000
    level = np.float32(1 + np.abs(inputs["mixture"]).mean())
    return {"voice": (inputs["mixture"] * gain * level).astype(np.float32)}


def _separator(voice=_gated, **changes):
    return SpeechSeparator(Session(_card("lips"), _lips), Session(_card("voice", **changes), voice))


def _sound(count, seed=0):
    return (0.3 * np.random.default_rng(seed).standard_normal(count)).astype(np.float32)


def _mouths(seconds, rate=25.0, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, int(seconds * rate) + 1)
    return [(np.full((88, 88), v, np.uint8), k / rate) for k, v in enumerate(values)]


@pytest.mark.parametrize("count", [1, 100, 639, 640, 6400, 6401, 20000, 33333])
def test_lengths_are_exact_to_the_sample(count) -> None:
    separator = _separator()
    voice = separator.separate(_sound(count), _mouths(count / RATE))
    assert voice.shape == (count,) and voice.dtype == np.float32


@PROPERTY
@given(st.integers(1, 30000), st.integers(0, 2**32 - 1))
def test_any_schedule_gives_the_samples_of_the_whole(count, seed) -> None:
    chance = random.Random(seed)
    separator = _separator()
    sound, mouths = _sound(count), _mouths(count / RATE, 25)
    whole = separator.separate(sound, mouths)
    stream, parts, sent, seen = separator.stream(), [], 0, 0
    while sent < count or seen < len(mouths):
        if sent < count and (seen == len(mouths) or chance.random() < 0.5):
            size = chance.choice([0, 1, 37, 640, 5000])
            parts.append(stream.push(sound[sent : sent + size]))
            sent = min(count, sent + size)
        else:
            parts.append(stream.watch(*mouths[seen]))
            seen += 1
    parts.append(stream.flush())
    assert np.array_equal(np.concatenate(parts), whole)
    assert stream.given == stream.taken == count


def test_a_graph_that_changes_nothing_gives_the_input_without_clicks() -> None:
    separator = _separator(_identity)
    for sound in (_sound(40000), np.full(40000, 0.5, np.float32)):
        voice = separator.separate(sound, _mouths(2.5))
        # Blending two equal numbers rounds; nothing else may differ.
        assert np.abs(voice - sound).max() < 1e-6


def test_seams_are_blended_not_cut() -> None:
    turn = iter(range(1000))

    def louder(inputs):
        return {"voice": np.full_like(inputs["mixture"], next(turn))}

    voice = _separator(louder).separate(np.ones(30000, np.float32), _mouths(2))
    steps = np.abs(np.diff(voice))
    plan = _separator().stream().plan
    assert steps.max() <= 1.01 / plan.fade and voice.max() >= 5
    # Each window is constant and one higher: the seam is the ramp, taken at the samples' middles.
    starts = np.flatnonzero(np.diff(voice) > 0)[:1]
    first = int(voice[starts[0]])
    ramp = voice[starts[0] + 1 : starts[0] + 1 + plan.fade] - first
    np.testing.assert_allclose(ramp, (np.arange(plan.fade) + 0.5) / plan.fade, atol=1e-5)


def test_the_delay_is_the_declared_one() -> None:
    stream = _separator().stream()
    for k, (crop, _) in enumerate(_mouths(4)):
        stream.watch(crop, k / 25)
    behind = []
    for _ in range(400):
        stream.push(_sound(100))
        behind.append(stream.taken - stream.given)
    assert max(behind) <= stream.latency + 100
    assert max(behind) >= stream.latency - 100
    assert stream.latency == stream.plan.delay == (2 + 2) * PER_FRAME
    assert stream.plan.hop_s == pytest.approx(0.08)


def test_lip_features_are_those_of_the_whole_clip() -> None:
    """Every frame ends up with its full context, though runs see twelve frames at a time."""
    seen = []

    def watch(inputs):
        seen.append(inputs["lips"][0].copy())
        return _identity(inputs)

    mouths = _mouths(2)
    _separator(watch).separate(np.ones(32000, np.float32), mouths)
    bright = np.array([crop[0, 0] for crop, _ in mouths], np.float32)
    full = np.convolve(np.r_[[bright[0]] * REACH, bright], np.ones(2 * REACH + 1), "full")
    full = full[2 * REACH :]  # frame k sees k - REACH .. k + REACH
    for k, features in enumerate(seen[:-3]):
        end = 2 * (k + 1) + 2
        final = range(max(0, end - FRAMES), end - REACH)
        for frame in final:
            assert features[0, frame - end + FRAMES] == pytest.approx(full[frame], rel=1e-5)
    assert len(seen) > 10


def test_late_mouths_are_waited_for_only_as_long_as_agreed() -> None:
    patient, live = _separator().stream(), _separator().stream(patience_s=0.1)
    for stream in (patient, live):
        stream.watch(np.full((88, 88), 9, np.uint8), 0.0)
        stream.push(np.ones(16000, np.float32))
    assert patient.given == 0
    assert live.given >= 16000 - live.latency - 1600 - 2 * PER_FRAME
    assert live.mouths.held > 0
    assert len(patient.flush()) + patient.given - patient.taken == patient.given


@pytest.mark.parametrize("rate", [5.0, 12.5, 29.97, 60.0])
def test_cameras_of_other_rates_hold_or_skip(rate) -> None:
    grid, mouths = MouthGrid(88, 25, 107), _mouths(2, rate)
    for crop, time_s in mouths:
        grid.push(crop, time_s)
    assert grid.decided >= 45 and grid.held == 0
    got = grid.take(0, 45)[:, 0, 0]
    times = np.array([t for _, t in mouths])
    for k, value in enumerate(got):
        newest = int(np.flatnonzero(times <= (k + 0.5) / 25)[-1])
        assert value == mouths[newest][0][0, 0]


def test_unsteady_times_lost_faces_and_late_starts() -> None:
    grid = MouthGrid(2, 25, 107)
    one, two = np.full((2, 2), 1, np.uint8), np.full((2, 2), 2, np.uint8)
    grid.push(one, 0.1)
    grid.push(None, 0.2)  # the face is lost: the last mouth is held
    grid.push(two, 0.3)
    grid.push(one, 0.25)  # its time lies before that of the last: taken as simultaneous
    grid.push(None, 0.5)
    assert grid.late == 1
    got = grid.take(0, 12)[:, 0, 0].tolist()
    assert got == [107, 107, *[1] * 10]
    with pytest.raises(TensorError, match="finite"):
        grid.push(one, float("nan"))
    with pytest.raises(TensorError, match="uint8"):
        grid.push(np.zeros((2, 2)), 1.0)
    reused = one.copy()
    grid.push(reused, 0.6)
    reused[:] = 99
    grid.hold(40)
    assert grid.take(30, 31)[0, 0, 0] == 1
    grid.drop_before(35)
    assert grid.take(38, 39)[0, 0, 0] == 1


def test_sound_without_any_mouth_and_mouths_beyond_the_sound() -> None:
    separator = _separator()
    assert len(separator.separate(_sound(9000), [])) == 9000
    some, more = _mouths(0.5), _mouths(3)
    sound = _sound(8000)
    assert len(separator.separate(sound, more)) == 8000
    short = separator.separate(_sound(32000), some)  # the video ends first: its last mouth is held
    assert len(short) == 32000 and np.isfinite(short).all()


def test_a_silent_track_stays_silent_and_costs_nothing() -> None:
    def noise(inputs):
        return {"voice": np.ones_like(inputs["mixture"])}

    separator = _separator(noise)
    stream = separator.stream()
    voice = np.concatenate((stream.push(np.zeros(20000)), stream.flush()))
    assert not voice.any() and len(voice) == 20000
    assert separator.voice.runs == 0 and stream.silent > 0


def test_two_speakers_share_the_sessions() -> None:
    separator = _separator()
    sound, one, two = _sound(20000), _mouths(1.3, seed=1), _mouths(1.3, seed=2)
    alone = [separator.separate(sound, mouths) for mouths in (one, two)]
    streams, parts = [separator.stream(), separator.stream()], [[], []]
    for k in range(0, 20000, 640):
        for stream, mouths, part in zip(streams, (one, two), parts, strict=True):
            part.append(stream.watch(*mouths[k // 640]))
            part.append(stream.push(sound[k : k + 640]))
    for stream, mouths, part, expected in zip(streams, (one, two), parts, alone, strict=True):
        part.append(stream.watch(*mouths[32]))
        part.append(stream.flush())
        assert np.array_equal(np.concatenate(part), expected)
    assert not np.array_equal(*alone)


def test_memory_is_bounded() -> None:
    stream = _separator().stream()
    for k in range(400):
        stream.watch(np.full((88, 88), k % 256, np.uint8), k / 25)
        stream.push(_sound(640))
    assert len(stream._sound) < 3 * FRAMES * PER_FRAME
    assert len(stream.mouths._frames) < 3 * LIP_FRAMES
    assert stream._features.shape[1] <= FRAMES + REACH


def test_windows_that_do_not_fit_are_refused() -> None:
    separator = _separator()
    for options, words in (
        ({"hop_s": 0.36, "lookahead_s": 0.08}, "do not fit"),
        ({"lookahead_s": 0.0}, "do not fit"),
        ({"hop_s": 0.0}, "do not fit"),
        ({"hop_s": 0.28, "lookahead_s": 0.04}, "--lip-seconds"),
    ):
        with pytest.raises(UsageError, match=words):
            separator.stream(**options)
    with pytest.raises(UsageError, match=r"0\.28 s needs 13 frames .* 3 to each side; .* 12"):
        separator.stream(hop_s=0.28, lookahead_s=0.04)
    plan = StreamPlan.of(MouthPreprocess(35), MixturePreprocess(32000, 50))
    assert (plan.hop, plan.lookahead, plan.fade) == (12, 8, 640)


def test_bad_sound_and_finished_streams_are_refused() -> None:
    stream = _separator().stream()
    with pytest.raises(TensorError, match="mono"):
        stream.push(np.zeros((10, 2)))
    with pytest.raises(TensorError, match="finite"):
        stream.push(np.array([0.0, np.inf]))
    assert len(stream.flush()) == 0
    for call in (lambda: stream.push([0.0]), lambda: stream.watch(None, 0.0), stream.flush):
        with pytest.raises(UsageError, match="has ended"):
            call()
    with pytest.raises(TensorError, match="empty"):
        _separator().separate([], [])


def test_files_that_do_not_belong_together_are_refused(tmp_path) -> None:
    with pytest.raises(ArtifactError, match="weights"):
        _separator(weights=Weights("other", "random:1", "none", False))
    with pytest.raises(ArtifactError, match="expected the lips"):
        SpeechSeparator(Session(_card("voice"), _identity), Session(_card("voice"), _identity))
    with pytest.raises(ArtifactError, match="expected the voice"):
        SpeechSeparator(Session(_card("lips"), _lips), Session(_card("lips"), _lips))
    (tmp_path / "a-lips.onnx").touch()
    with pytest.raises(ArtifactError, match="no voice"):
        find_parts(tmp_path / "a-lips.onnx")


def test_exported_graphs_stream_as_they_separate(tiny_separator) -> None:
    pytest.importorskip("onnxruntime")
    sound, mouths = _sound(12345), _mouths(0.8)
    with SpeechSeparator.open(tiny_separator, "onnxruntime", threads=1) as separator:
        assert separator.sample_rate_hz == 16000 and not separator.trained
        whole = separator.separate(sound, mouths)
        stream = separator.stream()
        parts = [stream.watch(*mouth) for mouth in mouths]
        parts += [stream.push(sound[k : k + 999]) for k in range(0, 12345, 999)]
        parts.append(stream.flush())
    assert np.array_equal(np.concatenate(parts), whole)
    assert whole.shape == sound.shape and np.isfinite(whole).all() and whole.std() > 0
