"""A planted fault must be named exactly, also behind a selection that swaps near-ties."""

import math

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from prunus.export.graph.simplify import simplify
from prunus.export.graph.trace import trace
from prunus.export.verify.bisect import bisect_graphs, relative_error
from prunus.export.verify.expose import block_of
from prunus.runtime.errors import CheckFailedError


def plant(model: onnx.ModelProto, node_name: str, factor: float = 3.0) -> None:
    """Scale the largest weight of one node, in a copy of the constant that it alone reads."""
    node = next(n for n in model.graph.node if n.name == node_name)
    constants = {t.name: t for t in model.graph.initializer}
    slot = next(k for k, name in enumerate(node.input) if name in constants)
    values = numpy_helper.to_array(constants[node.input[slot]]).copy()
    at = np.unravel_index(np.abs(values).argmax(), values.shape)
    values[at] *= factor
    model.graph.initializer.append(numpy_helper.from_array(values, f"{node_name}_planted"))
    node.input[slot] = f"{node_name}_planted"


def weighted(model: onnx.ModelProto, block: str, operator: str) -> list[str]:
    constants = {t.name for t in model.graph.initializer}
    return [
        n.name
        for n in model.graph.node
        if block_of(n.name) == block and n.op_type == operator and constants & set(n.input)
    ]


@pytest.mark.parametrize("block", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("operator", ["MatMul", "Add", "LayerNormalization"])
def test_names_the_planted_node(trained, crops, block, operator) -> None:
    scope = f"network.blocks.{block}"
    # The last ones: a shifted key, as in the first additions, cancels in the softmax.
    for name in weighted(trained.model(), scope, operator)[-2:]:
        suspect = trained.model()
        plant(suspect, name)
        found = bisect_graphs(trained.model(), suspect, {"image": crops[:2]}).divergence
        assert found is not None
        assert (found.block, found.node, found.operator) == (scope, name, operator)
        assert found.error > found.tolerance > found.input_error


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_names_the_stem_and_the_head(trained, crops, operator) -> None:
    suspect = trained.model()
    name = next(n.name for n in suspect.graph.node if n.op_type == operator)
    plant(suspect, name)
    found = bisect_graphs(trained.model(), suspect, {"image": crops[:2]}).divergence
    assert found is not None and found.node == name
    assert found.block == {"Conv": "network.embed", "ConvTranspose": "network.head"}[operator]


def test_equal_graphs_agree(trained, crops) -> None:
    found = bisect_graphs(trained.model(), trained.model(), {"image": crops[:2]})
    assert found.divergence is None
    assert found.compared > 50
    assert "agree" in found.sentences()[0]


def tie_scores(model: onnx.ModelProto, node: onnx.NodeProto, seed: int) -> None:
    """Round the scores of a TopK so that many nearly tie, and break the ties at random."""
    graph = model.graph
    index = list(graph.node).index(node)
    shape = next(
        [d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in graph.value_info
        if v.name == node.input[0]
    )
    noise = np.random.default_rng(seed).uniform(0, 1e-6, shape).astype(np.float32)
    step = np.float32(0.25)
    for suffix, value in (("step", step), ("noise", noise)):
        graph.initializer.append(
            numpy_helper.from_array(np.asarray(value), f"{node.name}_{suffix}")
        )
    chain = [
        ("Div", [node.input[0], f"{node.name}_step"], "a"),
        ("Round", [f"{node.name}_a"], "b"),
        ("Add", [f"{node.name}_b", f"{node.name}_noise"], "c"),
    ]
    for k, (operator, inputs, out) in enumerate(chain):
        made = onnx.helper.make_node(
            operator, inputs, [f"{node.name}_{out}"], name=f"{node.name}_{operator}"
        )
        graph.node.insert(index + k, made)
    node.input[0] = f"{node.name}_c"


def tied(standin, seed: int) -> onnx.ModelProto:
    model = standin.model()
    for node in [n for n in model.graph.node if n.op_type == "TopK"]:
        tie_scores(model, node, seed)
    return model


def test_near_ties_are_no_fault(trained, crops) -> None:
    found = bisect_graphs(tied(trained, 1), tied(trained, 2), {"image": crops[:2]})
    assert found.divergence is None
    assert any("near-tied" in note for note in found.notes)


@pytest.mark.parametrize("block", [2, 3, 5])
def test_names_the_node_behind_swapped_tokens(trained, crops, block) -> None:
    suspect = tied(trained, 2)
    name = weighted(suspect, f"network.blocks.{block}", "MatMul")[-1]
    plant(suspect, name)
    found = bisect_graphs(tied(trained, 1), suspect, {"image": crops[:2]})
    assert found.divergence is not None and found.divergence.node == name
    assert any("near-tied" in note for note in found.notes)


def test_a_wrong_selection_is_a_fault(trained, crops) -> None:
    suspect = trained.model()
    node = next(n for n in suspect.graph.node if n.op_type == "TopK")
    next(a for a in node.attribute if a.name == "largest").i = 0
    found = bisect_graphs(trained.model(), suspect, {"image": crops[:2]}).divergence
    assert found is not None and found.node == node.name


def test_not_a_number_is_a_fault(trained, crops) -> None:
    suspect = trained.model()
    name = weighted(suspect, "network.blocks.4", "MatMul")[1]
    plant(suspect, name, float("nan"))
    found = bisect_graphs(trained.model(), suspect, {"image": crops[:2]}).divergence
    assert found is not None and found.node == name and found.error == float("inf")


def test_strangers_are_refused(trained, crops) -> None:
    suspect = trained.model()
    for k, node in enumerate(suspect.graph.node):
        node.name = f"other/{k}"
        for group in (node.input, node.output):
            group[:] = [v if v in {"image", "keypoints"} else f"x{v}" for v in group]
    for tensor in suspect.graph.initializer:
        tensor.name = f"x{tensor.name}"
    del suspect.graph.value_info[:]
    last = next(n for n in suspect.graph.node if "keypoints" in n.output)
    last.op_type = "Identity" if last.op_type != "Identity" else "Relu"
    with pytest.raises(CheckFailedError, match="share no node names"):
        bisect_graphs(trained.model(), suspect, {"image": crops[:2]})


def test_relative_error_of_infinities() -> None:
    a = np.array([0.0, 1.0, -np.inf])
    assert relative_error(a, a) == 0.0
    assert relative_error(a, np.array([0.0, 1.5, -np.inf])) == pytest.approx(0.5)
    assert relative_error(a, np.array([0.0, np.nan, -np.inf])) == np.inf


class Tokens(torch.nn.Module):
    """Two blocks on tokens (1, 12, 8), or on the same numbers as a map (1, 8, 3, 4)."""

    def __init__(self, mapped: bool) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.norms = torch.nn.ModuleList(torch.nn.LayerNorm(8) for _ in range(2))
            self.mixes = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(2))
        self.mapped = mapped

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for norm, mix in zip(self.norms, self.mixes, strict=True):
            if self.mapped:  # as a map of rows, back to a list for the norm
                x = x.reshape(1, 3, 4, 8).permute(0, 3, 1, 2).relu()
                x = mix(norm(x.permute(0, 2, 3, 1).reshape(1, 12, 8)))
            else:
                x = mix(norm(x.relu().reshape(12, 8)).reshape(1, 12, 8))
        return x


def written(mapped: bool) -> onnx.ModelProto:
    module = Tokens(mapped).eval()
    return simplify(trace(module, [torch.zeros(1, 12, 8)], ["x"], ["y"]))


def test_a_graph_that_is_written_differently_is_no_fault() -> None:
    inputs = {"x": np.random.default_rng(0).standard_normal((1, 12, 8)).astype(np.float32)}
    found = bisect_graphs(written(False), written(True), inputs)
    assert found.divergence is None, found.sentences()
    assert found.compared > 0


@pytest.mark.parametrize("block", ["norms.1", "mixes.1"])
def test_a_fault_in_a_graph_that_is_written_differently_is_found(block) -> None:
    inputs = {"x": np.random.default_rng(0).standard_normal((1, 12, 8)).astype(np.float32)}
    suspect = written(True)
    name = next(n.name for n in suspect.graph.node if n.name.startswith(block))
    plant(suspect, name)
    found = bisect_graphs(written(False), suspect, inputs).divergence
    assert found is not None and math.isfinite(found.error)
    assert found.block in {block, "mixes.1", "top level"}
