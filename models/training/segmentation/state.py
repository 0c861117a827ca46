"""The network of a segmentation training: how it begins and what drives it."""

from __future__ import annotations

import math

import torch
from torch import nn

from prunus.models.segmentation.edaformer import EDAFormer, edaformer_config
from prunus.models.training.state import Optimisers, adam, muon

CLASSES = 2


def fresh_network(variant: str, seed: int) -> EDAFormer:
    """Return a network as the paper's code initialises it.

    Linear layers: truncated normal, 0.02. Convolutions: normal, variance 2 / fan-out.
    """
    torch.manual_seed(seed)
    network = EDAFormer(edaformer_config(variant, classes=CLASSES))
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            kernel = module.kernel_size[0] * module.kernel_size[1]
            fan = kernel * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.normal_(network.decode_head.linear_pred.weight, std=0.01)
    return network


def mask_optimisers(network: nn.Module, rate: float, decay: float) -> Optimisers:
    """Drive the linear layers with Muon and all else with AdamW; vectors do not decay."""
    own = [p for name, p in network.named_parameters() if "conv_seg" not in name]
    matrices = [p for p in own if p.ndim == 2]
    kernels = [p for p in own if p.ndim == 4]
    vectors = [p for p in own if p.ndim < 2]
    rest = adam(kernels, vectors, rate, decay, 0.99)
    return Optimisers([muon(matrices, rate, decay), rest], rate)
