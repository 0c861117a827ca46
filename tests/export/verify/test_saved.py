"""Saved runs: judged again as they were, and refused when anything in them has changed."""

import dataclasses
import json
import zipfile

import numpy as np
import pytest

from prunus.export.verify.saved import (
    Run,
    RunSet,
    hash_arrays,
    judge,
    load_runs,
    rejudge,
    save_runs,
)
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError, CheckFailedError, UsageError

CARD = ModelCard(
    task="generic", model="toy", variant="one", paper="none", licence="MIT", exporter="test",
    weights=Weights("random", "random:0", "none", False),
    inputs=(TensorSpec("x", "float32", (1, 3), ("batch", "x")),),
    outputs=(TensorSpec("y", "float32", (1, 3), ("batch", "y")),),
)  # fmt: skip
TRUE = np.array([[1.0, 2, 3], [3, 1, 2], [2, 3, 1]], np.float32)


def _runs(*suspects, **changes):
    runs = [Run(f"suspect {k}", row, {"y": y}) for k, (row, y) in enumerate(suspects)]
    return dataclasses.replace(
        RunSet("m.onnx", "ab", CARD, {"x": TRUE}, Run("torch", "", {"y": TRUE}), tuple(runs)),
        **changes,
    )


def test_each_suspect_is_judged_by_its_own_row():
    near = TRUE * np.float32(1.01)
    report = judge(_runs(("fp32", TRUE), ("fp32", near), ("fp16", near)), divergence=("a line",))
    assert [c.passed for c in report.comparisons] == [True, False, True]
    assert [c.budget for c in report.comparisons] == ["fp32", "fp32", "fp16"]
    assert [c.suspect for c in report.comparisons] == ["suspect 0", "suspect 1", "suspect 2"]
    assert (report.artifact, report.sha256, report.samples) == ("m.onnx", "ab", 3)
    assert report.inputs_sha256 == hash_arrays({"x": TRUE}) and report.divergence == ("a line",)
    (difference,) = report.comparisons[1].differences
    assert difference.maximum == pytest.approx(0.03, rel=1e-3)
    assert difference.relative == pytest.approx(0.015, rel=1e-3)


def test_limits_are_replaced_by_name_and_unknown_names_are_refused():
    near = TRUE * np.float32(1.01)
    assert judge(_runs(("fp32", near)), {"rms_relative": 0.02}).passed
    assert not judge(_runs(("fp16", near)), {"rms_relative": 0.005}).passed
    with pytest.raises(UsageError):
        judge(_runs(("fp32", near)), {"rms_relatve": 0.02})


def test_poison_passes_no_limit():
    poisoned = TRUE.copy()
    poisoned[1, 1] = np.nan
    wide = {"rms_relative": 1e9, "cosine": -2.0, "top1_equal": 0.0}
    report = judge(_runs(("int8", poisoned)), wide)
    assert not report.passed and any("suspect 0" in p for p in report.comparisons[0].problems)
    believed = _runs(("int8", TRUE), reference=Run("torch", "", {"y": poisoned}))
    assert any("torch" in p for p in judge(believed, wide).comparisons[0].problems)


def test_what_cannot_be_compared_is_an_error():
    for wrong in ({"z": TRUE}, {"y": TRUE[:2]}):
        runs = _runs(("fp32", TRUE))
        runs = dataclasses.replace(runs, suspects=(Run("a", "fp32", wrong),))
        with pytest.raises(CheckFailedError):
            judge(runs)


def test_notes_of_the_run_lead_those_of_the_metric():
    report = judge(_runs(("fp32", TRUE), notes=("drawn anew",)))
    assert report.comparisons[0].notes[0] == "drawn anew" and len(report.comparisons[0].notes) > 1


def test_runs_come_back_as_they_were(tmp_path):
    path = tmp_path / "runs.npz"
    runs = _runs(("fp32", TRUE * 2), ("int8", TRUE), notes=("drawn anew", "twice"))
    assert save_runs(runs, path) == path
    found = load_runs(path)
    assert (found.artifact, found.sha256, found.card, found.notes) == (
        "m.onnx", "ab", CARD, ("drawn anew", "twice")
    )  # fmt: skip
    assert [(r.name, r.precision) for r in (found.reference, *found.suspects)] == [
        ("torch", ""), ("suspect 0", "fp32"), ("suspect 1", "int8")
    ]  # fmt: skip
    np.testing.assert_array_equal(found.suspects[0].outputs["y"], TRUE * 2)
    np.testing.assert_array_equal(found.inputs["x"], TRUE)
    assert rejudge(path) == judge(runs)
    assert not rejudge(path).passed and rejudge(path, {"rms_relative": 2.0}).comparisons[1].passed


def test_more_than_ten_runs_keep_apart(tmp_path):
    path = tmp_path / "runs.npz"
    save_runs(_runs(*[("fp32", TRUE + k) for k in range(12)]), path)
    for k, run in enumerate(load_runs(path).suspects):
        assert list(run.outputs) == ["y"]
        np.testing.assert_array_equal(run.outputs["y"], TRUE + k)


def _changed(path, **arrays):
    with np.load(path) as stored:
        kept = dict(stored)
    np.savez(path, **(kept | arrays))


def _meta(path, **changes):
    with np.load(path) as stored:
        meta = json.loads(stored["meta"].tobytes())
    text = json.dumps({**meta, **changes}).encode()
    _changed(path, meta=np.frombuffer(text, np.uint8))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: _changed(p, **{"run1/y": TRUE + 1}), "'run1/y' in"),
        (lambda p: _changed(p, **{"input/x": TRUE.astype(np.float64)}), "does not match its hash"),
        (lambda p: _changed(p, **{"run0/y": TRUE.reshape(9)}), "does not match its hash"),
        (lambda p: _meta(p, format=2), "run format 2; this prunus reads 1"),
        (lambda p: _meta(p, arrays={"run7/y": "0"}), "is not a file of saved runs"),
        (lambda p: _meta(p, runs=[]), "is not a file of saved runs"),
        (lambda p: _changed(p, meta=np.zeros(3, np.uint8)), "is not a file of saved runs"),
        (lambda p: p.write_bytes(b"PK"), "runs.npz"),
        (lambda p: p.unlink(), "Saved runs not found"),
    ],
)
def test_what_has_changed_is_refused(tmp_path, damage, said):
    save_runs(_runs(("fp32", TRUE)), path := tmp_path / "runs.npz")
    damage(path)
    with pytest.raises(ArtifactError) as caught:
        load_runs(path)
    assert said in str(caught.value)


def test_a_file_is_compressed_and_an_older_one_without_notes_opens(tmp_path):
    save_runs(_runs(("fp32", TRUE)), path := tmp_path / "runs.npz")
    with zipfile.ZipFile(path) as stored:
        assert {one.compress_type for one in stored.infolist()} == {zipfile.ZIP_DEFLATED}
    with np.load(path) as stored:
        meta = json.loads(stored["meta"].tobytes())
    del meta["notes"]
    _changed(path, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8))
    assert load_runs(path).notes == ()


def test_a_hash_is_of_names_types_shapes_and_contents_in_any_order():
    one = {"a": TRUE, "b": TRUE + 1}
    assert hash_arrays(one) == hash_arrays({"b": TRUE + 1, "a": TRUE})
    assert hash_arrays(one) == hash_arrays({**one, "a": np.asfortranarray(TRUE)})
    others = (
        {"a": TRUE + 1, "b": TRUE}, {"a": TRUE, "c": TRUE + 1}, {"a": TRUE.astype("f8"), **one},
        {**one, "a": TRUE.reshape(9)}, {**one, "a": TRUE.view(np.int32)}, {"a": TRUE},
    )  # fmt: skip
    different = {hash_arrays(other) for other in others[:2] + others[3:]}
    assert len(different) == 5 and hash_arrays(one) not in different
