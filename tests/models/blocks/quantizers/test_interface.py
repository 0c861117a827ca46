"""Every quantiser: codes, bits, straight-through gradients, graphs in ONNX Runtime, bad input."""

import math

import numpy as np
import pytest
import torch

from prunus.models.blocks.quantizers.interface import DecodeGraph, EncodeGraph
from prunus.models.blocks.quantizers.zoo import QUANTIZERS, build_quantizer
from prunus.runtime.errors import TensorError, UsageError

NAMES = list(QUANTIZERS)
QUICK = ("rvq", "fsq", "wetok", "unitok")
# Hand-counted: codes per frame, different frames, bits, whole bits.
BITS = {
    "vq": (1, 1024, 10.0, 10), "rvq": (4, 1024**4, 40.0, 40), "fsq": (1, 1000, math.log2(1000), 10),
    "lfq": (1, 1024, 10.0, 10), "wetok": (4, 2**32, 32.0, 32), "gsq": (4, 2**32, 32.0, 32),
    "unitok": (4, 2**32, 32.0, 32), "tokenflow": (1, 1024, 10.0, 10),
    "unicode2": (1, 1024, 10.0, 10),
}  # fmt: skip


class BothGraphs(torch.nn.Module):
    """Codes, and the vectors of these codes."""

    def __init__(self, quantizer):
        super().__init__()
        self.encode, self.decode = EncodeGraph(quantizer), DecodeGraph(quantizer)

    def forward(self, x):
        codes = self.encode(x)
        return codes, self.decode(codes)


def _frames(quantizer, count=60, spread=1.0):
    generator = torch.Generator().manual_seed(7)
    return torch.randn(2, count // 2, quantizer.dim, generator=generator) * spread


def _codes(quantizer, count=200):
    generator = torch.Generator().manual_seed(8)
    columns = [torch.randint(s, (count,), generator=generator) for s in quantizer.sizes]
    return torch.stack(columns, dim=-1)


@pytest.mark.parametrize("name", NAMES)
def test_bits_are_counted(name) -> None:
    quantizer = build_quantizer(name)
    got = (
        quantizer.codes_per_frame, quantizer.codebook_size, quantizer.bits_per_frame,
        quantizer.packed_bits_per_frame,
    )  # fmt: skip
    assert got[:2] == BITS[name][:2] and got[3] == BITS[name][3]
    assert got[2] == pytest.approx(BITS[name][2], abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_types_and_range(name) -> None:
    quantizer = build_quantizer(name)
    x = _frames(quantizer)
    codes = quantizer.encode(x)
    assert codes.dtype == torch.int64 and codes.shape == (2, 30, quantizer.codes_per_frame)
    for k, size in enumerate(quantizer.sizes):
        assert 0 <= codes[..., k].min() and codes[..., k].max() < size
    assert len(codes.reshape(-1, quantizer.codes_per_frame).unique(dim=0)) > 10
    vectors = quantizer.decode(codes)
    assert vectors.dtype == torch.float32 and vectors.shape == x.shape
    one = quantizer.encode(x[0, 0])  # a single frame, without any batch axis
    assert torch.equal(one, codes[0, 0])


@pytest.mark.parametrize("name", [n for n in NAMES if n != "rvq"])
def test_codes_to_vectors_to_codes(name) -> None:
    quantizer = build_quantizer(name)
    codes = _codes(quantizer)
    assert torch.equal(quantizer.index(quantizer.decode(codes)), codes)


@pytest.mark.parametrize("name", NAMES)
def test_forward_is_encode_and_decode(name) -> None:
    quantizer = build_quantizer(name)
    x = _frames(quantizer)
    out = quantizer(x)
    assert torch.equal(out.codes, quantizer.encode(x))
    torch.testing.assert_close(out.vectors, quantizer.decode(out.codes), rtol=0, atol=1e-6)
    assert all(value.dim() == 0 and value.isfinite() for value in out.losses.values())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_pass_straight_through(name) -> None:
    quantizer = build_quantizer(name)
    x = _frames(quantizer).requires_grad_()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    (given,) = torch.autograd.grad((quantizer(x).vectors * weight).sum(), x)
    # As if only the conditioning were there.
    (plain,) = torch.autograd.grad((quantizer.condition(x) * weight).sum(), x)
    torch.testing.assert_close(given, plain)
    assert given.abs().sum() > 0


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("fsq", "lfq", "wetok")])
def test_losses_move_tables_and_frames_towards_each_other(name) -> None:
    quantizer = build_quantizer(name)
    x = _frames(quantizer, spread=0.3).requires_grad_()
    optimiser = torch.optim.SGD([x, *quantizer.parameters()], lr=0.1)
    before = None
    for _ in range(3):
        losses = quantizer(x).losses
        total = losses["commitment"] + losses["codebook"]
        before = total.item() if before is None else before
        optimiser.zero_grad()
        total.backward()
        assert x.grad.abs().sum() > 0
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in quantizer.parameters())
        optimiser.step()
    with torch.no_grad():
        after = quantizer(x).losses
    assert float(after["commitment"] + after["codebook"]) < before


@pytest.mark.parametrize(
    "name",  # by default one of each kind of search
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in NAMES],
)
def test_onnx_runtime_gives_the_same_codes_and_vectors(name, run_onnx) -> None:
    quantizer = build_quantizer(name).eval()
    x = _frames(quantizer, 240)
    with torch.no_grad():
        codes = quantizer.encode(x)
        vectors = quantizer.decode(codes)
    got_codes, got_vectors = run_onnx(BothGraphs(quantizer), x, outputs=2)
    assert got_codes.dtype == np.int64 and np.array_equal(got_codes, codes.numpy())
    np.testing.assert_allclose(got_vectors, vectors.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_frames_and_codes_are_refused(name) -> None:
    quantizer = build_quantizer(name)
    with pytest.raises(TensorError, match=rf"expected \(\.\.\., {quantizer.dim}\)"):
        quantizer.encode(torch.zeros(3, quantizer.dim + 1))
    with pytest.raises(TensorError, match="expected"):
        quantizer.decode(torch.zeros(3, quantizer.codes_per_frame + 1, dtype=torch.int64))
    with pytest.raises(TensorError, match="integers"):
        quantizer.decode(torch.zeros(3, quantizer.codes_per_frame))
    for wrong in (-1, quantizer.sizes[-1]):
        codes = torch.zeros(3, quantizer.codes_per_frame, dtype=torch.int64)
        codes[1, -1] = wrong
        with pytest.raises(TensorError, match=f"expected 0 to {quantizer.sizes[-1] - 1}"):
            quantizer.decode(codes)


def test_unknown_names_come_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'unitok'"):
        build_quantizer("unitokk")


def test_same_seed_same_tables() -> None:
    first, again, other = (build_quantizer("gsq", seed).embed for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)
