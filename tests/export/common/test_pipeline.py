from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from prunus.export.common import pipeline
from prunus.export.common.pipeline import (
    ExportOptions,
    export_artifact,
    run_onnx,
    run_torch,
    without_outputs,
)
from prunus.export.precision.calibration import crop_samples, load_calibration
from prunus.runtime.card.artifact import read_card
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import (
    CheckFailedError,
    HostError,
    PrunusError,
    SourceError,
    TensorError,
    UsageError,
)
from prunus.runtime.tasks.pose.card import ImagePreprocess, KeypointPostprocess

IMAGE = ImagePreprocess(8, 6, "udp_affine")


class Tiny(torch.nn.Module):
    """A stand-in of the pose contract: bytes in, keypoints and heatmaps out, in milliseconds."""

    def __init__(self, wrong: float = 0.0) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.middle = torch.nn.Conv2d(8, 8, 3, padding=1)
        self.last = torch.nn.Conv2d(8, 17, 1)
        self.wrong = wrong
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)

    def forward(self, image):
        pixels = image.float().permute(0, 3, 1, 2) / 255
        maps = self.last(self.middle(self.first(pixels).relu()).relu())
        # Differs between tracing and running when `wrong` is set: what the comparison is for.
        if self.wrong and not torch.compiler.is_compiling():
            maps = maps + self.wrong * torch.arange(6)
        flat = maps.flatten(2)
        best = flat.argmax(dim=2, keepdim=True)
        score = flat.amax(dim=2, keepdim=True)
        return torch.cat(((best % 6).float(), (best // 6).float(), score), dim=2), maps


@pytest.fixture(scope="module")
def card():
    spec = TensorSpec("image", "uint8", (2, 8, 6, 3), ("batch", "height", "width", "rgb"))
    joints = tuple(f"joint{k}" for k in range(17))
    return ModelCard(
        "pose",
        "tiny",
        "test",
        "-",
        "Apache-2.0",
        "prunus",
        Weights("random", "random:0", "-", False),
        (spec,),
        (TensorSpec("keypoints", "float32", (2, 17, 3), ("batch", "joint", "x_y_score")),),
        IMAGE,
        KeypointPostprocess("udp_dark", "custom17", joints, (), (), (0.05,) * 17),
    )


@pytest.fixture(scope="module")
def samples():
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 6, 3), dtype=np.uint8)
    return crop_samples(images, "noise")


OPTIONS = ExportOptions(extra_outputs=("heatmaps",), threads=1)


class Steps:
    def __init__(self) -> None:
        self.seen: list[str] = []

    def update(self, done: int, total: int, note: str = "") -> None:
        self.seen.append(note)


def test_the_file_carries_its_card_and_only_its_outputs(card, samples, tmp_path):
    steps = Steps()
    path = export_artifact(
        Tiny(), card, samples, tmp_path / "a.onnx", options=OPTIONS, progress=steps
    )
    assert read_card(path) == card
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [v.name for v in model.graph.output] == ["keypoints"]
    assert [p.key for p in model.metadata_props] == ["prunus.card"]
    assert steps.seen[0] == "trace"
    assert steps.seen[-1] == "done"
    assert os.listdir(tmp_path) == ["a.onnx"]
    with torch.no_grad():
        expected = Tiny()(torch.from_numpy(samples.first(2)["image"]))[0].numpy()
    got = run_onnx(model, samples.first(2), 1)["keypoints"]
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_number_formats_are_on_the_card(card, samples, tmp_path, precision):
    options = ExportOptions(precision, extra_outputs=("heatmaps",), threads=1)
    path = export_artifact(Tiny(), card, samples, tmp_path / "a.onnx", options=options)
    spec = read_card(path).precision
    assert spec.precision == precision
    assert spec.kept_higher
    calibrated = samples.halves()[0]
    assert (spec.calibration_sha256, spec.calibration_samples) == (
        (calibrated.sha256, 3) if precision == "int8" else ("", 0)
    )


def test_int8_is_judged_on_samples_that_did_not_calibrate_it(card, tmp_path, monkeypatch):
    seen = {}
    monkeypatch.setattr(
        pipeline, "to_int8", lambda model, data, **_: seen.update(calibrated=data) or model
    )
    monkeypatch.setattr(
        pipeline, "run_torch", lambda *a: seen.update(judged=a[2]) or run_torch(*a)
    )
    images = np.random.default_rng(0).integers(0, 256, (8, 8, 6, 3), dtype=np.uint8)
    options = ExportOptions("int8", extra_outputs=("heatmaps",), threads=1)
    path = tmp_path / "a.onnx"
    export_artifact(Tiny(), card, crop_samples(images, "noise"), path, options=options)
    assert (seen["calibrated"]["image"] == images[0::2]).all()
    assert (seen["judged"]["image"] == images[1::2]).all()


@pytest.mark.parametrize(("count", "fine"), [(1, False), (3, False), (4, True)])
def test_too_few_samples_for_int8_are_refused_by_their_count(card, tmp_path, count, fine):
    samples = crop_samples(np.zeros((count, 8, 6, 3), np.uint8), "grey.npz")
    options = ExportOptions("int8", extra_outputs=("heatmaps",), threads=1)
    if fine:
        assert [len(half) for half in samples.halves()] == [2, 2]
        return
    with pytest.raises(TensorError, match=rf"Got {count} crops \(grey.npz\).*at least 4"):
        export_artifact(Tiny(), card, samples, tmp_path / "a.onnx", options=options)
    assert not os.listdir(tmp_path)


def test_a_repeat_gives_the_same_bytes(card, samples, tmp_path):
    paths = [
        export_artifact(Tiny(), card, samples, tmp_path / n, options=OPTIONS)
        for n in ("a.onnx", "b.onnx")
    ]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_graph_that_differs_from_pytorch_gets_no_name(card, samples, tmp_path):
    target = tmp_path / "a.onnx"
    target.write_bytes(b"the old one")
    with pytest.raises(CheckFailedError, match="heatmap_max_relative") as caught:
        export_artifact(Tiny(wrong=0.5), card, samples, target, options=OPTIONS)
    assert caught.value.exit_code == 1
    assert target.read_bytes() == b"the old one"
    assert os.listdir(tmp_path) == ["a.onnx"]


def test_a_card_that_describes_another_graph_is_refused(card, samples, tmp_path):
    from dataclasses import replace

    other = replace(card, outputs=(replace(card.outputs[0], shape=(2, 16, 3)),))
    with pytest.raises(PrunusError, match="its card says"):
        export_artifact(Tiny(), other, samples, tmp_path / "a.onnx", options=OPTIONS)


def test_a_module_without_static_shapes_is_refused(card, samples, tmp_path):
    class Counts(Tiny):
        def forward(self, image):
            keypoints, maps = super().forward(image)
            return keypoints + maps.nonzero().sum(), maps

    with pytest.raises(PrunusError, match=r"NonZero|Cannot trace"):
        export_artifact(Counts(), card, samples, tmp_path / "a.onnx", options=OPTIONS)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["missing/a.onnx", "a.engine", ""])
def test_impossible_targets_are_refused_before_any_work(card, samples, tmp_path, name):
    steps = Steps()
    with pytest.raises((UsageError, SourceError)) as caught:
        export_artifact(Tiny(), card, samples, tmp_path / name, progress=steps)
    assert caught.value.exit_code == 2
    assert steps.seen == []


def test_a_read_only_folder_is_refused_before_any_work(card, samples, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(SourceError, match="read-only"):
        export_artifact(Tiny(), card, samples, tmp_path / "a.onnx")


def test_a_full_disk_is_one_clear_line(card, samples, tmp_path, monkeypatch):
    def full(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(HostError, match="No space left"):
        export_artifact(Tiny(), card, samples, tmp_path / "a.onnx", options=OPTIONS)
    assert not os.listdir(tmp_path)


def test_dropping_an_output_drops_what_only_it_needs():
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="m/Relu"),
        helper.make_node("Exp", ["a"], ["b"], name="m/Exp"),
    ]
    shapes = [value(n, TensorProto.FLOAT, [2]) for n in "xab"]
    graph = helper.make_graph(nodes, "g", shapes[:1], shapes[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    left = without_outputs(model, ["b"])
    assert [n.op_type for n in left.graph.node] == ["Relu"]
    assert [v.name for v in left.graph.output] == ["a"]


def test_calibration_reads_arrays_and_folders(tmp_path):
    cv2 = pytest.importorskip("cv2")
    crops = np.random.default_rng(0).integers(0, 256, (9, 8, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "c.npz", crops=crops)
    found = load_calibration(tmp_path / "c.npz", IMAGE, limit=4)
    assert found["image"].shape == (4, 8, 6, 3)
    assert (found["image"][0] == crops[0]).all()
    assert (found["image"][-1] == crops[-1]).all()
    (tmp_path / "people").mkdir()
    for k in range(3):
        picture = np.full((40, 30, 3), (10 * k, 0, 200), np.uint8)
        cv2.imwrite(str(tmp_path / "people" / f"{k}.png"), picture)
    first = load_calibration(tmp_path / "people", IMAGE)
    assert first["image"].shape == (3, 8, 6, 3)
    assert first["image"][2, 4, 3].tolist() == [200, 0, 20]  # RGB
    assert first.sha256 == load_calibration(tmp_path / "people", IMAGE).sha256
    assert first.sha256 != found.sha256


def test_calibration_that_does_not_fit_is_refused(tmp_path):
    np.savez(tmp_path / "c.npz", crops=np.zeros((2, 9, 6, 3), np.uint8))
    with pytest.raises(UsageError, match="expected uint8"):
        load_calibration(tmp_path / "c.npz", IMAGE)
    np.savez(tmp_path / "d.npz", other=np.zeros(2))
    with pytest.raises(SourceError, match="expected 'crops'"):
        load_calibration(tmp_path / "d.npz", IMAGE)
    (tmp_path / "e.npz").write_bytes(b"not an archive")
    with pytest.raises(SourceError, match=r"not a complete \.npy or \.npz"):
        load_calibration(tmp_path / "e.npz", IMAGE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no pictures"):
        load_calibration(tmp_path / "empty", IMAGE)
