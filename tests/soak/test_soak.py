"""The soak: what it takes for a fault, and a short one of all of it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def soak():
    sys.path.insert(0, str(HERE))
    try:
        spec = importlib.util.spec_from_file_location("soak", HERE / "soak.py")
        module = sys.modules["soak"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(HERE))


def pictures(interval, age, count=100):
    """Return pictures that come evenly, of one age but every twentieth, which is younger."""
    times = np.arange(count) * interval
    return np.stack([times, np.where(np.arange(count) % 20, age, 0.0)], axis=1)


@pytest.mark.parametrize(("mib", "passed"), [(0.0, True), (20.0, True), (30.0, False)])
def test_memory_may_grow_by_so_much_in_a_short_run(soak, mib, passed):
    noise = np.random.default_rng(0).normal(0, 3, 240)
    samples = [(float(t), 100 + mib * t / 100 + noise[t]) for t in range(240)]
    assert soak.judge_memory("it", samples).passed is passed


def test_memory_at_the_start_does_not_count_and_too_few_samples_are_no_verdict(soak):
    samples = [(float(t), min(100.0 + 10 * t, 400.0)) for t in range(240)]
    assert soak.judge_memory("it", samples).passed
    assert not soak.judge_memory("it", samples[:20]).passed


def test_memory_has_a_limit_by_the_hour(soak):
    for grown, passed in ((90.0, True), (100.0, False)):
        samples = [(60.0 * t, 100.0 + grown * t / 60) for t in range(240)]
        assert soak.judge_memory("it", samples).passed is passed


@pytest.mark.parametrize(("age", "passed"), [(0.3, True), (1.05, True), (1.2, False)])
def test_pictures_may_be_as_old_as_what_is_on_its_way(soak, age, passed):
    assert soak.judge_lag("lag", pictures(0.1, age)).passed is passed
    assert not soak.judge_lag("lag", pictures(0.1, age)[:7]).passed


@pytest.mark.parametrize(("late", "passed"), [(0.35, True), (0.6, False)])
def test_lag_that_grows_is_drift_however_fast_pictures_come(soak, late, passed):
    early = pictures(0.1, 0.2)
    assert soak.judge_drift(early, pictures(0.1, late)).passed is passed
    assert soak.judge_drift(early, pictures(0.2, 2 * late)).passed is passed
    assert not soak.judge_drift(early, early[:3]).passed


def test_what_is_cut_is_not_whole(soak, tmp_path):
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"a": 1}\n{"a": 2}\n')
    assert soak.whole_lines(lines) == "a.jsonl 2 lines"
    for text in ("", '{"a": 1}\n{"a"'):
        lines.write_text(text)
        with pytest.raises(ValueError, match=r"empty|Expecting"):
            soak.whole_lines(lines)


def test_a_table_has_a_row_for_each(soak):
    rows = [soak.Verdict("a", "b", "c", True), soak.Verdict("long name", "b", "c", False)]
    told = soak.table(rows).splitlines()
    assert told[1].split() == ["ok", "a", "b", "c"] and told[2].startswith("FAILED  long name")


@pytest.mark.slow
def test_a_short_soak_passes(tmp_path):
    run = subprocess.run(
        [sys.executable, HERE / "soak.py", "--seconds", "60", "--folder", tmp_path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    told = json.loads((tmp_path / "soak.json").read_text())
    failed = [row for row in told["verdicts"] if not row["passed"]]
    assert run.returncode == 0 and not failed, run.stdout + run.stderr
    seen = {row["trouble"] for row in told["verdicts"]}
    assert {"reader of the pipe gone", "camera unplugged for 5 s", "suspended for 4 s"} <= seen
