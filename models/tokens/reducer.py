"""What every token reducer promises: a constant count out, and a way back to the full grid.

A reducer is a K x N matrix W per picture, Y = W X over the patch tokens. Pruning has one-hot rows
and needs their indices only (EViT, arXiv 2202.07800; PPT, arXiv 2209.08194); merging has soft or
many-to-one rows and carries W (ToMe, arXiv 2210.09461). Special tokens (class, register, joint)
come first and pass through untouched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from prunus.runtime.errors import UsageError

Commutes = Literal["permutation", "flip", ""]
Restore = Literal["none", "scatter", "copy", "transpose", "delta", "learned"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a reducer stands: the constants of the network that it may use.

    Attributes:
        tokens: Patch tokens in (N).
        keep: Patch tokens out (K), 1..N.
        special: Leading tokens that pass through.
        class_token: Whether the first of them is a class token.
        grid: Rows and columns of the patches where they still form one; (1, T) for audio.
        dim: Channels of a token; 0 where no reducer with weights will stand.
        heads: Attention heads; 0 likewise.
        block: 0-based block after whose attention tokens are dropped.
        since: First block that runs on these N tokens: the one after the cut before.

    Raises:
        UsageError: counts that cannot be.
    """

    tokens: int
    keep: int
    special: int = 0
    class_token: bool = False
    grid: tuple[int, int] | None = None
    dim: int = 0
    heads: int = 0
    block: int = 0
    since: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.keep <= self.tokens:
            raise UsageError(
                f"The cut at block {self.block} keeps {self.keep} of {self.tokens} tokens; "
                f"expected 1 to {self.tokens}."
            )
        if self.special < self.class_token:
            raise UsageError(
                f"A reducer has {self.special} special tokens; expected at least "
                f"{int(self.class_token)}."
            )
        if self.grid is not None and self.grid[0] * self.grid[1] != self.tokens:
            raise UsageError(f"A grid of {self.grid} does not hold {self.tokens} tokens.")

    def require_grid(self, method: str) -> tuple[int, int]:
        """Return the grid; raises UsageError where the tokens do not form one (any more)."""
        if self.grid is None:
            raise UsageError(
                f"Method '{method}' at block {self.block} needs the rows and columns of the "
                f"{self.tokens} patches, which form no grid here.",
                "Make it the first cut; where the grid is not known, give grid=(rows, columns).",
            )
        return self.grid

    def earlier(self, method: str, option: str, block: int | None) -> int:
        """Return the block that an option names; None: half way from `since` to `block`.

        Raises:
            UsageError: a block after this one, or one that ran on other tokens.
        """
        if block is None:
            return (self.since + self.block) // 2
        if not self.since <= block <= self.block:
            raise UsageError(
                f"Option '{option}' of method '{method}' at block {self.block} names block "
                f"{block}; expected {self.since} to {self.block}, which run on the same "
                f"{self.tokens} tokens."
            )
        return block

    def cell(self, method: str, *, each: int = 1, extra: int = 0) -> tuple[int, int]:
        """Return rows and columns of equal cells, as square as can be, that make K tokens.

        Args:
            method: Its name, for messages.
            each: Tokens that a cell becomes.
            extra: Tokens beside those of the cells.

        Raises:
            UsageError: no grid, or no such cells.
        """
        height, width = self.require_grid(method)
        cells = [(h, w) for h in _divisors(height) for w in _divisors(width)]
        counts = {(h, w): self.tokens // (h * w) * each + extra for h, w in cells}
        fit = [cell for cell in cells if counts[cell] == self.keep]
        if not fit:
            known = sorted({count for count in counts.values() if count <= self.tokens})
            made = f"{each} tokens of each" if each > 1 else "one token of each"
            more = f" and {extra} more" if extra else ""
            raise UsageError(
                f"Method '{method}' at block {self.block} splits a grid of {height} x {width} into "
                f"equal cells and makes {made}{more}; no such cells make {self.keep}.",
                f"Keep one of {', '.join(map(str, known))}.",
            )
        return min(fit, key=lambda cell: abs(cell[0] - cell[1]))

    def require_dim(self, method: str) -> int:
        """Return the channels of a token; raises UsageError where they are not known."""
        if self.dim < 1:
            raise UsageError(
                f"Method '{method}' at block {self.block} has weights and needs the number of "
                f"channels; got {self.dim}."
            )
        return self.dim

    def require_class_token(self, method: str) -> None:
        """Raise UsageError where the network has no class token."""
        if not self.class_token:
            raise UsageError(
                f"Method '{method}' at block {self.block} scores by the class token, and this "
                "network has none.",
                "Use a method that needs none: hiprune, tome, top(by=received), strided.",
            )


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


class Attention(NamedTuple):
    """What one block's attention saw: query, key and value, (B, heads, special + N, d) each."""

    query: Tensor
    key: Tensor
    value: Tensor


@dataclass(frozen=True, slots=True)
class Side:
    """What a reducer may read beside the tokens.

    Attributes:
        attention: By block: this one, and those that the reducer names in `reads_attention`.
        levels: By block: the tokens (B, special + N, C) that left it, for `reads_levels`.
        size: (B, special + N) patches that each token stands for; None: one each.
    """

    attention: Mapping[int, Attention] = field(default_factory=dict)
    levels: Mapping[int, Tensor] = field(default_factory=dict)
    size: Tensor | None = None


class Reduced(NamedTuple):
    """What came out.

    Attributes:
        x: (B, special + K, C) tokens.
        kept: (B, K') int64 patch indices, ascending, of the rows that are a patch each; they come
            first among the K rows, and K' = K but for one fused row. None when rows are mixtures.
        assign: (B, K, N) matrix W; None where `kept` says it all, see `assignment`.
        size: (B, K) patches that each token stands for; None where that is 1 for all.
    """

    x: Tensor
    kept: Tensor | None
    assign: Tensor | None = None
    size: Tensor | None = None


class TokenReducer(nn.Module):
    """Base of all reducers; a subclass implements `forward` and, with products, `macs`.

    Attributes:
        place: Where it stands.
        reads_attention: Blocks before this one whose attention it reads.
        reads_levels: Blocks before this one whose tokens it reads.
        convex: Whether the rows of W sum to 1.
        commutes: What may be done to the patches before or after it, with the same result but for
            the order of tokens: any permutation, a left-right flip of the grid, or neither.
        reads_this: Whether it reads this block's own attention.
    """

    convex: bool = True
    commutes: Commutes = ""
    reads_this: ClassVar[bool] = True

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place
        self.reads_attention: tuple[int, ...] = ()
        self.reads_levels: tuple[int, ...] = ()

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of what comes out, where that is a grid again."""
        return self.place.grid if self.place.keep == self.place.tokens else None

    def forward(self, x: Tensor, side: Side) -> Reduced:
        """Reduce tokens.

        Args:
            x: (B, special + N, C) tokens, special ones first, the attention already added.
            side: The rest that it reads.
        """
        raise NotImplementedError

    def macs(self) -> int:
        """Return the multiply-accumulates of one picture, scores included; 0 for mere gathers."""
        return 0

    def own_loss(self, x: Tensor) -> Tensor | None:
        """Return a loss of the reducer itself, for choices that carry no gradient; None: none.

        Args:
            x: (B, special + N, C) tokens that it reduces.
        """
        return None

    def restore(
        self, y: Tensor, reduced: Reduced, skip: Tensor | None = None, how: Restore = "delta"
    ) -> Tensor:
        """Return tokens on the full grid, (B, special + N, C); ``none`` returns `y` itself.

        Args:
            y: (B, special + K, C) tokens after the blocks that ran reduced.
            reduced: What the reducer returned.
            skip: (B, special + N, C) tokens before the reduction, for ``scatter``, ``delta`` and
                ``learned``.
            how: ``none``; ``scatter``: kept rows replace those of `skip`, a fused row is left out;
                ``copy``: W^T y, every patch gets the token that stands for it, or zero;
                ``transpose``: the columns of W normalised first; ``delta``: skip + colnorm(W)^T
                (y - y0), y0 being what came out of the reduction, so that it is `skip` exactly when
                the blocks changed nothing; ``learned``: by weights of the method, which start
                where an untouched reduction comes back as `skip`.

        Raises:
            UsageError: an unknown `how`, or one that this reduction cannot do.
        """
        if how == "none":
            return y
        special = self.place.special
        grid = None if skip is None else skip[:, special:]
        patches = self.restore_patches(y[:, special:], reduced, grid, how)
        return torch.cat((y[:, :special], patches), dim=1)

    def restore_patches(
        self, y: Tensor, reduced: Reduced, skip: Tensor | None, how: Restore
    ) -> Tensor:
        """Return patches (B, N, C) from K of them: `restore` without the special tokens."""
        if how in ("scatter", "delta", "learned") and skip is None:
            raise UsageError(f"Restoring by '{how}' needs the tokens before the reduction.")
        # With one-hot rows, skip + (y - skip) at the kept rows is y: written, not computed, so that
        # an untouched reduction comes back bit for bit.
        written = how == "scatter" or (how == "delta" and reduced.assign is None)
        if written and reduced.kept is not None and skip is not None:
            return self.put_back(y[:, : reduced.kept.shape[1]], reduced, skip)
        if how == "copy":
            return assignment(reduced, self.place.tokens, y.dtype).transpose(1, 2) @ y
        if how == "transpose":
            return _column_normalised(assignment(reduced, self.place.tokens, y.dtype)) @ y
        if how == "delta" and skip is not None:
            weights = assignment(reduced, self.place.tokens, y.dtype)
            return skip + _column_normalised(weights) @ (y - reduced.x[:, self.place.special :])
        if how == "learned" and skip is not None:
            return self._learned(y, reduced, skip)
        if how == "scatter":
            raise UsageError("Mixed tokens have no place to be written to.", "Restore by 'delta'.")
        raise UsageError(
            f"Unknown way back '{how}'; expected one of {', '.join(get_args(Restore))}."
        )

    def put_back(self, y: Tensor, reduced: Reduced, skip: Tensor) -> Tensor:
        """Return patches (B, N, C): those of `skip`, but for the kept ones.

        Args:
            y: (B, K', C) kept patches after the blocks that ran reduced.
            reduced: What the reducer returned, with `kept`.
            skip: (B, N, C) patches before the reduction.
        """
        assert reduced.kept is not None  # for the type checker
        return put_tokens(skip, reduced.kept, y)

    def _learned(self, y: Tensor, reduced: Reduced, skip: Tensor) -> Tensor:
        """Return patches (B, N, C) from K of them by weights; methods that have such override it.

        Args:
            y: (B, K, C) patches after the blocks that ran reduced.
            reduced: What the reducer returned.
            skip: (B, N, C) patches before the reduction.
        """
        raise UsageError(
            f"{type(self).__name__} has no learned way back.",
            "Restore by 'delta', or use a method that has one: tokenlearner, stvit, wle.",
        )


def untouched(x: Tensor, place: Place) -> Reduced:
    """Return the reduction that keeps all N tokens."""
    return Reduced(x, torch.arange(place.tokens, device=x.device).expand(x.shape[0], -1))


def assignment(reduced: Reduced, n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the matrix W (B, K, N) of a reduction, built from its indices where it has them."""
    if reduced.assign is not None:
        return reduced.assign.to(dtype)
    if reduced.kept is None:
        raise UsageError("A reduction has neither indices nor a matrix.")
    return one_hot(reduced.kept, n).to(dtype)


def _column_normalised(weights: Tensor) -> Tensor:
    """Return (B, N, K): W^T with each non-zero row summing to 1."""
    mass = weights.sum(dim=1, keepdim=True)
    return (weights / torch.where(mass == 0, torch.ones_like(mass), mass)).transpose(1, 2)


def one_hot(index: Tensor, n: int) -> Tensor:
    """Return (B, K, N) float32 with a 1 at `index` (B, K): Equal and Cast, no scatter."""
    return (index.unsqueeze(-1) == torch.arange(n, device=index.device)).float()


def take_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Return (B, K, C): the rows `index` (B, K) of `tokens` (B, N, C)."""
    if tokens.shape[0] == 1:  # one Gather instead of an expanded GatherElements
        return tokens.index_select(1, index[0])
    return torch.gather(tokens, 1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def put_tokens(grid: Tensor, index: Tensor, tokens: Tensor) -> Tensor:
    """Return `grid` (B, N, C) with rows `index` (B, K) replaced by `tokens` (B, K, C)."""
    where = index.unsqueeze(-1).expand(-1, -1, grid.shape[-1])
    return torch.scatter(grid, 1, where, tokens.to(grid.dtype))
