"""Where a transformer drops tokens, by which method, and how many survive: constants of the graph.

A plan in words: ``evit:138/97/68@3/6/9`` keeps 138, 97 and 68 patches after the attention of blocks
3, 6 and 9 by the method ``evit``. Shares are counted from what enters each cut: ``tome:0.7@4``.
Options of a method follow its name: ``hiprune(alpha=0.2):96@6``. Cuts by several methods are
separated by commas: ``strided:128@3,evit:64@8``.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from prunus.runtime.errors import UsageError

_EXAMPLE = "For example: evit:138/97/68@3/6/9, or tome:0.7@4."
_PART = re.compile(
    r"\s*(?P<method>[a-z][a-z0-9_]*)(\((?P<options>[^()]*)\))?"
    r":(?P<keep>[0-9.]+(/[0-9.]+)*)@(?P<blocks>\d+(/\d+)*)\s*"
)


@dataclass(frozen=True, slots=True)
class PruningPlan:
    """Blocks (0-based) after whose attention patches are dropped, and how many stay at each.

    Attributes:
        level: Name shown on cards and screens.
        blocks: Strictly increasing block indices.
        keep: Patches kept at each block, never increasing, at least 1.
        methods: How they are chosen at each block, e.g. ``evit(merge=drop)``; empty: the network's
            own way.

    Raises:
        UsageError: the counts do not describe a chain of cuts.
    """

    level: str
    blocks: tuple[int, ...]
    keep: tuple[int, ...]
    methods: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.blocks) != len(self.keep):
            raise UsageError(
                f"Plan '{self.level}' names {len(self.blocks)} blocks and {len(self.keep)} counts.",
                "Give one count per block, e.g. 135/95/71@3/6/9.",
            )
        if self.methods and len(self.methods) != len(self.blocks):
            raise UsageError(
                f"Plan '{self.level}' names {len(self.blocks)} blocks and {len(self.methods)} "
                "methods; expected one for each."
            )
        if any(b < 0 for b in self.blocks) or list(self.blocks) != sorted(set(self.blocks)):
            raise UsageError(
                f"Plan '{self.level}' has blocks {self.blocks}; expected an increasing list from 0."
            )
        if any(k < 1 for k in self.keep) or list(self.keep) != sorted(self.keep, reverse=True):
            raise UsageError(
                f"Plan '{self.level}' keeps {self.keep}; "
                "expected counts of at least 1 that never grow.",
            )

    def check(self, tokens: int, depth: int) -> None:
        """Raise UsageError unless the plan fits `tokens` patches and `depth` blocks."""
        if self.keep and self.keep[0] > tokens:
            raise UsageError(
                f"Plan '{self.level}' keeps {self.keep[0]} patches, but only {tokens} enter.",
                f"Use counts of at most {tokens}.",
            )
        if self.blocks and self.blocks[-1] >= depth:
            raise UsageError(
                f"Plan '{self.level}' cuts at block {self.blocks[-1]}; "
                f"the network has blocks 0..{depth - 1}.",
            )


DENSE = PruningPlan("dense", (), ())


def read_plan(text: str, tokens: int) -> PruningPlan:
    """Read a plan in words for a network into which `tokens` patches enter.

    Args:
        text: See the module; ``dense`` is the plan without a cut.
        tokens: Patches that enter the first block, for shares.

    Raises:
        UsageError: words that are no plan.
    """
    if text.strip() == "dense":
        return DENSE
    parts = re.split(r",(?![^()]*\))", text)
    blocks: list[int] = []
    keep: list[int] = []
    methods: list[str] = []
    left = tokens
    for part in parts:
        match = _PART.fullmatch(part)
        if match is None:
            raise UsageError(
                f"Cannot read the plan '{text}': expected METHOD:COUNTS@BLOCKS.", _EXAMPLE
            )
        where = [int(word) for word in match["blocks"].split("/")]
        words = match["keep"].split("/")
        if len(words) == 1:
            words *= len(where)
        if len(words) != len(where):
            raise UsageError(
                f"Plan '{text}' names {len(where)} blocks and {len(words)} counts.",
                f"Give one count per block. {_EXAMPLE}",
            )
        for word in words:
            left = _count(word, left, text)
            keep.append(left)
        blocks += where
        options = f"({match['options']})" if match["options"] else ""
        methods += [match["method"] + options] * len(where)
    return PruningPlan(text.replace(" ", ""), tuple(blocks), tuple(keep), tuple(methods))


def _count(word: str, left: int, text: str) -> int:
    """Return the patches that a word keeps of `left`: a count, or a share rounded up."""
    if word.isdigit():
        return int(word)
    try:
        share = float(word)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise UsageError(
            f"Plan '{text}' keeps '{word}'; expected a whole number or a share above 0 and at "
            "most 1.",
            _EXAMPLE,
        )
    return math.ceil(round(share * left, 6))


def split_method(text: str) -> tuple[str, dict[str, Any]]:
    """Return name and options of a method in words: ``hiprune(alpha=0.2)``.

    Raises:
        UsageError: an option without a value.
    """
    name, _, rest = text.partition("(")
    options: dict[str, Any] = {}
    for pair in filter(None, (word.strip() for word in rest.rstrip(")").split(","))):
        key, equals, value = pair.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise UsageError(
                f"Cannot read '{pair}' of the method '{text}'; expected name=value.", _EXAMPLE
            )
        options[key.strip()] = value.strip()
    return name, options
