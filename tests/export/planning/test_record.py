"""What is said about given measurements, and the picture of them."""

import dataclasses
import json

import numpy as np
import pytest

from prunus.export.planning.choice import Budget
from prunus.export.planning.plot import _Axis, draw
from prunus.export.planning.points import Candidate, Point
from prunus.export.planning.record import BackendPlan, Plan

ENVIRONMENT = {"cpu": "a CPU", "threads": 2, "load_average": [0.1, 0.1, 0.1]}
SPREAD = tuple(np.linspace(-0.1, 0.1, 101))


def point(name, kind, share, accuracy, **more):
    blocks, keep = ((3,), (int(name.split(":")[1].split("@")[0]),)) if "@" in name else ((), ())
    plan = name if kind in ("dense", "pruned", "constant") else ""
    candidate = Candidate(
        name, kind, round(1000 * share), plan, name.split(":")[0] if keep else "", blocks, keep, 8,
        name if kind == "rival" else "",
    )  # fmt: skip
    return Point(
        candidate, 20 * share, 22 * share, share, (share, share), accuracy=accuracy, **more
    )


DENSE = point("dense", "dense", 1.0, 0.8)
CUT = point("evit:128@3", "pruned", 0.7, 0.78, draws=tuple(0.78 + d for d in SPREAD))
SHORT = point("first 8 blocks", "blocks", 0.68, 0.75, draws=tuple(0.75 - d for d in SPREAD))
SURE = point("nets.py:small", "rival", 0.5, 0.6, draws=tuple(0.6 + d / 99 + d for d in SPREAD))
FLAT = point("evit:120@3", "pruned", 0.7, None, dropped="flat step: 128 takes 0.700 of dense")
POINTS = (DENSE, CUT, FLAT, SHORT, SURE)


def plan(best=CUT, points=POINTS, **more):
    told = BackendPlan("onnxruntime", "ONNX Runtime 1, 2 threads", points, best)
    values = {
        "network": "nets.py:build", "inputs": ("x:1x3x8x8",), "restore": "scatter", "grid": "8x8",
        "outputs": "logits", "weights_sha256": "0" * 64, "depth": 12, "tokens": 196,
        "judged": "accuracy", "judgement": "accuracy: nets.py:top1 on 9 samples of a.npz",
        "samples": 9, "samples_sha256": "1" * 64, "noise": False, "budget": Budget(0.75, "x"),
        "lose": None, "clock": "wall", "environment": ENVIRONMENT, "notes": ("a note",),
        "backends": (told,), **more,
    }  # fmt: skip
    return Plan(**values)


def test_the_winner_stands_beside_dense_and_the_best_of_each_other_kind() -> None:
    text = plan().to_text()
    assert "recommended: evit:128@3, 0.70 of dense, 14.00 ms, accuracy 0.7800" in text
    assert "  -0.0200 against dense (interval not known)" in text
    assert "against first 8 blocks (95 % -0.1600 to +0.2200: NOT told apart)" in text
    assert "+0.1800 against nets.py:small (95 % +0.1790 to +0.1810)" in text
    assert "note: a note" in text and "flat step: 128 takes 0.700 of dense" in text
    assert "near the budget" not in text and "warning" not in text


def test_rivals_are_taken_within_the_budget_or_no_slower() -> None:
    slow = point("first 10 blocks", "blocks", 0.9, 0.79)
    names = [p.candidate.name for p in plan().rivals(plan().backends[0])]
    assert names == ["dense", "first 8 blocks", "nets.py:small"]
    made = plan(points=(*POINTS, slow))
    assert [p.candidate.name for p in made.rivals(made.backends[0])] == names
    free = plan(points=(*POINTS, slow), budget=None, lose=0.03)
    assert [p.candidate.name for p in free.rivals(free.backends[0])] == names
    wide = plan(points=(*POINTS, slow), budget=Budget(0.95, "x"))
    assert wide.rivals(wide.backends[0])[1] is slow


def test_a_budget_that_some_turns_break_is_said() -> None:
    near = dataclasses.replace(CUT, share_range=(0.6, 0.8))
    assert "near the budget: 0.60 to 0.80 of dense in its turns" in plan(near).to_text()
    assert "p90 15.40 ms" in plan(budget=Budget(15.0, "ms")).to_text()


def test_noise_and_busy_machines_are_said() -> None:
    unsteady = dataclasses.replace(CUT, steady=False)
    text = plan(points=(DENSE, unsteady), noise=True, clock="cpu").to_text()
    assert "warning: judged on noise" in text and "CPU time of all threads" in text
    assert text.count("(unsteady)") == 1


def test_the_front_is_marked_in_the_table() -> None:
    marked = [line[2:18].strip() for line in plan().to_text().splitlines() if line[:2] == "* "]
    assert marked == ["dense", "first 8 blocks", "nets.py:small", "evit:128@3"]


def test_the_command_repeats_how_it_was_measured() -> None:
    raw = json.loads(plan().to_json())
    told = raw["backends"][0]
    assert raw["schema_version"] == 1 and raw["budget"] == {"value": 0.75, "unit": "x"}
    assert told["recommended"]["command"] == (
        "prunus export module nets.py:build --input x:1x3x8x8 --plan evit:128@3 --restore scatter "
        "--grid 8x8 --outputs logits"
    )
    assert told["recommended"]["lead_95_percent"]["dense"] is None
    assert told["front"] == ["nets.py:small", "first 8 blocks", "evit:128@3", "dense"]
    assert all("draws" not in p for p in told["points"])
    words = json.loads(plan(DENSE).to_json())["backends"][0]["recommended"]["command"]
    assert words == "prunus export module nets.py:build --input x:1x3x8x8 --outputs logits"


def test_the_picture_has_a_panel_a_back_end_and_a_ring_round_the_winner() -> None:
    pytest.importorskip("cv2")
    made = plan()
    one = draw(made)
    two = draw(dataclasses.replace(made, backends=made.backends * 2))
    assert one.dtype == np.uint8 and two.shape == (one.shape[0], 2 * one.shape[1], 3)
    ring = np.argwhere((draw(plan()) != draw(plan(None))).any(2))
    ring = ring[ring[:, 0] > 80]  # below the title
    x, y = _Axis(0, 1.1, 100, 950), _Axis(0.6 - 0.016, 0.8 + 0.016, 530, 90)
    centre = ring.mean(0)
    assert abs(centre - (y.at(0.78), x.at(0.7))).max() < 2
    assert np.ptp(ring, 0).max() < 40


def test_ticks_are_round_and_inside() -> None:
    assert np.allclose(_Axis(0, 1.1, 0, 1).ticks(), [0, 0.25, 0.5, 0.75, 1.0])
    assert np.allclose(_Axis(0.981, 0.999, 0, 1).ticks(), [0.985, 0.99, 0.995])
    assert np.allclose(_Axis(-7, 12, 0, 1).ticks(), [-5, 0, 5, 10])
