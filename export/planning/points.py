"""What is compared: a network, what it costs and how good it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["dense", "blocks", "rival", "constant", "pruned"]
# Where two are equally good and fast, the plainer one is taken.
PLAINNESS: tuple[Kind, ...] = ("dense", "blocks", "rival", "constant", "pruned")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A network that may be used instead of the dense one.

    Attributes:
        name: Its name in tables: the plan's words, or what it is.
        kind: ``pruned``, or one of what stands beside: ``dense``, fewer ``blocks``, a ``rival`` of
            the user's, a ``constant`` selection.
        macs: Multiply-accumulates of one sample.
        plan: Words for ``prunus export module --plan``; empty: no plan makes it.
        method: Method of the cuts, empty without any.
        blocks: Blocks that are cut after.
        keep: Patches that stay at each.
        depth: Blocks that are left.
        reference: What makes a rival.
    """

    name: str
    kind: Kind
    macs: int
    plan: str = ""
    method: str = ""
    blocks: tuple[int, ...] = ()
    keep: tuple[int, ...] = ()
    depth: int = 0
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Point:
    """A candidate as measured on one back end.

    Attributes:
        candidate: What ran.
        p50_ms: Median latency.
        p90_ms: 90th percentile.
        share: Latency as a share of dense: median over the turns of their ratio, 1 is dense.
        share_range: Smallest and largest of these ratios.
        sha256: Hash of the file that ran.
        accuracy: Judged on the back end; None where it was not.
        draws: The same on resampled samples, the same samples for every point; empty: not known.
        dropped: Why it is out of the search; empty: it is not.
        steady: Its warm-up ended in windows that agreed.
    """

    candidate: Candidate
    p50_ms: float
    p90_ms: float
    share: float
    share_range: tuple[float, float] = (1.0, 1.0)
    sha256: str = ""
    accuracy: float | None = None
    draws: tuple[float, ...] = ()
    dropped: str = ""
    steady: bool = True
