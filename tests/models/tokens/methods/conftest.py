"""What tests of reducers share: a place, weights without symmetry, and what each must hold."""

import math
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from prunus.models.macs import count_macs
from prunus.models.tokens.reducer import Place, Side
from prunus.models.tokens.registry import build_reducer

SPECIAL, GRID, DIM, HEADS, BLOCK = 2, (4, 6), 8, 2, 5
PATCHES = GRID[0] * GRID[1]


@dataclass
class Case:
    """A reducer with random weights, and tokens for it.

    `levels` are what left the earlier blocks that it reads.
    """

    reducer: nn.Module
    levels: dict[int, torch.Tensor] = field(default_factory=dict)

    def tokens(self, batch, seed=0):
        generator = torch.Generator().manual_seed(seed)
        shape = (batch, SPECIAL + PATCHES, DIM)
        self.levels = {
            b: torch.randn(shape, generator=generator) for b in self.reducer.reads_levels
        }
        return torch.randn(shape, generator=generator)

    def run(self, x):
        return self.reducer(x, Side(levels=self.levels))

    def weights(self):
        """The weights in float64, by name."""
        return {k: v.detach().numpy().astype(float) for k, v in self.reducer.state_dict().items()}


class _Step(nn.Module):
    """The reducer as a graph: tokens, then levels, in; tokens and a way back out."""

    def __init__(self, reducer, how):
        super().__init__()
        self.reducer, self.how = reducer, how

    def forward(self, x, *levels):
        side = Side(levels=dict(zip(self.reducer.reads_levels, levels, strict=True)))
        reduced = self.reducer(x, side)
        return reduced.x, self.reducer.restore(2 * reduced.x, reduced, x, self.how)


def _gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _softmax(x, axis=-1):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def _linear(x, weights, name):
    return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0.0)


def _norm(x, weights, name, eps=1e-6):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _cells(patches, high, wide):
    """Yield each cell's patches (area, C), cells and patches row by row."""
    image = patches.reshape(*GRID, -1)
    for row in range(0, GRID[0], high):
        for column in range(0, GRID[1], wide):
            yield np.stack([image[row + y, column + x] for y in range(high) for x in range(wide)])


def _attend(q, k, v, heads=HEADS):
    """Attention of queries (N, C) over keys (M, C), head by head."""
    width, out = q.shape[1] // heads, np.zeros_like(q)
    for head in range(heads):
        part = slice(head * width, head * width + width)
        out[:, part] = _softmax(q[:, part] @ k[:, part].T / math.sqrt(width)) @ v[:, part]
    return out


def _block(x, weights, name, keys=None):
    """Attention and MLP of queries x over keys, or over x itself, each times its layer scale."""
    normed = _norm(x, weights, f"{name}.norm1")
    seen = normed if keys is None else _norm(keys, weights, f"{name}.norm1")
    k, v = np.split(_linear(seen, weights, f"{name}.attn.kv"), 2, axis=1)
    mixed = _attend(_linear(normed, weights, f"{name}.attn.q"), k, v)
    x = x + weights[f"{name}.layer_scale_1"] * _linear(mixed, weights, f"{name}.attn.proj")
    hidden = _linear(_norm(x, weights, f"{name}.norm2"), weights, f"{name}.mlp.fc1")
    return x + weights[f"{name}.layer_scale_2"] * _linear(_gelu(hidden), weights, f"{name}.mlp.fc2")


@pytest.fixture
def again():
    """Return the formulas that restatements are made of, in float64."""
    return SimpleNamespace(
        gelu=_gelu, softmax=_softmax, linear=_linear, norm=_norm, cells=_cells, attend=_attend,
        block=_block,
    )  # fmt: skip


@pytest.fixture
def case():
    """Return a maker: method in words, K -> a `Case`."""

    def make(words, keep, **place):
        torch.manual_seed(3)
        where = {"special": SPECIAL, "grid": GRID, "dim": DIM, "heads": HEADS, "block": BLOCK}
        reducer = build_reducer(words, Place(PATCHES, keep, **{**where, **place})).eval()
        with torch.no_grad():
            for parameter in reducer.parameters():
                parameter.normal_(0, 0.4)
        return Case(reducer)

    return make


@pytest.fixture
def equals():
    """Return a check of the tokens: constant K, special ones untouched, the rest as restated."""

    def check(one, keep, restated):
        for batch in (1, 2, 5):
            x = one.tokens(batch, seed=batch)
            with torch.no_grad():
                y = one.run(x).x
            assert y.shape == (batch, SPECIAL + keep, DIM)
            assert torch.equal(y[:, :SPECIAL], x[:, :SPECIAL])
            patches = x[:, SPECIAL:].numpy().astype(float)
            levels = {k: v[:, SPECIAL:].numpy().astype(float) for k, v in one.levels.items()}
            for picture in range(batch):
                own = {k: v[picture] for k, v in levels.items()}
                expected = restated(patches[picture], own, one.weights())
                np.testing.assert_allclose(y[picture, SPECIAL:], expected, rtol=1e-4, atol=1e-5)

    return check


@pytest.fixture
def counts():
    """Return a check of `macs` against what is counted."""

    def check(one):
        x = one.tokens(1)
        levels = tuple(one.levels.values())

        class Tokens(_Step):
            def forward(self, x, *levels):
                side = Side(levels=dict(zip(self.reducer.reads_levels, levels, strict=True)))
                return self.reducer(x, side).x

        assert one.reducer.macs() == count_macs(Tokens(one.reducer, "none"), x, *levels)

    return check


@pytest.fixture
def exports():
    """Return a check of the static graph in ONNX Runtime and OpenVINO, with a way back."""
    onnxruntime = pytest.importorskip("onnxruntime")
    openvino = pytest.importorskip("openvino")

    def check(one, how="delta", batch=2):
        from prunus.export.graph.audit import require_clean
        from prunus.export.graph.functions import inlined
        from prunus.export.graph.simplify import simplify
        from prunus.export.graph.trace import trace

        x = one.tokens(batch)
        step, inputs = _Step(one.reducer, how), (x, *one.levels.values())
        names = [f"input{k}" for k in range(len(inputs))]
        model = simplify(trace(step, inputs, names, ["y", "back"]))
        require_clean(model)
        with torch.no_grad():
            expected = [out.numpy() for out in step(*inputs)]
        feed = {name: value.numpy() for name, value in zip(names, inputs, strict=True)}
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        compiled = openvino.Core().compile_model(
            openvino.Core().read_model(inlined(model).SerializeToString()),
            "CPU",
            {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1},
        )
        seen = compiled(feed)
        for got in (session.run(None, feed), [seen["y"], seen["back"]]):
            for value, wanted in zip(got, expected, strict=True):
                np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)

    return check


@pytest.fixture
def restores():
    """Return a check of ways back: an untouched reduction comes back as what went in."""

    def check(one, how):
        x = one.tokens(2)
        with torch.no_grad():
            reduced = one.run(x)
            back = one.reducer.restore(reduced.x, reduced, x, how)
            changed = one.reducer.restore(2 * reduced.x + 1, reduced, x, how)
        assert torch.equal(back, x)
        assert not torch.equal(changed[:, SPECIAL:], x[:, SPECIAL:])

    return check
