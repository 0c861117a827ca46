"""Weights for a codec that nobody has trained: signals keep their size, many codes are used.

With a framework's usual initialisation a deep codec maps every sound to one code and decodes it to
near silence; such a network proves nothing about its graphs. Here weights are normal with variance
1 / fan-in, so that timing and comparison of graphs see numbers as a trained network would have.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from prunus.models.codec.freecodec.freecodec import GroupQuantizer
from prunus.models.codec.freecodec.supercodec import BatchedCodebook
from prunus.models.codec.layers.vector_quantizer import Codebook
from prunus.models.codec.layers.vocos import AdaptiveLayerNorm
from prunus.models.codec.layers.weight_norm import NormedConv1d, NormedConvTranspose1d

_CODE_SPREAD = 0.25  # of code vectors, near that of untrained features


def initialise(network: nn.Module, seed: int) -> None:
    """Draw the weights of an unfolded codec, in place, without touching the global generator.

    Args:
        network: A codec whose weight normalisation is not folded yet.
        seed: Same seed, same weights.
    """
    generator = torch.Generator().manual_seed(seed)
    skipped = (nn.LSTM, nn.BatchNorm1d, nn.LayerNorm, nn.GroupNorm, AdaptiveLayerNorm)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, Codebook | BatchedCodebook | GroupQuantizer):
                module.embed.normal_(std=_CODE_SPREAD, generator=generator)
            elif isinstance(module, nn.LSTM):
                bound = 1.0 / math.sqrt(module.hidden_size)
                for parameter in module.parameters():
                    parameter.uniform_(-bound, bound, generator=generator)
            elif not isinstance(module, (*skipped, nn.Embedding)):
                _draw(module, generator)


def _draw(module: nn.Module, generator: torch.Generator) -> None:
    for name, value in module.named_parameters(recurse=False):
        if value.dim() > 1 and name != "weight_g":
            value.normal_(std=value[0].numel() ** -0.5, generator=generator)
        elif name == "bias":
            value.normal_(std=0.02, generator=generator)
    if isinstance(module, NormedConv1d | NormedConvTranspose1d):
        norms = module.weight_v.flatten(1).norm(dim=1).view(-1, 1, 1)
        module.weight_g.copy_(norms)
