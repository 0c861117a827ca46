"""What local-global attention refuses: shapes that do not fit, tables that do not partition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import torch
from torch import Tensor

from prunus.models.layers.local_global.math import Combine, Operands
from prunus.runtime.errors import TensorError, UsageError, nearest

_INTEGERS = (torch.int32, torch.int64)


def check_heads(channels: int, heads: int) -> None:
    """Require that `heads` heads divide `channels`.

    Raises:
        UsageError: they do not.
    """
    if heads < 1 or channels % heads:
        raise UsageError(
            f"Local-global attention got {channels} channels and {heads} heads; "
            "expected heads that divide the channels.",
            "Change num_heads or the width of the projections.",
        )


def check_operands(ops: Operands) -> None:
    """Check names, dtypes and shapes; values are not read.

    Raises:
        TensorError: a tensor's shape or dtype does not fit the others.
        UsageError: unknown combination, or heads that do not divide the channels.
    """
    known = list(get_args(Combine))
    if ops.combine not in known:
        raise UsageError(
            f"Unknown combination '{ops.combine}'{nearest(str(ops.combine), known)}.",
            f"Choose one of {', '.join(known)}.",
        )
    _check_dtypes(ops)
    _expect("q", ops.q, ("B", "Nq", "C"), (None, None, None))
    batch, count, channels = ops.q.shape
    check_heads(channels, ops.num_heads)
    _expect("q_index", ops.q_index, ("W", "Lq"), (None, None))
    windows, rows = ops.q_index.shape
    if windows * rows != count:
        raise TensorError(
            f"q_index has {windows} x {rows} positions for {count} queries; "
            "expected every query exactly once.",
            "Build the tables for this number of tokens.",
        )
    _expect("o_index", ops.o_index, ("Nq",), (count,))
    lead = (windows, ops.num_heads, rows)
    if ops.local:
        _check_local(ops, batch, channels, lead)
    if ops.globals:
        _check_global(ops, batch, channels, lead)


def _check_local(ops: Operands, batch: int, channels: int, lead: tuple[int, int, int]) -> None:
    _expect("k", ops.k, ("B", "Nk", "C"), (batch, None, channels))
    _expect("v", ops.v, ("B", "Nk", "C"), (batch, ops.k.shape[1], channels))
    _expect("kv_index", ops.kv_index, ("W", "Lk"), (lead[0], None))
    full = (*lead, ops.kv_index.shape[1])
    _broadcasts("bias_l", ops.bias_l, ("W", "h", "Lq", "Lk"), full)


def _check_global(ops: Operands, batch: int, channels: int, lead: tuple[int, int, int]) -> None:
    axes = ("B", "1 or W", "G", "C")
    _expect("kg", ops.kg, axes, (batch, None, None, channels))
    if ops.kg.shape[1] not in (1, lead[0]):
        raise TensorError(
            f"kg has {ops.kg.shape[1]} sets of global tokens; expected 1 or {lead[0]}, "
            "one per window.",
        )
    _expect("vg", ops.vg, axes, tuple(ops.kg.shape))
    full = (batch, *lead, ops.kg.shape[2])
    _broadcasts("bias_g", ops.bias_g, ("B", "W", "h", "Lq", "G"), full)
    if ops.combine == "sum":
        _broadcasts("gate", ops.gate, ("B", "W", "h", "Lq", "1"), (*full[:4], 1))


def _check_dtypes(ops: Operands) -> None:
    for name in ("q_index", "kv_index", "o_index"):
        if getattr(ops, name).dtype not in _INTEGERS:
            raise TensorError(
                f"{name} is {getattr(ops, name).dtype}; expected torch.int64 or torch.int32."
            )
    if not ops.q.dtype.is_floating_point:
        raise TensorError(f"q is {ops.q.dtype}; expected a floating-point tensor.")
    read = (("k", "v", "bias_l") if ops.local else ()) + (
        ("kg", "vg", "bias_g") if ops.globals else ()
    )
    for name in (*read, *(("gate",) if ops.combine == "sum" else ())):
        if getattr(ops, name).dtype != ops.q.dtype:
            raise TensorError(f"{name} is {getattr(ops, name).dtype}; expected q's {ops.q.dtype}.")


def _expect(name: str, tensor: Tensor, axes: Sequence[str], sizes: Sequence[int | None]) -> None:
    """Require a shape; None stands for any positive size."""
    shape = tuple(tensor.shape)
    fits = len(shape) == len(sizes) and all(
        got > 0 if want is None else got == want for got, want in zip(shape, sizes, strict=True)
    )
    if not fits:
        wanted = ", ".join(
            axis if size is None else f"{axis}={size}"
            for axis, size in zip(axes, sizes, strict=True)
        )
        raise TensorError(f"{name} has shape {shape}; expected ({wanted}).")


def _broadcasts(name: str, tensor: Tensor, axes: Sequence[str], full: Sequence[int]) -> None:
    """Require a shape whose every axis is 1 or full, or the neutral (1, 1, 1, 1)."""
    shape = tuple(tensor.shape)
    if shape == (1, 1, 1, 1):
        return
    if len(shape) != len(full) or any(
        got not in (1, want) for got, want in zip(shape, full, strict=True)
    ):
        wanted = ", ".join(
            f"1 or {axis}={size}" if axis != "1" else "1"
            for axis, size in zip(axes, full, strict=True)
        )
        raise TensorError(f"{name} has shape {shape}; expected ({wanted}) or (1, 1, 1, 1).")


def check_positions(ops: Operands) -> None:
    """Check the tables' values, where they can be read without waiting for a device.

    Raises:
        TensorError: a position is out of range, or a query is not covered exactly once.
    """
    if ops.q_index.device.type != "cpu":
        return
    check_cover(ops.q_index, ops.o_index)
    if ops.local:
        check_range("kv_index", ops.kv_index, ops.k.shape[1])


def check_range(name: str, index: Tensor, count: int) -> None:
    """Require positions in [0, count).

    Raises:
        TensorError: one lies outside.
    """
    low, high = (int(bound) for bound in index.aminmax())
    if low < 0 or high >= count:
        raise TensorError(
            f"{name} holds position {low if low < 0 else high}; expected 0 to {count - 1}.",
            "Build the tables for this number of tokens.",
        )


def check_cover(q_index: Tensor, o_index: Tensor) -> None:
    """Require that q_index covers each of its positions once and that o_index inverts it.

    Raises:
        TensorError: a query is missing or repeated, or the inverse is wrong.
    """
    flat = q_index.reshape(-1)
    check_range("q_index", flat, flat.numel())
    check_range("o_index", o_index, flat.numel())
    seen = torch.bincount(flat, minlength=flat.numel())
    if bool((seen != 1).any()):
        position = int((seen != 1).nonzero()[0])
        raise TensorError(
            f"q_index holds query {position} {int(seen[position])} times; expected exactly once.",
            "Give every query to one window; keys may overlap, queries may not.",
        )
    if not torch.equal(flat[o_index].long(), torch.arange(flat.numel())):
        raise TensorError(
            "o_index is not the inverse of the flattened q_index.",
            "Compute it as q_index.flatten().argsort().",
        )
