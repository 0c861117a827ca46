"""Open sizes become constants, or the reason why not is told."""

import numpy as np
import onnx
import pytest
from onnx import helper

import prunus.runtime as runtime
from prunus.export.graph import shapes as shapes_module
from prunus.export.graph.shapes import fix_shapes, read_shapes
from prunus.runtime.card.foreign import foreign_card
from prunus.runtime.errors import ArtifactError, UsageError


@pytest.mark.parametrize(
    "word", ["x", "x:", ":1x3", "x:1x", "x:0x3", "x:1xN", "x:-1", "x:1 x 3", "x:1.5", "x:²"]
)
def test_words_of_another_form_are_refused(word) -> None:
    if word == "x:":
        assert read_shapes([word]) == {"x": ()}  # a single number
        return
    with pytest.raises(UsageError, match="expected NAME:SIZExSIZE"):
        read_shapes([word])


def test_names_may_hold_colons_and_come_once() -> None:
    assert read_shapes(["input:0:2x3"]) == {"input:0": (2, 3)}
    with pytest.raises(UsageError, match="twice"):
        read_shapes(["x:1", "x:2"])
    with pytest.raises(UsageError, match="values; expected at most"):
        read_shapes(["x:99999x99999x99999"])


@pytest.fixture
def flattened(onnx_file):
    """x [n, 3, h, w] -> Shape, Gather, Concat, Reshape -> y [?, ?], as PyTorch's old exporter."""
    nodes = [
        ("Shape", "x", "s"),
        ("Gather", "s zero", "n"),
        ("Unsqueeze", "n axis", "n1"),
        ("Concat", "n1 rest", "target", {"axis": 0}),
        ("Reshape", "x target", "y"),
    ]
    constants = {"zero": np.int64(0), "axis": np.array([0]), "rest": np.array([-1])}
    spec = {"x": ("float32", ["n", 3, "h", "w"])}
    return onnx_file("flat", nodes, spec, {"y": ("float32", ["a", "b"])}, constants)


def test_sizes_that_the_graph_computes_become_constants(flattened) -> None:
    model = fix_shapes(flattened, {"x": (2, 3, 4, 5)})
    data = model.SerializeToString()
    card = foreign_card(flattened, data)
    assert card.inputs[0].shape == (2, 3, 4, 5) and card.outputs[0].shape == (2, 60)
    values = np.random.default_rng(0).random((2, 3, 4, 5), np.float32)
    with runtime.open(data, "onnxruntime", card=card) as session:
        np.testing.assert_array_equal(session.run({"x": values})["y"], values.reshape(2, 60))


@pytest.mark.parametrize(
    ("shapes", "said"),
    [
        ({"xx": (1, 3, 4, 4)}, r"no input 'xx' \(did you mean 'x'\?\)"),
        ({"x": (1, 3, 4)}, "1x3x4 for an input of 4 axes"),
        ({"x": (1, 4, 4, 4)}, "fixes axis 1 at 3"),
    ],
)
def test_shapes_that_do_not_fit_the_file(flattened, shapes, said) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        fix_shapes(flattened, shapes)
    assert caught.value.hint


def test_one_name_is_one_size(onnx_file) -> None:
    spec = {"a": ("float32", ["n", 2]), "b": ("float32", ["n", 2])}
    path = onnx_file("two", [("Add", "a b", "y")], spec, {"y": ("float32", ["n", 2])})
    with pytest.raises(UsageError, match="Got 5 for the axis 'n' of b, and 4 for the same axis"):
        fix_shapes(path, {"a": (4, 2), "b": (5, 2)})
    card = foreign_card(path, fix_shapes(path, {"a": (4, 2)}).SerializeToString())
    assert [spec.shape for spec in card.inputs] == [(4, 2), (4, 2)]  # b follows by its name


def test_shapes_that_contradict_the_weights(onnx_file) -> None:
    path = onnx_file(
        "mm",
        [("MatMul", "x w", "y")],
        {"x": ("float32", ["n", "c"])},
        {"y": ("float32", ["n", 4])},
        {"w": np.ones((8, 4), np.float32)},
    )
    with pytest.raises(ArtifactError, match="do not fit together"):
        fix_shapes(path, {"x": (1, 9)})
    assert fix_shapes(path, {"x": (1, 8)}).graph.output[0].type.tensor_type.shape.dim[0].dim_value


def test_sizes_that_depend_on_the_data_are_told_with_their_node(onnx_file) -> None:
    path = onnx_file(
        "nz", [("NonZero", "x", "y")], {"x": ("float32", [4])}, {"y": ("int64", [1, None])}
    )
    with pytest.raises(ArtifactError, match=r"output 'y'.*NonZero.*depends on the data"):
        fix_shapes(path, {})


def test_a_scalar_and_an_input_without_any_shape(onnx_file) -> None:
    path = onnx_file("s", [("Relu", "x", "y")], {"x": ("float32", None)}, {"y": ("float32", None)})
    for shape in ((), (2, 5)):
        card = foreign_card(path, fix_shapes(path, {"x": shape}).SerializeToString())
        assert card.inputs[0].shape == card.outputs[0].shape == shape


def test_weights_beside_the_file_come_along_while_they_fit(
    tmp_path, onnx_file, monkeypatch
) -> None:
    path = onnx_file(
        "m",
        [("MatMul", "x w", "y")],
        {"x": ("float32", ["n", 64])},
        {"y": ("float32", ["n", 64])},
        {"w": np.ones((64, 64), np.float32)},
    )
    beside = tmp_path / "out.onnx"
    onnx.save_model(
        onnx.load(path), beside, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    model = fix_shapes(beside, {"x": (2, 64)})
    assert len(model.graph.initializer[0].raw_data) == 4 * 64 * 64
    monkeypatch.setattr(shapes_module, "MOST_BYTES", 1000)
    model = fix_shapes(beside, {"x": (2, 64)})
    assert model.graph.initializer[0].data_location == onnx.TensorProto.EXTERNAL
    assert model.ByteSize() < 1000


def test_a_damaged_file_is_one_error(tmp_path) -> None:
    path = tmp_path / "bad.onnx"
    node = helper.make_node("Relu", ["x"], ["y"]).SerializeToString()
    graph = b"\x0a" + bytes([len(node)]) + node + b"\x12\x02\xff\xff"  # a name that is no text
    path.write_bytes(b"\x3a" + bytes([len(graph)]) + graph)
    with pytest.raises(ArtifactError, match=r"bad\.onnx"):
        fix_shapes(path, {})
