"""How well identities hold over a video: IDF1 and switches.

IDF1 (Ristani et al., ECCV Workshops 2016) pairs each true person with one found identity for the
whole video, so that the frames in which both are at one place are as many as possible:

    IDF1 = 2 * paired frames / (true frames + found frames)

A switch (CLEAR MOT, Bernardin and Stiefelhagen 2008) is a frame in which a person is paired with
another identity than the last time; a pair of the frame before stands while it is near enough.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prunus.runtime.tasks.pose.assignment import assign

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class IdentityScores:
    """Scores of one video.

    Attributes:
        idf1: 0 to 1.
        switches: Frames in which a person has another identity than before.
        people: True people.
        identities: Identities that were given, over the whole video.
        recall: Share of the true boxes with a found one at their place, whatever its identity.
        precision: Share of the found boxes at the place of a true one.
    """

    idf1: float
    switches: int
    people: int
    identities: int
    recall: float
    precision: float


def score_identities(
    truth: Sequence[Mapping[Hashable, Box]],
    found: Sequence[Mapping[int, Box]],
    reach: float = 0.3,
) -> IdentityScores:
    """Compare found identities with true ones.

    Args:
        truth: Name -> box x0, y0, x1, y1 in pixels, per frame.
        found: Identity -> box, per frame.
        reach: Centres may be so many heights of the true box apart. Boxes of skeletons are as wide
            as arms and legs are spread, so overlap would judge gait.

    Raises:
        ValueError: not as many frames in both.

    Example:
        >>> here, there = (0.0, 0.0, 4.0, 9.0), (50.0, 0.0, 54.0, 9.0)
        >>> score_identities([{"a": here}] * 4, [{1: here}, {1: here}, {2: here}, {2: there}])
        IdentityScores(idf1=0.5, switches=1, people=1, identities=2, recall=0.75, precision=0.75)
    """
    together: Counter[tuple[Hashable, int]] = Counter()
    last: dict[Hashable, int] = {}
    standing: dict[Hashable, int] = {}
    switches = hits = 0
    for people, seen in zip(truth, found, strict=True):
        names, ids = list(people), list(seen)
        gain = np.array([[_nearness(people[n], seen[i], reach) for i in ids] for n in names])
        gain = gain.reshape(len(names), len(ids))
        for row, column in zip(*np.nonzero(gain), strict=True):
            together[names[row], ids[column]] += 1
            # A pair of the frame before comes before all others.
            gain[row, column] += len(ids) * (standing.get(names[row]) == ids[column])
        standing = {names[row]: ids[column] for row, column in assign(gain, 1e-9)}
        hits += len(standing)
        for name, number in standing.items():
            switches += last.get(name, number) != number
            last[name] = number
    names, ids = sorted({n for n, _ in together}, key=str), sorted({i for _, i in together})
    counts = np.array([[together[n, i] for i in ids] for n in names], np.float64)
    counts = counts.reshape(len(names), len(ids))
    paired = sum(counts[pair] for pair in assign(counts, 1.0))
    true, given = sum(map(len, truth)), sum(map(len, found))
    return IdentityScores(
        idf1=float(2 * paired / max(true + given, 1)),
        switches=switches,
        people=len({name for people in truth for name in people}),
        identities=len({number for seen in found for number in seen}),
        recall=hits / max(true, 1),
        precision=hits / max(given, 1),
    )


def _nearness(one: Box, other: Box, reach: float) -> float:
    """Return 1 for boxes with one centre, 0 for those out of reach."""
    apart = np.hypot(one[0] + one[2] - other[0] - other[2], one[1] + one[3] - other[1] - other[3])
    return float(max(1 - apart / 2 / (reach * max(one[3] - one[1], 1e-9)), 0.0))


def true_boxes(
    marks: Mapping[str, Mapping[str, Sequence[float]]], frames: int, shape: float = 0.4
) -> list[dict[Hashable, Box]]:
    """Return a box per person and frame from marks in some frames, with straight lines between.

    Args:
        marks: Name -> frame -> middle x, y and height in pixels.
        frames: How many there are; the last mark of a person holds for one step of the marks.
        shape: Width over height of the boxes.
    """
    found: list[dict[Hashable, Box]] = [{} for _ in range(frames)]
    for name, places in marks.items():
        at = np.array(sorted(map(int, places)))
        values = np.array([places[str(k)] for k in at], np.float64)
        step = int(np.diff(at).min()) if len(at) > 1 else 1
        for k in range(at[0], min(at[-1] + step, frames)):
            x, y, tall = (float(np.interp(k, at, column)) for column in values.T)
            wide = shape * tall
            found[k][name] = (x - wide / 2, y - tall / 2, x + wide / 2, y + tall / 2)
    return found
