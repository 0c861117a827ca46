"""Which graphs may join inputs, and that every caller gets its own part."""

from dataclasses import replace

import numpy as np
import pytest

from prunus.runtime.card.foreign import foreign_card
from prunus.runtime.errors import TensorError
from prunus.runtime.tasks.batches import items_in, join, places_of, split


@pytest.fixture
def card(onnx_file):
    return foreign_card(
        onnx_file(
            "net", [("Mul", "x w", "y")], {"x": ("float32", [3, 2])}, {"y": ("float32", [3, 2])},
            {"w": np.float32(2)},
        )
    )  # fmt: skip


def _named(card, given, made):
    return replace(
        card,
        inputs=tuple(replace(s, axes=(given, "value")) for s in card.inputs),
        outputs=tuple(replace(s, axes=(made, "value")) for s in card.outputs),
    )


def test_only_a_batch_on_both_sides_is_joined(card) -> None:
    assert places_of(card) == 1
    assert places_of(_named(card, "batch", "token")) == places_of(_named(card, "t", "batch")) == 1
    assert places_of(_named(card, "batch", "batch")) == 3


def test_parts_go_in_their_order_and_come_back(card) -> None:
    card = _named(card, "batch", "batch")
    feeds = [{"x": np.full((n, 2), n, np.float32)} for n in (1, 2)]
    assert [items_in(card, feed) for feed in feeds] == [1, 2]
    joined = join(card, feeds)
    np.testing.assert_array_equal(joined["x"], [[1, 1], [2, 2], [2, 2]])
    np.testing.assert_array_equal(join(card, feeds[:1])["x"][1:], 0)
    first, second = split({"y": joined["x"]}, [1, 2])
    np.testing.assert_array_equal(first["y"], feeds[0]["x"])
    np.testing.assert_array_equal(second["y"], feeds[1]["x"])
    first["y"][:] = 9  # belongs to its caller alone
    assert joined["x"].max() == 2


@pytest.mark.parametrize("shape", [(0, 2), (4, 2), (1, 3), (2,), ()])
def test_what_does_not_fit_is_refused(card, shape) -> None:
    with pytest.raises(TensorError):
        items_in(_named(card, "batch", "batch"), {"x": np.zeros(shape, np.float32)})


def test_without_a_batch_an_input_is_the_whole_run(card) -> None:
    assert items_in(card, {"x": np.zeros((3, 2), np.float32)}) == 1
    for shape in ((1, 2), (2, 2), (3,)):
        with pytest.raises(TensorError, match="axis0=3"):
            items_in(card, {"x": np.zeros(shape, np.float32)})
    one = _named(card, "batch", "batch")
    one = replace(one, inputs=tuple(replace(s, shape=(1, 2)) for s in one.inputs))
    one = replace(one, outputs=tuple(replace(s, shape=(1, 2)) for s in one.outputs))
    assert items_in(one, {"x": np.zeros((1, 2), np.float32)}) == 1
    with pytest.raises(TensorError, match="batch=2!"):
        items_in(one, {"x": np.zeros((2, 2), np.float32)})
