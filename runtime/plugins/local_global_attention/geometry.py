"""From the shapes of the operator's inputs to the integers that the kernel is launched with.

``csrc/geometry.cpp`` does the same inside TensorRT; a test holds the two together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from prunus.runtime.errors import TensorError, UsageError, nearest

Combine = Literal["joint", "sum", "local", "global"]
Shapes = Mapping[str, Sequence[int]]
INPUTS = (
    "q", "k", "v", "q_index", "kv_index", "bias_l", "kg", "vg", "bias_g", "gate", "o_index",
)  # fmt: skip
LOG2_E = math.log2(math.e)


@dataclass(frozen=True, slots=True)
class Geometry:
    """A checked problem; B batches, W windows, Lq queries and Lk keys per window, G globals.

    Attributes:
        batch: B.
        windows: W.
        queries: Lq.
        keys: Lk, 0 where the window's keys are not read.
        globals_: G, 0 where the global tokens are not read.
        query_tokens: Nq.
        key_tokens: Nk, 0 where not read.
        heads: h.
        head_dim: d.
        separate: 1 for two softmaxes (``sum``), else 0.
        strides: Elements per step: bias_l by window, head, query, key; bias_g by batch, window,
            head, query, key; gate by batch, window, head, query; kg and vg by batch, window.
    """

    batch: int
    windows: int
    queries: int
    keys: int
    globals_: int
    query_tokens: int
    key_tokens: int
    heads: int
    head_dim: int
    separate: int
    strides: tuple[int, ...]

    @property
    def channels(self) -> int:
        """C, the channels of a token."""
        return self.heads * self.head_dim

    def integers(self, index_words: int) -> tuple[int, ...]:
        """Return the kernel's integer arguments in order; `index_words`: 1 int32, 2 int64."""
        return (
            self.separate, self.queries, self.keys, self.globals_, self.query_tokens,
            self.key_tokens, self.heads, self.head_dim, self.channels, index_words, *self.strides,
        )  # fmt: skip

    def grid(self, rows: int) -> tuple[int, int]:
        """Return the launch grid for `rows` queries per program."""
        return self.windows * -(-self.queries // rows) * self.heads, self.batch


def geometry(shapes: Shapes, heads: int, combine: str) -> Geometry:
    """Check the shapes of the inputs that `combine` reads and derive the launch.

    Args:
        shapes: Shape of each of `INPUTS`; tables and tensors that are not read may be anything.
        heads: Number of heads.
        combine: ``joint``, ``sum``, ``local`` or ``global``.

    Raises:
        UsageError: unknown combination, or heads that do not divide the channels.
        TensorError: a shape that does not fit; names the input.
    """
    known = list(get_args(Combine))
    if combine not in known:
        raise UsageError(
            f"Unknown combination '{combine}'{nearest(combine, known)}.",
            f"Use one of: {', '.join(known)}",
        )
    batch, query_tokens, channels = _shape(shapes, "q", (0, 0, 0))
    if heads < 1 or channels % heads:
        raise UsageError(
            f"Local-global attention got {channels} channels and {heads} heads.",
            "The heads must divide the channels.",
        )
    windows, queries = _shape(shapes, "q_index", (0, 0))
    if windows * queries != query_tokens:
        raise TensorError(
            f"q_index has {windows} x {queries} positions for {query_tokens} queries; "
            "expected every query exactly once."
        )
    keys = key_tokens = globals_ = 0
    local: tuple[int, ...] = (0,) * 4
    far: tuple[int, ...] = (0,) * 5
    gate: tuple[int, ...] = (0,) * 4
    tokens = (0, 0)
    lead = (windows, heads, queries)
    if combine != "global":
        _, key_tokens, _ = _shape(shapes, "k", (batch, 0, channels))
        _shape(shapes, "v", (batch, key_tokens, channels))
        keys = _shape(shapes, "kv_index", (windows, 0))[1]
        local = _broadcast(shapes, "bias_l", (*lead, keys))
    if combine != "local":
        sets = shapes["kg"][1] if len(shapes["kg"]) == 4 and shapes["kg"][1] == windows else 1
        globals_ = _shape(shapes, "kg", (batch, sets, 0, channels))[2]
        _shape(shapes, "vg", (batch, sets, globals_, channels))
        tokens = (sets * globals_ * channels, globals_ * channels if sets > 1 else 0)
        far = _broadcast(shapes, "bias_g", (batch, *lead, globals_))
    if combine == "sum":
        gate = _broadcast(shapes, "gate", (batch, *lead, 1))[:4]
    return Geometry(
        batch, windows, queries, keys, globals_, query_tokens, key_tokens, heads,
        channels // heads, int(combine == "sum"), (*local, *far, *gate, *tokens),
    )  # fmt: skip


def _shape(shapes: Shapes, name: str, wanted: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape that equals `wanted`, where 0 stands for any positive size."""
    shape = tuple(shapes[name])
    if len(shape) != len(wanted) or any(
        got < 1 or (want and got != want) for got, want in zip(shape, wanted, strict=True)
    ):
        expected = ", ".join(str(n) if n else "any" for n in wanted)
        raise TensorError(f"{name} has shape {shape}; expected ({expected}).")
    return shape


def _broadcast(shapes: Shapes, name: str, full: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a tensor that broadcasts to `full`; all ones may lack an axis."""
    shape = tuple(shapes[name])
    if len(shape) == len(full) - 1 and all(n == 1 for n in shape):
        shape = (1, *shape)
    if len(shape) != len(full) or any(
        got not in (1, want) for got, want in zip(shape, full, strict=True)
    ):
        expected = ", ".join(f"1 or {n}" if n > 1 else "1" for n in full)
        raise TensorError(f"{name} has shape {tuple(shapes[name])}; expected ({expected}).")
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(0 if size == 1 else step)
        step *= size
    return tuple(reversed(strides))
