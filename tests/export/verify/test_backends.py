"""Bisection of a back end against the reference, on one graph."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from prunus.export.verify.backends import bisect_backends
from prunus.runtime.card.foreign import foreign_card
from prunus.runtime.session.base import open as open_session

WIDE = ("float32", [4, 16])
RNG = np.random.default_rng(0)


@pytest.fixture
def graph(onnx_file):
    """Return three blocks of two products each, with a choice by score between them."""
    nodes, constants, last = [], {}, "x"
    for k in range(3):
        for part in ("up", "down"):
            name = f"net.blocks.{k}.{part}/MatMul"
            constants[f"w{k}{part}"] = RNG.standard_normal((16, 16)).astype(np.float32) / 4
            nodes.append(("MatMul", f"{last} w{k}{part}", name))
            last = name
    nodes.append(("TopK", f"{last} five", "best index"))
    nodes.append(("ReduceSum", "best", "y", {"keepdims": 1}))
    constants["five"] = np.array([5])
    path = onnx_file("net", nodes, {"x": WIDE}, {"y": ("float32", [1, 1])}, constants)
    model = onnx.load(path)
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.save(model, path)
    return path


def _run(path, change, tolerance=1e-4):
    def open_suspect(data, card):
        model = onnx.load_from_string(data)
        change(model)
        return open_session(model.SerializeToString(), "onnxruntime", card=card, threads=1)

    feed = {"x": np.linspace(-1, 1, 64, dtype=np.float32).reshape(4, 16)}
    return bisect_backends(path, foreign_card(path), feed, open_suspect, tolerance)


def _scale(name, factor):
    def change(model):
        tensor = next(t for t in model.graph.initializer if t.name == name)
        tensor.CopyFrom(numpy_helper.from_array(factor * numpy_helper.to_array(tensor), name))

    return change


@pytest.mark.parametrize("place", ["0up", "1down", "2up"])
def test_the_node_with_the_changed_weight_is_named(graph, place) -> None:
    found, (expected, got) = _run(graph, _scale(f"w{place}", np.float32(1.5)))
    divergence = found.divergence
    assert divergence.node == f"net.blocks.{place[0]}.{place[1:]}/MatMul"
    assert divergence.block == f"net.blocks.{place[0]}" and divergence.operator == "MatMul"
    assert divergence.input_error < 1e-6 < divergence.error and divergence.inputs_known
    assert np.allclose(got, 1.5 * expected, rtol=1e-5)


def test_one_and_the_same_back_end_agrees_with_itself(graph) -> None:
    found, arrays = _run(graph, lambda model: None)
    assert found.divergence is None and arrays is None and found.compared == 5
    assert "joins to one step" in found.sentences()[1]


def test_a_fault_that_is_gone_when_more_is_shown_is_told_as_such(graph) -> None:
    """Only where a block's inner value is hidden, its two products are joined wrongly."""

    def joined(model):
        shown = {v.name for v in model.graph.output}
        if "net.blocks.1.up/MatMul" not in shown:
            _scale("w1down", np.float32(2))(model)

    found, _ = _run(graph, joined)
    assert found.divergence.node == "net.blocks.1.down/MatMul"
    assert any("joins to one step" in note for note in found.notes)


def test_other_choices_are_noted(graph) -> None:
    def other(model):
        node = next(n for n in model.graph.node if n.op_type == "TopK")
        node.attribute.append(onnx.helper.make_attribute("largest", 0))

    found, _ = _run(graph, other)
    assert any("best chose other indices" in note for note in found.notes)
