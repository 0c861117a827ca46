"""From scores to K tokens: which are kept, and what becomes of the rest.

A selecting method is score x selection x merge: it scores (B, N), selects (B, K) indices, and the
rest is dropped, fused into one token, merged into the most similar kept token, or spread softly
over all of them. Any selecting method may be combined with any merge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from prunus.models.tokens.merging import hard_share, mixed, patch_sizes, weighted
from prunus.models.tokens.reducer import (
    Commutes,
    Place,
    Reduced,
    Side,
    TokenReducer,
    one_hot,
    take_tokens,
    untouched,
)
from prunus.models.tokens.scores import unit
from prunus.runtime.errors import UsageError, nearest

Merge = Literal["drop", "fuse", "nearest", "soft"]
MOST_STEPS = 64


class SelectingReducer(TokenReducer):
    """Base of the methods that choose patches; a subclass scores, and may select its own way.

    Args of every subclass:
        place: Where it stands.
        merge: ``drop``; ``fuse``: one more token, the rest weighted by its score and not
            normalised (EViT, arXiv 2202.07800, equation 4); it counts among the K; ``nearest``:
            each dropped patch joins the most similar kept one, plain means (VScan, arXiv
            2505.22654); ``soft``: each patch spreads a mass of 1 over the kept ones by the softmax
            of their similarity over `tau` (Token Transforming, arXiv 2506.05709).
        tau: Temperature of ``soft``: towards 0 it is ``nearest``, towards infinity the mean of all.

    Attributes:
        noise: Standard deviation of noise on each score, relative to it; a training sets it, so
            that a network bears the few swaps of a lower precision. 0 everywhere else.
    """

    commutes: Commutes = "permutation"

    def __init__(self, place: Place, *, merge: Merge = "drop", tau: float = 0.1) -> None:
        super().__init__(place)
        require_choice("merge", merge, get_args(Merge))
        if not tau > 0:
            raise UsageError(f"The temperature is {tau}; expected a number above 0.")
        if merge == "fuse" and place.keep < 2:
            raise UsageError(
                f"The cut at block {place.block} keeps {place.keep} token and fuses the rest into "
                "another; expected at least 2."
            )
        self.merge: Merge = merge
        self.tau = tau
        self.convex = merge != "fuse"
        self.noise = 0.0

    @property
    def chosen(self) -> int:
        """How many patches are selected: K, less one when the rest becomes a token."""
        return self.place.keep - (self.merge == "fuse")

    def refuse_fuse(self, method: str) -> None:
        """Raise UsageError where scores that are no probabilities would weigh the rest."""
        if self.merge == "fuse":
            raise UsageError(
                f"Method '{method}' at block {self.place.block} ranks by values that are no "
                "probabilities; they cannot weigh the rest of the patches.",
                "Use merge=drop, nearest or soft.",
            )

    def score(self, patches: Tensor, side: Side) -> Tensor:
        """Return (B, N) float32; the higher, the rather kept. `patches` is (B, N, C)."""
        raise NotImplementedError

    def select(self, score: Tensor, patches: Tensor, side: Side) -> Tensor:
        """Return (B, `chosen`) int64 indices, ascending, without repeats."""
        return best(score, self.chosen)

    def score_macs(self) -> int:
        """Return the multiply-accumulates of the scores."""
        return 0

    def macs(self) -> int:
        """Return the multiply-accumulates of score and merge."""
        if self.place.keep == self.place.tokens:
            return 0
        n, k, c = self.place.tokens, self.place.keep, self.place.dim
        extra = {"drop": 0, "fuse": n * c, "nearest": 2 * n * k * c, "soft": 2 * n * k * c}
        return self.score_macs() + extra[self.merge]

    def forward(self, x: Tensor, side: Side) -> Reduced:
        """Return special tokens + K, (B, special + K, C); `x` itself where K is N."""
        if self.place.keep == self.place.tokens:
            return untouched(x, self.place)
        patches = x[:, self.place.special :]
        score = self.score(patches, side)
        if self.noise:
            score = score * (1 + self.noise * torch.randn_like(score))
        kept = self.select(score, patches, side)
        if self.merge == "drop":
            return Reduced(keep_tokens(x, kept, self.place.special), kept)
        if self.merge == "fuse":
            return self._fuse(x, kept, score, side)
        return self._merge(x, kept, patch_sizes(side, self.place, x))

    def _fuse(self, x: Tensor, kept: Tensor, score: Tensor, side: Side) -> Reduced:
        rest = (score * (1 - mask(kept, self.place.tokens))).unsqueeze(1)
        fused = rest.to(x.dtype) @ x[:, self.place.special :]
        y = torch.cat((keep_tokens(x, kept, self.place.special), fused), dim=1)
        rows = torch.cat((one_hot(kept, self.place.tokens), rest), dim=1)
        if side.size is None:  # the fused token counts as one, as in EViT
            return Reduced(y, kept, rows)
        before = patch_sizes(side, self.place, x)
        size = torch.gather(before, 1, kept)
        left = before.sum(dim=1, keepdim=True) - size.sum(dim=1, keepdim=True)
        return Reduced(y, kept, rows, torch.cat((size, left), dim=1))

    def _merge(self, x: Tensor, kept: Tensor, size: Tensor) -> Reduced:
        special = self.place.special
        features = unit(x[:, special:].detach())
        similarity = take_tokens(features, kept) @ features.transpose(1, 2)  # (B, K, N)
        if self.merge == "soft":
            share = torch.softmax(similarity / self.tau, dim=1)
        else:
            own = one_hot(kept, self.place.tokens)
            # A kept patch stays itself even where another kept one is its equal.
            share = hard_share((similarity + 4.0 * own).argmax(dim=1), self.place.keep)
        return mixed(x, *weighted(share, size), special)


def require_choice(option: str, value: str, known: Sequence[str]) -> None:
    """Raise UsageError unless an option's value is one of the known ones."""
    if value not in known:
        raise UsageError(
            f"Unknown {option} '{value}'{nearest(value, list(known))}.",
            f"Choose one of {', '.join(known)}.",
        )


def require_share(method: str, option: str, value: float) -> None:
    """Raise UsageError unless an option's value is a share, 0 to 1."""
    if not 0 <= value <= 1:
        raise UsageError(
            f"Option '{option}' of method '{method}' is {value}; expected a share from 0 to 1."
        )


def require_few_steps(method: str, place: Place, steps: int, nodes: int) -> None:
    """Refuse a selection that takes step after step, where the chain is too long.

    A static graph has no loop, so each step is written out.

    Args:
        method: Name for the error.
        place: Where it stands.
        steps: Steps of the chain.
        nodes: Nodes of one step in an exported graph, about.

    Raises:
        UsageError: more than `MOST_STEPS` steps, with the number of nodes that they would take.
    """
    if steps > MOST_STEPS:
        raise UsageError(
            f"Method '{method}' at block {place.block} writes out {steps} steps, one after the "
            f"other: about {steps * nodes} nodes in the graph; expected at most {MOST_STEPS} steps "
            f"({MOST_STEPS * nodes} nodes).",
            "Keep fewer tokens, or use a method of few steps: vscan, btp, dart.",
        )


def best(score: Tensor, k: int) -> Tensor:
    """Return (B, k) int64: the indices of the `k` highest scores (B, N), ascending."""
    return ascending(torch.topk(score, k, dim=1, sorted=True).indices)


def ascending(index: Tensor) -> Tensor:
    """Return indices (B, k) in ascending order, int64."""
    # Sorting by a second TopK keeps the graph to one well supported op; int32 is what TensorRT
    # sorts natively.
    k = index.shape[1]
    return torch.topk(index.to(torch.int32), k, dim=1, largest=False, sorted=True).values.long()


def complement(index: Tensor, n: int) -> Tensor:
    """Return (B, n - k) int64: the indices that are not in `index` (B, k), ascending."""
    # The smallest of place + n * taken; a cut by the values of a mask would depend on the data.
    order = torch.arange(n, device=index.device) + n * mask(index, n)
    k = n - index.shape[1]
    return torch.topk(order, k, dim=1, largest=False, sorted=True).values.long()


def mask(index: Tensor, n: int) -> Tensor:
    """Return (B, N) float32: 1 at `index` (B, k), which must not repeat, 0 elsewhere."""
    zeros = torch.zeros(index.shape[0], n, device=index.device)
    return torch.scatter(zeros, 1, index, torch.ones_like(index, dtype=torch.float32))


def keep_tokens(x: Tensor, kept: Tensor, special: int) -> Tensor:
    """Return special tokens + the patches `kept` (B, K) of `x` (B, special + N, C): one gather."""
    if not special:
        return take_tokens(x, kept)
    front = torch.arange(special, device=kept.device).expand(kept.shape[0], -1)
    return take_tokens(x, torch.cat((front, kept + special), dim=1))
