"""Masks that are added to attention scores must count in bfloat16 as they do in float32."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunus.export.common.sessions import graph_card
from prunus.runtime import host
from prunus.runtime.session.base import BackendOptions
from prunus.runtime.session.base import open as open_session
from prunus.runtime.session.openvino.masks import keep_masks_apart

ov = pytest.importorskip("openvino")
KEYS, CHANNELS = 40, 32
LOWEST = float(np.finfo(np.float32).min)
needs_bfloat16 = pytest.mark.skipif(
    not host.bfloat16_flag(), reason="this CPU has no bfloat16 arithmetic"
)


def attention(
    lead: tuple[int, ...], queries: int, mask: np.ndarray, computed: bool = False
) -> onnx.ModelProto:
    """softmax(q k^T + mask) v; a computed mask comes in as one more input."""
    turned = [*range(len(lead)), len(lead) + 1, len(lead)]
    nodes = [
        helper.make_node("Transpose", ["k"], ["turned"], perm=turned, name="Transpose"),
        helper.make_node("MatMul", ["q", "turned"], ["scores"], name="MatMul"),
        helper.make_node("Add", ["scores", "mask"], ["masked"], name="Add"),
        helper.make_node("Softmax", ["masked"], ["weights"], axis=-1, name="Softmax"),
        helper.make_node("MatMul", ["weights", "v"], ["y"], name="MatMul_1"),
    ]
    sizes = {"q": queries, "k": KEYS, "v": KEYS}
    inputs = [(n, [*lead, rows, CHANNELS]) for n, rows in sizes.items()]
    if computed:
        inputs.append(("mask", list(mask.shape)))
    made = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [*lead, queries, CHANNELS])],
        [] if computed else [numpy_helper.from_array(mask, "mask")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def some_inputs(lead: tuple[int, ...], queries: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = {"q": queries, "k": KEYS, "v": KEYS}
    made = {n: rng.standard_normal((*lead, r, CHANNELS), np.float32) for n, r in sizes.items()}
    return made | {"q": made["q"] * np.float32(CHANNELS**-0.5)}


def expected(feed: dict[str, np.ndarray], mask: np.ndarray) -> np.ndarray:
    scores = feed["q"].astype(np.float64) @ feed["k"].swapaxes(-1, -2) + mask
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True)) @ feed["v"]


def off_by(model: onnx.ModelProto, feed: dict[str, np.ndarray], want: np.ndarray) -> float:
    """Return the largest error of the session in bfloat16 as a share of the largest value."""
    options = BackendOptions(inference_precision="bf16")
    with open_session(
        model.SerializeToString(), "openvino", threads=1, options=options, card=graph_card(model)
    ) as session:
        got = session.run(feed)["y"]
    return float(np.abs(got - want).max() / np.abs(want).max())


def last_keys(shape: tuple[int, ...], value: float) -> np.ndarray:
    mask = np.zeros((*shape, KEYS), np.float32)
    mask[..., KEYS * 3 // 4 :] = value
    return mask


@needs_bfloat16
@pytest.mark.parametrize("value", [-1e4, -65504.0, LOWEST, -math.inf])
@pytest.mark.parametrize(
    ("lead", "queries", "rows"),
    [
        ((4, 3), 17, (1, 1, 1)),
        ((1, 3), 1, (1, 1, 1)),
        ((1, 1), 17, ()),
        ((1, 1), 1, (1, 1, 1)),
        ((4,), 17, (1, 1)),
        ((1,), 1, (1,)),
    ],
)
def test_one_row_for_all_masks_its_keys(lead, queries, rows, value) -> None:
    mask, feed = last_keys(rows, value), some_inputs(lead, queries)
    assert off_by(attention(lead, queries, mask), feed, expected(feed, mask)) < 0.03


@needs_bfloat16
def test_a_computed_row_masks_its_keys() -> None:
    mask, feed = last_keys((1, 1, 1), -1e4), some_inputs((4, 3), 17)
    model = attention((4, 3), 17, mask, computed=True)
    assert off_by(model, feed | {"mask": mask}, expected(feed, mask)) < 0.03


@needs_bfloat16
@pytest.mark.parametrize("value", [-100.0, -1e4, LOWEST])
@pytest.mark.parametrize("form", ["window", "shift", "causal", "head"])
def test_masks_of_windows_and_orders_are_right_as_they_are(form, value) -> None:
    """Windows lie along the batch, (windows, 1, tokens, tokens), as in shifted windows."""
    place = np.arange(KEYS)
    hidden = {
        "window": np.stack([(place[None] // 10 != w) & (place[:, None] >= 0) for w in range(4)]),
        "shift": np.stack([(place[:, None] < s) != (place[None] < s) for s in (0, 8, 20, 30)]),
        "causal": np.broadcast_to(place[None] > place[:, None], (1, KEYS, KEYS)),
        "head": np.broadcast_to(place[None] > place[:, None], (3, KEYS, KEYS)),
    }[form]
    mask = np.where(hidden, np.float32(value), np.float32(0))
    mask = mask[None] if form == "head" else mask[:, None]
    feed = some_inputs((4, 3), KEYS)
    assert off_by(attention((4, 3), KEYS, mask), feed, expected(feed, mask)) < 0.03


def test_only_single_rows_are_kept_apart() -> None:
    core = ov.Core()

    def changed(*rows: int) -> tuple[str, ...]:
        model = attention((4, 3), 17, last_keys(rows, -1e4))
        read = core.read_model(model.SerializeToString())
        names = keep_masks_apart(read)
        assert keep_masks_apart(read) == ()
        return names

    assert len(changed(1, 1, 1)) == len(changed()) == 1
    assert changed(1, 1, 17) == changed(1, 3, 1) == changed(4, 1, 1) == ()


@pytest.mark.parametrize(
    ("shape", "mask", "kept"),
    [
        ((2, 3, 4, 5), (1, 1, 1, 5), ["sum"]),
        ((4, 5), (5,), ["sum"]),
        ((1, 2, 3, 4, 5), (5,), []),  # more axes than are merged
        ((4, 5), (4, 5), []),  # another row for each query
        ((4, 5), (4, 1), []),
        ((4, 1), (1, 1), []),  # one key: there is nothing to hide
        ((5,), (5,), []),
        ((-1, 5), (1, 5), []),  # a size that is not known before it runs
        ((), (), []),
    ],
)
def test_which_sums_are_kept_apart(shape, mask, kept) -> None:
    from openvino import opset13 as ops

    scores, row = (ops.parameter(s, np.float32) for s in (shape, mask))
    total = ops.add(scores, row, name="sum")
    made = ops.softmax(total, max(len(shape) - 1, 0)) if shape else ops.softmax(
        ops.reshape(total, np.array([1]), False), 0
    )  # fmt: skip
    model = ov.Model([made], [scores, row], "m")
    assert list(keep_masks_apart(model)) == kept
    assert model.outputs[0].get_partial_shape() == ov.PartialShape(list(shape) or [1])
