"""What a card says about pruned tokens, and how that is told to people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from prunus.runtime.card.reading import Count, Operations, Positive
from prunus.runtime.errors import ArtifactError

_BAR = 40  # characters of a full bar in the token picture
_TOLD = "tokens_"
METHODS = "; "  # between the methods of a plan


@dataclass(frozen=True, slots=True)
class TokenPlan:
    """Which tokens survive where; all counts are constants of the graph.

    Attributes:
        level: Name of the plan, e.g. ``L1`` or ``custom``.
        blocks: 0-based transformer blocks after whose attention tokens are dropped.
        keep: Patch tokens that survive at each of them.
        tokens: Patch tokens that enter.
        special: Tokens that are never dropped (joint queries).
        score: How attention is turned into a rank; or which patches of every picture stay:
            ``strided`` or ``pooled``; or the methods of the cuts, see `METHODS`.
        fill: What a dense head sees where a token was dropped.
        macs: Multiply-accumulates of one image through this graph's network.
        macs_dense: The same without dropping.
        grid: Rows and columns of the tokens that enter, None where no method asked.
    """

    level: str
    blocks: tuple[Count, ...]
    keep: tuple[Count, ...]
    tokens: Positive
    special: Count
    score: str
    fill: str
    macs: Operations
    macs_dense: Operations
    grid: tuple[Positive, Positive] | None = None

    def __post_init__(self) -> None:
        if self.blocks and (
            len(self.blocks) != len(self.keep) or any(k > self.tokens for k in self.keep)
        ):
            raise ArtifactError(
                f"The token plan keeps {list(self.keep)} of {self.tokens} tokens at the blocks "
                f"{list(self.blocks)}; expected one number for each, none above all tokens."
            )


def token_output(block: int) -> str:
    """Return the name of the output (B, N) int32 that tells what the cut at a block did.

    It holds the token that stands for each patch that entered, 0..K-1, and -1 where it is gone.
    """
    return f"{_TOLD}{block}"


def told_blocks(names: Iterable[str]) -> tuple[int, ...]:
    """Return the blocks whose cuts are told by outputs of these names, in their order."""
    ends = (name.removeprefix(_TOLD) for name in names if name.startswith(_TOLD))
    return tuple(int(end) for end in ends if end.isdecimal())


def dropped_tokens(plan: TokenPlan) -> list[str]:
    """Return one bar of patch tokens per stretch of blocks, and the MACs.

    Tokens are dropped inside a pruning block, after its attention; the bar of a block shows what
    leaves it.
    """
    share = plan.macs / plan.macs_dense if plan.macs_dense else 1.0
    lines = [
        f"  token plan {plan.level}: {plan.tokens} patch tokens enter, {plan.special} special "
        f"tokens are never dropped (score: {plan.score}, fill: {plan.fill})"
    ]
    left, start = plan.tokens, 0
    for block, keep in zip(plan.blocks, plan.keep, strict=True):
        if block > start:
            lines.append(_bar(f"blocks {start}-{block - 1}", left, plan.tokens))
        left, start = keep, block
    lines.append(_bar(f"blocks {start}-end" if plan.blocks else "all blocks", left, plan.tokens))
    lines.append(
        f"  {plan.macs / 1e9:.3f} GMACs, {100 * share:.1f} % of the {plan.macs_dense / 1e9:.3f} "
        f"GMACs without dropping{_fewer(share)}"
    )
    return lines


def pooled_keys(plan: TokenPlan) -> list[str]:
    """Return the keys that each part of a pooling network attends to, and the MACs."""
    parts = [*(f"stage {k}" for k in range(1, 5)), *(f"decoder 1/{s}" for s in (8, 16, 32))]
    share = plan.macs / plan.macs_dense if plan.macs_dense else 1.0
    lines = [f"  ISR {plan.level}: {plan.tokens} tokens enter, none is dropped; keys are pooled to"]
    lines += [f"  {part:>12} {keys:6d} keys" for part, keys in zip(parts, plan.keep, strict=False)]
    lines.append(
        f"  {plan.macs / 1e9:.3f} GMACs, {100 * share:.1f} % of the {plan.macs_dense / 1e9:.3f} "
        f"GMACs with the trained pooling{_fewer(share)}"
    )
    return lines


def counts(plan: TokenPlan) -> str:
    """Return the tokens along the network in a few words, e.g. ``K 192 > 120 > 84 > 60``."""
    return "K " + " > ".join(str(n) for n in (plan.tokens, *plan.keep))


def work(plan: TokenPlan) -> str:
    """Return the work of one run in a few words, e.g. ``5.59 GMAC``."""
    return f"{plan.macs / 1e9:.2f} GMAC"


def _bar(label: str, left: int, total: int) -> str:
    filled = round(_BAR * left / total)
    bar = "#" * filled + "." * (_BAR - filled)
    return f"  {label:>12} |{bar}| {left:4d} ({100 * left / total:.0f} %)"


def _fewer(share: float) -> str:
    return f" ({1 / share:.2f}x fewer)" if share else ""
