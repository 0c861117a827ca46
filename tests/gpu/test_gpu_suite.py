"""The GPU suite: its judgement with CPU sessions, a clean skip, and the real thing on a GPU."""

import dataclasses
import importlib.util
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from prunus.runtime.backends import cuda
from prunus.runtime.card import (
    ImagePreprocess,
    KeypointPostprocess,
    ModelCard,
    PrecisionSpec,
    TensorSpec,
    Weights,
)

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
def suite():
    path = Path(__file__).parents[2] / "benchmarks" / "gpu_suite.py"
    spec = importlib.util.spec_from_file_location("gpu_suite", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_suite"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["gpu_suite"]


CROPS = np.random.default_rng(0).integers(0, 256, (6, 8, 6, 3), dtype=np.uint8)


def test_skips_cleanly_and_names_what_is_missing(suite, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(cuda, "why_unusable", lambda: "no driver here")
    monkeypatch.setattr(suite.importlib.util, "find_spec", lambda name: None)
    assert suite.main(["-o", str(tmp_path / "out.json")]) == 0
    told = capsys.readouterr().out
    assert told.startswith("GPU suite skipped") and "no driver here" in told
    assert "prunus[trt-rtx]" in told and "prunus[ort]" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("shift", "fine"), [(0.05, True), (0.3, False)])
def test_judges_in_pixels(suite, shift, fine) -> None:
    reference = suite.run_stacked(FakeSession(), CROPS)
    assert reference["keypoints"].shape == (6, JOINTS, 3)
    result = suite.Result("m", "tensorrt")
    suite.compare(result, FakeSession(shift), reference, CROPS)
    assert result.effect["mean_px"] == pytest.approx(shift * np.sqrt(2), rel=1e-3)
    assert (result.problems == []) == fine
    assert fine or "mean_px" in result.problems[0]


def test_times_sessions_in_turn(suite) -> None:
    ticks = itertools.count(step=2_000_000)
    sessions = {"a": FakeSession(), "b": FakeSession(1.0)}
    timings = suite.time_sessions(sessions, CROPS[:BATCH], 20, clock=lambda: next(ticks))
    assert [t.name for t in timings] == ["a", "b"]
    assert all(t.samples_ms == (2.0,) * 20 and t.percentile(90) == 2.0 for t in timings)
    assert sessions["a"].runs == sessions["b"].runs == 10 + 10 + 20, "two windows agree at once"


def test_table_and_json(suite) -> None:
    timing = suite.Timing("engine", "d", 9.0, tuple(float(n) for n in range(1, 12)))
    good = suite.Result("m", "tensorrt", 0.9, 0.8, 3.0, {"mean_px": 0.01}, [timing])
    bad = suite.Result("n", "tensorrt_rtx", problems=["CUDA graph on and off differ"])
    text = suite.table([good, bad])
    assert "| m | tensorrt | 0.0100 | 90 %, 80 % | engine | 6.000 | 10.000 |" in text
    assert "FAILED: CUDA graph on and off differ" in text
    assert json.loads(json.dumps(dataclasses.asdict(good)))["timings"][0]["samples_ms"][0] == 1.0


@pytest.mark.gpu
@pytest.mark.trt
def test_on_a_real_gpu(suite, tmp_path) -> None:
    if lacks := suite.missing():
        pytest.skip(f"this machine lacks: {'; '.join(lacks)}")
    output = tmp_path / "gpu.json"
    arguments = ["--levels", "L1", "--precisions", "fp32", "fp16", "--samples", "20"]
    assert suite.main([*arguments, "-o", str(output)]) == 0
    assert all(
        r["timings"] and not r["problems"] for r in json.loads(output.read_text())["results"]
    )
