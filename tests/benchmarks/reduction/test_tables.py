"""What follows from figures: leads, winners, tables, and the page."""

import copy
import json

import numpy as np
import pytest

from benchmarks.reduction.methods import PAGE, RESULTS, page
from benchmarks.reduction.tables import fill, leads, table, tables, verdict, winners
from prunus.runtime.errors import ArtifactError


def _row(name, kind, share, right, **more):
    timed = {"p50_ms": 10 * share, "p90_ms": 11 * share, "share_p50": share, "share_p90": share,
             "share_range": [share, share], "steady": True}  # fmt: skip
    return {
        "name": name, "kind": kind, "method": name.partition(":")[0], "blocks": [], "keep": [],
        "restore": "", "macs": round(1000 * share), "nodes": 100, "fidelity": 1.0,
        "accuracy": float(np.mean(right)), "right": " ".join(f"{v:.4g}" for v in right),
        "whole": " ".join("1" for _ in right), "latency": {"onnxruntime": timed}, **more,
    }  # fmt: skip


def _record(*rows):
    case = {"title": "Net, trained", "about": "On samples.", "metric": "OKS", "notes": [],
            "rows": copy.deepcopy(list(rows)), "environment": {"cpu": "a processor"},
            "clock": "wall", "threads": 2}  # fmt: skip
    leads(case["rows"])
    return {"networks": {"net": case}}


RIGHT = np.random.default_rng(0).uniform(0.5, 0.9, 200)
DENSE = _row("dense", "dense", 1.0, RIGHT)
CUT = _row("evit:9@1", "pruned", 0.6, RIGHT - 0.02)


def test_a_cut_stands_beside_the_best_plain_rival_that_is_no_slower():
    worse, better = (
        _row("input of 4", "rival", 0.61, RIGHT - 0.05),
        _row("first 5 blocks", "blocks", 0.7, RIGHT),
    )
    record = _record(DENSE, CUT, worse, better)
    cut = record["networks"]["net"]["rows"][1]
    assert cut["latency"]["onnxruntime"]["rival"]["over"] == "input of 4"  # the better is slower
    assert cut["latency"]["onnxruntime"]["rival"]["lead"] == pytest.approx(0.03, abs=1e-3)
    assert cut["lead_over_dense"]["interval"] == pytest.approx([-0.02, -0.02], abs=1e-3)
    assert [row["name"] for _, row, _ in winners(record)] == ["evit:9@1"]
    assert "evit:9@1 on Net (onnxruntime)" in verdict(record)


@pytest.mark.parametrize(
    "rows",
    [
        (_row("random:9@1", "constant", 0.62, RIGHT),),  # more accurate, equally fast
        (_row("random:9@1", "constant", 0.5, RIGHT - 0.02 + 0.1 * (RIGHT - RIGHT.mean())),),  # tie
        (),  # nothing to stand beside
    ],
)
def test_no_cut_wins_where_a_plain_rival_is_as_good_or_there_is_none(rows):
    record = _record(DENSE, CUT, *rows)
    assert not winners(record)
    assert "**none beats every plain way to the same latency**" in verdict(record)


def test_what_dense_outruns_is_said_and_never_wins():
    slow = _row("todre:9@1", "pruned", 1.2, RIGHT + 0.05)
    record = _record(DENSE, slow, _row("input of 4", "rival", 0.5, RIGHT - 0.1))
    assert not winners(record)
    assert "Never faster than dense: todre:9@1." in verdict(record)
    parts = {"verdict": verdict(record), "tables": tables(record)}
    text = fill("<!-- measured: verdict -->\n<!-- end -->\n<!-- measured: tables -->\n<!-- end -->",
                parts)  # fmt: skip
    assert "1.20 / 1.20 *slower*" in text and "200 samples" in text
    assert "a processor, 2 threads, wall clock." in text and "CPU time" not in text
    record["networks"]["net"] |= {"clock": "cpu", "threads": 1}
    assert "a processor, 1 thread, CPU time of one thread" in tables(record)
    assert fill(text, parts) == text
    with pytest.raises(ArtifactError, match="0 parts '<!-- measured: tables -->'"):
        fill("<!-- measured: verdict -->\n<!-- end -->", parts)


def test_back_ends_with_another_best_rival_are_named():
    rows = copy.deepcopy([DENSE, CUT, _row("input of 4", "rival", 0.5, RIGHT - 0.1)])
    slower = _row("first 5 blocks", "blocks", 0.7, RIGHT)
    for row in (*rows, slower):
        row["latency"]["openvino"] = copy.deepcopy(row["latency"]["onnxruntime"])
    slower["latency"]["openvino"]["share_p50"] = 0.6
    text = table(_record(*rows)["networks"]["net"])
    assert "+0.080 [+0.080 +0.080] input of 4 |" in text
    text = table(_record(*rows, slower)["networks"]["net"])
    assert "input of 4 (onnxruntime); -0.020 [-0.020 -0.020] first 5 blocks (openvino) |" in text


def test_speed_alone_is_held_to_what_the_multiply_accumulates_promise():
    rows = copy.deepcopy([DENSE, CUT])
    for row in rows:
        del row["right"], row["accuracy"]
    rows[1]["macs"] = 500
    case = {"title": "Net", "about": "", "metric": "", "notes": [], "rows": rows}
    leads(rows)
    assert "| 83 % |" in table(case)  # 1 / 0.6 of 1000 / 500


def test_the_page_is_what_the_records_say():
    record = json.loads((RESULTS / "token_reduction.json").read_text())
    assert page() == PAGE.read_text(), "python -m benchmarks.reduction.methods --only table"
    again = copy.deepcopy(record)
    for case in again["networks"].values():
        leads(case["rows"])
    assert again == record, "the leads are not those of the samples' scores"
