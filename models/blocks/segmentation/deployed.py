"""Parts that siblings share with EDAFormer, in the form in which EDAFormer is deployed.

The same exact rewrites as in `prunus.models.segmentation.static`: feed-forwards on the map with
padded widths, attention as one operator, the decoder's branches joined before they are enlarged;
and low-rank additions merged into their weights.
So a comparison of networks compares blocks, not forms.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import Tensor, nn

from prunus.models.blocks.segmentation.relay import LoraLinear
from prunus.models.segmentation.edaformer import Decoder
from prunus.models.segmentation.efa import EmbeddingFreeAttention, FeedForward
from prunus.models.segmentation.static import EarlyJoin, StaticAttention, StaticFeedForward

Network = TypeVar("Network", bound=nn.Module)


class StaticDecoder(nn.Module):
    """EDAFormer's decoder, joined early; batch norm folded in.

    Args:
        decoder: The decoder in evaluation mode, its blocks already rewritten.
    """

    def __init__(self, decoder: Decoder) -> None:
        super().__init__()
        self.join = EarlyJoin(decoder)
        del decoder.linear_fuse, decoder.conv_seg
        self.decoder = decoder

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Map the encoder's four maps to logits (B, classes, H / 8, W / 8).

        The map at stride 8 may have a batch of one beside larger ones: it is broadcast.
        """
        branches = [self.decoder.branch(s, maps[k]) for s, k in ((32, 3), (16, 2), (8, 1))]
        logits: Tensor = self.decoder.linear_pred(self.join(branches))
        return logits


def deploy(network: Network) -> Network:
    """Return a copy of a sibling network with its EDAFormer parts in deployed form.

    Args:
        network: A network whose decoder is `decode_head`.

    Returns:
        The copy, in evaluation mode; it computes what the network computes.
    """
    twin = copy.deepcopy(network).eval()
    for parent in list(twin.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, FeedForward):
                setattr(parent, name, StaticFeedForward(child, padded=True))
            elif isinstance(child, LoraLinear):
                setattr(parent, name, child.merged())
            elif isinstance(child, EmbeddingFreeAttention):
                setattr(parent, name, StaticAttention(child))
    for name, child in list(twin.named_children()):
        if isinstance(child, Decoder):
            setattr(twin, name, StaticDecoder(child))
    return twin
