"""What follows from the figures of `methods`: leads, the verdict, and tables of a page."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.reduction.cases import Scores
from prunus.export.planning.choice import difference
from prunus.export.planning.points import PLAINNESS, Candidate, Point
from prunus.runtime.errors import ArtifactError

PLAIN = ("constant", "rival", "blocks")
SAME = 0.02  # of dense: latencies that differ by less are equal
_NAMES = {
    "dense": "dense",
    "blocks": "fewer blocks",
    "rival": "smaller input or crop",
    "constant": "constant indices",
    "pruned": "cut",
}

Row = dict[str, Any]


def point_of(row: Row, backend: str) -> Point:
    """Return a row as a point of `prunus plan`, with the accuracy on resampled samples."""
    timed = row["latency"][backend]
    candidate = Candidate(row["name"], row["kind"], row["macs"])
    point = Point(candidate, timed["p50_ms"], timed["p90_ms"], timed["share_p50"])
    if "right" not in row:
        return point
    scores = Scores(*(np.array(row[key].split(), float) for key in ("right", "whole")))
    return replace(point, accuracy=scores.accuracy, draws=scores.draws())


def leads(rows: Sequence[Row]) -> None:
    """Add to each timed row its lead over dense, and over the best plain rival that is no slower.

    The rival of a cut is the most accurate of the plain ones whose share of dense is at most
    `SAME` above its own; None where there is none.
    """
    for backend in rows[0].get("latency", {}):
        points = {row["name"]: point_of(row, backend) for row in rows}
        dense = points[rows[0]["name"]]
        if dense.accuracy is None:
            continue
        for row in rows[1:]:
            own = points[row["name"]]
            row["lead_over_dense"] = lead_over(own, dense)
            if row["kind"] != "pruned":
                continue
            rivals = [p for p in points.values()
                      if p.candidate.kind in PLAIN and p.share <= own.share + SAME]  # fmt: skip
            best = max(rivals, key=lambda p: p.accuracy or 0.0, default=None)
            row["latency"][backend]["rival"] = None if best is None else lead_over(own, best)


def lead_over(point: Point, other: Point) -> Row:
    """Return the lead of a point over another, and its 95 % interval, paired over samples."""
    interval = difference(point, other)
    assert point.accuracy is not None and other.accuracy is not None and interval is not None
    return {
        "over": other.candidate.name,
        "lead": round(point.accuracy - other.accuracy, 4),
        "interval": [round(edge, 4) for edge in interval],
    }


def winners(record: Mapping[str, Any]) -> list[tuple[str, Row, str]]:
    """Return network, row and back end of each cut that beats every plain rival of its latency.

    The 95 % interval of its lead over the best of them lies above zero.
    """
    found = []
    for case in record["networks"].values():
        for row in case["rows"]:
            for backend, timed in row.get("latency", {}).items():
                if row["kind"] != "pruned" or "accuracy" not in row or timed["share_p50"] >= 1:
                    continue
                rival = timed.get("rival")
                if rival is not None and rival["interval"][0] > 0:
                    found.append((case["title"], row, backend))
    return found


def verdict(record: Mapping[str, Any]) -> str:
    """Return the paragraph that says whether any cut beats the plain ways to its latency."""
    judged = [case for case in record["networks"].values() if case["metric"]]
    cuts = [row for case in judged for row in case["rows"] if row["kind"] == "pruned"]
    networks = ", ".join(case["title"].partition(",")[0] for case in judged)
    places = sorted({b for row in cuts for b in row.get("latency", {})})
    text = (
        f"Measured on {networks}, weights as they are: of {len(cuts)} cuts by {_methods(cuts)} "
        "methods, "
    )
    found = winners(record)
    if not found:
        text += (
            "**none beats every plain way to the same latency** (a smaller input, a narrower crop, "
            f"fewer blocks, constant indices) on {' or '.join(places)}."
        )
    else:
        named: dict[str, list[str]] = {}
        for title, row, backend in found:
            named.setdefault(f"{row['name']} on {title.partition(',')[0]}", []).append(backend)
        listed = "; ".join(f"{name} ({', '.join(on)})" for name, on in named.items())
        text += (
            f"**{len(named)} beat every plain way to the same latency** (a smaller input, a "
            f"narrower crop, fewer blocks, constant indices): {listed}. Of ties, one in forty "
            "would by chance."
        )
    slow = [row["name"] for row in cuts if _never_faster(row)]
    if slow:
        text += f" Never faster than dense: {', '.join(dict.fromkeys(slow))}."
    return text


def _methods(rows: Sequence[Row]) -> int:
    return len({row["method"].partition("(")[0] for row in rows})


def _never_faster(row: Row) -> bool:
    shares = [timed["share_p50"] for timed in row.get("latency", {}).values()]
    return bool(shares) and min(shares) >= 1


def tables(record: Mapping[str, Any]) -> str:
    """Return the tables as Markdown, one a network."""
    parts = []
    for case in record["networks"].values():
        judged = len(case["rows"][0].get("whole", "").split())
        about = f"{case['about']} {judged} samples are judged." if judged else case["about"]
        parts.append(f"### {case['title']}\n\n{about}\n\n{table(case)}")
        how = ("CPU time of one thread, on a machine that others used: time it again on a quiet one"
               if case["clock"] == "cpu" else "wall clock")  # fmt: skip
        threads = f"{case['threads']} thread{'s' if case['threads'] > 1 else ''}"
        parts.append(f"{case['environment']['cpu']}, {threads}, {how}.")
        if case["notes"]:
            parts.append("\n".join(f"* {note}" for note in case["notes"]))
    parts.append(
        "Shares are of dense in the same turns, median / 90th percentile. "
        "The lead is over the most accurate plain rival that is no slower (in brackets its "
        "95 % interval, paired over samples; people and the speaker repeat, so it is somewhat "
        "narrow); *slower* marks what dense outruns."
    )
    return "\n\n".join(parts)


def table(case: Mapping[str, Any]) -> str:
    """Return the table of one network."""
    rows = sorted(case["rows"], key=lambda row: PLAINNESS.index(row["kind"]))
    dense = rows[0]
    places = list(dense["latency"])
    judged = "accuracy" in dense
    head = ["network", "kind", "K", "MACs", *places, "nodes"]
    if judged:
        head += [case["metric"], "against dense", "cosine", "lead"]
    else:
        head += [f"of the promised speed-up, {p}" for p in places]
    lines = [" | ".join(["", *head, ""]).strip(), "| --- " * len(head) + "|"]
    for row in rows:
        cells = [row["name"], _NAMES[row["kind"]], "/".join(map(str, row["keep"])) or "-",
                 f"{row['macs'] / dense['macs']:.2f}"]  # fmt: skip
        cells += [share_in_words(row["latency"][place]) for place in places]
        added = row["nodes"] - dense["nodes"]
        cells.append(f"{row['nodes']}" if row is dense else f"{added:+d}")
        if judged:
            alike = row["fidelity"]
            cells += [f"{row['accuracy']:.3f}", lead_in_words(row.get("lead_over_dense"), ""),
                      "-" if alike is None else f"{alike:.2f}"]  # fmt: skip
            cells.append(_rivals(row, places))
        else:
            cells += [_kept(row, dense, place) for place in places]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def share_in_words(timed: Row) -> str:
    """Return a latency as a share of dense, median and 90th percentile."""
    text = f"{timed['share_p50']:.2f} / {timed['share_p90']:.2f}"
    return f"{text} *slower*" if timed["share_p50"] > 1 else text


def _kept(row: Row, dense: Row, place: str) -> str:
    """Return measured speed-up as a share of the ratio of multiply-accumulates."""
    return f"{100 * row['macs'] / dense['macs'] / row['latency'][place]['share_p50']:.0f} %"


def lead_in_words(lead: Row | None, over: str) -> str:
    """Return a lead with its interval."""
    if lead is None:
        return "-"
    low, high = lead["interval"]
    return f"{lead['lead']:+.3f} [{low:+.3f} {high:+.3f}]{over}"


def _rivals(row: Row, places: Sequence[str]) -> str:
    """Return the lead over the best plain rival: once, where it is the same on all back ends."""
    if row["kind"] != "pruned":
        return "-"
    told: dict[str, list[str]] = {}
    for place in places:
        rival = row["latency"][place]["rival"]
        text = "no rival" if rival is None else lead_in_words(rival, f" {rival['over']}")
        told.setdefault(text, []).append(place)
    if len(told) == 1:
        return next(iter(told))
    return "; ".join(f"{text} ({', '.join(on)})" for text, on in told.items())


def fill(page: str, parts: Mapping[str, str]) -> str:
    """Return a page with its measured parts filled, by their marks.

    Raises:
        ArtifactError: a page without the marks between which they stand.
    """
    for mark, text in parts.items():
        pattern = rf"(<!-- measured: {mark} -->\n).*?(<!-- end -->)"
        page, count = re.subn(
            pattern, lambda found, text=text: f"{found[1]}{text}\n{found[2]}", page, flags=re.S
        )  # fmt: skip
        if count != 1:
            raise ArtifactError(
                f"The page has {count} parts '<!-- measured: {mark} -->' to '<!-- end -->'; "
                "expected one.", "Put the two lines where the figures shall stand.",
            )  # fmt: skip
    return page
