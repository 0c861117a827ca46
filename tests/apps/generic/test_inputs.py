"""Words after --input become arrays, or are refused by name."""

import dataclasses

import cv2
import numpy as np
import pytest

from prunus.apps.generic.inputs import read_feed, with_words
from prunus.runtime.audio.files import write_wav
from prunus.runtime.card.foreign import foreign_card
from prunus.runtime.errors import ArtifactError, PrunusError, SourceError, TensorError, UsageError

WORDS = ("colour=rgb", "mean=0,0,0", "std=255,255,255")


@pytest.fixture
def card(onnx_file):
    spec = {
        "x": ("float32", [1, 3, 8, 6]),
        "sr": ("int64", []),
        "ids": ("int32", [1, 4]),
        "on": ("bool", [2]),
        "wave": ("float32", [1, 1600]),
    }
    return foreign_card(onnx_file("net", [("Relu", "x", "y")], spec, {"y": spec["x"]}))


def only(card, *names):
    return dataclasses.replace(card, inputs=tuple(s for s in card.inputs if s.name in names))


def test_arrays_numbers_and_archives(card, tmp_path) -> None:
    x = np.random.default_rng(0).random((1, 3, 8, 6), np.float32)
    np.save(tmp_path / "x.npy", x)
    words = [f"x={tmp_path}/x.npy", "sr=16000", "ids=[1,2,3,4]", "on=true", "wave=0.5"]
    feed, notes = read_feed(card, words)
    assert (feed["x"] == x).all() and feed["sr"] == 16000 and feed["sr"].dtype == np.int64
    assert feed["ids"].tolist() == [[1, 2, 3, 4]] and feed["ids"].dtype == np.int32
    assert feed["on"].all() and (feed["wave"] == 0.5).all() and len(notes) == 5
    np.savez(tmp_path / "all.npz", **feed)
    again, _ = read_feed(card, [f"{tmp_path}/all.npz"])
    assert all((again[name] == feed[name]).all() for name in feed)


def test_noise_fills_what_is_missing_and_says_so(card) -> None:
    feed, notes = read_feed(card, ["sr=1"], noise=True)
    assert set(feed) == {"x", "sr", "ids", "on", "wave"}
    assert sum("uniform noise" in note for note in notes) == 4
    with pytest.raises(UsageError, match="Nothing is given for x float32") as caught:
        read_feed(card, ["sr=1"])
    assert "--input x=FILE --input ids=FILE" in caught.value.hint


@pytest.mark.parametrize(
    ("word", "error", "said"),
    [
        ("x", UsageError, "expected NAME=FILE"),
        ("x=", UsageError, "expected NAME=FILE"),
        ("xx=1", UsageError, r"no input 'xx' \(did you mean 'x'\?\)"),
        ("x=gone.npy", SourceError, "--input x: Array file not found"),
        ("gone.npz", SourceError, "Array file not found"),
        ("x=gone.jpg", PrunusError, "--input x: "),
        ("ids=[1,2]", TensorError, "--input ids: Got "),
        ("ids=3000000000", TensorError, "--input ids: Got 3000000000"),
        ("sr=1.5", TensorError, "--input sr"),
        ('ids=["a"]', TensorError, "--input ids"),
    ],
)
def test_words_that_do_not_fit(card, word, error, said) -> None:
    with pytest.raises(error, match=said):
        read_feed(card, [word])


def test_arrays_that_do_not_fit(card, tmp_path) -> None:
    np.save(tmp_path / "wide.npy", np.zeros((1, 3, 8, 6)))
    with pytest.raises(TensorError, match="dtype float64; expected x float32"):
        read_feed(card, [f"x={tmp_path}/wide.npy"])
    np.save(tmp_path / "two.npy", np.zeros((2, 3, 8, 6), np.float32))
    with pytest.raises(TensorError, match=r"axis0=2!"):
        read_feed(card, [f"x={tmp_path}/two.npy"])
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "two.npy").read_bytes()[:200])
    for name in ("objects", "cut"):
        with pytest.raises(SourceError, match=r"is not a complete \.npy file"):
            read_feed(card, [f"x={tmp_path}/{name}.npy"])
    np.savez(tmp_path / "other.npz", z=np.zeros(1))
    with pytest.raises(UsageError, match=r"arrays named \['z'\]"):
        read_feed(card, [f"{tmp_path}/other.npz"])
    with pytest.raises(UsageError, match="sr twice"):
        read_feed(card, ["sr=1", "sr=2"])


def test_a_damaged_archive_is_refused_by_name(card, broken_npz) -> None:
    path = broken_npz("all.npz", x=np.zeros((1, 3, 8, 6), np.float32))
    with pytest.raises(SourceError, match=r"all\.npz is not a complete \.npz file"):
        read_feed(card, [str(path)])


def test_pictures_go_in_as_the_words_say(card, tmp_path) -> None:
    path, alone = tmp_path / "p.png", only(card, "x")
    cv2.imwrite(str(path), np.full((8, 6, 3), (255, 0, 51), np.uint8))
    with pytest.raises(ArtifactError, match=r"--input x: net .* does not say how a picture"):
        read_feed(alone, [f"x={path}"])
    feed, _ = read_feed(with_words(alone, WORDS), [f"x={path}"])
    np.testing.assert_allclose(feed["x"][0, :, 4, 3], [0.2, 0, 1])
    assert with_words(alone, ()) is alone
    with pytest.raises(TensorError, match="'x' does"):
        read_feed(with_words(card, WORDS), [f"wave={path}"])


def test_sounds_are_cut_and_resampled_and_that_is_said(card, tmp_path) -> None:
    path, alone = tmp_path / "s.wav", only(card, "wave")
    tone = (0.5 * np.sin(np.arange(6400) * 2 * np.pi * 440 / 32000)).astype(np.float32)
    write_wav(path, iter([tone]), 32000)
    feed, (note,) = read_feed(alone, [f"wave={path}"])
    np.testing.assert_allclose(feed["wave"][0], tone[:1600], atol=1e-4)
    assert "the first 1600 of 6400 samples at 32000 Hz, not resampled" in note
    feed, (note,) = read_feed(alone, [f"wave={path}"], rate=16000)
    slow = 0.5 * np.sin(np.arange(1600) * 2 * np.pi * 440 / 16000)
    np.testing.assert_allclose(feed["wave"][0, 200:1400], slow[200:1400], atol=2e-3)
    assert "of 3200 samples at 16000 Hz, resampled from 32000 Hz" in note
    with pytest.raises(TensorError, match="has 1280 samples at 6400 Hz"):
        read_feed(alone, [f"wave={path}"], rate=6400)
    with pytest.raises(TensorError, match="--input x: Got a sound for x float32"):
        read_feed(card, [f"x={path}"])
