"""What follows from the figures of `token_reduction_tuned`: leads, words, a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.reduction.tables import (
    PLAIN,
    SAME,
    Row,
    lead_in_words,
    lead_over,
    point_of,
    share_in_words,
)

_SETS = {"street": "street crops", "synthetic": "rendered people", "portrait": "the portrait"}


def add_leads(record: Mapping[str, Any]) -> None:
    """Add to each row, by set, what the cut gained over it, where it is no slower than the cut."""
    rows, backend = record["rows"], record["backend"]
    (cut,) = (row for row in rows if row["kind"] == "pruned")
    for row in rows:
        row["behind"] = {}
        for name in record["sets"]:
            own, other = (point_of(scored(r, name), backend) for r in (cut, row))
            if row is not cut and len(own.draws) and record["sets"][name]["people"] > 1:
                row["behind"][name] = lead_over(own, other)
        row["equal"] = row["kind"] in PLAIN and (
            row["latency"][backend]["share_p50"] <= cut["latency"][backend]["share_p50"] + SAME
        )


def scored(row: Row, name: str) -> Row:
    """Return a row with the scores of one set alone, as `point_of` reads it."""
    return {**row, **{key: row["scores"][name][key] for key in ("right", "whole")}}


def beaten(record: Mapping[str, Any], name: str) -> list[str]:
    """Return the plain rivals of the cut's latency that it beats on a set, with 95 % certainty."""
    return [row["name"] for row in _rivals(record) if row["behind"][name]["interval"][0] > 0]


def _rivals(record: Mapping[str, Any]) -> list[Row]:
    return [row for row in record["rows"] if row["equal"]]


def tuned_verdict(record: Mapping[str, Any]) -> str:
    """Return the sentences that say what fine-tuning with the cut in it brings."""
    (cut,) = (row["name"] for row in record["rows"] if row["kind"] == "pruned")
    rivals = [row["name"] for row in _rivals(record)]
    judged = [name for name in record["sets"] if record["sets"][name]["people"] > 1]
    start = (
        f"Fine-tuned with the cut in it ({record['network']}, {record['looks']} looks for each "
        f"way), {cut} "
    )
    wins = {name: beaten(record, name) for name in judged}
    if rivals and all(set(won) == set(rivals) for won in wins.values()):
        return start + f"**beats all {len(rivals)} plain ways to its latency on every set**."
    parts = []
    for name in judged:
        lost = [r["name"] for r in _rivals(record) if r["behind"][name]["interval"][1] < 0]
        even = [r for r in rivals if r not in (*wins[name], *lost)]
        told = {"beats": wins[name], "loses to": lost, "is not told apart from": even}
        words = [f"{word} {', '.join(found)}" for word, found in told.items() if found]
        parts.append(f"{_SETS[name]} it {'; it '.join(words)}")
    return (
        start
        + f"**does not beat every plain way to its latency either**. On {'. On '.join(parts)}."
    )


def tuned_table(record: Mapping[str, Any]) -> str:
    """Return the table of all arms as Markdown, and how it was measured."""
    backend = record["backend"]
    judged = list(record["sets"])
    head = ["network", "MACs", "CPU ms", "of dense"]
    for name in judged:
        head.append(f"{_SETS[name]}, as it starts → tuned")
        if record["sets"][name]["people"] > 1:
            head.append("the cut's lead over it")
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    dense = record["rows"][0]
    for row in record["rows"]:
        timed = row["latency"][backend]
        cells = [row["name"], f"{row['macs'] / dense['macs']:.2f}", f"{timed['p50_ms']:.1f}",
                 share_in_words(timed)]  # fmt: skip
        for name in judged:
            found = row["scores"][name]
            after = f" → {found['oks']:.3f}" if row["steps"] else ""
            cells.append(f"{found['before']:.3f}{after}")
            if record["sets"][name]["people"] > 1:
                cells.append(lead_in_words(row["behind"].get(name), ""))
        lines.append("| " + " | ".join(cells) + " |")
    people = ", ".join(f"{_SETS[n]} {s['people']} (against {s['reference']})"
                       for n, s in record["sets"].items())  # fmt: skip
    trial = "; ".join(
        f"{name} {' / '.join(f'{value:.3f}' for value in found.values())}"
        for name, found in record["trial"].items()
    )
    about = (
        f"Mean OKS; people: {people}. Leads: 95 % intervals, paired over people; they do not hold "
        "what another seed of the training would change. CPU time of one thread, median of calls "
        f"in turns, and of dense in the same turns (median / 90th percentile); {backend}, "
        f"{record['environment']['cpu']}. Constant indices: the best of three as they start, on "
        f"people of the training set (street / rendered): {trial}."
    )
    return "\n".join(lines) + "\n\n" + about
