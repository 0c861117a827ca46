"""Twins are found by module, operator and wiring, not by the number in a name."""

import onnx
from onnx import TensorProto, helper

from prunus.export.verify.matching import crossing, matching_values


def graph(nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes, "g", [value("x", TensorProto.FLOAT, [2, 3])], [value("y", TensorProto.FLOAT, None)]
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)])


def node(operator: str, name: str, inputs: list[str], outputs: list[str], **attributes):
    return helper.make_node(operator, inputs, outputs, name=name, **attributes)


def plain() -> onnx.ModelProto:
    return graph(
        [
            node("Relu", "m/Relu", ["x"], ["a"]),
            node("Neg", "m/Neg", ["x"], ["b"]),
            node("Transpose", "m/Transpose", ["a"], ["c"], perm=[1, 0]),
            node("Transpose", "m/Transpose_1", ["b"], ["d"], perm=[1, 0]),
            node("Add", "out/Add", ["c", "d"], ["y"]),
        ]
    )


def renumbered() -> onnx.ModelProto:
    """The same graph, sorted differently, with a conversion in between."""
    return graph(
        [
            node("Neg", "m/Neg", ["x"], ["p"]),
            node("Cast", "m/Cast", ["p"], ["p16"], to=TensorProto.FLOAT16),
            node("Cast", "m/Cast_1", ["p16"], ["p32"], to=TensorProto.FLOAT),
            node("Transpose", "m/Transpose", ["p32"], ["q"], perm=[1, 0]),
            node("Relu", "m/Relu", ["x"], ["r"]),
            node("Transpose", "m/Transpose_1", ["r"], ["s"], perm=[1, 0]),
            node("Add", "out/Add", ["s", "q"], ["y"]),
        ]
    )


def test_wiring_beats_numbers() -> None:
    found = {p.suspect: p.reference for p in matching_values(plain(), renumbered())}
    assert found == {"p": "b", "q": "d", "r": "a", "s": "c", "y": "y"}


def test_conversions_are_no_values() -> None:
    pairs = matching_values(plain(), renumbered())
    assert {p.operator for p in pairs} == {"Relu", "Neg", "Transpose", "Add"}
    assert all(p.same_shape for p in pairs)


def test_a_changed_wire_falls_back_to_the_name() -> None:
    wrong = plain()
    wrong.graph.node[4].input[0] = "d"
    found = {p.suspect: p.reference for p in matching_values(plain(), wrong)}
    assert found["y"] == "y"


def test_crossing_values_leave_their_block() -> None:
    model = plain()
    assert {p.suspect for p in crossing(model, matching_values(model, model))} == {"c", "d", "y"}
