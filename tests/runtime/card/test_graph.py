"""What files say about themselves, told without the onnx package as with it."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from prunus.models import zoo
from prunus.runtime.card.graph import Value, read_graph, read_metadata, read_nodes
from prunus.runtime.errors import ArtifactError


def test_shipped_graphs_are_read_as_onnx_reads_them() -> None:
    for name in ("movenet_lightning", "selfie"):
        path = zoo.model_path(name)
        model, graph = onnx.load(path), read_graph(path)
        for mine, theirs in (
            (graph.inputs, model.graph.input),
            (graph.outputs, model.graph.output),
        ):
            assert [v.name for v in mine] == [v.name for v in theirs]
            assert [v.shape for v in mine] == [
                tuple(d.dim_value for d in v.type.tensor_type.shape.dim) for v in theirs
            ]
        assert graph.opsets == {o.domain: o.version for o in model.opset_import}
        assert sum(graph.weights.values()) == sum(
            int(np.prod(t.dims)) for t in model.graph.initializer
        )
        nodes, functions = read_nodes(path)
        outer = [(n.name, n.operator, n.domain) for n in nodes if not n.inner]
        assert outer == [
            (n.name or f"{n.op_type}#{k}", n.op_type, n.domain)
            for k, n in enumerate(model.graph.node)
        ]
        assert functions == {(f.domain, f.name) for f in model.functions}


def test_axes_kinds_and_listed_weights(onnx_file) -> None:
    def more(model):
        graph = model.graph
        graph.input[0].type.tensor_type.shape.dim[1].ClearField("dim_value")
        graph.input[0].type.tensor_type.shape.dim[2].dim_value = -1
        graph.output.append(
            helper.make_value_info(
                "maps",
                helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, None)),
            )
        )
        graph.output.append(onnx.ValueInfoProto(name="bare"))

    path = onnx_file(
        "axes", [("Add", "x w", "y")], {"x": ("float16", ["batch", 1, 3]), "w": ("float16", [3])},
        {"y": ("float16", None)}, {"w": np.ones(3, np.float16)}, ir=3, opset=9, more=more,
    )  # fmt: skip
    graph = read_graph(path)
    assert graph.inputs == (Value("x", "float16", ("batch", None, None)),)
    assert graph.outputs == (
        Value("y", "float16", None), Value("maps", "", None, "sequence"), Value("bare", "", None)
    )  # fmt: skip
    assert graph.producer == "another 2.1" and graph.weights == {"float16": 3}


def test_nodes_inside_graphs_and_functions_are_marked(onnx_file) -> None:
    def branch(name):
        node = helper.make_node("Foo", ["x"], [name], domain="deep")
        return helper.make_graph([node], name, [], [helper.make_empty_tensor_value_info(name)])

    def more(model):
        model.graph.node.append(
            helper.make_node("If", ["c"], ["z"], then_branch=branch("t"), else_branch=branch("e"))
        )
        relu = helper.make_node("Relu", ["a"], ["b"])
        model.functions.append(
            helper.make_function("mine", "Own", ["a"], ["b"], [relu], [helper.make_opsetid("", 20)])
        )

    spec = {"x": ("float32", [1]), "c": ("bool", [1])}
    path = onnx_file("deep", [("mine::Own", "x", "y")], spec, {"y": ("float32", [1])}, more=more)
    nodes, functions = read_nodes(path)
    assert [(n.title, n.inner) for n in nodes] == [
        ("mine::Own", False), ("If", False), ("deep::Foo", True), ("deep::Foo", True),
        ("Relu", True),
    ]  # fmt: skip
    assert nodes[1].name == "If#1" and functions == {("mine", "Own")}


def test_weights_beside_the_file_are_named(tmp_path, onnx_file) -> None:
    weights = {"w": np.ones((64, 64), np.float32)}
    path = onnx_file("m", [("MatMul", "x w", "y")], {"x": ("float32", [1, 64])},
                     {"y": ("float32", [1, 64])}, weights)  # fmt: skip
    beside = tmp_path / "out.onnx"
    onnx.save_model(onnx.load(path), beside, save_as_external_data=True, location="w.bin",
                    size_threshold=0)  # fmt: skip
    graph = read_graph(beside)
    assert graph.data_files == ("w.bin",) and graph.weights == {"float32": 4096}


def test_sparse_weights_are_no_inputs(onnx_file) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([1])), [3])
    path = onnx_file(
        "s", [("Add", "x w", "y")], {"x": ("float32", [3]), "w": ("float32", [3])},
        {"y": ("float32", [3])}, more=lambda m: m.graph.sparse_initializer.append(sparse),
    )  # fmt: skip
    assert [v.name for v in read_graph(path).inputs] == ["x"]


@pytest.mark.parametrize(
    ("data", "kind", "fix"),
    [
        (b"PK\x03\x04rest", "a zip archive", "torch.onnx.export"),
        (b"\x80\x02}q\x00.", "a pickle", "torch.onnx.export"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS", "git lfs pull"),
        (b"\x1c\x00\x00\x00TFL3", "TensorFlow Lite", "tf2onnx"),
        (b"\x1c\x00\x00\x00ORTM", r"\.ort", "made from"),
        (b"<!DOCTYPE html><html>", "web page", "the file itself"),
        (b'\x40\0\0\0\0\0\0\0{"a":{}}', "safetensors", "torch.onnx.export"),
        (b"\x1f\x8b\x08\x00", "gzip", "gunzip"),
        (b"\x89HDF\r\n\x1a\n", "HDF5", "torch.onnx.export"),
        (b'{"a": 1}', "JSON", ".onnx"),
    ],
)
def test_other_files_are_told_by_name(tmp_path, data, kind, fix) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    for read in (read_graph, read_metadata, read_nodes):
        with pytest.raises(ArtifactError, match=kind) as caught:
            read(path)
        assert fix in caught.value.hint


def test_a_file_without_a_graph_or_beyond_protobuf(tmp_path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(onnx.ModelProto(ir_version=8).SerializeToString())
    with pytest.raises(ArtifactError, match="holds no graph"):
        read_graph(path)
    with path.open("wb") as file:
        file.truncate(1 << 31)
    with pytest.raises(ArtifactError, match="2147483648 bytes; expected at most 2147483647"):
        read_graph(path)


def test_too_long_names_and_too_deep_graphs_are_refused(tmp_path, onnx_file) -> None:
    path = onnx_file("n", [("Relu", "x", "y")], {"x" * 70000: ("float32", [1])}, {})
    with pytest.raises(ArtifactError, match="A name in the graph"):
        read_graph(path)
    graph = b""
    for _ in range(40):  # a graph in an attribute (6) of a node (5) of a graph (1)
        graph = _field(1, _field(5, _field(6, graph)))
    path = tmp_path / "deep.onnx"
    path.write_bytes(_field(7, graph))
    with pytest.raises(ArtifactError, match="32 deep"):
        read_nodes(path)


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2, len(data) & 127 | 128, len(data) >> 7]) + data


FUZZ = helper.make_model(
    helper.make_graph(
        [helper.make_node("If", ["c"], ["y"], then_branch=helper.make_graph([], "t", [], []))],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, "n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
        [numpy_helper.from_array(np.arange(4, dtype=np.float32), "w")],
    ),
    producer_name="another",
).SerializeToString()


@pytest.mark.fuzz
@given(st.binary(max_size=12), st.integers(0, len(FUZZ)), st.integers(0, 8))
def test_any_damage_is_a_graph_or_an_artifact_error(tmp_path_factory, damage, at, cut) -> None:
    path = tmp_path_factory.getbasetemp() / "graph.onnx"
    path.write_bytes(FUZZ[:at] + damage + FUZZ[at + cut :])
    for read in (read_graph, read_nodes, read_metadata):
        try:
            read(path)
        except ArtifactError as error:
            assert "\n" not in error.message
