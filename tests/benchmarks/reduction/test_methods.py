"""The benchmark of token reduction exports, judges and times each file once."""

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.reduction import methods
from benchmarks.reduction.cases import Case, Entry, Scores
from prunus.export.common.samples import Samples
from prunus.export.planning.points import Candidate


class _Mixer(nn.Module):
    """The mean of some patches, as often as it says."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.layer, self.times = nn.Linear(4, 4), times

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(self.times):
            x = self.layer(x).relu()
        return x


def _tiny(told: list[str]) -> Case:
    def make(times: int) -> nn.Module:
        told.append(str(times))
        torch.manual_seed(0)
        return _Mixer(times)

    def score(outputs: np.ndarray) -> Scores:
        return Scores((outputs.mean((1, 2)) > 0).astype(float), np.ones(len(outputs)))

    inputs = np.random.default_rng(0).random((4, 3, 4)).astype(np.float32)
    entries = [
        Entry(Candidate("dense", "dense", 0), lambda: make(3)),
        Entry(Candidate("first 2", "blocks", 0), lambda: make(2)),
    ]
    return Case("Tiny", "", "x:1x3x4", entries, lambda: Samples({"x": inputs}, "noise"), score, "m")


def test_files_are_exported_and_judged_once(tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "FILES", tmp_path)
    told: list[str] = []
    rows, notes = methods.judge("tiny", _tiny(told))
    assert told and not notes
    assert [row["macs"] for row in rows] == [3 * 48, 2 * 48]
    assert rows[0]["nodes"] > rows[1]["nodes"]
    assert rows[0]["fidelity"] == pytest.approx(1) and rows[1]["fidelity"] < 1
    told.clear()
    again, _ = methods.judge("tiny", _tiny(told))
    assert again == rows and not told
    known = {"first 2": {**rows[1], "accuracy": -1.0}}
    assert methods.judge("tiny", _tiny(told), known)[0][1]["accuracy"] == -1 and not told
    (tmp_path / "tiny" / "first-2.onnx").unlink()  # on another machine: exported, not judged
    assert methods.judge("tiny", _tiny(told), known)[0][1]["accuracy"] == -1
    assert told == ["2"] and (tmp_path / "tiny" / "first-2.onnx").is_file()
    other = _tiny(told)
    moved = Samples({"x": np.ones((4, 3, 4), np.float32)}, "others")
    fresh, _ = methods.judge("tiny", Case(**{**vars(other), "samples": lambda: moved}))
    assert told and fresh[0]["samples"] != rows[0]["samples"]


def test_files_are_timed_beside_dense(tmp_path, monkeypatch):
    monkeypatch.setattr(methods, "FILES", tmp_path)
    case = _tiny([])
    rows, _ = methods.judge("tiny", case)
    how = methods.Settings(threads=1, rounds=2, seconds=0.05, clock="cpu")
    timed = methods.clock("tiny", case, rows, how, ["onnxruntime"])["onnxruntime"]
    assert set(timed) == {"dense", "first 2"}
    assert timed["dense"]["share_p50"] == 1 and timed["first 2"]["p50_ms"] > 0
