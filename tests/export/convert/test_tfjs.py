"""The TF.js converter on small graphs written here, each against plain numpy."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from prunus.export.convert.tfjs import convert
from prunus.export.convert.tfjs_graph import load_graph
from prunus.export.convert.tfjs_rules import RULES
from prunus.runtime.errors import ArtifactError, UsageError

RNG = np.random.default_rng(5)


def _text(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def _node(op: str, name: str, inputs: list[str], **attr: Any) -> dict[str, Any]:
    return {"op": op, "name": name, "input": inputs, "attr": attr}


def _conv_attr(stride: int, padding: str, *fused: str) -> dict[str, Any]:
    return {
        "strides": {"list": {"i": ["1", str(stride), str(stride), "1"]}},
        "padding": {"s": _text(padding)},
        "fused_ops": {"list": {"s": [_text(f) for f in fused]}},
    }


def _write(
    folder: Path, nodes: list[dict[str, Any]], weights: dict[str, np.ndarray], half: bool = True
) -> Path:
    entries, blob = [], b""
    for name, array in weights.items():
        entry: dict[str, Any] = {
            "name": name,
            "shape": list(array.shape),
            "dtype": array.dtype.name,
        }
        stored = array
        if array.dtype == np.float32 and half:
            entry["quantization"], stored = {"dtype": "float16"}, array.astype(np.float16)
        entries.append(entry)
        blob += stored.tobytes()
    (folder / "shard.bin").write_bytes(blob)
    placeholder = {"op": "Placeholder", "name": "input", "attr": {"dtype": {"type": "DT_INT32"}}}
    cast = _node("Cast", "float", ["input:0"], DstT={"type": "DT_FLOAT"})
    constants = [{"op": "Const", "name": n} for n in weights]
    model = {
        "modelTopology": {"node": [placeholder, *constants, cast, *nodes]},
        "weightsManifest": [{"paths": ["shard.bin"], "weights": entries}],
    }
    path = folder / "model.json"
    path.write_text(json.dumps(model))
    return path


def _half(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float16).astype(np.float32)


def _run(model: onnx.ModelProto, image: np.ndarray) -> list[np.ndarray]:
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"image": image})


def _convolve(x: np.ndarray, kernel: np.ndarray, stride: int) -> np.ndarray:
    """SAME convolution of (height, width, in) with (height, width, in, out), as TensorFlow pads."""
    size = kernel.shape[0]
    rows, columns = (-(-n // stride) for n in x.shape[:2])
    totals = [
        max((n - 1) * stride + size - length, 0)
        for n, length in zip((rows, columns), x.shape[:2], strict=True)
    ]
    x = np.pad(x, [(t // 2, t - t // 2) for t in totals] + [(0, 0)])
    out = np.zeros((rows, columns, kernel.shape[3]))
    for r in range(rows):
        for c in range(columns):
            patch = x[r * stride : r * stride + size, c * stride : c * stride + size]
            out[r, c] = np.tensordot(patch, kernel, 3)
    return out


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(6, 8), (7, 5)])
def test_convolution_pads_as_tensorflow_does(
    tmp_path: Path, stride: int, size: tuple[int, int]
) -> None:
    kernel, bias = _half(3, 3, 3, 4), _half(4)
    nodes = [
        _node(
            "_FusedConv2D",
            "y",
            ["float", "k", "b"],
            **_conv_attr(stride, "SAME", "BiasAdd", "Relu6"),
        )
    ]
    model = convert(
        load_graph(_write(tmp_path, nodes, {"k": kernel, "b": bias})), size, {"out": "y"}
    )
    image = RNG.integers(0, 9, (1, *size, 3)).astype(np.uint8)
    expected = np.clip(_convolve(image[0].astype(float), kernel, stride) + bias, 0, 6)
    np.testing.assert_allclose(_run(model, image)[0][0], expected, atol=1e-4)
    assert not [a for n in model.graph.node for a in n.attribute if a.name == "auto_pad"]


def test_depthwise_and_resize_and_sum(tmp_path: Path) -> None:
    kernel = _half(3, 3, 3, 1)
    nodes = [
        _node("DepthwiseConv2dNative", "d", ["float", "k"], **_conv_attr(1, "SAME")),
        _node("Shape", "shape", ["d"]),
        _node("StridedSlice", "slice", ["shape"]),
        _node("Mul", "twice", ["slice", "two"]),
        _node("ResizeBilinear", "up", ["d", "twice"], half_pixel_centers={"b": True}),
        _node("AddV2", "sum", ["up", "up"]),
        _node("Sub", "out", ["sum", "shift"]),
    ]
    weights = {"k": kernel, "two": np.array([2, 2], np.int32), "shift": _half(3)}
    model = convert(
        load_graph(_write(tmp_path, nodes, weights)), (4, 4), {"y": "out", "d_out": "d"}
    )
    image = RNG.integers(0, 255, (1, 4, 4, 3)).astype(np.uint8)
    y, d = _run(model, image)
    one = np.stack(
        [
            _convolve(image[0, :, :, c : c + 1].astype(float), kernel[:, :, c : c + 1], 1)[..., 0]
            for c in range(3)
        ],
        -1,
    )
    np.testing.assert_allclose(d[0], one, rtol=1e-5, atol=1e-3)
    # Half-pixel doubling of a row: 3/4 of the near and 1/4 of the far neighbour.
    inner = 2 * (
        0.75 * (0.75 * one[0, 0] + 0.25 * one[0, 1]) + 0.25 * (0.75 * one[1, 0] + 0.25 * one[1, 1])
    )
    np.testing.assert_allclose(y[0, 1, 1], inner - weights["shift"], rtol=1e-5, atol=1e-2)


def test_scaling_prelu_and_padding_of_channels(tmp_path: Path) -> None:
    kernel, slope = _half(1, 1, 3, 4), _half(1, 1, 4)
    nodes = [
        _node("_FusedConv2D", "c", ["float", "k"], **_conv_attr(1, "SAME")),
        _node("Prelu", "p", ["c", "slope"]),
        _node("Pad", "padded", ["p", "pads"]),
    ]
    pads = np.array([[0, 0], [1, 0], [0, 0], [0, 2]], np.int32)
    weights = {"k": kernel, "slope": slope, "pads": pads}
    graph = load_graph(_write(tmp_path, nodes, weights))
    model = convert(graph, (2, 3), {"y": "padded"}, scale=1 / 127.5, offset=-1.0)
    image = RNG.integers(0, 255, (1, 2, 3, 3)).astype(np.uint8)
    x = _convolve(image[0] / 127.5 - 1, kernel, 1)
    expected = np.pad(np.where(x < 0, slope * x, x), pads[1:])
    np.testing.assert_allclose(_run(model, image)[0][0], expected, atol=1e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_transposed_convolution_and_constants_per_channel(tmp_path: Path, size: int) -> None:
    kernel, shift = _half(size, size, 4, 3), _half(4)  # height, width, out, in
    nodes = [
        _node("Conv2DBackpropInput", "up", ["sizes", "k", "float"], **_conv_attr(2, "SAME")),
        _node("AddV2", "mul_1", ["shift", "up"]),  # a name that the converter would also choose
        _node("Mul", "out", ["mul_1", "half"]),
    ]
    weights = {"sizes": np.array([1, 6, 8, 4], np.int32), "k": kernel, "shift": shift}
    weights["half"] = np.array([0.5], np.float32)
    graph = load_graph(_write(tmp_path, nodes, weights))
    model = convert(graph, (3, 4), {"y": "out"}, channels_first=True, scale=0.5)
    image = RNG.integers(0, 9, (1, 3, 4, 3)).astype(np.uint8)
    # The gradient of a SAME convolution with stride 2: what leaves (6, 8) is put back there.
    total = np.zeros((7, 9, 4))
    for r in range(3):
        for c in range(4):
            stamp = np.tensordot(kernel, image[0, r, c] * 0.5, 1)
            total[2 * r : 2 * r + size, 2 * c : 2 * c + size] += stamp
    expected = (total[:6, :8] + shift) * 0.5
    np.testing.assert_allclose(_run(model, image)[0][0], expected.transpose(2, 0, 1), atol=1e-4)
    assert [n.op_type for n in model.graph.node].count("Transpose") == 1


def test_half_storage_is_exact_and_smaller(tmp_path: Path) -> None:
    weights = {"k": _half(1, 1, 3, 64), "b": _half(64)}
    nodes = [_node("_FusedConv2D", "y", ["float", "k", "b"], **_conv_attr(1, "VALID", "BiasAdd"))]
    graph = load_graph(_write(tmp_path, nodes, weights))
    image = RNG.integers(0, 255, (1, 4, 4, 3)).astype(np.uint8)
    small, large = (convert(graph, (4, 4), {"out": "y"}, half_storage=h) for h in (True, False))
    np.testing.assert_array_equal(_run(small, image)[0], _run(large, image)[0])
    kinds = {t.data_type for t in small.graph.initializer}
    assert onnx.TensorProto.FLOAT16 in kinds
    assert onnx.TensorProto.FLOAT16 not in {t.data_type for t in large.graph.initializer}


def test_weights_that_half_cannot_hold_stay_float(tmp_path: Path) -> None:
    kernel = np.full((1, 1, 3, 64), 1 / 3, np.float32)
    nodes = [_node("Conv2D", "y", ["float", "k"], **_conv_attr(1, "VALID"))]
    graph = load_graph(_write(tmp_path, nodes, {"k": kernel}, half=False))
    model = convert(graph, (2, 2), {"out": "y"})
    assert {t.data_type for t in model.graph.initializer} == {onnx.TensorProto.FLOAT}


def test_every_shape_is_static(tmp_path: Path) -> None:
    nodes = [_node("Conv2D", "y", ["float", "k"], **_conv_attr(2, "SAME"))]
    model = convert(
        load_graph(_write(tmp_path, nodes, {"k": _half(3, 3, 3, 4)})), (8, 6), {"out": "y"}
    )
    for value in [*model.graph.value_info, *model.graph.output]:
        assert all(d.dim_value > 0 for d in value.type.tensor_type.shape.dim), value.name


def test_unknown_operator_is_named(tmp_path: Path) -> None:
    assert "FancyOp" not in RULES
    path = _write(tmp_path, [_node("FancyOp", "y", ["float"])], {})
    with pytest.raises(ArtifactError, match="FancyOp"):
        convert(load_graph(path), (4, 4), {"out": "y"})


def test_unknown_head_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        convert(load_graph(_write(tmp_path, [], {})), (4, 4), {"out": "nowhere"})


@pytest.mark.parametrize("damage", ["truncated shard", "missing shard", "not json", "no weights"])
def test_broken_packages_are_refused(tmp_path: Path, damage: str) -> None:
    path = _write(tmp_path, [], {"k": _half(4)})
    if damage == "truncated shard":
        (tmp_path / "shard.bin").write_bytes(b"12")
    elif damage == "missing shard":
        (tmp_path / "shard.bin").unlink()
    else:
        path.write_text("{" if damage == "not json" else "{}")
    with pytest.raises(ArtifactError):
        load_graph(path)
