"""Values inside a graph: the block that makes one, its shape, the last one below a module."""

import onnx
import pytest
from onnx import TensorProto, helper

from prunus.export.verify.expose import block_of, find_tensor, tensor_shapes, with_outputs


@pytest.fixture
def model() -> onnx.ModelProto:
    names = {"x": [1, 4], "wide": [1, 8], "tall": [4, 1], "y": [1, 4]}
    nodes = [
        helper.make_node("Concat", ["x", "x"], ["wide"], "net.blocks.1/Concat", axis=1),
        helper.make_node("Relu", ["x"], ["early"], "net.blocks.1/Relu"),
        helper.make_node("Relu", ["early"], ["late"], "net.blocks.1.mlp/Relu"),
        helper.make_node("Transpose", ["late"], ["tall"], "net.blocks.1/Transpose", perm=[1, 0]),
        helper.make_node("Relu", ["late"], ["next"], "net.blocks.10/Relu"),
        helper.make_node("Identity", ["next"], ["y"], "/Identity"),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in names.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[3:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


@pytest.mark.parametrize(
    ("label", "block"),
    [
        ("network.blocks.3.attn/MatMul_1", "network.blocks.3"),
        ("network.blocks.3.parts.4/Add", "network.blocks.3"),
        ("network.head.deconv/Conv", "network.head"),
        ("network/Conv", "network"),
        ("/Sub", "top level"),
        ("Sub", "top level"),
    ],
)
def test_the_block_of_a_node(label, block) -> None:
    assert block_of(label) == block


def test_a_copy_shows_more_and_the_graph_itself_does_not(model) -> None:
    shown = with_outputs(model, ["late", "y", "wide"])
    assert [value.name for value in shown.graph.output] == ["y", "late", "wide"]
    assert [value.name for value in model.graph.output] == ["y"]


def test_shapes_of_all_that_can_be_sized(model) -> None:
    shapes = tensor_shapes(model)
    assert shapes["wide"] == (1, 8) and shapes["tall"] == (4, 1)
    assert shapes["x"] == shapes["late"] == shapes["y"] == (1, 4)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    assert "x" not in tensor_shapes(model)


def test_the_last_value_of_a_shape_below_a_module(model) -> None:
    assert find_tensor(model, (1, 4), "net.blocks.1") == "late"  # not that of block 10
    assert find_tensor(model, (1, 8), "net.blocks.1") == "wide"
    assert find_tensor(model, (4, 1), "net.blocks.1") == "tall"
    assert find_tensor(model, (1, 4), "net.blocks.1.mlp") == "late"
    assert find_tensor(model, (1, 4), "net") == "next"
    assert find_tensor(model, (8, 1), "net") is None
    assert find_tensor(model, (1, 4), "net.blocks.2") is None
