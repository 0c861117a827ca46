"""A governor in an app: its log, what is said, and the words of the command line."""

import json

import pytest

from prunus.apps.common.json_list import JsonListWriter
from prunus.apps.common.options import Pace
from prunus.apps.live.governing import Governed, ladder
from prunus.runtime.errors import HostError, UsageError
from prunus.runtime.pipeline.governor import Governor, replay


class Clock:
    """Turned by hand."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def run(governed, clock, frames, unit_ms, work=4):
    for _ in range(frames):
        rung = governed.begin(work)
        units = rung.units(work)
        clock.now += (units * unit_ms[rung.variant] + 2) / 1000
        governed.end(units, units * unit_ms[rung.variant], 0.0, {"infer": 1.23456})


def test_rungs_go_from_all_people_of_the_best_to_a_quarter_of_the_cheapest():
    names = [r.name for r in ladder(["L0", "L3"])]
    assert names == ["L0", "L3", "L0, half", "L3, half", "L0, a third", "L3, a third",
                     "L0, a quarter", "L3, a quarter"]  # fmt: skip
    assert [r.name for r in ladder([""])] == ["all", "half", "a third", "a quarter"]


def test_the_log_replays_and_the_summary_adds_up(tmp_path):
    clock, path = Clock(), tmp_path / "run.jsonl"
    governor = Governor(ladder(["L0", "L3"]), [1.5, 0.9], 33.0)
    governed = Governed(governor, path, clock=clock)
    run(governed, clock, 40, (12.0, 5.0))
    run(governed, clock, 80, (5.0, 3.0))
    governed.close()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(rows) == 121 and rows[1]["stages"] == {"infer": 1.235}
    assert [rung.name for _, rung in replay(path.read_text().splitlines())] == [
        row["rung"] for row in rows[1:]
    ]
    held = governed.held()
    assert sum(held.frames.values()) == 120
    assert set(held.frames) == {"L0", "L3"} and held.changes == 2
    assert held.share == pytest.approx(sum(r["spent_ms"] <= 33 for r in rows[1:]) / 120, abs=1e-4)
    assert held.text().startswith("budget 33 ms held in 9")


@pytest.mark.parametrize("quiet", [True, False])
def test_a_budget_beyond_all_variants_is_said_once(capsys, quiet):
    clock = Clock()
    governed = Governed(Governor(ladder([""]), [1.0], 10.0), quiet=quiet, clock=clock)
    run(governed, clock, 200, (40.0,))
    said = capsys.readouterr().err
    assert said.count("beyond every variant") == (0 if quiet else 1)
    assert "a quarter" in said or quiet
    assert governed.held().beyond


def test_budgets_as_people_write_them():
    assert Pace(budget="40ms").budget_ms(live=False, fps=25) == 40
    assert Pace(budget=" 0.05 s").budget_ms(live=True, fps=25) == 50
    assert Pace(fps=20).budget_ms(live=True, fps=60) == 50
    assert Pace().budget_ms(live=False, fps=25) is None
    assert Pace(governor=False).budget_ms(live=True, fps=25) is None


@pytest.mark.parametrize(
    ("fps", "expected"), [(25, 40), (60, 1000 / 30), (5, 1000 / 15), (0, 1000 / 30)]
)
def test_live_sources_have_a_budget_by_default(fps, expected):
    assert Pace().budget_ms(live=True, fps=fps) == pytest.approx(expected)


@pytest.mark.parametrize(
    "pace",
    [Pace(budget="33"), Pace(budget="-5ms"), Pace(budget="0ms"), Pace(budget="2min"),
     Pace(budget="33ms", fps=30), Pace(budget="33ms", governor=False), Pace(budget="61s")],
)  # fmt: skip
def test_budgets_that_say_nothing_are_refused(pace):
    with pytest.raises(UsageError):
        pace.budget_ms(live=True, fps=30)


@pytest.mark.parametrize("fails", [1, 3])
def test_a_log_that_cannot_be_written_stops_no_frame(tmp_path, monkeypatch, fails):
    """Whoever governs goes on, and says at the end that the log is not whole."""
    calls, real = [], JsonListWriter.add

    def add(own, entry):
        calls.append(entry)
        if len(calls) == fails:
            raise HostError("No space left while writing run.jsonl.", "Free some.")
        real(own, entry)

    monkeypatch.setattr(JsonListWriter, "add", add)
    clock, path = Clock(), tmp_path / "run.jsonl"
    governed = Governed(Governor(ladder(["L0"]), [1.0], 33.0), path, quiet=True, clock=clock)
    run(governed, clock, 5, [5.0])
    governed.close()
    assert len(calls) == fails and governed.held().frames == {"L0": 5}
    assert governed.log() == ((), ["No space left while writing run.jsonl"])
    assert len(path.read_text().splitlines()) == fails - 1
