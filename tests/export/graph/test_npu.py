from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunus.export.graph.npu import chosen_by_data, require_constant_choice
from prunus.runtime.errors import PrunusError

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def _model(nodes, tensors=(), inputs=(("x", FLOAT, [4, 4]),), functions=()):
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info(n, t, s) for n, t, s in inputs],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in tensors],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions))


def test_an_ordinary_pose_graph_is_none_for_an_npu(pose_graph):
    told = {str(problem).split(": ")[1].split()[0] for problem in chosen_by_data(pose_graph)}
    assert {"TopK", "ArgMax"} <= told
    with pytest.raises(PrunusError, match=r"choose by the data.*and \d+ more") as caught:
        require_constant_choice(pose_graph)
    assert "strided" in caught.value.hint


def test_places_that_are_constants_are_no_choice():
    nodes = [
        helper.make_node("Constant", [], ["one"], value_ints=[1, 0]),
        helper.make_node("Add", ["one", "two"], ["sum"]),  # folded by whoever compiles it
        helper.make_node("Gather", ["x", "sum"], ["a"], name="read"),
        helper.make_node("ScatterElements", ["a", "where", "a"], ["y"], name="write"),
    ]
    model = _model(nodes, [("two", [1, 1]), ("where", np.zeros((2, 4), np.int64))])
    assert chosen_by_data(model) == []
    require_constant_choice(model)


@pytest.mark.parametrize(
    ("node", "place"),
    [
        (helper.make_node("Gather", ["x", "i"], ["y"], name="n"), True),
        (helper.make_node("GatherElements", ["x", "i"], ["y"], name="n"), True),
        (helper.make_node("ScatterND", ["x", "i", "x"], ["y"], name="n"), True),
        (helper.make_node("GridSample", ["x", "i"], ["y"], name="n"), True),
        (helper.make_node("TopK", ["x", "k"], ["y", "z"], name="n"), False),
        (helper.make_node("NonZero", ["x"], ["y"], name="n"), False),
    ],
    ids=lambda value: getattr(value, "op_type", ""),
)
def test_what_looks_at_the_data_is_named(node, place):
    model = _model([node], [("k", [2])], (("x", FLOAT, [4, 4]), ("i", INT64, [4, 4])))
    [problem] = chosen_by_data(model)
    assert problem.node == "n"
    assert problem.reason.startswith(node.op_type) and ("places" in problem.reason) is place


def test_a_function_is_what_is_inside_it():
    inside = [helper.make_node("ArgMax", ["a"], ["b"])]
    opsets = [helper.make_opsetid("", 20)]
    function = helper.make_function("own", "Best", ["a"], ["b"], inside, opsets)
    model = _model([helper.make_node("Best", ["x"], ["y"], domain="own")], functions=[function])
    assert [problem.reason for problem in chosen_by_data(model)] == ["ArgMax chooses by data"]
