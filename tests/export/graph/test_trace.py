from __future__ import annotations

import logging

import onnx
import pytest
import torch

from prunus.export.graph.naming import scope_of
from prunus.export.graph.trace import OPSET, trace
from prunus.runtime.errors import PrunusError


def test_the_graph_has_the_names_and_the_opset_asked_for(traced_pose):
    assert [v.name for v in traced_pose.graph.input] == ["image"]
    assert [v.name for v in traced_pose.graph.output] == ["keypoints", "heatmaps"]
    assert [o.version for o in traced_pose.opset_import if o.domain == ""] == [OPSET]
    assert traced_pose.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8


def test_node_names_are_unique_and_speak_of_modules(traced_pose):
    names = [node.name for node in traced_pose.graph.node]
    assert len(set(names)) == len(names)
    for block in range(3):
        assert f"network.blocks.{block}.attn.qkv/MatMul" in names
        assert f"network.blocks.{block}.attn/Softmax" in names
    assert "network.cuts.1/TopK" in names
    assert all("Split" not in n or ".attn" in scope_of(n) for n in names)


def test_a_scope_is_the_path_of_a_module():
    assert scope_of("network.blocks.1.mlp/Gelu_2") == "network.blocks.1.mlp"
    assert scope_of("/Cast") == ""


def test_attention_scales_once_and_transposes_keys_once(traced_pose):
    own = [n.op_type for n in traced_pose.graph.node if scope_of(n.name).endswith("blocks.0.attn")]
    assert own.count("Mul") == 1
    assert own.count("MatMul") == 2
    assert own.count("Reshape") == 4  # query, key, value, and the heads put together again


def test_it_is_quiet_and_restores_training_flags_and_log_levels(capfd, caplog):
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
    module.train()
    module[0].eval()
    level = logging.getLogger("torch.onnx").level
    with caplog.at_level(logging.WARNING):
        model = trace(module, (torch.zeros(2, 4),), ["x"], ["y"])
    out, err = capfd.readouterr()
    assert (out, err, caplog.records) == ("", "", [])
    assert [m.training for m in module.modules()] == [True, False, True]
    assert logging.getLogger("torch.onnx").level == level
    assert "Dropout" not in {node.op_type for node in model.graph.node}


def test_a_module_that_looks_at_values_is_refused_in_one_line():
    class Branch(torch.nn.Module):
        def forward(self, x):
            return x * 2 if float(x.sum()) > 0 else x

    with pytest.raises(PrunusError, match=r"^Cannot trace Branch to ONNX: [^\n]+$") as caught:
        trace(Branch(), (torch.ones(2),), ["x"], ["y"])
    assert "--debug" in caught.value.hint


def test_a_wrong_number_of_names_is_refused():
    class Two(torch.nn.Module):
        def forward(self, x):
            return x + 1, x + 2

    with pytest.raises(PrunusError):
        trace(Two(), (torch.ones(2),), ["x"], ["y", "z", "more"])
