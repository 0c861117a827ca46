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
