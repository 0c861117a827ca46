"""Counting parameters and multiply-accumulates.

Convolutions and matrix products count, one multiply-accumulate each (what the pose literature calls
FLOPs); element-wise work and normalisation do not. Attention counts its two products.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def count_macs(module: nn.Module, *inputs: torch.Tensor) -> int:
    """Return the multiply-accumulates of one call; on meta tensors that costs nothing."""
    training = module.training
    module.eval()
    try:
        # The counter does not know the fused attention kernel of CPUs; decomposed, it counts it.
        decomposed = sdpa_kernel(SDPBackend.MATH)
        with decomposed, FlopCounterMode(display=False) as counter, torch.no_grad():
            module(*inputs)
    finally:
        module.train(training)
    return int(counter.get_total_flops()) // 2


def count_parameters(module: nn.Module) -> int:
    """Return the number of trainable values."""
    return sum(parameter.numel() for parameter in module.parameters())
