"""Keep what the rest can be rebuilt from ("When Less is Enough", arXiv 2503.16660).

    kept: the K highest logits of a small transformer over the patches (the paper's own inference)
    loss = mean square of reconstruction - features + max(share kept, floor)

The mask of the loss is a Gumbel-softmax sample; masked patches become one learned vector, from
which a second small transformer rebuilds all features. The floor keeps the mask from growing empty.
No labels; the encoder is frozen in the paper: here the loss sees detached tokens.

The reconstructor is the learned way back: kept patches are written into the features before the
cut, and a gate per channel, zero while untrained, blends towards the reconstruction.

Differs from the paper: one layer each (option ``layers``) instead of three, as three cost a quarter
of a ViT; a learned table tells the reconstructor where it is; the gate.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.layers.token_block import TokenBlock
from prunus.models.tokens.reducer import Place, Reduced, Side, put_tokens
from prunus.models.tokens.selection import Merge, SelectingReducer
from prunus.runtime.errors import UsageError


class Wle(SelectingReducer):
    """Keep the patches with the highest learned logits.

    Args:
        place: Where it stands.
        layers: Transformer layers of the selector and of the reconstructor; 0: linear.
        floor: Share of patches below which keeping fewer is not rewarded; 0: K of N.
        merge: See `SelectingReducer`; logits may be negative, so nothing is fused by them.
        tau: See `SelectingReducer`.
    """

    reads_this: ClassVar[bool] = False

    def __init__(
        self,
        place: Place,
        *,
        layers: int = 1,
        floor: float = 0.0,
        merge: Merge = "drop",
        tau: float = 0.1,
    ) -> None:
        super().__init__(place, merge=merge, tau=tau)
        dim = place.require_dim("wle")
        self.refuse_fuse("wle")
        if layers < 0 or not 0 <= floor < 1:
            raise UsageError(
                f"Method 'wle' got layers={layers} and floor={floor}; expected 0 or more layers, "
                "and a floor from 0 to below 1."
            )
        self.floor = floor or place.keep / place.tokens
        self.layers = layers
        self.selector = nn.Sequential(
            *_layers(place, layers), nn.LayerNorm(dim, eps=1e-6), nn.Linear(dim, 1)
        )
        self.reconstructor = Reconstructor(place, layers)
        self.gate = nn.Parameter(torch.zeros(dim))

    def score(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, N) float32 logits."""
        out: Tensor = self.selector(patches)[..., 0].float()
        return out

    def score_macs(self) -> int:
        """Return the cost of the selector."""
        n, dim = self.place.tokens, self.place.dim
        return self.layers * (12 * n * dim**2 + 2 * n * n * dim) + n * dim

    def own_loss(self, x: Tensor) -> Tensor:
        """Return the paper's loss on the features; its noise comes from torch's generator."""
        features = x[:, self.place.special :].detach()
        logits = self.selector(features)
        pair = torch.cat((logits, torch.zeros_like(logits)), dim=2)
        mask = functional.gumbel_softmax(pair.float(), hard=True, dim=2)[..., :1].to(x.dtype)
        masked = mask * features + (1 - mask) * self.reconstructor.blank
        error: Tensor = (self.reconstructor(masked) - features).square().mean()
        return error + mask.mean().clamp_min(self.floor)

    def _learned(self, y: Tensor, reduced: Reduced, skip: Tensor) -> Tensor:
        if reduced.kept is None:
            raise UsageError(
                "The learned way back of 'wle' writes kept patches to their places; merged ones "
                "have none.",
                "Use wle(merge=drop), or restore by 'delta'.",
            )
        written = put_tokens(skip, reduced.kept, y)
        blank = self.reconstructor.blank.expand_as(skip)
        rebuilt = self.reconstructor(put_tokens(blank, reduced.kept, y))
        out: Tensor = written + self.gate * (rebuilt - written)
        return out


class Reconstructor(nn.Module):
    """Rebuild all patches from those that are not blank.

    Args:
        place: Where the reducer stands.
        layers: Transformer layers.
    """

    def __init__(self, place: Place, layers: int) -> None:
        super().__init__()
        self.blank = nn.Parameter(0.02 * torch.randn(place.dim))
        self.table = nn.Parameter(0.02 * torch.randn(place.tokens, place.dim))
        self.layers = nn.Sequential(*_layers(place, layers))
        self.head = nn.Sequential(
            nn.LayerNorm(place.dim, eps=1e-6), nn.Linear(place.dim, place.dim)
        )

    def forward(self, patches: Tensor) -> Tensor:
        """Map patches (B, N, C), blank ones among them, to features (B, N, C)."""
        out: Tensor = self.head(self.layers(patches + self.table))
        return out


def _layers(place: Place, count: int) -> list[nn.Module]:
    heads = place.heads or 1
    return [TokenBlock(place.dim, heads, 4 * place.dim, scale=1.0) for _ in range(count)]
