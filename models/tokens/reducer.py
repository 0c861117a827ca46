"""What every token reducer promises: a constant count out, and a way back to the full grid.

A reducer is a K x N matrix W per picture, Y = W X over the patch tokens. Pruning has one-hot rows
and needs their indices only (form ``gather``: EViT, arXiv 2202.07800; PPT, arXiv 2209.08194);
merging has soft or many-to-one rows and carries W (form ``assign``: ToMe, arXiv 2210.09461).
Special tokens (class, register, joint) come first and pass through untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from prunus.runtime.errors import UsageError

Restore = Literal["none", "scatter", "copy", "transpose", "delta"]


@dataclass(frozen=True, slots=True)
class ReduceSpec:
    """The constants of one reduction.

    Attributes:
        n: Patch tokens in.
        k: Patch tokens out, 1..n.
        special: Leading tokens that pass through.
        grid: Rows and columns of the patches where a reducer needs them; (1, T) for audio.
        needs: Names of the side tensors that the reducer reads.
        form: ``gather`` (indices only) or ``assign`` (an explicit matrix).
        trained: True when the reducer has parameters to learn.
        convex: True when the rows of the matrix sum to 1.

    Raises:
        UsageError: counts that cannot be.
    """

    n: int
    k: int
    special: int = 0
    grid: tuple[int, int] | None = None
    needs: frozenset[str] = frozenset()
    form: Literal["gather", "assign"] = "gather"
    trained: bool = False
    convex: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.n:
            raise UsageError(
                f"A reducer keeps {self.k} of {self.n} tokens; expected 1 to {self.n}."
            )
        if self.special < 0:
            raise UsageError(f"A reducer has {self.special} special tokens; expected 0 or more.")
        if self.grid is not None and self.grid[0] * self.grid[1] != self.n:
            raise UsageError(f"A grid of {self.grid} does not hold {self.n} tokens.")


class Reduced(NamedTuple):
    """What came out.

    Attributes:
        x: (B, special + K, C) tokens.
        kept: (B, K) int64 patch indices, ascending; None when tokens are mixtures.
        assign: (B, K, N) matrix; None for the form ``gather``, see `assignment`.
        size: (B, K) patches that each token stands for; None for the form ``gather`` (all 1).
    """

    x: Tensor
    kept: Tensor | None
    assign: Tensor | None = None
    size: Tensor | None = None


class TokenReducer(nn.Module):
    """Base of all reducers; subclasses implement `forward`."""

    def __init__(self, spec: ReduceSpec) -> None:
        super().__init__()
        self.spec = spec

    def forward(self, x: Tensor, side: Mapping[str, Tensor]) -> Reduced:
        """Reduce tokens.

        Args:
            x: (B, special + N, C) tokens, special ones first.
            side: The tensors named in `spec.needs`.
        """
        raise NotImplementedError

    def restore(
        self, y: Tensor, reduced: Reduced, skip: Tensor | None = None, how: Restore = "delta"
    ) -> Tensor:
        """Return tokens on the full grid, (B, special + N, C); ``none`` returns `y` itself.

        Args:
            y: (B, special + K, C) tokens after the blocks that ran reduced.
            reduced: What the reducer returned.
            skip: (B, special + N, C) tokens before the reduction, for ``scatter`` and ``delta``.
            how: ``none``; ``scatter``: kept rows replace those of `skip`; ``copy``: W^T y, every
                patch gets the token that stands for it, or zero; ``transpose``: the columns of W
                normalised first; ``delta``: skip + colnorm(W)^T (y - W skip), which is `skip`
                exactly when the blocks changed nothing.

        Raises:
            UsageError: an unknown `how`, or one that this reduction cannot do.
        """
        if how == "none":
            return y
        special = self.spec.special
        grid = None if skip is None else skip[:, special:]
        patches = self._restore_patches(y[:, special:], reduced, grid, how)
        return torch.cat((y[:, :special], patches), dim=1)

    def _restore_patches(
        self, y: Tensor, reduced: Reduced, skip: Tensor | None, how: str
    ) -> Tensor:
        if how in ("scatter", "delta") and skip is None:
            raise UsageError(f"Restoring by '{how}' needs the tokens before the reduction.")
        if reduced.kept is not None and how in ("scatter", "delta") and skip is not None:
            # With one-hot rows, skip + (y - skip) at the kept rows is y: written, not computed,
            # so that an untouched reduction comes back bit for bit.
            return put_tokens(skip, reduced.kept, y)
        if how == "copy":
            return assignment(reduced, self.spec.n, y.dtype).transpose(1, 2) @ y
        if how == "transpose":
            return _column_normalised(assignment(reduced, self.spec.n, y.dtype)) @ y
        if how == "delta" and skip is not None:
            weights = assignment(reduced, self.spec.n, y.dtype)
            return skip + _column_normalised(weights) @ (y - weights @ skip)
        if how == "scatter":
            raise UsageError("Mixed tokens have no place to be written to.", "Restore by 'delta'.")
        raise UsageError(
            f"Unknown way back '{how}'; expected one of none, scatter, copy, transpose, delta."
        )


def assignment(reduced: Reduced, n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the matrix W (B, K, N) of a reduction, built from its indices where it has them."""
    if reduced.assign is not None:
        return reduced.assign.to(dtype)
    if reduced.kept is None:
        raise UsageError("A reduction has neither indices nor a matrix.")
    columns = torch.arange(n, device=reduced.kept.device)
    return (reduced.kept.unsqueeze(-1) == columns).to(dtype)


def _column_normalised(weights: Tensor) -> Tensor:
    """Return (B, N, K): W^T with each non-zero row summing to 1."""
    mass = weights.sum(dim=1, keepdim=True)
    return (weights / torch.where(mass == 0, torch.ones_like(mass), mass)).transpose(1, 2)


def take_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Return (B, K, C): the rows `index` (B, K) of `tokens` (B, N, C)."""
    if tokens.shape[0] == 1:  # one Gather instead of an expanded GatherElements
        return tokens.index_select(1, index[0])
    return torch.gather(tokens, 1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def put_tokens(grid: Tensor, index: Tensor, tokens: Tensor) -> Tensor:
    """Return `grid` (B, N, C) with rows `index` (B, K) replaced by `tokens` (B, K, C)."""
    where = index.unsqueeze(-1).expand(-1, -1, grid.shape[-1])
    return torch.scatter(grid, 1, where, tokens.to(grid.dtype))
