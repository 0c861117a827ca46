import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.apps.fleet.symptoms import find_symptom, format_of

RNG = np.random.default_rng(0)
MAPS = RNG.standard_normal((4, 6, 9, 9)).astype(np.float32)


def _seen(got, expected=MAPS):
    return find_symptom({"y": expected}, {"y": got.astype(np.float32)})


def _changed(change):
    got = MAPS.copy()
    change(got)
    return got


def _zero(got):
    got[:, 4] = 0.0


def _rotate(got):
    got[:, [1, 2, 3]] = got[:, [2, 3, 1]]


def _third(got):
    got[:, 2] /= 3


def _nan(got):
    got[1, 2, 3, 4] = np.nan


@pytest.mark.parametrize(
    ("got", "verdict", "told"),
    [
        (_changed(_zero), "dead-channel", "4 on axis 1 is constant 0"),
        (np.zeros_like(MAPS), "dead-channel", "all values are 0"),
        (_changed(_rotate), "swapped-channels", "1 holds 2, 2 holds 3, 3 holds 1"),
        (_changed(_third), "scaled-output", "2 on axis 1 is 0.333 times"),
        (1.02 * MAPS, "scaled-output", "all values are 1.02 times"),
        (_changed(_nan), "not-finite", r"1 of 1944 .* at \[1, 2, 3, 4\]"),
        (MAPS.astype(np.float16), "number-format", "float16"),
        (MAPS + 0.1 * RNG.standard_normal(MAPS.shape), "wrong-values", "no known pattern"),
        (MAPS[::-1], "wrong-values", "no known pattern"),
        (MAPS + 0.1, "wrong-values", "no known pattern"),
    ],
)  # fmt: skip
def test_a_pattern_has_a_name(got, verdict, told) -> None:
    import re

    found = _seen(got)
    assert found.verdict == verdict and re.search(told, found.detail)


def test_what_was_dead_before_is_not_told() -> None:
    expected = _changed(_zero)
    got = expected + 0.3 * np.roll(expected, 1, axis=0)
    assert _seen(got, expected).verdict == "wrong-values"


def test_formats_are_told_where_the_reference_is_on_no_such_grid() -> None:
    coarse = (MAPS.view(np.uint32) & 0xFFFF0000).view(np.float32)
    assert format_of({"y": MAPS}, {"y": coarse}).detail.endswith("bfloat16 values")
    assert format_of({"y": coarse}, {"y": coarse}) is None
    assert format_of({"y": MAPS}, {"y": MAPS}) is None
    few = np.float32([[0.5, 1.0]])
    assert format_of({"y": few + np.float32(1e-6)}, {"y": few}) is None, "too few to tell"


@given(st.integers(0, 2**32 - 1), st.sampled_from(["noise", "scale", "swap", "kill"]))
def test_every_fault_gets_exactly_one_name(seed, fault) -> None:
    rng = np.random.default_rng(seed)
    expected = rng.standard_normal((3, 5, 7)).astype(np.float32)
    got, k = expected.copy(), int(rng.integers(5))
    if fault == "noise":
        got += rng.standard_normal(got.shape).astype(np.float32)
    elif fault == "scale":
        got[:, k] *= np.float32(rng.uniform(1.2, 3))
    elif fault == "swap":
        got[:, [k, (k + 1) % 5]] = got[:, [(k + 1) % 5, k]]
    else:
        got[:, k] = np.float32(rng.uniform(-1, 1))
    names = {"noise": "wrong-values", "scale": "scaled-output", "swap": "swapped-channels",
             "kill": "dead-channel"}  # fmt: skip
    assert _seen(got, expected).verdict == names[fault]
