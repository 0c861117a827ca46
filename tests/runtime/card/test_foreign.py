"""Cards of files that have none: what their tensors tell, or why they are refused."""

import numpy as np
import onnx
import pytest

from prunus.runtime.card.artifact import read_card
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.foreign import VARIANT
from prunus.runtime.errors import ArtifactError

RELU = [("Relu", "x", "y")]


def test_a_card_from_tensors(onnx_file) -> None:
    path = onnx_file(
        "net",
        [("MatMul", "x w", "y")],
        {"x": ("float32", [2, 8])},
        {"y": ("float32", [2, 4])},
        {"w": np.ones((8, 4), np.float32)},
    )
    card = read_card(path)
    assert (card.task, card.model, card.variant) == ("generic", "net", VARIANT)
    assert card.exporter == "another 2.1" and "no prunus card" in card.weights.origin
    assert card.inputs[0].describe() == "x float32 [axis0=2, axis1=8]"
    assert card.outputs[0].shape == (2, 4) and card.precision.precision == "fp32"
    assert ModelCard.from_json(card.to_json()) == card


@pytest.mark.parametrize(
    ("dtype", "precision"),
    [("float32", "fp32"), ("float16", "fp16"), ("int8", "int8"), ("uint8", "int8")],
)
def test_the_format_of_most_weights_is_the_precision(onnx_file, dtype, precision) -> None:
    spec = {"x": (dtype, [8])}
    constants = {"w": np.ones(8, dtype), "v": np.ones(4, np.float32)}
    path = onnx_file("p", [("Add", "x w", "y")], spec, {"y": (dtype, [8])}, constants)
    assert read_card(path).precision.precision == precision


def test_open_axes_are_named_with_the_option_that_fixes_them(onnx_file) -> None:
    shape = ["batch", 3, None, 224]
    path = onnx_file("open", RELU, {"x": ("float32", shape)}, {"y": ("float32", shape)})
    with pytest.raises(ArtifactError, match=r"x \[batch, 3, \?, 224\]") as caught:
        read_card(path)
    assert "--shape x:1x3xNx224" in caught.value.hint
    assert "prunus card add open.onnx" in caught.value.hint
    path = onnx_file("half", RELU, {"x": ("float32", [1, 3])}, {"y": ("float32", None)})
    with pytest.raises(ArtifactError, match=r"the output y \(no shape declared"):
        read_card(path)


@pytest.mark.parametrize(
    ("dtype", "shape", "said"),
    [
        ("string", [1], "'x' holds elements of type string"),
        ("bfloat16", [1], "'x' holds elements of type bfloat16"),
        ("complex64", [1], "'x' holds elements of type complex64"),
        ("float32", [1, 0, 2], r"'x' has the shape \[1, 0, 2\], which holds nothing"),
        ("float32", [1 << 20, 1 << 20], "1099511627776 values; expected at most"),
    ],
)
def test_tensors_that_no_session_takes(onnx_file, dtype, shape, said) -> None:
    path = onnx_file("odd", [("Identity", "x", "y")], {"x": (dtype, shape)}, {"y": (dtype, shape)})
    with pytest.raises(ArtifactError, match=said) as caught:
        read_card(path)
    assert caught.value.hint


def test_sequences_are_refused_by_kind(onnx_file) -> None:
    def more(model):
        kind = onnx.helper.make_tensor_type_proto(1, [1])
        model.graph.output[0].type.CopyFrom(onnx.helper.make_sequence_type_proto(kind))

    path = onnx_file("zip", RELU, {"x": ("float32", [1])}, {"y": ("float32", [1])}, more=more)
    with pytest.raises(ArtifactError, match="the output 'y' is a sequence"):
        read_card(path)


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("gone.bin", "does not lie beside it"),
        ("../other/w.bin", "expected a file beside it"),
        ("/etc/passwd", "expected a file beside it"),
        ("", "expected a file beside it"),
    ],
)
def test_weights_elsewhere_are_refused(onnx_file, location, said) -> None:
    def more(model):
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location

    path = onnx_file(
        "ext",
        [("Add", "x w", "y")],
        {"x": ("float32", [1])},
        {"y": ("float32", [1])},
        {"w": np.ones(1, np.float32)},
        more=more,
    )
    with pytest.raises(ArtifactError, match=said):
        read_card(path)
