"""Turns, ratios and tables, with processes that answer what a test says."""

import contextlib
import json
import sys

import pytest

from prunus.runtime.errors import HostError, PrunusError, UsageError
from prunus.runtime.measure import compare as module
from prunus.runtime.measure.compare import compare
from prunus.runtime.measure.runner import RunnerSpec

TIMES = {"slow": [[10.0, 12.0, 14.0], [20.0, 20.0, 20.0]], "quick": [[6.0] * 3, [5.0] * 3]}
# Answers as a worker does; its times come from its spec's arguments.
WORKER = """
import json, sys
turns = None
for line in sys.stdin:
    order = json.loads(line)
    if order["do"] == "open":
        turns = json.loads(order["spec"]["arguments"][0])
        print("opened" if order["inputs"].endswith("inputs.npz") else "", file=sys.stderr)
        answer = {"description": "here", "settings": {"spin": True}, "open_ms": 1.0,
                  "first_run_ms": 2.0}
    elif order["do"] == "close":
        answer = {"peak_memory_bytes": 3 * 2**20}
    else:
        print(json.dumps(order), file=sys.stderr)
        if turns == "dies":
            print("out of memory", file=sys.stderr)
            sys.exit(7)
        if turns == "fails":
            answer = {"error": "no such input", "hint": "Give one.", "exit_code": 3}
        elif order["seconds"] == 2.0:
            answer = {"samples_ms": turns.pop(0)}
        else:
            answer = {"samples_ms": [1.0, 1.0, 1.0]}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def workers(tmp_path, monkeypatch):
    """Processes that run `WORKER`, and the turns that were asked for, in order."""
    script, asked, real = tmp_path / "worker.py", [], module.subprocess.Popen
    script.write_text(WORKER)

    def started(command, **named):
        assert command[1:] == ["-m", "prunus.runtime.measure.worker"]
        return real([sys.executable, str(script)], **named)

    monkeypatch.setattr(module.subprocess, "Popen", started)
    window = module._Process._window

    def heard(self, seconds):
        asked.append((self.spec.name, seconds))
        return window(self, seconds)

    monkeypatch.setattr(module._Process, "_window", heard)
    return asked


def _specs(*names, times=TIMES):
    words = {"target": "m:f", "threads": 1}
    return [RunnerSpec(n, arguments=(json.dumps(times[n]),), **words) for n in names]


class _Told:
    def __init__(self):
        self.lines = []

    def update(self, done, steps, what):
        self.lines.append((done, steps, what))


def test_runners_take_turns_and_ratios_are_those_of_each_turn(workers):
    told = _Told()
    found = compare(_specs("slow", "quick"), rounds=2, seconds=2.0, progress=told, warm_windows=2)
    turns = [name for name, seconds in workers if seconds == 2.0]
    assert turns == ["slow", "quick", "slow", "quick"]
    assert {seconds for _, seconds in workers} == {1.0, 2.0}  # of the warm-up, and of a turn
    slow, quick = found.results
    assert slow.rounds_ms == ((10.0, 12.0, 14.0), (20.0, 20.0, 20.0))
    assert (slow.ratio, slow.ratio_range) == (1.0, (1.0, 1.0))
    assert quick.ratio == 3.0 and quick.ratio_range == (2.0, 4.0)  # 12 / 6 and 20 / 5
    assert (slow.latency.n, quick.latency.n) == (6, 6) and slow.latency.p50_ms == 17.0
    assert (quick.open_ms, quick.first_run_ms, quick.peak_memory_bytes) == (1.0, 2.0, 3 * 2**20)
    assert quick.cold_start_ms > 0 and quick.sha256 == "" and quick.description == "here"
    assert told.lines == [(1, 6, "warm-up slow"), (2, 6, "warm-up quick"), (3, 6, "slow"),
                          (4, 6, "quick"), (5, 6, "slow"), (6, 6, "quick")]  # fmt: skip
    assert (found.inputs, found.clock) == ("uniform noise", "wall")


def test_what_is_written_and_printed(workers, tmp_path):
    found = compare(_specs("slow", "quick"), rounds=2, seconds=2.0, clock="cpu", warm_windows=2)
    found.write(out := tmp_path / "out.json")
    raw = json.loads(out.read_text())
    assert (raw["schema_version"], raw["clock"], raw["inputs"]) == (1, "cpu", "uniform noise")
    assert [r["spec"]["name"] for r in raw["results"]] == ["slow", "quick"]
    assert raw["results"][1]["rounds_ms"] == [[6.0] * 3, [5.0] * 3]
    head, slow, quick, *rest = found.to_text().splitlines()
    assert head.split() == ["runner", "n", "p50", "ms", "p90", "ms", "p99", "ms", "ratio", "range",
                            "cold", "s", "MiB"]  # fmt: skip
    assert slow.split()[:3] == ["slow", "6", "17.00"]
    assert quick.split()[5:7] == ["3.00", "2.00-"] and " 3" in quick.split("4.00")[1]
    assert rest[:2] == ["slow   here", "quick  here"]
    assert rest[-2:] == ["inputs: uniform noise", "CPU time of each call, all threads together"]


def test_orders_carry_the_clock_and_the_fewest_calls(workers, monkeypatch):
    orders, order = [], module._Process.order

    def heard(self, **words):
        orders.append(words)
        return order(self, **words)

    monkeypatch.setattr(module._Process, "order", heard)
    compare(_specs("quick"), rounds=1, seconds=2.0, clock="cpu", minimum=9, warm_windows=2)
    windows = [one for one in orders if one["do"] == "window"]
    assert {(one["minimum"], one["clock"]) for one in windows} == {(9, "cpu")}
    assert windows[-1]["seconds"] == 2.0


def test_threads_are_set_for_libraries_too(workers, monkeypatch):
    given, started = [], module.subprocess.Popen

    def heard(command, **named):
        given.append(named["env"]["OMP_NUM_THREADS"])
        return started(command, **named)

    monkeypatch.setattr(module.subprocess, "Popen", heard)
    monkeypatch.setattr(module.host, "usable_cpus", lambda: 5)
    one, _ = _specs("slow", "quick")
    other = RunnerSpec("quick", target="m:f", arguments=(json.dumps(TIMES["quick"]),))
    compare([one, other], rounds=1, seconds=2.0, warm_windows=2)
    assert given == ["1", "5"]


@pytest.mark.parametrize(("names", "rounds"), [((), 1), (("slow", "slow"), 1), (("slow",), 0)])
def test_runners_have_names_of_their_own_and_a_turn(names, rounds):
    with pytest.raises(UsageError, match="expected different names"):
        compare(_specs(*names), rounds=rounds)


def test_a_runner_that_fails_says_why_and_one_that_dies_its_last_words(workers):
    with pytest.raises(PrunusError, match="Runner 'a': no such input") as caught:
        compare(_specs("a", times={"a": "fails"}), rounds=1)
    assert (caught.value.hint, caught.value.exit_code) == ("Give one.", 3)
    with pytest.raises(HostError, match=r"runner 'a' died \(7\): out of memory"):
        compare(_specs("a", times={"a": "dies"}), rounds=1)


def test_no_process_is_left_behind(workers, monkeypatch):
    processes, started = [], module.subprocess.Popen

    def heard(*words, **named):
        processes.append(started(*words, **named))
        return processes[-1]

    monkeypatch.setattr(module.subprocess, "Popen", heard)
    with contextlib.suppress(HostError):
        compare(_specs("slow", "a", times={**TIMES, "a": "dies"}), rounds=1, seconds=2.0)
    assert len(processes) == 2 and all(p.poll() is not None for p in processes)
