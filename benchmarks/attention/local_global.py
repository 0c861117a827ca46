"""The body of local-global attention nodes against windows cut the usual way, in ONNX Runtime.

    python -m benchmarks.attention.local_global            # some five minutes on two cores
    python -m benchmarks.attention.local_global --quick --only joint

Both graphs come from the same weights. ``usual`` partitions the grid with reshapes and transposes,
concatenates the global tokens to each window's keys, calls `scaled_dot_product_attention`, and is
exported by PyTorch alone. ``body`` is prunus' export, whose node ONNX Runtime inlines. Each runs in
a process of its own, in turns A B A B; the ratio is body time / usual time, below 1 is faster. The
last column is that ratio in CPU time of one thread, which a busy machine disturbs least.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.apps.bench.runs import session_runner
from prunus.export.common.pipeline import write_model
from prunus.export.graph.simplify import simplify, with_shapes
from prunus.export.graph.trace import OPSET, trace
from prunus.models.layers.local_global.attention import (
    gated_attention,
    global_attention,
    joint_attention,
    window_attention,
)
from prunus.models.layers.local_global.index import AttentionIndex, grid_windows
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import CheckFailedError
from prunus.runtime.measure.latency import environment

from ..cpu_time import cpu_times
from ..record import MODELS, Settings, finish, new_parser, settings, show, take_turns, write_record

GRAPHS = MODELS / "local-global"
COMBINES = ("joint", "sum", "local", "global")
TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Shape:
    """One row of the table: a grid of tokens, its windows and its global tokens."""

    name: str
    grid: tuple[int, int]
    window: tuple[int, int]
    dim: int
    heads: int
    tokens: int


SHAPES = (
    Shape("56x56x96", (56, 56), (7, 7), 96, 3, 16),
    Shape("pose-4", (64, 48), (8, 8), 64, 2, 17),
    Shape("pose-8", (32, 24), (8, 8), 128, 4, 17),
    Shape("seg", (64, 64), (8, 8), 128, 4, 16),
)


class Block(nn.Module):
    """Norm, projections, attention, output, and an MLP of ratio 4 unless `bare`."""

    def __init__(self, shape: Shape, combine: str, *, bare: bool) -> None:
        super().__init__()
        dim, length = shape.dim, shape.window[0] * shape.window[1]
        self.shape, self.combine, self.bare = shape, combine, bare
        self.index = AttentionIndex(grid_windows(shape.grid, shape.window))
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))
        self.bias = nn.Parameter(0.1 * torch.randn(1, shape.heads, length, length))

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        """Map tokens (1, N, C) and global tokens (1, G, C) to (1, N, C)."""
        if self.bare:
            return self.attend(x, x, x, g)
        q, k, v = self.qkv(self.norm1(x)).split(self.shape.dim, dim=-1)
        x = x + self.out(self.attend(q, k, v, g))
        out: Tensor = x + self.mlp(self.norm2(x))
        return out

    def attend(self, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        """Attend with the operator."""
        heads, index, bias = self.shape.heads, self.index, self.bias
        if self.combine == "joint":
            return joint_attention(q, k, v, g, g, index, num_heads=heads, bias=bias)
        if self.combine == "sum":
            return gated_attention(q, k, v, g, g, index, num_heads=heads, bias=bias)
        if self.combine == "local":
            return window_attention(q, k, v, index, num_heads=heads, bias=bias)
        return global_attention(q, g, g, num_heads=heads)


class UsualBlock(Block):
    """The same block with windows cut by reshapes and transposes."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, g: Tensor) -> Tensor:
        """Attend with PyTorch's own functions."""
        tokens = self._heads(g)
        if self.combine == "global":
            mixed = functional.scaled_dot_product_attention(self._heads(q), tokens, tokens)
            return mixed.transpose(1, 2).flatten(2)
        q, k, v = (self._heads(self._cut(part)) for part in (q, k, v))
        tokens = tokens.expand(q.shape[0], -1, -1, -1)
        bias = self.bias
        if self.combine == "joint":
            k, v = torch.cat((k, tokens), 2), torch.cat((v, tokens), 2)
            bias = functional.pad(bias, (0, self.shape.tokens))
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        if self.combine == "sum":
            mixed = mixed + functional.scaled_dot_product_attention(q, tokens, tokens)
        return self._join(mixed.transpose(1, 2).flatten(2))

    def _heads(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.shape.heads, -1)).transpose(1, 2)

    def _cut(self, tokens: Tensor) -> Tensor:
        (rows, columns), (high, wide) = self.shape.grid, self.shape.window
        tiles = tokens.view(1, rows // high, high, columns // wide, wide, self.shape.dim)
        return tiles.transpose(2, 3).reshape(-1, high * wide, self.shape.dim)

    def _join(self, windows: Tensor) -> Tensor:
        (rows, columns), (high, wide) = self.shape.grid, self.shape.window
        tiles = windows.view(1, rows // high, columns // wide, high, wide, self.shape.dim)
        return tiles.transpose(2, 3).reshape(1, rows * columns, self.shape.dim)


def export(shape: Shape, combine: str, *, bare: bool) -> tuple[Path, Path]:
    """Write both graphs with the same weights and check that they agree.

    Raises:
        CheckFailedError: they do not.
    """
    torch.manual_seed(0)
    usual = UsualBlock(shape, combine, bare=bare).eval()
    block = Block(shape, combine, bare=bare).eval()
    block.load_state_dict(usual.state_dict())
    x = torch.randn(1, shape.grid[0] * shape.grid[1], shape.dim)
    g = torch.randn(1, shape.tokens, shape.dim)
    with torch.no_grad():
        gap = float((usual(x, g) - block(x, g)).abs().max())
        plain = torch.onnx.export(
            usual, (x, g), dynamo=True, opset_version=OPSET, input_names=["x", "g"],
            output_names=["y"], verbose=False,
        )  # fmt: skip
    if gap > TOLERANCE or plain is None:
        raise CheckFailedError(f"The two blocks of {shape.name} {combine} differ by {gap:.2g}.")
    graphs = {
        "usual": with_shapes(plain.model_proto),
        "body": simplify(trace(block, (x, g), ["x", "g"], ["y"])),
    }
    GRAPHS.mkdir(parents=True, exist_ok=True)
    stem = f"{shape.name}-{combine}-{'bare' if bare else 'block'}"
    paths = []
    for name, graph in graphs.items():
        path = GRAPHS / f"{stem}-{name}.onnx"
        write_model(graph, _card(shape, f"{stem}-{name}"), path)
        paths.append(path)
    _agree(paths, {"x": x.numpy(), "g": g.numpy()})
    return paths[0], paths[1]


def _agree(paths: Sequence[Path], feed: dict[str, np.ndarray]) -> None:
    from prunus.runtime.session.base import open as open_session

    results = []
    for path in paths:
        session = open_session(path, "onnxruntime", threads=1)
        results.append(session.run(feed)["y"].copy())
        session.close()
    gap = float(np.abs(results[0] - results[1]).max())
    if not gap <= TOLERANCE * max(1.0, float(np.abs(results[0]).max())):
        raise CheckFailedError(f"{paths[0].name} and {paths[1].name} differ by {gap:.2g}.")


def _card(shape: Shape, variant: str) -> ModelCard:
    count, axes = shape.grid[0] * shape.grid[1], ("batch", "token", "dim")
    return ModelCard(
        task="pose", model="local-global-attention", variant=variant, paper="none",
        licence="Apache-2.0", exporter="benchmark",
        weights=Weights("random", "random:0", "Apache-2.0", False),
        inputs=(
            TensorSpec("x", "float32", (1, count, shape.dim), axes),
            TensorSpec("g", "float32", (1, shape.tokens, shape.dim), axes),
        ),
        outputs=(TensorSpec("y", "float32", (1, count, shape.dim), axes),),
    )  # fmt: skip


def measure(combines: Sequence[str], how: Settings, calls: int) -> dict[str, Any]:
    """Measure every case and print a line of the table for each."""
    found: dict[str, Any] = {}
    rows = []
    for bare in (True, False):
        for shape in SHAPES:
            for combine in combines:
                usual, body = export(shape, combine, bare=bare)
                name, cells = body.stem, [""] * 4
                cpu = cpu_times((usual, body), calls)
                record: dict[str, Any] = {
                    "cpu": {"usual": cpu[0].to_dict(), "body": cpu[1].to_dict()}
                }
                if how.clock == "wall":
                    runners = [session_runner(p, "onnxruntime", how.threads) for p in (usual, body)]
                    result = take_turns(name, runners, how, shipped=False)
                    first, second = result.results
                    low, high = (1 / r for r in reversed(second.ratio_range))
                    cells = [
                        f"{first.latency.p50_ms:.2f}", f"{second.latency.p50_ms:.2f}",
                        f"{1 / second.ratio:.2f}", f"{low:.2f}-{high:.2f}",
                    ]  # fmt: skip
                    record |= json.loads(result.to_json())
                what = "attention" if bare else "block"
                rows.append([what, shape.name, combine, *cells, f"{cpu[1].ratio:.2f}"])
                found[name] = record
    heads = ("what", "shape", "combine", "usual ms", "body ms", "ratio", "range", "CPU ratio")
    show("## ONNX Runtime, float32", heads, rows)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = new_parser(
        __doc__, "local_global_attention.json", COMBINES, cpu="CPU time alone: for a busy machine"
    )
    parser.add_argument("--calls", type=int, default=60, help="calls whose CPU time is taken")
    options = parser.parse_args(arguments)
    how = settings(options, rounds=(3, 6), seconds=(0.3, 0.8))

    def work() -> None:
        found = measure(options.only or COMBINES, how, options.calls)
        write_record(options.output, {"environment": environment(how.threads), "cases": found})

    return finish(work, options.output)


if __name__ == "__main__":
    sys.exit(main())
