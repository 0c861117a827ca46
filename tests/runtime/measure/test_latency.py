"""Statistics, warm-up, and comparisons between child processes."""

import dataclasses
import json
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from prunus.runtime.errors import HostError, PrunusError, TensorError, UsageError
from prunus.runtime.measure.compare import compare
from prunus.runtime.measure.latency import (
    environment,
    peak_memory_bytes,
    summarise,
    time_window,
    warm_up,
)
from prunus.runtime.measure.runner import RunnerSpec, example_inputs, open_runner, samples
from prunus.runtime.session.base import BackendOptions

TARGETS = """
import os, sys, time
import numpy as np

def spin(inputs, threads, milliseconds):
    print("noise on the standard output")
    assert inputs["x"].sum() == 6 and os.environ["OMP_NUM_THREADS"] == str(threads)
    def call():
        end = time.perf_counter() + float(milliseconds) / 1e3
        while time.perf_counter() < end:
            pass
    return call

def big(inputs, threads):
    block = np.ones(60 << 20, np.uint8)
    return lambda: block[0]

def fails(inputs, threads):
    raise RuntimeError("planted")

def dies(inputs, threads):
    sys.stderr.write("last words\\n")
    sys.stderr.flush()
    os._exit(7)
"""


@pytest.fixture
def targets(tmp_path, monkeypatch):
    (tmp_path / "planted_targets.py").write_text(TARGETS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return {"x": np.array([1, 2, 3])}


def spec(name, function, *arguments, **more):
    return RunnerSpec(name, target=f"planted_targets:{function}", arguments=arguments, **more)


def test_summary() -> None:
    values = list(range(1, 201))
    latency = summarise(values, "engine")
    assert (latency.n, latency.minimum_ms, latency.p50_ms) == (200, 1.0, 100.5)
    assert latency.p90_ms == pytest.approx(np.percentile(values, 90))
    assert latency.p99_ms == pytest.approx(np.percentile(values, 99))
    assert summarise([1.0, 9.0], "pipeline").p99_ms == 9.0
    with pytest.raises(UsageError, match="no samples"):
        summarise([], "engine")


def test_window_lasts_and_holds_a_minimum() -> None:
    calls = []
    assert len(time_window(lambda: calls.append(1), 0.0, minimum=4)) == len(calls) == 4
    assert sum(time_window(lambda: None, 0.01)) <= 11


def test_the_cpu_clock_counts_work_and_not_waiting() -> None:
    def work_and_wait() -> None:
        end = time.process_time() + 0.01
        while time.process_time() < end:
            pass
        threading.Event().wait(0.05)

    cpu = time_window(work_and_wait, 0.0, minimum=2, clock="cpu")
    wall = time_window(work_and_wait, 0.0, minimum=2)
    assert 9 < np.median(cpu) < 40 and min(wall) > 55


def test_a_comparison_says_which_clock_it_used(targets) -> None:
    runners = [spec("a", "spin", "3", threads=1)]
    result = compare(
        runners, targets, rounds=1, seconds=0.0, clock="cpu", minimum=1, warm_windows=2
    )
    assert result.results[0].latency.n == 1 and len(result.results[0].warm_up.medians_ms) == 2
    assert "CPU time" in result.to_text() and json.loads(result.to_json())["clock"] == "cpu"


def test_warm_up_ends_when_two_windows_agree() -> None:
    medians = iter([10.0, 8.0, 7.0, 6.9, 1.0])
    found = warm_up(lambda: [next(medians)])
    assert found.settled and found.medians_ms == (10.0, 8.0, 7.0, 6.9)
    endless = iter(range(1, 1000))
    found = warm_up(lambda: [2.0 ** next(endless)], limit=5)
    assert not found.settled and len(found.medians_ms) == 5


def test_environment_is_json_and_says_what_it_is_for() -> None:
    told = json.loads(json.dumps(environment(3)))
    assert told["threads"] == 3 and told["usable_cpus"] >= 1
    assert told["versions"]["numpy"] == np.__version__
    assert len(told["load_average"]) == 3


def test_peak_memory_is_this_processs_own() -> None:
    """A child forked from a large process must not report its parent's size."""
    program = "from prunus.runtime.measure.latency import peak_memory_bytes as p; print(p())"
    block = np.ones(300 << 20, np.uint8)
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    child, parent = int(run.stdout), peak_memory_bytes()
    if parent == 0:
        pytest.skip("this system does not tell")
    assert parent > block.nbytes > 2 * child > 0


def test_ratio_order_memory_and_json(targets, tmp_path) -> None:
    runners = [
        spec("slow", "spin", "6", threads=1),
        spec("fast", "spin", "2", threads=1),
        spec("big", "big"),
    ]
    seen = []

    class Recorder:
        def update(self, done, total, note="") -> None:
            seen.append((done, total, note))

    result = compare(runners, targets, rounds=2, seconds=0.05, progress=Recorder())
    slow, fast, big = result.results
    assert slow.ratio == 1.0 and slow.ratio_range == (1.0, 1.0)
    assert 1.5 < fast.ratio < 6.0, "6 ms against 2 ms, on a machine that may be busy"
    assert slow.latency.minimum_ms >= 6.0 and fast.latency.minimum_ms >= 2.0
    assert big.peak_memory_bytes > slow.peak_memory_bytes + (40 << 20)
    assert [note for _, _, note in seen[3:]] == ["slow", "fast", "big"] * 2, "turns: A B C A B C"
    assert seen[-1][:2] == (9, 9)
    assert slow.cold_start_ms > slow.open_ms + slow.first_run_ms
    path = tmp_path / "result.json"
    result.write(path)
    raw = json.loads(path.read_text())
    assert raw["inputs"] == "given" and raw["environment"]["threads"] == 1
    rounds = raw["results"][1]["rounds_ms"]
    assert len(rounds) == 2 and sum(map(len, rounds)) == fast.latency.n
    text = result.to_text()
    assert "slow" in text and f"{fast.ratio:.2f}" in text
    told = {"cpu": "a CPU", "threads": 3, "load_average": [0.25, 1.5, 2.5]}
    busy = dataclasses.replace(result, environment={**result.environment, **told})
    assert "a CPU, 3 threads, load 0.25\n" in busy.to_text()


def test_artifact_runner_in_a_child(artifact, tiny_inputs) -> None:
    stacked = {"image": np.stack([tiny_inputs["image"]] * 3), "gain": tiny_inputs["gain"]}
    options = BackendOptions(spin=True)
    runner = RunnerSpec("tiny", str(artifact), "onnxruntime", threads=1, options=options)
    (found,) = compare([runner], stacked, rounds=1, seconds=0.02).results
    assert found.description.startswith("ONNX Runtime") and len(found.sha256) == 64
    assert found.latency.n >= 3 and found.peak_memory_bytes > 0
    assert RunnerSpec.from_dict(json.loads(json.dumps(runner.to_dict()))) == runner


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        ("fails", PrunusError, "Runner 'bad': RuntimeError: planted"),
        ("dies", HostError, r"died \(7\): last words"),
        ("absent", PrunusError, "Cannot load 'planted_targets:absent'"),
    ],
)
def test_failing_runner_is_named(targets, function, error, message) -> None:
    with pytest.raises(error, match=message):
        compare([spec("bad", function)], targets, rounds=1, seconds=0.01)


def test_error_of_the_child_keeps_its_exit_code(tmp_path) -> None:
    with pytest.raises(PrunusError, match="not found") as caught:
        compare([RunnerSpec("none", str(tmp_path / "none.onnx"))], rounds=1, seconds=0.01)
    assert caught.value.exit_code == 2 and caught.value.hint


def test_nonsense_is_refused(artifact) -> None:
    twice = RunnerSpec("a", str(artifact))
    for runners, rounds in (([], 1), ([twice, twice], 1), ([twice], 0)):
        with pytest.raises(UsageError):
            compare(runners, rounds=rounds)
    for path, target in (("", ""), ("m.onnx", "a:b")):
        with pytest.raises(UsageError, match="exactly one"):
            RunnerSpec("a", path, target=target)


def test_samples_cycle_and_check(card, tiny_inputs) -> None:
    stacked = np.stack([tiny_inputs["image"], tiny_inputs["image"] // 2])
    found = samples(card, {"image": stacked})
    assert len(found) == 2 and np.array_equal(found[1]["image"], stacked[1])
    assert found[0]["gain"].shape == (1,), "what is not given is noise"
    with pytest.raises(TensorError, match="batch=5!"):
        samples(card, {"image": np.zeros((5, 4), np.uint8)})
    noise = example_inputs(card)
    assert noise["image"].dtype == np.uint8 and np.array_equal(
        noise["image"], example_inputs(card)["image"]
    )


def test_runner_in_this_process(artifact, tiny_inputs) -> None:
    runner = open_runner(RunnerSpec("a", str(artifact), "onnxruntime", threads=1), tiny_inputs)
    assert runner.call()["keypoints"].shape == (2, 3)
    runner.close()
    assert "prunus.runtime.measure.worker" not in sys.modules
