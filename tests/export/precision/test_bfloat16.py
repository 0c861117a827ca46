"""What `--bf16` refuses before any work, and what the card says afterwards."""

import dataclasses

import numpy as np
import pytest

from prunus.export import evitpose
from prunus.export.pose.weights import find_weights
from prunus.export.precision import bfloat16
from prunus.export.precision.calibration import crop_samples
from prunus.models.pose.evitpose import EViTPose, evitpose_config
from prunus.runtime import host
from prunus.runtime.card.artifact import read_card
from prunus.runtime.card.card import Weights
from prunus.runtime.errors import HostError, MissingDependencyError, UsageError

TRAINED = Weights("a test", "0" * 64, "Apache-2.0", True)


@pytest.fixture(scope="module")
def card():
    config = evitpose_config("tiny")
    weights = find_weights(config, "random")
    return evitpose.build_card(EViTPose(config), weights, 1, False)


def test_untrained_weights_cannot_be_judged(card):
    with pytest.raises(UsageError, match="untrained"):
        bfloat16.require_bfloat16(card)


def test_missing_package_and_processor_are_named(card, monkeypatch):
    card = dataclasses.replace(card, weights=TRAINED)
    monkeypatch.setattr(host, "installed", lambda name: False)
    with pytest.raises(MissingDependencyError, match="openvino"):
        bfloat16.require_bfloat16(card)
    monkeypatch.setattr(host, "installed", lambda name: True)
    monkeypatch.setattr(host, "bfloat16_flag", lambda: "")
    with pytest.raises(HostError, match="no bfloat16 arithmetic"):
        bfloat16.require_bfloat16(card)


def test_half_precision_files_have_nothing_to_measure():
    with pytest.raises(UsageError, match="--precision fp16"):
        evitpose.export_evitpose("tiny", precision="fp16", bf16=True)


@pytest.mark.slow
def test_int8_files_are_measured_with_their_own_budget(tmp_path):
    pytest.importorskip("openvino")
    if not host.bfloat16_flag():
        pytest.skip("this CPU has no bfloat16 arithmetic")
    path = evitpose.export_evitpose(
        "tiny", level="L0", precision="int8", bf16=True, output=tmp_path / "m.onnx"
    )
    assert read_card(path).precision.also_within_budget == ("bf16",)


def test_levels_measured_before_are_marked_without_measuring():
    config = evitpose_config("tiny", "L1")
    weights = dataclasses.replace(find_weights(config, "random"), bf16_levels=("L0", "L1"))
    assert evitpose._bfloat16(False, "fp32", config, weights) == "known"
    assert evitpose._bfloat16(False, "fp16", config, weights) == "no"
    assert evitpose._bfloat16(False, "fp32", evitpose_config("tiny", "L3"), weights) == "no"


@pytest.mark.slow
def test_runs_in_bfloat16_close_to_float32(tmp_path):
    pytest.importorskip("openvino")
    if not host.bfloat16_flag():
        pytest.skip("this CPU has no bfloat16 arithmetic")
    path = evitpose.export_evitpose(
        "tiny", level="L3", checkpoint="random", heatmaps=True, output=tmp_path / "m.onnx"
    )
    card = read_card(path)
    images = np.random.default_rng(0).integers(0, 256, (3, 256, 192, 3), dtype=np.uint8)
    got = bfloat16.run_bfloat16(path.read_bytes(), card, crop_samples(images, "noise"), 2)
    from prunus.runtime.session.base import open as open_session

    with open_session(path, "onnxruntime") as session:
        exact = np.concatenate(
            [session.run({"image": image[None]})["heatmaps"].copy() for image in images]
        )
    assert got["heatmaps"].shape == exact.shape
    error = np.sqrt(np.mean((got["heatmaps"] - exact) ** 2)) / np.ptp(exact)
    assert 1e-5 < error < 2e-2  # above: not bfloat16 at all; below: not the same network
