"""Choices by score: which ones there are, how they are forced, and what a swap is worth."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from prunus.export.verify.matching import Pair
from prunus.export.verify.selection import (
    force_choices,
    own_name,
    score_inputs,
    selection_axis,
    selection_error,
    selections,
    swap_notes,
)


def _pair(operator="TopK", output=1, name="index", shape=(1, 2), other=None) -> Pair:
    return Pair("net/Node", operator, output, name, name, shape, other or shape)


def _model(operator="TopK", **attributes) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    inputs, outputs = ["score"], ["index"]
    if operator == "TopK":
        inputs, outputs = ["score", "k"], ["best", "index"]
    nodes = [
        helper.make_node("Relu", ["x"], ["score"]),
        helper.make_node(operator, inputs, outputs, **attributes),
        helper.make_node("Gather", ["x", "index"], ["y"], axis=1),
    ]
    graph = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, [1, 5])],
        [value("y", TensorProto.FLOAT, None), value("index", TensorProto.INT64, [1, 2])],
        [helper.make_tensor("k", TensorProto.INT64, [1], [2])],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_what_counts_as_a_choice() -> None:
    good = [_pair(), _pair("ArgMax", 0), _pair("ArgMin", 0)]
    bad = [_pair(output=0), _pair("ArgMax", 1), _pair("Gather", 0), _pair(other=(1, 3))]
    assert selections([*bad, *good]) == good


def test_a_forced_graph_computes_with_the_indices_that_it_is_given() -> None:
    import onnxruntime

    model, pair = _model(), _pair()
    forced = force_choices(model, [pair])
    own = helper.make_tensor_value_info(own_name(pair), TensorProto.INT64, None)
    forced.graph.output.append(own)
    assert [v.name for v in forced.graph.output] == ["y", "index__own"]
    session = onnxruntime.InferenceSession(
        forced.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    x = np.array([[1, 9, 3, 7, 5]], np.float32)
    y, own = session.run(None, {"x": x, "index": np.array([[0, 4]])})
    assert y.tolist() == [[[1, 5]]] and own.tolist() == [[1, 3]]
    assert model.graph.node[1].output[1] == "index"  # the graph itself stays as it was


def test_the_scores_behind_a_choice() -> None:
    assert score_inputs(_model(), [_pair()]) == {"index": "score"}
    assert score_inputs(_model(), []) == {}


@pytest.mark.parametrize(
    ("operator", "attributes", "axis"),
    [
        ("TopK", {}, (-1, True, True)),
        ("TopK", {"axis": 1, "largest": 0}, (1, False, True)),
        ("ArgMax", {}, (0, True, True)),
        ("ArgMax", {"axis": 1, "keepdims": 0}, (1, True, False)),
        ("ArgMin", {"axis": 1}, (1, False, True)),
    ],
)
def test_along_which_axis_and_by_which_end(operator, attributes, axis) -> None:
    assert selection_axis(_model(operator, **attributes), _pair(operator)) == axis


SCORES = np.array([[0.0, 10, 4, 5, 3], [0, 10, 4, 5, 9]])


def test_a_swap_is_worth_half_its_gap_as_a_share_of_the_range() -> None:
    same = np.array([[1, 3], [1, 4]])
    assert selection_error(SCORES, same, same[:, ::-1], (-1, True, True)) == (0.0, 0)
    one = np.array([[1, 2], [1, 4]])  # 4 for 5
    assert selection_error(SCORES, same, one, (-1, True, True)) == (pytest.approx(0.05), 1)
    two = np.array([[1, 2], [0, 2]])  # and 0, 4 for 10, 9: up to 10 apart
    assert selection_error(SCORES, same, two, (-1, True, True)) == (pytest.approx(0.5), 3)
    turned = selection_error(SCORES.T, same.T, one.T, (0, True, True))
    assert turned == (pytest.approx(0.05), 1)


def test_a_choice_of_the_smallest_and_one_without_its_axis() -> None:
    least, other = np.array([[0, 4], [0, 2]]), np.array([[0, 2], [0, 2]])  # 4 for 3
    assert selection_error(SCORES, least, other, (1, False, True)) == (pytest.approx(0.05), 1)
    best, next_best = np.array([1, 1]), np.array([1, 4])  # 9 for 10
    assert selection_error(SCORES, best, next_best, (1, True, False)) == (pytest.approx(0.05), 1)


def test_only_swaps_are_told() -> None:
    assert swap_notes({"a": 0, "b": 2}) == (
        "b: 2 near-tied choice(s) differ; the reference's were used behind it.",
    )
