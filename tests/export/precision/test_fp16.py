from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunus.export.common.pipeline import run_onnx
from prunus.export.graph.audit import audit
from prunus.export.graph.naming import scope_of
from prunus.export.precision.calibration import crop_samples
from prunus.export.precision.fp16 import sensitive_nodes, to_fp16
from prunus.runtime.errors import PrunusError


@pytest.fixture(scope="module")
def half(pose_graph):
    return to_fp16(pose_graph)


def types_of(model):
    graph = model.graph
    found = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.output)}
    return found | {t.name: t.data_type for t in graph.initializer}


def test_the_half_graph_is_typed_and_half_the_size(half, pose_graph):
    assert audit(half) == []
    assert half.ByteSize() < 0.65 * pose_graph.ByteSize()
    assert [v.type.tensor_type.elem_type for v in half.graph.output] == [TensorProto.FLOAT] * 2
    kinds = types_of(half)
    layers = [n for n in half.graph.node if n.op_type in ("MatMul", "Conv", "LayerNormalization")]
    outside = [n for n in layers if ".cuts." not in f"{scope_of(n.name)}."]
    assert {kinds[v] for n in outside for v in n.input} == {TensorProto.FLOAT16}


def test_ranking_decoding_and_normalising_stay_float32_without_round_trips(half):
    kinds = types_of(half)
    for node in half.graph.node:
        scope = scope_of(node.name)
        if node.op_type == "Cast" or not (scope == "" or ".cuts." in f"{scope}."):
            continue
        read = {kinds[v] for v in (*node.input, *node.output) if v in kinds}
        assert TensorProto.FLOAT16 not in read, node.name
    made = {v: n for n in half.graph.node for v in n.output}
    for node in half.graph.node:
        if node.op_type == "Cast" and (source := made.get(node.input[0])) is not None:
            halves = {TensorProto.FLOAT16, TensorProto.FLOAT}
            pair = {kinds[node.output[0]], kinds[source.output[0]]}
            assert source.op_type != "Cast" or pair != halves, node.name


def test_the_half_graph_agrees_with_float32(half, pose_graph, noise_crops):
    expected, got = (
        run_onnx(pose_graph, crop_samples(noise_crops, "noise"), 1),
        run_onnx(half, crop_samples(noise_crops, "noise"), 1),
    )
    span = np.ptp(expected["heatmaps"])
    error = got["heatmaps"] - expected["heatmaps"]
    assert 0 < np.abs(error).max()  # it really computed in another format
    assert np.sqrt((error**2).mean()) / span < 1e-2


def test_what_decides_is_named_by_module(pose_graph):
    scopes = {scope_of(name) for name in sensitive_nodes(pose_graph)}
    assert scopes == {"", "network.cuts.1"}


def test_an_unknown_name_is_refused(pose_graph):
    with pytest.raises(PrunusError, match="no node has this name"):
        to_fp16(pose_graph, ["nobody"])


def test_layers_asked_for_stay_float32(pose_graph):
    name = "network.blocks.0.attn.qkv/MatMul"
    model = to_fp16(pose_graph, [*sensitive_nodes(pose_graph), name])
    kinds = types_of(model)
    node = next(n for n in model.graph.node if n.name == name)
    assert {kinds[v] for v in (*node.input, *node.output)} == {TensorProto.FLOAT}
    assert audit(model) == []


def test_constants_that_half_cannot_hold_keep_their_reader_in_float32():
    tensors = [numpy_helper.from_array(np.full(4, 1e6, np.float32), "big")]
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="m/Relu"),
        helper.make_node("Add", ["a", "big"], ["b"], name="m/Add"),
        helper.make_node("Neg", ["b"], ["y"], name="m/Neg"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    typed = to_fp16(model, [])
    kinds = types_of(typed)
    add = next(n for n in typed.graph.node if n.op_type == "Add")
    assert {kinds[v] for v in (*add.input, *add.output)} == {TensorProto.FLOAT}
    assert isinstance(typed, onnx.ModelProto)
    assert audit(typed) == []
