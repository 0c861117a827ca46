"""Exporting faster changes no byte, and leaves the packages as they were."""

import contextlib

import pytest
import torch

from prunus.export.graph import exporter
from prunus.export.graph import trace as tracing

registration = pytest.importorskip("torch.onnx._internal.exporter._registration")
rewriter = pytest.importorskip("onnxscript.rewriter")


class Halves(torch.nn.Module):
    """Has slices, with which the pattern of two outputs begins."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)

    def forward(self, x):
        y = self.linear(x)
        return y[:, :4] * torch.sigmoid(y[:, 4:]), y[:, ::2]


def _trace():
    torch.manual_seed(0)
    return tracing.trace(Halves(), (torch.zeros(2, 8),), ["x"], ["gated", "odd"])


def test_the_graph_is_the_same_to_the_byte(monkeypatch):
    calls = []
    stock = registration.ONNXRegistry.from_torchlib.__func__

    def counted(cls, **version):
        calls.append(version)
        return stock(cls, **version)

    monkeypatch.setattr(registration.ONNXRegistry, "from_torchlib", classmethod(counted))
    quick = [_trace().SerializeToString(deterministic=True) for _ in range(2)]
    assert len(calls) == 1
    monkeypatch.setattr(tracing, "quick", contextlib.nullcontext)
    slow = _trace()
    assert len(calls) == 2
    assert "Slice" in {node.op_type for node in slow.graph.node}
    assert quick == [slow.SerializeToString(deterministic=True)] * 2


def test_the_packages_are_left_as_they_were():
    before = vars(registration.ONNXRegistry)["from_torchlib"]
    with pytest.raises(ZeroDivisionError), exporter.quick(), exporter.quick():
        assert vars(registration.ONNXRegistry)["from_torchlib"] is not before
        assert any("try_rewrite" in vars(rule) for rule in rewriter._DEFAULT_REWRITE_RULES)
        raise ZeroDivisionError
    assert vars(registration.ONNXRegistry)["from_torchlib"] is before
    assert not any("try_rewrite" in vars(rule) for rule in rewriter._DEFAULT_REWRITE_RULES)


def test_other_versions_of_the_packages_are_left_alone(monkeypatch):
    monkeypatch.delattr(registration, "ONNXRegistry")
    monkeypatch.delattr(rewriter, "_DEFAULT_REWRITE_RULES")
    with exporter.quick():
        assert not hasattr(registration, "ONNXRegistry")
