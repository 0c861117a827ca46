"""Counting parameters and multiply-accumulates.

Convolutions and matrix products count, one multiply-accumulate each (what the pose literature calls
FLOPs); element-wise work and normalisation do not. Attention counts its two products.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from prunus.models.layers.local_global import op as _registered  # noqa: F401 - registers the operator


def count_macs(module: nn.Module, *inputs: torch.Tensor) -> int:
    """Return the multiply-accumulates of one call; on meta tensors that costs nothing."""
    training = module.training
    module.eval()
    counter = FlopCounterMode(
        display=False,
        custom_mapping={torch.ops.prunus.local_global_attention: _local_global_flops},
    )
    try:
        # The counter does not know the fused attention kernel of CPUs; decomposed, it counts it.
        with sdpa_kernel(SDPBackend.MATH), _frozen(module), counter, torch.no_grad():
            module(*inputs)
    finally:
        module.train(training)
    return int(counter.get_total_flops()) // 2


def count_parameters(module: nn.Module) -> int:
    """Return the number of trainable values."""
    return sum(parameter.numel() for parameter in module.parameters())


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """Let no parameter ask for a gradient: the counter trips over views of those that do."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def _local_global_flops(*shapes: Any, combine: str, **_: Any) -> int:
    """Count two operations per multiply-accumulate: each query meets its window and the globals."""
    batch, queries, channels = shapes[0]
    keys = shapes[4][1] if combine != "global" else 0
    tokens = shapes[6][2] if combine != "local" else 0
    return 2 * 2 * int(batch * queries * channels * (keys + tokens))
