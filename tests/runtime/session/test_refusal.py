"""Foreign files in every back end: run, or refused with the node and the way out."""

import numpy as np
import onnx
import pytest
from onnx import helper

import prunus.runtime as runtime
from prunus.runtime.card.artifact import read_card
from prunus.runtime.errors import ArtifactError, TensorError
from prunus.runtime.measure.runner import example_inputs
from prunus.runtime.session import registry

BACKENDS = [n for n in ("onnxruntime", "openvino") if registry.find(n).installed]
pytestmark = pytest.mark.parametrize("backend", BACKENDS)
X, Y = {"x": ("float32", [1, 3])}, {"y": ("float32", [1, 3])}


@pytest.mark.parametrize(
    ("operator", "title", "fix"),
    [
        ("my.domain::Foo", "my.domain::Foo", "without 'my.domain' operators"),
        ("Fooo", "Fooo", "onnx.version_converter"),
        ("com.microsoft::Bar", "com.microsoft::Bar", ""),
    ],
)
def test_an_operator_that_is_missing_is_named_with_its_node(
    onnx_file, backend, operator, title, fix
) -> None:
    path = onnx_file("custom", [("Relu", "x", "r"), (operator, "r", "y")], X, Y)
    with pytest.raises(ArtifactError, match=f"node 'n1' is {title}, which it does not have") as hit:
        runtime.open(path, backend)
    assert "cannot load" in hit.value.message and str(path) in hit.value.message
    own = "ONNX Runtime's own" if backend == "openvino" else "'com.microsoft' operators"
    assert (fix or own) in hit.value.hint


def test_a_custom_operator_that_a_function_explains_runs(onnx_file, backend) -> None:
    def more(model):
        relu = helper.make_node("Relu", ["a"], ["b"])
        model.functions.append(
            helper.make_function("mine", "Own", ["a"], ["b"], [relu], [helper.make_opsetid("", 20)])
        )

    path = onnx_file("own", [("mine::Own", "x", "y")], X, Y, more=more)
    if backend == "openvino":
        with pytest.raises(ArtifactError, match="node 'n0' is mine::Own") as caught:
            runtime.open(path, backend)
        assert "onnx.inliner.inline_local_functions" in caught.value.hint
        return
    with runtime.open(path, backend) as session:
        assert session.run({"x": np.float32([[-1, 0, 2]])})["y"].tolist() == [[0, 0, 2]]


@pytest.mark.parametrize(
    "dtype",
    [
        "float32",
        "float16",
        "float64",
        "uint8",
        "int8",
        "int32",
        "int64",
        "uint16",
        "uint64",
        "bool",
    ],
)
def test_every_type_goes_in_and_out(onnx_file, backend, dtype) -> None:
    path = onnx_file(
        "same", [("Identity", "x", "y")], {"x": (dtype, [2, 3])}, {"y": (dtype, [2, 3])}
    )
    values = (np.arange(6).reshape(2, 3) % 2).astype(dtype)
    with runtime.open(path, backend) as session:
        found = session.run({"x": values})["y"]
    assert found.dtype == values.dtype and (found == values).all()


def test_single_numbers_unused_inputs_and_listed_weights(onnx_file, backend) -> None:
    path = onnx_file(
        "old", [("Add", "x w", "y")],
        {"x": ("float32", []), "unused": ("int64", [2]), "w": ("float32", [])},
        {"y": ("float32", [])}, {"w": np.float32(2)}, ir=3, opset=9,
    )  # fmt: skip
    with runtime.open(path, backend) as session:
        feed = {"x": np.array(1, np.float32), "unused": np.zeros(2, np.int64)}
        assert session.run(feed)["y"] == 3


@pytest.mark.parametrize("shape", [[1, 5], [3], [1, 3, 1]])
def test_a_shape_that_the_graph_does_not_compute_is_refused(onnx_file, backend, shape) -> None:
    path = onnx_file("lie", [("Relu", "x", "y")], X, {"y": ("float32", shape)})
    with pytest.raises((ArtifactError, TensorError), match="y"):
        with runtime.open(path, backend) as session:
            session.run(example_inputs(read_card(path)))


def test_a_graph_that_bites_its_tail_is_refused(onnx_file, backend) -> None:
    path = onnx_file(
        "loop", [("Add", "x b", "a"), ("Relu", "a", "b")], X, {"b": ("float32", [1, 3])}
    )
    with pytest.raises(ArtifactError, match=r"loop\.onnx"):
        runtime.open(path, backend)


def test_a_loop_operator_runs(onnx_file, backend) -> None:
    """Control flow is what our own exports avoid; a foreign file may have it."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["on"]),
            helper.make_node("Add", ["v", "v"], ["twice"]),
        ],
        "body",
        [helper.make_tensor_value_info("k", 7, []), helper.make_tensor_value_info("go", 9, []),
         helper.make_tensor_value_info("v", 1, [1, 3])],
        [helper.make_tensor_value_info("on", 9, []),
         helper.make_tensor_value_info("twice", 1, [1, 3])],
    )  # fmt: skip
    constants = {"trips": np.int64(3), "go0": np.bool_(True)}
    path = onnx_file("loops", [("Loop", "trips go0 x", "y", {"body": body})], X, Y, constants)
    with runtime.open(path, backend) as session:
        assert session.run({"x": np.ones((1, 3), np.float32)})["y"].tolist() == [[8, 8, 8]]


def test_weights_beside_the_file_are_read(tmp_path, onnx_file, backend) -> None:
    weights = {"w": np.full((64, 64), 2, np.float32)}
    path = onnx_file("m", [("MatMul", "x w", "y")], {"x": ("float32", [1, 64])},
                     {"y": ("float32", [1, 64])}, weights)  # fmt: skip
    beside = tmp_path / "out.onnx"
    onnx.save_model(onnx.load(path), beside, save_as_external_data=True, location="w.bin",
                    size_threshold=0)  # fmt: skip
    with runtime.open(beside, backend) as session:
        assert (session.run({"x": np.ones((1, 64), np.float32)})["y"] == 128).all()


def test_newer_and_older_opsets(onnx_file, backend) -> None:
    path = onnx_file("new", [("Relu", "x", "y")], X, Y, ir=99)
    if backend == "onnxruntime":
        with pytest.raises(ArtifactError, match="Unsupported model IR version: 99") as caught:
            runtime.open(path, backend)
        assert "onnxruntime_src" not in caught.value.message
    path = onnx_file("older", [("Relu", "x", "y")], X, Y, opset=8, ir=3)
    with runtime.open(path, backend) as session:
        assert session.run({"x": np.float32([[-1, 0, 2]])})["y"].tolist() == [[0, 0, 2]]
