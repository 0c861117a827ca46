"""Quantisers between linear layers: inner codes, gradients to both layers, ONNX Runtime."""

import numpy as np
import pytest
import torch

from prunus.models.blocks.quantizers.interface import DecodeGraph, EncodeGraph
from prunus.models.blocks.quantizers.projected import Projected
from prunus.models.blocks.quantizers.scalar import ScalarQuantizer
from prunus.runtime.errors import TensorError, UsageError


def _projected():
    torch.manual_seed(1)
    return Projected(12, ScalarQuantizer((8, 5, 5)))


def test_codes_are_those_of_the_projected_frames() -> None:
    projected = _projected()
    x = torch.randn(20, 12)
    inner = x @ projected.inward.weight.T + projected.inward.bias
    codes = projected.encode(x)
    assert torch.equal(codes, projected.quantizer.encode(inner)) and projected.sizes == (200,)
    vectors = projected.quantizer.decode(codes) @ projected.outward.weight.T
    torch.testing.assert_close(projected.decode(codes), vectors + projected.outward.bias)
    torch.testing.assert_close(projected(x).vectors, projected.decode(codes))


def test_gradients_reach_both_layers_and_the_frames() -> None:
    projected = _projected()
    x = torch.randn(20, 12, requires_grad=True)
    projected(x).vectors.square().sum().backward()
    for value in (x, *projected.parameters()):
        assert value.grad is not None and value.grad.abs().sum() > 0


def test_onnx_runtime_gives_the_same_codes(run_onnx) -> None:
    projected = _projected().eval()
    x = torch.randn(200, 12)
    with torch.no_grad():
        codes = projected.encode(x)
        vectors = projected.decode(codes)
    chain = torch.nn.Sequential(EncodeGraph(projected), DecodeGraph(projected))
    np.testing.assert_allclose(run_onnx(chain, x)[0], vectors.numpy(), rtol=0, atol=1e-6)


def test_what_it_cannot_do_is_refused() -> None:
    projected = _projected()
    with pytest.raises(UsageError, match="no inverse"):
        projected.index(torch.zeros(1, 12))
    with pytest.raises(TensorError, match="12"):
        projected(torch.zeros(1, 3))
