"""What is said of a fine-tuned cut: only what each rival of its latency, on each set, allows."""

import copy
import json

import numpy as np
import pytest

from benchmarks.reduction.fine_tuned import RESULTS
from benchmarks.reduction.tuned_tables import add_leads, beaten, tuned_table, tuned_verdict

RIGHT = np.random.default_rng(0).uniform(0.5, 0.9, 200)
LEADS = {"street": 0.05, "synthetic": 0.03}


def _row(name, kind, share, behind, noise=0.0):
    wobble = noise * np.random.default_rng(1).standard_normal(200)

    def scores(right):
        return {"right": " ".join(f"{v:.3g}" for v in right), "whole": " ".join("1" for _ in right),
                "before": 0.1, "oks": round(float(right.mean()), 4)}  # fmt: skip

    timed = {"p50_ms": 40 * share, "p90_ms": 44 * share, "share_p50": share, "share_p90": share}
    sets = {name: scores(RIGHT - gap + wobble) for name, gap in behind.items()}
    sets["portrait"] = scores(RIGHT[:1])
    return {"name": name, "kind": kind, "steps": 200 * (kind != "dense"), "scores": sets,
            "macs": round(1000 * share), "latency": {"onnxruntime": timed}}  # fmt: skip


def _record(*rivals):
    even = dict.fromkeys(LEADS, 0.0)
    rows = [_row("dense", "dense", 1.0, even), _row("joint:9@1", "pruned", 0.7, even), *rivals]
    people = {"street": 200, "synthetic": 200, "portrait": 1}
    record = {
        "backend": "onnxruntime", "rows": copy.deepcopy(rows), "network": "Net", "looks": 4800,
        "sets": {n: {"people": k, "reference": "exact"} for n, k in people.items()},
        "trial": {"strided:9@1": {"street": 0.5, "synthetic": 0.25}},
        "environment": {"cpu": "a processor"},
    }  # fmt: skip
    add_leads(record)
    return record


def test_a_cut_wins_where_it_beats_every_rival_of_its_latency_on_every_set():
    slower = _row("input of 9", "rival", 0.73, dict.fromkeys(LEADS, -0.1))  # but better
    record = _record(_row("first 4", "blocks", 0.71, LEADS), slower)
    row = record["rows"][2]
    assert row["behind"]["street"] == {
        "over": "first 4",
        "lead": 0.05,
        "interval": pytest.approx([0.05, 0.05], abs=1e-3),
    }
    assert row["equal"] and not record["rows"][3]["equal"] and not record["rows"][0]["equal"]
    assert "**beats all 1 plain ways to its latency on every set**" in tuned_verdict(record)
    text = tuned_table(record)
    figures = f"0.100 → {RIGHT.mean() - 0.05:.3f} | +0.050 [+0.050 +0.050]"
    assert f"| first 4 | 0.71 | 28.4 | 0.71 / 0.71 | {figures} |" in text
    assert "| dense | 1.00 | 40.0 | 1.00 / 1.00 | 0.100 | +0.000 [+0.000 +0.000] |" in text
    assert "strided:9@1 0.500 / 0.250" in text and "the portrait 1 (against exact)" in text


def test_one_rival_on_one_set_that_is_as_good_is_enough_to_lose():
    better = _row("crop", "rival", 0.69, {"street": -0.04, "synthetic": 0.03})
    tie = _row("centre:9@1", "constant", 0.6, {"street": 0.05, "synthetic": 0.001}, noise=0.1)
    record = _record(_row("first 4", "blocks", 0.71, LEADS), better, tie)
    assert beaten(record, "synthetic") == ["first 4", "crop"]
    told = tuned_verdict(record)
    assert "**does not beat every plain way to its latency either**" in told
    assert "On street crops it beats first 4, centre:9@1; it loses to crop." in told
    assert (
        "On rendered people it beats first 4, crop; it is not told apart from centre:9@1." in told
    )


def test_without_a_rival_nothing_is_won():
    assert "does not beat" in tuned_verdict(_record())


def test_the_record_holds_what_its_scores_say():
    record = json.loads((RESULTS / "token_reduction_tuned.json").read_text())
    again = copy.deepcopy(record)
    add_leads(again)
    assert again == record
    for row in record["rows"]:
        for name, found in row["scores"].items():
            right, whole = (np.array(found[k].split(), float) for k in ("right", "whole"))
            assert len(right) == record["sets"][name]["people"]
            assert right.sum() / whole.sum() == pytest.approx(found["oks"], abs=1e-3)
