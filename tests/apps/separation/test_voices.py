"""Choosing a voice: crops in step with sound, nothing lost, clean switches."""

import dataclasses

import numpy as np
import pytest

from prunus.apps.separation import voices
from prunus.apps.separation.voices import VoicePicker
from prunus.runtime.tasks.faces.finder import Face
from prunus.runtime.tasks.faces.mesh import INNER_LIPS, OUTER_LIPS
from prunus.runtime.tasks.separation.card import MouthPreprocess

STEP = 40
MOUTH = MouthPreprocess(frames=4)


class _Cropper:
    """Crops that are filled with the face's number; the same delay as the true one."""

    def __init__(self, mouth, look_ahead: int) -> None:
        self.ahead, self.waiting = look_ahead, []

    def push(self, image, points):
        self.waiting.append(np.full((88, 88), 107 if points is None else points[0, 0], np.uint8))
        return [self.waiting.pop(0)] if len(self.waiting) > self.ahead else []

    def flush(self):
        out, self.waiting = self.waiting, []
        return out


class _Stream:
    """Lags by so many frames; gives sound times the brightness of the crops of the same time."""

    opened = 0

    def __init__(self, lag: int, hop: int) -> None:
        self.lag, self.hop, self.held, self.given = lag, hop, [], 0
        _Stream.opened += 1

    def push(self, mixture, mouths):
        assert mixture.shape == (STEP,) and mouths.shape == (1, 88, 88)
        self.held.append(mixture * float(mouths[0, 0, 0]))
        ready = max(0, len(self.held) - self.lag) // self.hop * self.hop
        return self._until(ready)

    def flush(self):
        return self._until(len(self.held))

    def _until(self, count: int):
        out = self.held[self.given : count]
        self.given = max(count, self.given)
        return np.concatenate(out) if out else np.zeros(0, np.float32)


@pytest.fixture(autouse=True)
def _croppers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voices, "MouthCropper", _Cropper)
    monkeypatch.setattr(voices, "_BLEND", 10)


def _face(number: int, opening: float = 0.2) -> Face:
    points = np.full((468, 3), number, np.float32)
    points[OUTER_LIPS[6], 0] += 10  # the mouth's width
    points[INNER_LIPS[6], 1] += 10 * opening
    return Face(number, points, (0, 0, 1, 1), 1.0, 1.0)


def _run(schedule, *, ahead: int, lag: int = 3, hop: int = 2, choices=()):
    """Feed moments; `schedule` lists the faces seen in each, `choices` when whom to choose."""
    picker = VoicePicker(lambda: _Stream(lag, hop), MOUTH, STEP, 12, look_ahead=ahead)
    image, out = np.zeros((4, 4, 3), np.uint8), []
    for k, seen in enumerate(schedule):
        if k in dict(choices):
            picker.choose(dict(choices)[k])
        sound = np.full(STEP, k + 1, np.float32)
        out.append(picker.push(image, [_face(n) for n in seen], sound))
    out.append(picker.flush())
    voice = np.concatenate(out)
    assert picker.given == len(voice)
    return voice


def _expected(brightness) -> np.ndarray:
    return np.concatenate([np.full(STEP, (k + 1) * b) for k, b in enumerate(brightness)])


@pytest.mark.parametrize("ahead", [0, 5, 11])
@pytest.mark.parametrize("count", [1, 7, 40])
def test_every_sample_comes_out_once_with_the_crop_of_its_time(ahead: int, count: int) -> None:
    voice = _run([[1]] * count, ahead=ahead)
    np.testing.assert_array_equal(voice, _expected([1] * count))


@pytest.mark.parametrize("ahead", [0, 11])
def test_a_face_that_comes_late_or_is_never_seen_counts_as_grey(ahead: int) -> None:
    voice = _run([[]] * 9 + [[1]] * 11, ahead=ahead)
    np.testing.assert_array_equal(voice, _expected([107] * 9 + [1] * 11))
    voice = _run([[2]] * 20, ahead=ahead)  # only another face is seen
    np.testing.assert_array_equal(voice, _expected([107] * 20))


@pytest.mark.parametrize("ahead", [0, 11])
@pytest.mark.parametrize("at", [1, 13, 25, 26])
def test_a_switch_loses_and_repeats_nothing_and_uses_the_other_lips(ahead: int, at: int) -> None:
    voice = _run([[1, 2]] * 40, ahead=ahead, choices=[(at, 2)])
    assert len(voice) == 40 * STEP
    first, second = _expected([1] * 40), _expected([2] * 40)
    changed = np.flatnonzero(voice != first)
    seam = int(changed[0])
    np.testing.assert_array_equal(voice[:seam], first[:seam])
    np.testing.assert_array_equal(voice[seam + 10 :], second[seam + 10 :])
    blended = voice[seam : seam + 10]
    assert ((blended >= first[seam : seam + 10]) & (blended <= second[seam : seam + 10])).all()
    assert seam <= at * STEP  # the new voice begins at the latest where it was asked for


def test_switching_back_and_forth_and_to_the_same_face() -> None:
    _Stream.opened = 0
    voice = _run([[1, 2]] * 60, ahead=0, choices=[(10, 2), (11, 2), (30, 1)])
    assert len(voice) == 60 * STEP and _Stream.opened == 3
    np.testing.assert_array_equal(voice[:200], _expected([1] * 60)[:200])
    np.testing.assert_array_equal(voice[18 * STEP : 24 * STEP], _expected([2] * 60)[720:960])
    np.testing.assert_array_equal(voice[-20 * STEP :], _expected([1] * 60)[-800:])


@pytest.mark.parametrize("hop", [1, 5, 12])
@pytest.mark.parametrize("when", range(20, 34))
def test_another_voice_comes_in_without_a_click(monkeypatch, hop, when):
    """Streams give in bursts that begin anywhere: the new one may be ahead of the old one."""
    monkeypatch.setattr(voices, "_BLEND", 80)
    picker = VoicePicker(lambda: _Stream(3, hop), MOUTH, STEP, 20, look_ahead=0)
    tone = np.sin(2 * np.pi * np.arange(60 * STEP) / 160).astype(np.float32)
    image, out = np.zeros((4, 4, 3), np.uint8), []
    for k in range(60):
        if k == when:
            picker.choose(40)
        sound = tone[k * STEP : (k + 1) * STEP]
        out.append(picker.push(image, [_face(1), _face(40)], sound))
    voice = np.concatenate([*out, picker.flush()])
    assert np.abs(voice[-800:]).max() > 39 and np.abs(voice[: when * STEP - 760]).max() <= 1.0
    bend = np.abs(np.diff(voice.astype(np.float64), 2)).max()
    assert bend < 3 * 40 * (2 * np.pi / 160) ** 2  # a cut there bends it up to 25 times as much


def _spoken(openings, *, choices=(), **words) -> np.ndarray:
    """Return the voice over a constant sound of 1; `openings` has a dictionary per moment."""
    picker = VoicePicker(lambda: _Stream(3, 2), MOUTH, STEP, 12, **words)
    image, out = np.zeros((4, 4, 3), np.uint8), []
    for k, seen in enumerate(openings):
        picker.choose(dict(choices).get(k, picker.chosen))
        faces = [_face(number, opening) for number, opening in seen.items()]
        out.append(picker.push(image, faces, np.ones(STEP, np.float32)))
    return np.concatenate([*out, picker.flush()])


@pytest.mark.parametrize("ahead", [0, 11])
def test_shut_lips_are_silent_and_open_ones_are_not(ahead: int) -> None:
    openings = [{1: 0.2}] * 20 + [{1: 0.01}] * 20 + [{1: 0.2}] * 20
    voice = _spoken(openings, look_ahead=ahead)
    assert len(voice) == 60 * STEP
    np.testing.assert_array_equal(voice[: 21 * STEP], 1)  # not cut at its end
    np.testing.assert_array_equal(voice[39 * STEP :], 1)  # nor at its begin
    assert np.abs(voice[25 * STEP : 35 * STEP]).max() <= 10 ** (-30 / 20)
    np.testing.assert_array_equal(_spoken(openings, look_ahead=ahead, gated=False), 1)


def test_a_mouth_that_is_not_seen_and_short_closures_let_the_voice_through() -> None:
    speech = [{1: 0.2}] * 6 + [{1: 0.0}] * 4
    for openings in ([{1: 0.2}] * 10 + [{}] * 30, speech * 4):
        np.testing.assert_array_equal(_spoken(openings), _spoken(openings, gated=False))


def test_a_mouth_behind_the_edge_of_the_picture_lets_the_voice_through(monkeypatch) -> None:
    inside, face = _spoken([{1: 0.01}] * 40), _face
    monkeypatch.setitem(
        globals(), "_face", lambda n, o: dataclasses.replace(face(n, o), mouth_inside=0.5)
    )
    outside = _spoken([{1: 0.01}] * 40)
    np.testing.assert_array_equal(outside, 1)
    assert inside[-STEP:].max() < 0.03


def test_each_face_is_judged_by_its_own_lips() -> None:
    openings = [{1: 0.2, 2: 0.01}] * 40
    voice = _spoken(openings, choices=[(20, 2)], look_ahead=0)
    np.testing.assert_array_equal(voice[: 14 * STEP], 1)
    assert np.abs(voice[22 * STEP :]).max() <= 2 * 10 ** (-30 / 20)  # brightness of its crops: 2
    late = _spoken([{1: 0.01}] * 30 + [{1: 0.01, 2: 0.2}] * 30, choices=[(31, 2)], look_ahead=0)
    assert np.abs(late[5 * STEP : 24 * STEP]).max() <= 10 ** (-30 / 20)
    np.testing.assert_array_equal(late[32 * STEP :], 2)
