from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from prunus.export.common.pipeline import run_onnx
from prunus.export.common.samples import Samples
from prunus.export.graph.audit import audit
from prunus.export.graph.naming import scope_of
from prunus.export.precision.calibration import crop_samples
from prunus.export.precision.int8 import sensitive_layers, to_int8, weighted_layers
from prunus.runtime.errors import PrunusError, UsageError
from prunus.runtime.host import int8_flag


@pytest.fixture(scope="module")
def calibration(noise_crops):
    return crop_samples(noise_crops[:2], "noise")


@pytest.fixture(scope="module")
def quantised(pose_graph, calibration):
    return to_int8(pose_graph, calibration)


def test_the_graph_is_valid_static_and_smaller(quantised, pose_graph):
    assert audit(quantised) == []
    onnx.checker.check_model(quantised, full_check=True)
    assert quantised.ByteSize() < 0.7 * pose_graph.ByteSize()
    assert [o.domain for o in quantised.opset_import if o.domain] == []


def test_layers_with_weights_are_int8_and_symmetric(quantised):
    tensors = {t.name: t for t in quantised.graph.initializer}
    made = {v: n for n in quantised.graph.node for v in n.output}
    layers = [n for n in quantised.graph.node if n.name.endswith(("fc1/MatMul", "qkv/MatMul"))]
    assert len(layers) == 6
    for layer in layers:
        for value in layer.input:
            pair = made[value]
            assert pair.op_type == "DequantizeLinear"
            zero = numpy_helper.to_array(tensors[pair.input[2]])
            assert zero.dtype == np.int8
            assert not zero.any()
        weight = made[layer.input[1]]
        assert tensors[weight.input[0]].data_type == TensorProto.INT8
        assert len(tensors[weight.input[1]].dims) == 1  # a scale per output channel


def test_sensitive_parts_are_not_quantised(quantised):
    made = {v: n.op_type for n in quantised.graph.node for v in n.output}
    for node in quantised.graph.node:
        kept = node.op_type in ("Softmax", "LayerNormalization", "TopK", "ArgMax")
        kept = kept or node.name in ("network.patch_embed/Conv",)
        kept = kept or node.name == "network.keypoint_head.final_layer/Conv"
        kept = kept or scope_of(node.name).endswith(("attn", "rank"))
        if kept:
            weights = [v for v in node.input[1:] if made.get(v) == "DequantizeLinear"]
            assert not weights, node.name


def test_first_and_last_layers_are_sensitive(pose_graph):
    names = sensitive_layers(pose_graph)
    assert names[0] == "network.patch_embed/Conv"
    assert "network.keypoint_head.final_layer/Conv" in names
    assert len(names) == 2


def _ranked(prefix: str, rank: str):
    """Return layers with tokens cut between: two that score them, and a TopK in module `rank`."""
    rng, make = np.random.default_rng(0), onnx.helper.make_node
    names = ("stem/MatMul", "score.hidden/MatMul", "score.out/MatMul", "mlp/MatMul", "head/MatMul")
    first, hidden, out, middle, last = (f"{prefix}{name}" for name in names)
    nodes = [
        make("MatMul", ["x", "w0"], ["a"], name=first),
        make("MatMul", ["a", "w1"], ["b"], name=hidden),
        make("Relu", ["b"], ["b1"], name=f"{prefix}score/Relu"),
        make("MatMul", ["b1", "w2"], ["c"], name=out),
        make("TopK", ["c", "k"], ["value", "kept"], name=f"{rank}/TopK", axis=1),
        make("Expand", ["kept", "shape"], ["wide"], name=f"{rank}/Expand"),
        make("GatherElements", ["a", "wide"], ["d"], name=f"{prefix}take/Gather", axis=1),
        make("MatMul", ["d", "w3"], ["e"], name=middle),
        make("MatMul", ["e", "w4"], ["y"], name=last),
    ]
    weights = [rng.normal(size=(8, 1 if k == 2 else 8)).astype(np.float32) for k in range(5)]
    constants = [numpy_helper.from_array(w, f"w{k}") for k, w in enumerate(weights)]
    constants += [numpy_helper.from_array(np.array([3]), "k"),
                  numpy_helper.from_array(np.array([1, 3, 8]), "shape")]  # fmt: skip
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes, "main", [value("x", TensorProto.FLOAT, [1, 6, 8])],
        [value("y", TensorProto.FLOAT, [1, 3, 8])], constants,
    )  # fmt: skip
    opset = [onnx.helper.make_opsetid("", 20)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=10)
    return model, (first, hidden, out, middle, last)


def test_layers_that_score_tokens_stay_float():
    """A TopK turns a rounding error of its scores into another token."""
    model, (first, hidden, out, middle, last) = _ranked("network.", "network.score")
    assert sensitive_layers(model) == [first, last, hidden, out]
    noise = np.random.default_rng(1).normal(size=(4, 1, 6, 8)).astype(np.float32)
    quantised = to_int8(model, Samples({"x": noise[:, 0]}, "noise"))
    made = {v: n.op_type for n in quantised.graph.node for v in n.output}
    integer = [n.name for n in quantised.graph.node
               if n.op_type == "MatMul" and made.get(n.input[1]) == "DequantizeLinear"]  # fmt: skip
    assert len(integer) == 1 and scope_of(integer[0]) == scope_of(middle)
    assert len([n for n in quantised.graph.node if n.op_type == "MatMul"]) == 5


@pytest.mark.parametrize("rank", ["network", ""])
def test_a_ranking_at_the_level_of_the_network_keeps_no_other_layers(rank):
    model, (first, *_, last) = _ranked("network.", rank)
    assert sensitive_layers(model) == [first, last]


def test_onnx_runtime_runs_integer_kernels(quantised, tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    onnxruntime.InferenceSession(quantised.SerializeToString(), options)
    kinds = Counter(n.op_type for n in onnx.load(options.optimized_model_filepath).graph.node)
    # Four linear layers in each of three blocks, all fused with their scales.
    assert kinds["MatMulIntegerToFloat"] == 12
    assert kinds["QLinearConv"] == 2
    assert kinds["Gemm"] == 0


@pytest.mark.parametrize("activations", ["int8", "uint8"])
def test_int8_agrees_with_float32(pose_graph, calibration, noise_crops, activations):
    model = to_int8(pose_graph, calibration, activations=activations)
    expected, got = (
        run_onnx(pose_graph, crop_samples(noise_crops, "noise"), 1),
        run_onnx(model, crop_samples(noise_crops, "noise"), 1),
    )
    error = got["heatmaps"] - expected["heatmaps"]
    rms = np.sqrt((error**2).mean()) / np.ptp(expected["heatmaps"])
    assert 1e-5 < rms < 0.1


def test_the_same_calibration_gives_the_same_bytes(pose_graph, calibration, quantised):
    again = to_int8(pose_graph, calibration)
    assert again.SerializeToString(deterministic=True) == quantised.SerializeToString(
        deterministic=True
    )


def test_crops_of_another_size_are_refused(pose_graph):
    small = crop_samples(np.zeros((2, 64, 48, 3), np.uint8), "small")
    with pytest.raises(UsageError, match="expected n of"):
        to_int8(pose_graph, small)


def test_a_graph_without_layers_left_is_refused(pose_graph, calibration):
    names = [n.name for n in weighted_layers(pose_graph)]
    with pytest.raises(PrunusError, match="No layer"):
        to_int8(pose_graph, calibration, keep_higher=names)


@pytest.mark.skipif(not int8_flag(), reason="this CPU sums products of int8 in 16 bits")
def test_products_by_a_stack_of_matrices_stay_float():
    """One matrix per head: ONNX Runtime fails on such a product once it is quantised."""
    rng = np.random.default_rng(0)
    shapes = {"first": (8, 8), "stack": (2, 8, 8), "last": (8, 8)}
    nodes, value = [], "x"
    for name in shapes:
        nodes.append(onnx.helper.make_node("MatMul", [value, name], [f"{name}_y"], name=name))
        value = f"{name}_y"
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            nodes, "main",
            [onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 6, 8])],
            [onnx.helper.make_tensor_value_info(value, TensorProto.FLOAT, [1, 2, 6, 8])],
            [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n)
             for n, s in shapes.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10,
    )  # fmt: skip
    assert [n.name for n in weighted_layers(model)] == ["first", "last"]
    noise = Samples({"x": rng.normal(size=(4, 1, 6, 8)).astype(np.float32)}, "noise")
    quantised = to_int8(model, noise, keep_higher=[])
    expected, got = (run_onnx(m, noise, 1)[value] for m in (model, quantised))
    assert 0 < np.abs(got - expected).max() < 0.05 * np.ptp(expected)
