from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunus.export.graph.audit import audit, forbidden_operators, require_clean, static_shapes
from prunus.runtime.errors import PrunusError

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def model_of(nodes, inputs, outputs, tensors=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info(n, t, s) for n, t, s in outputs],
        [numpy_helper.from_array(a, n) for n, a in tensors],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_an_exported_pose_graph_is_clean(pose_graph):
    assert audit(pose_graph) == []
    require_clean(pose_graph)


def test_a_data_dependent_count_is_found_twice():
    nodes = [helper.make_node("NonZero", ["x"], ["y"], name="blocks.3/NonZero")]
    model = model_of(nodes, [("x", FLOAT, [4])], [("y", INT64, None)])
    assert [p.node for p in audit(model)] == ["blocks.3/NonZero"] * 2
    with pytest.raises(PrunusError, match=r"blocks\.3/NonZero"):
        require_clean(model)


def test_a_symbolic_dimension_is_named():
    model = model_of(
        [helper.make_node("Relu", ["x"], ["y"], name="r")],
        [("x", FLOAT, ["batch", 3])],
        [("y", FLOAT, None)],
    )
    problems = static_shapes(model)
    assert {p.node for p in problems} == {"x", "r"}
    assert "batch" in problems[0].reason


@pytest.mark.parametrize("operator", ["Loop", "If", "Scan", "Unique", "Compress", "DFT"])
def test_operators_that_break_a_static_engine_are_refused(operator):
    model = model_of(
        [helper.make_node(operator, ["x"], ["y"], name="n")],
        [("x", FLOAT, [4])],
        [("y", FLOAT, [4])],
    )
    assert [p.node for p in forbidden_operators(model)] == ["n"]


@pytest.mark.parametrize(("reduction", "count"), [("none", 0), ("add", 1), ("max", 1)])
def test_scatter_may_not_reduce(reduction, count):
    node = helper.make_node(
        "ScatterElements", ["x", "i", "u"], ["y"], axis=0, reduction=reduction, name="s"
    )
    tensors = [("i", np.array([1])), ("u", np.ones(1, np.float32))]
    model = model_of([node], [("x", FLOAT, [4])], [("y", FLOAT, [4])], tensors)
    assert len(audit(model)) == count


@pytest.mark.parametrize(
    ("k", "is_sorted", "word"),
    [(2, 1, ""), (2, 0, "sorted"), (None, 1, "constant"), (4000, 1, "3840")],
)
def test_topk_needs_a_constant_k_and_sorting(k, is_sorted, word):
    node = helper.make_node("TopK", ["x", "k"], ["v", "i"], sorted=is_sorted, name="t")
    inputs = [("x", FLOAT, [5000])] + ([("k", INT64, [1])] if k is None else [])
    tensors = [] if k is None else [("k", np.array([k]))]
    model = model_of([node], inputs, [("v", FLOAT, None), ("i", INT64, None)], tensors)
    reasons = " ".join(p.reason for p in forbidden_operators(model))
    assert (word in reasons) if word else reasons == ""


@pytest.mark.parametrize("operator", ["Expand", "Reshape", "Tile"])
def test_shapes_may_not_come_from_the_data(operator):
    node = helper.make_node(operator, ["x", "s"], ["y"], name="n")
    model = model_of([node], [("x", FLOAT, [4]), ("s", INT64, [1])], [("y", FLOAT, [4])])
    assert "from the data" in forbidden_operators(model)[0].reason
    fixed = model_of([node], [("x", FLOAT, [4])], [("y", FLOAT, [4])], [("s", np.array([4]))])
    assert forbidden_operators(fixed) == []


def test_bytes_may_only_be_cast():
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0], name="t"),
        helper.make_node("Cast", ["t"], ["y"], to=FLOAT, name="c"),
    ]
    model = model_of(nodes, [("x", TensorProto.UINT8, [2, 3])], [("y", FLOAT, [3, 2])])
    assert [p.node for p in forbidden_operators(model)] == ["t"]


def test_mixed_number_formats_are_refused():
    node = helper.make_node("Add", ["x", "h"], ["y"], name="n")
    tensors = [("h", np.ones(4, np.float16))]
    model = model_of([node], [("x", FLOAT, [4])], [("y", FLOAT, [4])], tensors)
    assert [p.node for p in static_shapes(model)] == ["graph"]


def test_operators_inside_local_functions_are_seen():
    function = helper.make_function(
        "prunus", "F", ["a"], ["b"], [helper.make_node("NonZero", ["a"], ["b"], name="inner")],
        [helper.make_opsetid("", 20)],
    )  # fmt: skip
    model = model_of([], [("x", FLOAT, [4])], [("x", FLOAT, [4])])
    model.functions.append(function)
    assert [p.node for p in forbidden_operators(model)] == ["inner"]
    assert isinstance(model, onnx.ModelProto)
