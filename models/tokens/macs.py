"""What a plan saves, by formula: multiply-accumulates of a transformer without building it.

A block on n tokens of C channels costs 4 n C^2 for its projections, 2 n^2 C for its attention and
2 m C H for its MLP of H hidden channels, where m is n, or what a cut after its attention leaves.
What the reducers cost themselves is added; blocks whose attention they read cost nothing more.
Matrix products count, one multiply-accumulate each, as in `prunus.models.macs`.
"""

from __future__ import annotations

from dataclasses import dataclass

from prunus.models.tokens.plan import DENSE, PruningPlan, read_plan
from prunus.models.tokens.reducer import Place
from prunus.models.tokens.registry import build_reducers
from prunus.runtime.errors import UsageError


@dataclass(frozen=True, slots=True)
class Encoder:
    """The shape of a transformer with pre-norm blocks, one like the other.

    Attributes:
        depth: Blocks.
        dim: Channels of a token (C).
        heads: Attention heads.
        hidden: Channels inside the MLP (H).
        tokens: Patch tokens that enter.
        special: Leading tokens that are never dropped.
        class_token: Whether the first of them is a class token.
        grid: Rows and columns of the patches, where they form a grid.
        rest: Multiply-accumulates outside the blocks: patch embedding and head.
    """

    depth: int
    dim: int
    heads: int
    hidden: int
    tokens: int
    special: int = 1
    class_token: bool = True
    grid: tuple[int, int] | None = None
    rest: int = 0

    def __post_init__(self) -> None:
        if min(self.depth, self.dim, self.heads, self.hidden, self.tokens) < 1 or self.rest < 0:
            raise UsageError(
                f"An encoder has {self.depth} blocks, {self.dim} channels, {self.heads} heads, "
                f"{self.hidden} hidden channels and {self.tokens} tokens; expected 1 or more."
            )


def plan_macs(encoder: Encoder, plan: str | PruningPlan = DENSE) -> int:
    """Return the multiply-accumulates of one picture under a plan.

    Args:
        encoder: Shape of the network.
        plan: Its cuts, see `prunus.models.tokens.plan`; the default is none.

    Raises:
        UsageError: a plan that does not fit the encoder.

    Example:
        >>> deit = Encoder(12, 384, 6, 1536, 196, grid=(14, 14), rest=57_802_752 + 384_000)
        >>> f"{plan_macs(deit) / 1e9:.2f} {plan_macs(deit, 'evit:0.7@3/6/9') / 1e9:.2f}"
        '4.60 3.00'
    """
    if isinstance(plan, str):
        plan = read_plan(plan, encoder.tokens)
    entry = Place(
        tokens=encoder.tokens,
        keep=encoder.tokens,
        special=encoder.special,
        class_token=encoder.class_token,
        grid=encoder.grid,
        dim=encoder.dim,
    )
    cuts = build_reducers(plan, entry, [encoder.heads] * encoder.depth)
    total, n, c = encoder.rest, encoder.special + encoder.tokens, encoder.dim
    for block in range(encoder.depth):
        total += 4 * n * c * c + 2 * n * n * c
        if block in cuts:
            total += cuts[block].macs()
            n = encoder.special + cuts[block].place.keep
        total += 2 * n * c * encoder.hidden
    return total
