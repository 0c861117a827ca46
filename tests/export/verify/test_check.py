"""The check passes on a faithful export and fails, saying why, on a damaged one."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from prunus.export.precision.calibration import crop_samples
from prunus.export.verify.check import check_artifact, known_backends
from prunus.export.verify.saved import load_runs, rejudge
from prunus.runtime import host
from prunus.runtime.errors import ArtifactError, CheckFailedError, TensorError, UsageError
from prunus.runtime.session.base import BackendOptions
from prunus.runtime.session.base import open as open_session
from prunus.runtime.session.registry import split_word


def damaged(standin, path: Path, factor: float, **changes) -> Path:
    """Scale one weight of block 4 in a copy of the artifact."""
    model = standin.model()
    node = next(
        n
        for n in model.graph.node
        if n.op_type == "MatMul" and n.name.startswith("network.blocks.4.out")
    )
    tensor = next(t for t in model.graph.initializer if t.name in node.input)
    values = numpy_helper.to_array(tensor).copy()
    values[0] *= factor
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return standin.write(model, path, **changes)


@pytest.fixture
def confident(monkeypatch) -> None:
    """Peaks of the stand-in are not probabilities, so its threshold is out of the way."""
    monkeypatch.setattr("prunus.runtime.tasks.pose.metric.CONFIDENT_SCORE", -1e9)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_faithful_export_passes(trained, crops, confident, backend) -> None:
    report = check_artifact(
        trained.path,
        samples=crop_samples(crops, "test"),
        reference=trained.module,
        backends=(backend,),
    )
    assert report.passed and report.samples == 5
    (comparison,) = report.comparisons
    assert comparison.suspect.startswith(backend)
    assert comparison.effect["max_px"] <= 0.01
    assert comparison.effect["judged_joints"] == 20
    assert 0 < comparison.differences[0].maximum < 1e-3  # two programs, not one compared to itself
    report.raise_if_failed()
    assert "verdict: ok" in report.to_text()
    assert json.loads(report.to_json())["passed"] is True


def test_a_damaged_export_fails_and_is_bisected(trained, crops, confident, tmp_path) -> None:
    path = damaged(trained, tmp_path / "bad.onnx", 40.0)
    report = check_artifact(
        path, samples=crop_samples(crops, "test"), reference=trained.module, bisect=True
    )
    assert not report.passed
    assert report.divergence[0].endswith("network.blocks.4")
    assert "network.blocks.4.out/MatMul" in report.divergence[1]
    with pytest.raises(CheckFailedError, match=r"bad\.onnx left its fp32 budget.*max_px") as caught:
        report.raise_if_failed()
    assert caught.value.exit_code == 1
    assert "FAILED" in report.to_text() and "network.blocks.4" in report.to_text()


def test_a_reference_artifact_serves_as_well(trained, crops, confident, tmp_path) -> None:
    good = check_artifact(trained.path, samples=crop_samples(crops, "test"), reference=trained.path)
    assert good.passed and good.comparisons[0].effect["max_px"] == 0.0
    bad = damaged(trained, tmp_path / "bad.onnx", 40.0)
    report = check_artifact(
        bad, samples=crop_samples(crops, "test"), reference=trained.path, bisect=True
    )
    assert not report.passed and "network.blocks.4" in report.divergence[0]


def test_not_a_number_is_named(trained, crops, confident, tmp_path) -> None:
    model = trained.model()
    scale = next(n for n in model.graph.node if n.name == "/Mul").input[1]
    tensor = next(t for t in model.graph.initializer if t.name == scale)
    tensor.CopyFrom(numpy_helper.from_array(np.float32("nan"), scale))
    path = trained.write(model, tmp_path / "nan.onnx")
    report = check_artifact(path, samples=crop_samples(crops, "test"), reference=trained.module)
    assert not report.passed
    with pytest.raises(CheckFailedError, match=r"output 'keypoints' holds .* NaN"):
        report.raise_if_failed()
    effect = json.loads(report.to_json())["comparisons"][0]["effect"]
    assert effect["max_px"] is None  # JSON has no NaN


def test_untrained_weights_are_judged_by_heatmaps(untrained, crops, tmp_path) -> None:
    report = check_artifact(
        untrained.path, samples=crop_samples(crops, "test"), reference=untrained.module
    )
    assert report.passed
    (comparison,) = report.comparisons
    assert [v.limit.quantity for v in comparison.verdicts] == ["heatmap_max_relative"]
    assert 0 < comparison.effect["heatmap_max_relative"] < 1e-4
    assert "random" in comparison.notes[0]
    bad = damaged(untrained, tmp_path / "bad.onnx", 1.5)
    assert not check_artifact(
        bad, samples=crop_samples(crops, "test"), reference=untrained.module
    ).passed


def test_too_few_confident_joints_do_not_pass(trained, crops, monkeypatch) -> None:
    monkeypatch.setattr("prunus.runtime.tasks.pose.metric.CONFIDENT_SCORE", 1e9)
    report = check_artifact(
        trained.path, samples=crop_samples(crops, "test"), reference=trained.module
    )
    assert not report.passed
    with pytest.raises(CheckFailedError):
        report.raise_if_failed()


def test_saved_runs_are_judged_again(trained, crops, confident, tmp_path) -> None:
    target = tmp_path / "runs.npz"
    path = damaged(trained, tmp_path / "bad.onnx", 40.0)
    first = check_artifact(
        path, samples=crop_samples(crops, "test"), reference=trained.module, save=target
    )
    assert not first.passed
    again, scores = rejudge(target), ("score_rms_relative", "worst_score_rms_relative")
    assert again == first
    assert rejudge(target, {"max_px": 1e9, **dict.fromkeys(scores, 1e9)}).passed
    with pytest.raises(UsageError, match="did you mean 'max_px'"):
        rejudge(target, {"max_pxl": 1.0})
    assert load_runs(target).inputs["image"].shape == crops.shape


def test_damaged_runs_are_refused(trained, crops, confident, tmp_path) -> None:
    target = tmp_path / "runs.npz"
    check_artifact(
        trained.path, samples=crop_samples(crops, "test"), reference=trained.module, save=target
    )
    with np.load(target) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays["run1/keypoints"] = arrays["run1/keypoints"] + 1.0
    np.savez(target, **arrays)
    with pytest.raises(ArtifactError, match=r"'run1/keypoints'.*hash"):
        rejudge(target)
    target.write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="not a file of saved runs"):
        rejudge(target)
    with pytest.raises(ArtifactError, match="not found"):
        rejudge(tmp_path / "none.npz")


def test_it_leaves_nothing_behind(trained, crops, confident, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    check_artifact(trained.path, samples=crop_samples(crops, "test"), reference=trained.module)
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        (lambda c: c[:, :10], TensorError),
        (lambda c: c.astype(np.float32), TensorError),
        (lambda c: c[:0], TensorError),
    ],
)
def test_wrong_crops_are_explained(trained, crops, wrong, error) -> None:
    with pytest.raises(error, match="crops"):
        check_artifact(
            trained.path, samples=crop_samples(wrong(crops), "test"), reference=trained.module
        )


def test_wrong_requests_are_explained(trained, untrained, crops, tmp_path) -> None:
    with pytest.raises(UsageError, match="did you mean 'onnxruntime'"):
        check_artifact(trained.path, samples=crop_samples(crops, "test"), backends=("onnxrutime",))
    raw = json.loads(trained.card.to_json())["weights"] | {"sha256": "other"}
    other = trained.write(trained.model(), tmp_path / "other.onnx", weights=raw)
    with pytest.raises(UsageError, match="same weights"):
        check_artifact(trained.path, samples=crop_samples(crops, "test"), reference=other)
    with pytest.raises(ArtifactError, match="not found"):
        check_artifact(tmp_path / "none.onnx", samples=crop_samples(crops, "test"))
    bare = untrained.model()
    for k, node in enumerate(bare.graph.node):
        node.name = f"nameless/{k}"
    with pytest.raises(ArtifactError, match="--heatmaps"):
        check_artifact(
            untrained.write(bare, tmp_path / "bare.onnx"),
            samples=crop_samples(crops, "test"),
            reference=untrained.module,
        )


def test_the_last_batch_is_filled(trained, untrained, crops, confident) -> None:
    """Five samples through batches of two give the answers of five single ones."""
    both = [
        check_artifact(
            trained.path, samples=crop_samples(crops[:n], "test"), reference=trained.module
        ).comparisons[0]
        for n in (4, 5)
    ]
    assert [c.effect["judged_joints"] for c in both] == [16, 20]
    assert onnx.load(str(trained.path)).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2


@pytest.mark.parametrize("word", ["openvino-f32", "openvino-bf16"])
def test_what_is_judged_is_what_users_run(trained, crops, confident, word, tmp_path) -> None:
    """Same numbers, bit for bit, as a session that an application opens."""
    pytest.importorskip("openvino")
    if word == "openvino-bf16" and not host.bfloat16_flag():
        pytest.skip("this CPU has no bfloat16 arithmetic")
    saved = tmp_path / "runs.npz"
    check_artifact(
        trained.path, samples=crop_samples(crops[:4], "test"), reference=trained.module,
        backends=(word,), save=saved,
    )  # fmt: skip
    (run,) = load_runs(saved).suspects
    name, arithmetic = split_word(word)
    options = BackendOptions(inference_precision=arithmetic)
    with open_session(trained.path, name, threads=1, options=options) as session:
        parts = [session.run({"image": crops[k : k + 2]})["keypoints"] for k in (0, 2)]
        assert arithmetic in session.description
    np.testing.assert_array_equal(run.outputs["keypoints"], np.concatenate(parts))
    assert run.precision == {"f32": "fp32", "bf16": "fp16"}[arithmetic]
    assert run.name.endswith(arithmetic)


def test_back_ends_to_check_come_from_the_registry() -> None:
    known = known_backends()
    assert set(known) == {
        "onnxruntime", "openvino", "openvino-f32", "openvino-bf16", "tensorrt", "tensorrt_rtx",
    }  # fmt: skip
    assert known["openvino"] == known["openvino-f32"], "the file's own arithmetic"
    assert known["tensorrt_rtx"].flavour == "tensorrt_rtx" and not known["openvino"].flavour
