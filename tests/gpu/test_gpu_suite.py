"""The GPU suite: its judgement with CPU sessions, a clean skip, and the real thing on a GPU."""

import dataclasses
import importlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.gpu import engines, suite
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.precision import PrecisionSpec
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import HostError
from prunus.runtime.session.tensorrt import cuda
from prunus.runtime.tasks.pose.card import ImagePreprocess, KeypointPostprocess

JOINTS, BATCH = 5, 2
CARD = ModelCard(
    task="pose", model="evitpose", variant="tiny-subpixel", paper="none", licence="Apache-2.0",
    exporter="test", weights=Weights("trained here", "0" * 64, "Apache-2.0", True),
    inputs=(TensorSpec("image", "uint8", (BATCH, 8, 6, 3), ("batch", "height", "width", "rgb")),),
    outputs=(TensorSpec("keypoints", "float32", (BATCH, JOINTS, 3), ("batch", "joint", "xys")),),
    preprocess=ImagePreprocess(8, 6, "udp_affine"),
    postprocess=KeypointPostprocess(
        "udp_dark", "five", tuple("abcde"), (), (), (0.05,) * JOINTS
    ),
    precision=PrecisionSpec("fp16"),
)  # fmt: skip


class FakeSession:
    """Joints follow the brightness of a crop; `shift` moves them, in pixels."""

    card = CARD
    backend = "fake"
    choice = ()

    def __init__(self, shift: float = 0.0, score: float = 0.9) -> None:
        self.description = f"shifted by {shift}"
        self.shift, self.score, self.runs = shift, score, 0

    def run(self, inputs):
        self.runs += 1
        crops = inputs["image"]
        assert crops.shape == CARD.inputs[0].shape
        keypoints = np.full((BATCH, JOINTS, 3), self.score, np.float32)
        keypoints[..., :2] = crops.mean((1, 2, 3))[:, None, None] + self.shift
        return {"keypoints": keypoints}


@pytest.fixture(scope="module")
def kernel():
    for package in ("torch", "triton"):
        pytest.importorskip(package)
    return importlib.import_module("benchmarks.gpu.kernel")


CROPS = np.random.default_rng(0).integers(0, 256, (6, 8, 6, 3), dtype=np.uint8)


def test_skips_cleanly_and_names_what_is_missing(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(cuda, "why_unusable", lambda: "no driver here")
    monkeypatch.setattr(suite.importlib.util, "find_spec", lambda name: None)
    assert suite.main(["-o", str(tmp_path / "out.json")]) == 0
    told = capsys.readouterr().out
    assert told.startswith("GPU suite skipped") and "no driver here" in told
    assert "prunus[trt-rtx]" in told and "prunus[ort]" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("shift", "fine"), [(0.05, True), (0.3, False)])
def test_judges_in_pixels(shift, fine) -> None:
    reference = engines.run_stacked(FakeSession(), CROPS)
    assert reference["keypoints"].shape == (6, JOINTS, 3)
    result = engines.Result("m", "tensorrt")
    engines.compare(result, FakeSession(shift), reference, CROPS)
    assert result.effect["mean_px"] == pytest.approx(shift * np.sqrt(2), rel=1e-3)
    assert (result.problems == []) == fine
    assert fine or "mean_px" in result.problems[0]


def test_times_sessions_in_turn() -> None:
    ticks = itertools.count(step=2_000_000)
    sessions = {"a": FakeSession(), "b": FakeSession(1.0)}
    timings = engines.time_sessions(sessions, CROPS[:BATCH], 20, clock=lambda: next(ticks))
    assert [t.name for t in timings] == ["a", "b"]
    assert all(t.samples_ms == (2.0,) * 20 and t.percentile(90) == 2.0 for t in timings)
    assert sessions["a"].runs == sessions["b"].runs == 10 + 10 + 20, "two windows agree at once"


@pytest.mark.parametrize(("inspected", "problems"), [(0.7, 0), (0.3, 1)])
def test_the_share_of_half_layers_is_judged(inspected, problems) -> None:
    result = engines.Result("m", "tensorrt", "on", 0.9, inspected)
    engines.judge_share(result)
    assert len(result.problems) == problems


def test_table_and_json() -> None:
    timing = engines.Timing("engine", "d", 9.0, tuple(float(n) for n in range(1, 12)))
    good = engines.Result("m", "tensorrt", "on", 0.9, 0.8, 3.0, {"mean_px": 0.01}, [timing])
    bad = engines.Result("n", "tensorrt_rtx", problems=["CUDA graph on and off differ"])
    text = suite.table([good, bad])
    assert "| m | tensorrt | on | 0.0100 | 90 %, 80 % | engine | 6.000 | 10.000 |" in text
    assert "FAILED: CUDA graph on and off differ" in text
    assert json.loads(json.dumps(dataclasses.asdict(good)))["timings"][0]["samples_ms"][0] == 1.0


def small(kernel):
    return kernel.Shape("small", 8, 8, 32, 2, 4, 5)


@pytest.mark.slow
def test_other_ways_compute_the_same(kernel) -> None:
    """B0, B1 and FlexAttention against the definition, on the CPU and in float32."""
    torch = pytest.importorskip("torch")
    shape = small(kernel)
    inputs = kernel.make_inputs(shape, torch.float32, "cpu")
    expected = kernel.exact(inputs, shape)
    for way in (
        lambda: kernel.baselines.decomposed(inputs, shape.heads, shape.scale),
        lambda: kernel.baselines.windows_as_batch(inputs, shape.heads, shape.scale),
        kernel.baselines.flex(inputs, shape.heads, shape.scale, compiled=False),
    ):
        assert kernel.relative_error(way(), expected) < 1e-5
    moved = inputs | {"kv_index": inputs["kv_index"].flip(0)}
    with pytest.raises(ValueError, match="other tokens than their own"):
        kernel.baselines.flex(moved, shape.heads, shape.scale)


def test_bytes_are_those_of_a_perfect_kernel(kernel) -> None:
    tokens = 64 * 48
    assert kernel.SHAPES[1].bytes_moved(2) == pytest.approx(4 * tokens * 64 * 2, rel=0.05)


@pytest.mark.parametrize(("off", "fine"), [(0.0, True), (0.05, False)])
def test_a_kernel_is_judged_and_timed(kernel, monkeypatch, off, fine) -> None:
    """The kernel is played by the definition, off by a little; the clock by a table."""
    torch = pytest.importorskip("torch")
    shape = small(kernel)
    launched = []

    def attend(inputs, **attributes):
        launched.append(attributes)
        return (kernel.exact(inputs, shape) * (1 + off)).to(inputs["q"].dtype)

    times = {"kernel": [1.0, 2.0, 3.0], "B1": [4.0], "B0": [8.0], "flex": [3.0]}
    monkeypatch.setattr(kernel, "attend", attend)
    result = kernel.run_shape(
        shape, torch.float16, 1e4, 3, device="cpu", architecture=86,
        timer=lambda ways, samples: {n: times[n] for n in ways},
    )  # fmt: skip
    assert launched[0] == {
        "heads": 2, "scale": 0.25, "combine": "joint", "architecture": 86
    }  # fmt: skip
    assert (result.problems == []) == fine, result.problems
    assert result.floor_ms == shape.bytes_moved(2) / 1e4
    text = kernel.kernel_table([result])
    assert "| 2.0000 | 2.00 | 4.00 | 1.50 |" in text and ("FAILED" in text) != fine
    assert json.loads(json.dumps(dataclasses.asdict(result)))["times_ms"]["kernel"] == [1, 2, 3]


def test_a_case_that_raises_is_a_problem_and_the_others_run(kernel, monkeypatch) -> None:
    torch = pytest.importorskip("torch")

    def attend(inputs, *, heads, scale, combine, architecture):
        if combine == "sum":
            raise RuntimeError("no compiler\nfor launchers")
        y = kernel.cases.exact(inputs, heads=heads, scale=scale, combine=combine)
        return (y + (combine == "local") * 1e-3).to(inputs["q"].dtype)

    monkeypatch.setattr(kernel, "attend", attend)
    monkeypatch.setattr(kernel, "copy_speed", lambda samples: 1.0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    run_case = kernel.run_case
    monkeypatch.setattr(kernel, "run_case", lambda *a, **n: run_case(*a, device="cpu", **n))
    results = kernel.run_kernel(1, shapes=())
    assert len(results) == 2 * len(kernel.cases.CASES), "Turing has no bfloat16"
    found = dict(zip([c.combine for c in kernel.cases.CASES], results, strict=False))
    assert found["global"].problems == found["joint"].problems == []
    assert found["sum"].problems == ["RuntimeError: no compiler for launchers"]
    assert any("relative error" in p for p in found["local"].problems)
    assert "a row whose keys are all masked is not zero" in found["local"].problems
    text = kernel.kernel_table(results)
    assert "FAILED: RuntimeError: no compiler" in text and "| globals alone | float32 | " in text


@pytest.mark.slow
def test_the_cases_hold_in_the_interpreter(kernel) -> None:
    program = (
        "import torch\n"
        "from benchmarks.gpu import cases, kernel\n"
        "torch.set_num_threads(1)\n"
        "for dtype in (torch.float32, torch.float16, torch.bfloat16):\n"
        "    for case in cases.CASES:\n"
        "        result = kernel.run_case(case, dtype, device='cpu')\n"
        "        assert not result.problems, result\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False,
        cwd=Path(__file__).parents[2], env={**os.environ, "TRITON_INTERPRET": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_worse_kernel_than_the_fused_attention_is_a_problem(kernel) -> None:
    for dtype, error, fused, problems in (
        ("float16", 5e-4, 5e-4, 0), ("float16", 8e-4, 5e-4, 1), ("float16", 2e-2, 5e-2, 1),
        ("float32", 3e-7, 1e-7, 0), ("float32", 3e-5, 1e-7, 1), ("float32", float("nan"), 1e-7, 1),
    ):  # fmt: skip
        result = kernel.KernelResult("s", dtype, error, fused)
        kernel.judge(result)
        assert len(result.problems) == problems, (dtype, error, fused)


def test_engines_of_attention_are_built_with_and_without_the_plugin(monkeypatch, tmp_path) -> None:
    from prunus.export.engine import attention as engine_attention

    runs, library = [], object()
    counts = {"a.onnx": 3, "b.onnx": 0}
    monkeypatch.setattr(
        engine_attention, "check_attention",
        lambda path: engine_attention.AttentionNodes(counts[path.name]),
    )  # fmt: skip

    def run_case(onnx, flavour, samples, folder, *, plugin, library):
        runs.append((onnx.name, flavour, plugin, library is not None))
        if plugin == "on":
            raise HostError("the builder crashed.")
        return engines.Result(onnx.stem, flavour, plugin)

    monkeypatch.setattr(engines, "run_case", run_case)
    monkeypatch.setattr(suite.importlib.util, "find_spec", lambda n: n == "tensorrt_rtx" or None)
    models = [Path("a.onnx"), Path("b.onnx")]
    results = suite.run_engines(models, 5, tmp_path, library)
    flavour = "tensorrt_rtx"
    assert runs == [
        ("a.onnx", flavour, "on", True), ("a.onnx", flavour, "off", True),
        ("b.onnx", flavour, "", True),
    ]  # fmt: skip
    assert [r.problems for r in results] == [["the builder crashed."], [], []]
    runs.clear()
    suite.run_engines(models, 5, tmp_path, None)
    assert [run[2] for run in runs] == ["off", ""]


def test_the_kernel_part_names_what_it_lacks(monkeypatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert any("PyTorch with CUDA" in phrase for phrase in suite.kernel_missing())
    monkeypatch.setattr(suite.importlib.util, "find_spec", lambda name: None)
    assert suite.kernel_missing() == [
        "triton (pip install 'prunus[plugin]')", "torch (pip install 'prunus[models]')",
    ]  # fmt: skip


@pytest.mark.parametrize(("lacks", "kernel_lacks"), [(["a"], []), ([], ["b"]), (["a"], ["b"])])
def test_each_part_runs_without_the_other(
    monkeypatch, capsys, tmp_path, lacks, kernel_lacks
) -> None:
    monkeypatch.setattr(cuda, "why_unusable", lambda: "")
    monkeypatch.setattr(suite, "missing", lambda: lacks)
    monkeypatch.setattr(suite, "kernel_missing", lambda: kernel_lacks)
    monkeypatch.setattr(suite, "surroundings", dict)
    monkeypatch.setattr(suite, "plugin_library", lambda folder: (None, "no headers"))
    good = engines.Result("m", "tensorrt_rtx")
    monkeypatch.setattr(suite.engines, "export_cases", lambda *_: [Path("m.onnx")])
    monkeypatch.setattr(suite, "run_engines", lambda *_: [good])
    played = types.SimpleNamespace(run_kernel=lambda samples: [], kernel_table=lambda results: "T")
    monkeypatch.setattr(gpu, "kernel", played, raising=False)
    output = tmp_path / "out.json"
    assert suite.main(["-o", str(output)]) == 0
    told = capsys.readouterr().out
    if lacks and kernel_lacks:
        assert told == "GPU suite skipped; this machine lacks: a; b.\n" and not output.exists()
        return
    report = json.loads(output.read_text())
    assert len(report["results"]) == (not lacks) and told.startswith("T") == (not kernel_lacks)
    notes = ["kernel skipped; this machine lacks: b"] if kernel_lacks else []
    notes += [f"engines {'skipped; this machine lacks: a' if lacks else ''}"] if lacks else [
        "engines without the plugin library: no headers"]  # fmt: skip
    assert report["notes"] == notes


@pytest.mark.gpu
@pytest.mark.trt
def test_on_a_real_gpu(tmp_path) -> None:
    if lacks := suite.missing():
        pytest.skip(f"this machine lacks: {'; '.join(lacks)}")
    output = tmp_path / "gpu.json"
    arguments = ["--levels", "L1", "--precisions", "fp32", "fp16", "--samples", "20"]
    assert suite.main([*arguments, "-o", str(output)]) == 0
    assert all(
        r["timings"] and not r["problems"] for r in json.loads(output.read_text())["results"]
    )
