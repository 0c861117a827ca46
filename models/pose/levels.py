"""EViTPose's levels: where it drops patches, and how many survive.

Levels follow the three-cut schedule of PPT (arXiv 2209.08194: after the attention of blocks 3, 6
and 9) with counts rounded so that joint tokens + kept patches is a multiple of 8, the row
granularity that matrix units like. L1, L2 and L3 cut about 30, 37 and 44 % of a ViT-B pose
network's multiply-accumulates, the range that EViTPose reports (arXiv 2503.00232, abstract).
"""

from __future__ import annotations

import re

from prunus.models.tokens.plan import PruningPlan, read_plan
from prunus.runtime.errors import UsageError

PATCHES = 192  # 16 x 12 patches of a 256 x 192 crop
DEPTH = 12  # blocks of a network unless it says otherwise
LEVELS = ("L0", "L1", "L2", "L3")
# Lengths (joint tokens + kept patches) after each cut, by number of joints.
_LENGTHS = {
    17: {"L1": (152, 112, 88), "L2": (136, 88, 64), "L3": (112, 64, 40)},
    23: {"L1": (152, 120, 96), "L2": (136, 88, 64), "L3": (120, 72, 48)},
}
_LEVEL_RATIO = {"L1": 0.7, "L2": 0.6, "L3": 0.5}


def cut_blocks(depth: int = DEPTH) -> tuple[int, ...]:
    """Return the blocks that cut: after each quarter of the depth, 3, 6 and 9 of twelve."""
    return tuple(depth * quarter // 4 for quarter in (1, 2, 3))


def evitpose_plan(level: str, joints: int = 17, depth: int = DEPTH) -> PruningPlan:
    """Return the plan of a level ``L0`` (dense) to ``L3`` (about half of the patches at each cut).

    Args:
        level: ``L0``, ``L1``, ``L2`` or ``L3``.
        joints: Number of joint tokens, which share the sequence with the patches.
        depth: Blocks of the network.
    """
    if level not in LEVELS:
        raise UsageError(
            f"Unknown level '{level}'; expected one of {', '.join(LEVELS)}.",
            "Or give a ratio with --keep.",
        )
    if level == "L0":
        return PruningPlan("L0", (), ())
    if joints in _LENGTHS:
        lengths = _LENGTHS[joints][level]
        return PruningPlan(level, cut_blocks(depth), tuple(n - joints for n in lengths))
    return PruningPlan(level, cut_blocks(depth), _chain(_LEVEL_RATIO[level], joints))


def plan_for_ratio(keep: float, joints: int = 17, depth: int = DEPTH) -> PruningPlan:
    """Return the three-cut plan that keeps the share `keep` (0..1] of the patches at each cut."""
    if not 0.0 < keep <= 1.0:
        raise UsageError(
            f"The keep ratio is {keep:g}; expected a number above 0 and at most 1.",
            "For example: --keep 0.6",
        )
    if keep == 1.0:
        return evitpose_plan("L0", joints)
    return PruningPlan(f"keep{keep:g}", cut_blocks(depth), _chain(keep, joints))


def _chain(ratio: float, joints: int) -> tuple[int, ...]:
    kept: list[int] = []
    count = PATCHES
    for _ in cut_blocks():
        length = 8 * round((count * ratio + joints) / 8)
        count = min(count, max(1, length - joints))
        kept.append(count)
    return tuple(kept)


def parse_plan(text: str, joints: int = 17, depth: int = DEPTH) -> PruningPlan:
    """Read a level (``L2``), a ratio (``0.6``), counts at blocks (``135/95/71@3/6/9``), or a plan
    with methods (``tome:96@4``).
    """
    if ":" in text:
        return read_plan(text, PATCHES)
    if text in LEVELS:
        return evitpose_plan(text, joints, depth)
    if re.fullmatch(r"\d+(/\d+)*(@\d+(/\d+)*)?", text) and not re.fullmatch(r"[01]", text):
        counts, _, blocks = text.partition("@")
        keep = tuple(int(n) for n in counts.split("/"))
        usual = cut_blocks(depth)[: len(keep)]
        where = tuple(int(n) for n in blocks.split("/")) if blocks else usual
        return PruningPlan("custom", where, keep)
    try:
        ratio = float(text)
    except ValueError:
        raise UsageError(
            f"Cannot read the plan '{text}'.",
            "Give a level (L2), a ratio (0.6), counts at blocks (135/95/71@3/6/9), or a method "
            "with them (tome:96@4).",
        ) from None
    return plan_for_ratio(ratio, joints, depth)
