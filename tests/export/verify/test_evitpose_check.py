"""The real network, made narrow: a fault deep inside is named, and its reference is rebuilt."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from prunus.export.graph.simplify import simplify
from prunus.export.graph.trace import trace
from prunus.export.precision.fp16 import to_fp16
from prunus.export.verify.bisect import TOLERANCES, bisect_graphs
from prunus.models.pose.deployed import DeployedPose
from prunus.models.pose.evitpose import EViTPose, evitpose_config


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    torch.manual_seed(0)
    config = replace(evitpose_config("tiny", "L2"), dim=48)
    network = DeployedPose(EViTPose(config)).eval()
    example = torch.zeros(1, 256, 192, 3, dtype=torch.uint8)
    return simplify(trace(network, [example], ["image"], ["keypoints"]))


@pytest.fixture(scope="module")
def inputs() -> dict[str, np.ndarray]:
    coarse = np.random.default_rng(0).integers(0, 256, (1, 16, 12, 3), dtype=np.uint8)
    return {"image": coarse.repeat(16, axis=1).repeat(16, axis=2)}


@pytest.mark.parametrize("block", [0, 3, 7, 9, 11])
def test_the_planted_node_is_named(model, inputs, block) -> None:
    """Blocks 3, 6 and 9 select tokens, so 7, 9 and 11 lie behind selections."""
    suspect = onnx.ModelProto()
    suspect.CopyFrom(model)
    constants = {t.name: t for t in suspect.graph.initializer}
    node = [
        n
        for n in suspect.graph.node
        if n.op_type == "MatMul"
        and n.name.startswith(f"network.blocks.{block}.mlp")
        and constants.keys() & set(n.input)
    ][-1]
    values = numpy_helper.to_array(constants[node.input[1]]).copy()
    values.flat[7] += 0.5
    constants[node.input[1]].CopyFrom(numpy_helper.from_array(values, node.input[1]))
    found = bisect_graphs(model, suspect, inputs).divergence
    assert found is not None
    assert (found.block, found.node) == (f"network.blocks.{block}", node.name)


def test_half_precision_stays_within_its_tolerance(model, inputs) -> None:
    found = bisect_graphs(model, to_fp16(model), inputs, TOLERANCES["fp16"])
    assert found.divergence is None, found.sentences()
    assert found.compared > 400
    strict = bisect_graphs(model, to_fp16(model), inputs, TOLERANCES["fp32"])
    assert strict.divergence is not None  # the two graphs do differ
