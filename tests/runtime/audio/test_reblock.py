"""What waits in streams: absolute places, zeros where nothing is, several arrays in step."""

import numpy as np
import pytest

from prunus.runtime.audio.reblock import Held, Lane, Reblocker
from prunus.runtime.errors import TensorError


def test_places_stay_what_they_are_when_the_beginning_is_forgotten() -> None:
    held = Held()
    for part in np.array_split(np.arange(1.0, 101.0, dtype=np.float32), 7):
        held.push(part)
    held.forget(40)
    assert (held.start, held.end, len(held)) == (40, 100, 60)
    np.testing.assert_array_equal(held.take(50, 53), [51, 52, 53])
    np.testing.assert_array_equal(held.take(38, 42), [0, 0, 41, 42])  # what is gone is silence
    np.testing.assert_array_equal(held.take(98, 102), [99, 100, 0, 0])  # so is what never came
    assert not held.take(0, 10).any() and not held.take(200, 205).any()
    held.forget(10)
    assert held.start == 40
    assert held.items.base is None  # the forgotten part is not kept alive


def test_cutting_gives_everything_once_and_no_more_than_there_is() -> None:
    rng, sound = np.random.default_rng(0), np.arange(1000, dtype=np.float32)
    held, out, at = Held(), [], 0
    while at < len(sound) or len(held):
        count = int(rng.integers(0, 90))
        held.push(sound[at : at + count])
        at += count
        out.append(held.cut(int(rng.integers(0, 90))))
    np.testing.assert_array_equal(np.concatenate(out), sound)
    assert held.start == 1000 and len(held.cut(5)) == 0


def test_several_arrays_go_out_in_whole_frames() -> None:
    lanes = {"sound": Lane(3), "codes": Lane(1, 2)}
    shapes = {"sound": ((1, 0), np.float32), "codes": ((4, 0), np.int64)}
    blocks = Reblocker(lanes, shapes)
    blocks.push({"sound": np.ones((1, 14), np.float32), "codes": np.full((4, 3), 7)})
    assert (blocks.end, blocks.begun) == (4, 6)  # 14 samples: four frames and a part of a fifth
    out = blocks.cut(2)
    assert out["sound"].shape == (1, 6) and out["codes"].shape == (4, 1)
    assert out["codes"].dtype == np.int64 and blocks.start == 2
    assert blocks.complete(2) == 6
    rest = blocks.take(2, 4)
    np.testing.assert_array_equal(rest["sound"][0], [1] * 8 + [0] * 4)
    with pytest.raises(TensorError, match="expected"):
        blocks.push({"sound": np.ones((1, 3), np.float32)})
    assert blocks.end == 6
