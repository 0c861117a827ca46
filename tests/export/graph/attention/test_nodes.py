"""Wrong local-global attention nodes: refused before anything is built, by the node's name."""

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunus.export.graph.attention.body import INPUTS
from prunus.export.graph.attention.nodes import problems
from prunus.export.graph.audit import audit, require_clean
from prunus.export.graph.functions import NAME, describe_shapes
from prunus.export.graph.simplify import canonicalise
from prunus.runtime.errors import PrunusError

QUERIES = np.arange(16).reshape(4, 4)
SHAPES = {
    "Q": (1, 16, 8), "K": (1, 20, 8), "V": (1, 20, 8), "bias_l": (1, 2, 4, 5), "Kg": (1, 4, 3, 8),
    "Vg": (1, 4, 3, 8), "bias_g": (1, 1, 2, 4, 3), "gate": (1, 1, 1, 1),
}  # fmt: skip


def model_of(**changes):
    """Return a one-node model; changes are shapes, tables, attributes or None (not a constant)."""
    attributes = {"num_heads": 2, "scale": 1.0, "combine": "sum"}
    settable = {*attributes, "plugin_version", "plugin_namespace"}
    attributes |= {n: changes.pop(n) for n in list(changes) if n in settable}
    version = changes.pop("version", 1)
    tables = {
        "q_index": QUERIES, "kv_index": np.arange(20).reshape(4, 5), "o_index": np.arange(16),
    }  # fmt: skip
    operator = changes.pop("operator", NAME)
    inputs = changes.pop("inputs", INPUTS)
    shapes = {**SHAPES, **{n: s for n, s in changes.items() if n in SHAPES}}
    tables |= {n: t for n, t in changes.items() if n in tables}
    fed = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in shapes.items()]
    fed += [
        helper.make_tensor_value_info(n, TensorProto.INT64, [4, 4])
        for n, t in tables.items()
        if t is None
    ]
    node = helper.make_node(
        operator, inputs, ["Y"], name="blocks.3.attn/LocalGlobalAttention", domain="prunus",
        **{n: v for n, v in attributes.items() if v is not None},
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "main", fed, [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [1, 16, 8])],
        [numpy_helper.from_array(t, n) for n, t in tables.items() if t is not None],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("prunus", version)]
    return helper.make_model(graph, ir_version=10, opset_imports=opsets)


def test_a_sound_node_passes():
    model = canonicalise(describe_shapes(model_of()))
    assert list(problems(model)) == []
    assert audit(model) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_heads": 3}, "num_heads is 3, which does not divide the 8 channels"),
        ({"num_heads": 0}, "num_heads is 0"),
        ({"combine": "both"}, "combine is 'both'; expected one of joint, sum, local, global"),
        ({"scale": None}, "its attribute scale is missing"),
        ({"inputs": INPUTS[:9]}, "it has 9 inputs; expected all 11"),
        ({"operator": "LocalGlobalAttentoin"}, "prunus has no operator 'LocalGlobalAttentoin'"),
        ({"Q": ("batch", 16, 8)}, r"Q has the shape \['\?', 16, 8\]; expected constant sizes"),
        ({"Q": (16, 8)}, r"expected \(B, Nq, C\)"),
        ({"K": (1, 20, 6)}, r"K has the shape \[1, 20, 6\]"),
        ({"V": (1, 19, 8)}, r"V has the shape \[1, 19, 8\]; expected K's \[1, 20, 8\]"),
        ({"Kg": (2, 4, 3, 8)}, "Kg has the shape"),
        ({"Vg": (1, 4, 2, 8)}, r"Vg has the shape .* expected Kg's"),
        ({"Kg": (1, 3, 3, 8), "Vg": (1, 3, 3, 8)}, "3 sets of global tokens; expected 1 or 4"),
        ({"bias_l": (1, 2, 4, 4)}, "bias_l has the shape"),
        ({"bias_g": (1, 1, 2, 4, 2)}, "bias_g has the shape"),
        ({"gate": (1, 1, 1, 4, 8)}, "gate has the shape"),
        ({"q_index": None}, "q_index is computed in the graph; expected a constant table"),
        ({"q_index": np.arange(16)}, r"q_index has the shape \[16\]; expected \(W, Lq\)"),
        ({"q_index": np.zeros((4, 4), np.int64)}, "q_index holds query 0 16 times"),
        ({"q_index": QUERIES - 1}, "q_index holds position -1; expected 0 to 15"),
        ({"q_index": QUERIES[:3]}, "q_index holds query 12 0 times; expected exactly once"),
        ({"q_index": QUERIES[::-1].copy()}, "o_index is not the inverse"),
        ({"kv_index": np.full((4, 5), 20)}, "kv_index holds position 20; expected 0 to 19"),
        ({"kv_index": np.zeros((3, 5), np.int64)}, r"expected \(4, Lk\)"),
        ({"kv_index": np.zeros((4, 5), np.float32)}, "kv_index is float; expected int32/int64"),
        ({"kv_index": np.zeros((4, 5), np.int32)}, "kv_index is int32; expected q_index's int64"),
        ({"plugin_version": "2"}, "its plugin_version is '2'; expected '1'"),
        ({"plugin_namespace": "other"}, "its plugin_namespace is 'other'; expected 'prunus'"),
        ({"version": 2}, "it is of version 2; this prunus knows version 1"),
    ],
)
def test_a_wrong_node_is_named(changes, reason):
    model = model_of(**changes)
    name, said = next(problems(model))
    assert re.search(reason, said)
    assert name == "blocks.3.attn/LocalGlobalAttention"
    with pytest.raises(PrunusError, match=reason):
        require_clean(model)


def test_inputs_of_another_type_are_refused():
    model = model_of()
    keys = next(v for v in model.graph.input if v.name == "Kg")
    keys.type.tensor_type.elem_type = TensorProto.FLOAT16
    assert list(problems(model)) == [
        ("blocks.3.attn/LocalGlobalAttention", "Kg is float16; expected Q's float")
    ]
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT8
    assert next(problems(model))[1].startswith("Q is int8; expected float/float16")


def test_inputs_that_a_combination_does_not_read_may_be_anything():
    unread = {"K": (1, 1, 1), "V": (1, 1, 1), "bias_l": (1, 1, 1, 1)}
    zeros = np.zeros((1, 1), np.int64)
    assert not list(problems(model_of(combine="global", kv_index=zeros, **unread)))
    assert not list(problems(model_of(combine="local", Kg=(1, 1, 1, 1), Vg=(1, 1, 1, 1))))


def test_shapes_are_found_where_the_graph_does_not_state_them():
    model = model_of()
    graph = model.graph
    graph.node.insert(0, helper.make_node("Relu", ["Q"], ["q"], name="relu"))
    graph.node[1].input[0] = "q"
    assert list(problems(model)) == []
    assert isinstance(model, onnx.ModelProto)
