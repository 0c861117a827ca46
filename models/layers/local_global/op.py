"""Registration of `prunus::local_global_attention` with PyTorch: kernels, shapes, gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from prunus.models.layers.local_global.checks import check_operands, check_positions
from prunus.models.layers.local_global.gradient import gradients
from prunus.models.layers.local_global.math import Operands, fused, reference

NAME = "prunus::local_global_attention"
INPUTS = (
    "q", "k", "v", "q_index", "kv_index", "bias_l", "kg", "vg", "bias_g", "gate", "o_index",
)  # fmt: skip


SCHEMA = (
    f"({', '.join(f'Tensor {name}' for name in INPUTS)}, *, "
    "SymInt num_heads, float scale, str combine) -> Tensor"
)


@torch.library.custom_op(NAME, mutates_args=(), schema=SCHEMA)
def _operator(*inputs: Tensor, **attributes: Any) -> Tensor:
    ops = _operands(inputs, attributes)
    check_operands(ops)
    check_positions(ops)
    if ops.q.dtype in (torch.float16, torch.bfloat16) and ops.q.device.type == "cpu":
        return reference(ops)[0]  # the CPU's half-precision kernels round the softmax
    return fused(ops)


def _operands(inputs: tuple[Tensor, ...], attributes: dict[str, Any]) -> Operands:
    named: dict[str, Any] = dict(zip(INPUTS, inputs, strict=True))
    return Operands(**named, **attributes)


@_operator.register_fake
def _shapes(*inputs: Tensor, **attributes: Any) -> Tensor:
    ops = _operands(inputs, attributes)
    check_operands(ops)
    return torch.empty_like(ops.q, memory_format=torch.contiguous_format)


def _save(
    ctx: Any, inputs: tuple[Tensor, ...], keyword_only_inputs: dict[str, Any], output: Tensor
) -> None:
    ctx.save_for_backward(*inputs)
    ctx.attributes = keyword_only_inputs


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    found = gradients(_operands(ctx.saved_tensors, ctx.attributes), grad)
    return (
        found.q, found.k, found.v, None, None, found.bias_l,
        found.kg, found.vg, found.bias_g, found.gate, None,
    )  # fmt: skip


torch.library.register_autograd(NAME, _backward, setup_context=_save)
