"""Twins are found by module, operator and wiring, not by the number in a name."""

import dataclasses

import onnx
from onnx import TensorProto, helper

from prunus.export.verify.matching import crossing, matched_inputs, matching_values


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
    other = dataclasses.replace(pairs[0], suspect_shape=(*pairs[0].suspect_shape, 2))
    assert not other.same_shape


def test_a_changed_wire_falls_back_to_the_name() -> None:
    wrong = plain()
    wrong.graph.node[4].input[0] = "d"
    found = {p.suspect: p.reference for p in matching_values(plain(), wrong)}
    assert found["y"] == "y"


def test_crossing_values_leave_their_block() -> None:
    model = plain()
    assert {p.suspect for p in crossing(model, matching_values(model, model))} == {"c", "d", "y"}


def weighted(shape: list[int]) -> onnx.ModelProto:
    """Tokens as lists (2, 3) or as columns (3, 2), normalised, and summed by an unlike node."""
    value = helper.make_tensor_value_info
    column = shape[0] == 3
    first = [node("Relu", "m/Relu", ["x"], ["a"])]
    if column:
        first.append(node("Transpose", "m/Transpose", ["a"], ["b"], perm=[1, 0]))
        first.append(node("Transpose", "m/Transpose_1", ["b"], ["c"], perm=[1, 0]))
    else:
        first.append(node("Neg", "m/Neg", ["a"], ["b"]))
        first.append(node("Transpose", "m/Transpose", ["b"], ["d"], perm=[1, 0]))
        first.append(node("Neg", "m/Neg_1", ["b"], ["c"]))
    made = helper.make_graph(
        [
            *first,
            node("LayerNormalization", "m.norm/LayerNormalization", ["c", "w"], ["n"]),
            node("Sigmoid", "m/Sigmoid", ["c" if column else "b"], ["s"]),
            node("Add", "m/Add", ["n", "s"], ["y"]),
        ],
        "g",
        [value("x", TensorProto.FLOAT, [2, 3])],
        [value("y", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor("w", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)])


def test_values_of_other_shape_or_of_unlike_nodes_are_no_pairs() -> None:
    found = {p.label: p for p in matching_values(weighted([2, 3]), weighted([3, 2]))}
    # One name, other wiring: only the norm, known by its weights, and the output are the same.
    assert set(found) == {"m/Relu", "m.norm/LayerNormalization", "m/Add"}
    assert all(p.reference_shape == p.suspect_shape == (2, 3) for p in found.values())


def test_inputs_that_only_one_graph_has_are_told() -> None:
    model = weighted([3, 2])
    pairs = matching_values(weighted([2, 3]), model)
    norm = next(p for p in pairs if p.operator == "LayerNormalization")
    first = next(p for p in pairs if p.operator == "Relu")
    assert matched_inputs(model, norm, pairs) == ([], False)
    assert matched_inputs(model, first, pairs) == ([], True)
