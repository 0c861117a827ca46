"""Graphs that are not files yet: their cards, and that nobody opens a library's session by hand."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import prunus.apps.bench
import prunus.export
import prunus.runtime as runtime
from prunus.export.common.pipeline import run_onnx
from prunus.export.common.samples import Samples
from prunus.export.common.sessions import graph_card, run_samples
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import PrunusError
from prunus.runtime.session import registry

WEIGHT = np.arange(12, dtype=np.float32).reshape(3, 4)
BACKENDS = [b.name for b in registry.BACKENDS if ".onnx" in b.suffixes and b.installed]


def _model(inner: bool = False, columns: int | str = 3) -> onnx.ModelProto:
    """Return `y = relu(x @ w)` for two rows; `inner` makes x @ w an output without a type."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["inner"]),
        helper.make_node("Relu", ["inner"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])]
    outputs += [onnx.ValueInfoProto(name="inner")] if inner else []
    graph = helper.make_graph(
        nodes, "two",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, columns]),
         helper.make_tensor_value_info("w", TensorProto.FLOAT, [3, 4])],
        outputs, [numpy_helper.from_array(WEIGHT, "w")],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("backend", BACKENDS)
def test_inner_tensors_and_a_last_batch_that_is_filled(backend) -> None:
    model = _model(inner=True)
    card = graph_card(model)
    assert [(s.name, s.dtype, s.shape) for s in card.outputs] == [
        ("y", "float32", (2, 4)), ("inner", "float32", (2, 4)),
    ]  # fmt: skip
    assert [s.name for s in card.inputs] == ["x"], "weights are no input"
    rows = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    with runtime.open(model.SerializeToString(), backend, card=card, threads=1) as session:
        found = run_samples(session, Samples({"x": rows}, "noise"))
    np.testing.assert_allclose(found["inner"], rows @ WEIGHT, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["y"], np.maximum(rows @ WEIGHT, 0), rtol=1e-5, atol=1e-5)


def test_what_a_card_knows_is_kept() -> None:
    known = TensorSpec("y", "float32", (2, 4), ("batch", "class"), "logit")
    weights = Weights("none", "random:0", "none", False)
    card = ModelCard("pose", "m", "v", "", "", "", weights, (), (known,))
    made = graph_card(_model(inner=True), card)
    assert made.outputs[0] is known and made.outputs[1].name == "inner"
    assert (made.model, made.task) == ("m", "pose")


def test_graphs_without_sizes_or_that_do_not_load_are_refused() -> None:
    with pytest.raises(PrunusError, match="'x' has no static shape"):
        graph_card(_model(columns="n"))
    model = _model()
    model.graph.node[1].op_type = "NoSuchOperator"
    rows = Samples({"x": np.zeros((2, 3), np.float32)}, "zeros")
    with pytest.raises(PrunusError, match="cannot load the graph of graph two fp32"):
        run_onnx(model, rows)


def test_export_and_bench_open_no_session_of_a_library() -> None:
    """What is judged and measured is what users run: all of it goes through the runtime."""
    by_hand = re.compile(r"InferenceSession\(|compile_model\(|OnnxrtRunner|Core\(\)")
    for package in (prunus.export, prunus.apps.bench):
        files = list(Path(package.__path__[0]).rglob("*.py"))
        assert files
        assert [str(f) for f in files if by_hand.search(f.read_text())] == []
