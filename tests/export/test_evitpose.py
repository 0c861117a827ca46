from __future__ import annotations

import hashlib
import re
from functools import partial

import numpy as np
import onnx
import pytest
import torch

from prunus.export import evitpose
from prunus.export.common.command import script
from prunus.export.common.options import TokenOptions
from prunus.export.common.pipeline import run_onnx
from prunus.export.evitpose import choose_plan, config_of, export_evitpose, reference_module
from prunus.export.graph.npu import chosen_by_data
from prunus.export.pose import weights as pose_weights
from prunus.export.precision.calibration import crop_samples
from prunus.models.pose.evitpose import EViTPoseConfig
from prunus.models.tokens.plan import PruningPlan
from prunus.runtime import host
from prunus.runtime.card.artifact import read_card
from prunus.runtime.errors import ArtifactError, PrunusError, UsageError
from prunus.runtime.host import int8_flag
from prunus.runtime.session.base import open as open_session
from prunus.runtime.session.openvino.npu import npu_operators
from prunus.runtime.tasks.pose.estimator import PoseEstimator

main = partial(script, "evitpose")


@pytest.fixture
def two_blocks(monkeypatch):
    """Make every size two blocks of 32 channels, so that an export takes seconds."""

    def small(variant, level="L0", *, head=None, joints=17, fill="carry", score="sum"):
        plan = PruningPlan("L0", (), ())
        head = head or "subpixel"
        return EViTPoseConfig(variant, 32, 2, plan, head, 2, joints, fill, score)

    monkeypatch.setattr(evitpose, "evitpose_config", small)


@pytest.fixture(scope="module")
def crops(noise_crops):
    return crop_samples(noise_crops[:3], "noise")


def test_card_file_and_reference_belong_together(two_blocks, crops, tmp_path):
    path = export_evitpose(
        plan="100@1", checkpoint="random", seed=5, batch=2, heatmaps=True, joints=5,
        calibration=crops, output=tmp_path / "a.onnx",
    )  # fmt: skip
    card = read_card(path)
    assert (card.model, card.variant, card.weights.trained) == ("evitpose", "tiny-subpixel", False)
    assert card.weights.sha256 == "random:5"
    assert [o.shape for o in card.outputs] == [(2, 5, 3), (2, 5, 64, 48)]
    assert card.tokens is not None
    assert (card.tokens.blocks, card.tokens.keep, card.tokens.special) == ((1,), (100,), 5)
    assert 0 < card.tokens.macs < card.tokens.macs_dense
    assert card.postprocess.joints == tuple(f"joint{k}" for k in range(5))
    module = reference_module(card)
    with torch.no_grad():
        keypoints, heatmaps = module(torch.from_numpy(crops.first(2)["image"]))
    got = run_onnx(onnx.load(path), crops.first(2), 1)
    np.testing.assert_allclose(got["heatmaps"], heatmaps.numpy(), atol=1e-5)
    assert got["keypoints"].shape == tuple(keypoints.shape)


def test_a_checkpoint_is_named_by_its_hash_and_asked_for_again(two_blocks, crops, tmp_path):
    from safetensors.torch import save_file

    config = evitpose.evitpose_config("tiny")
    source = evitpose.build_network(config, pose_weights.find_weights(config, "random", 9))
    file = tmp_path / "w.safetensors"
    save_file({k: v.contiguous() for k, v in source.state_dict().items()}, file)
    weights = pose_weights.find_weights(config, file)
    assert weights.spec.trained
    assert weights.spec.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    network = evitpose.build_network(config, weights)
    for name, value in source.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name
    card = evitpose.build_card(network, weights, 1, False)
    with pytest.raises(ArtifactError, match="not shipped"):
        reference_module(card)
    assert reference_module(card, file) is not None
    other = tmp_path / "other.safetensors"
    save_file({k: v + 1 for k, v in source.state_dict().items()}, other)
    with pytest.raises(ArtifactError, match="was exported from"):
        reference_module(card, other)


def test_a_checkpoint_of_another_network_is_refused(two_blocks, tmp_path):
    from safetensors.torch import save_file

    config = evitpose.evitpose_config("tiny", joints=5)
    state = evitpose.build_network(config, pose_weights.find_weights(config)).state_dict()
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ArtifactError, match="does not fit tiny-subpixel"):
        export_evitpose(checkpoint=tmp_path / "w.safetensors", output=tmp_path / "a.onnx")


def test_a_card_of_another_model_has_no_reference(two_blocks):
    from dataclasses import replace

    config = evitpose.evitpose_config("tiny")
    weights = pose_weights.find_weights(config, "random")
    card = evitpose.build_card(evitpose.build_network(config, weights), weights, 1, False)
    assert config_of(card) == config
    with pytest.raises(ArtifactError, match="expected an EViTPose"):
        config_of(replace(card, model="movenet"))


def test_regression_has_coordinates_and_no_heatmaps(two_blocks, crops, tmp_path):
    path = export_evitpose(
        head="regression", checkpoint="random", calibration=crops, output=tmp_path / "a.onnx"
    )
    card = read_card(path)
    assert card.postprocess.decoder == "regression"
    assert [o.name for o in card.outputs] == ["keypoints"]
    with pytest.raises(UsageError, match="no heatmaps"):
        export_evitpose(head="regression", heatmaps=True, output=tmp_path / "b.onnx")


@pytest.mark.parametrize(("score", "plan"), [("strided", "100/40@0/1"), ("pooled", "96/48@0/1")])
def test_a_file_for_npus_chooses_nothing_and_is_the_network(
    score, plan, two_blocks, crops, tmp_path, monkeypatch
):
    """In both back ends; the runtime decodes what the graph leaves as heatmaps."""
    monkeypatch.chdir(tmp_path)
    path = export_evitpose(
        plan=plan, checkpoint="random", score=score, npu=True, calibration=crops,
    )  # fmt: skip
    assert path.name.endswith(f"-npu-{score}-fp32.onnx")
    card, model = read_card(path), onnx.load(path)
    assert card.tokens.score == score
    assert "/".join(map(str, card.tokens.keep)) == plan.partition("@")[0]
    assert card.postprocess.decoder == "heatmaps"
    assert chosen_by_data(model) == []
    used = {node.op_type for node in model.graph.node}
    assert not used & {"TopK", "ArgMax", "ScatterElements", "GatherElements", "NonZero"}
    with torch.no_grad():
        expected = reference_module(card)(torch.from_numpy(crops.first(1)["image"])).numpy()
    for backend in ("onnxruntime", *(["openvino"] if host.installed("openvino") else [])):
        with open_session(path, backend, threads=1) as session:
            got = session.run(crops.first(1).arrays)["heatmaps"]
        np.testing.assert_allclose(got, expected, atol=1e-5 * np.ptp(expected), err_msg=backend)
    if host.installed("openvino"):
        assert npu_operators(path).unknown == ()
    with PoseEstimator.open(path, "onnxruntime", threads=1) as estimator:
        [pose] = estimator(np.zeros((60, 50, 3), np.uint8), [(0, 0, 50, 60)])
        assert pose.keypoints.shape == (17, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "sum"}, "TopK chooses by data"),
        ({"fill": "zero"}, None),
        ({"heatmaps": True}, "Got --heatmaps with --npu"),
        ({"show_tokens": True}, "Got --show-tokens with --npu"),
        ({"head": "regression"}, "regression head"),
    ],
)
def test_what_no_npu_can_have_is_refused(options, message, two_blocks, crops, tmp_path):
    words = {"plan": "100@1", "checkpoint": "random", "npu": True, "calibration": crops, **options}
    if message is None:
        assert export_evitpose(**words, output=tmp_path / "a.onnx").is_file()
        return
    with pytest.raises(PrunusError, match=message):
        export_evitpose(**words, output=tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_cuts_that_are_not_there_are_not_shown(tmp_path) -> None:
    with pytest.raises(UsageError, match="--show-tokens without a cut"):
        export_evitpose(show_tokens=True, output=tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        {"variant": "huge"},
        {"head": "round"},
        {"fill": "air"},
        {"score": "mean"},
        {"level": "L9"},
        {"level": "L1", "keep": 0.5},
        {"keep": 1.5},
        {"plan": "500@3"},
        {"plan": "100@30"},
        {"joints": 0},
        {"batch": 0},
        {"seed": -1, "checkpoint": "random"},
    ],
)
def test_impossible_options_are_usage_errors(options, tmp_path):
    with pytest.raises(UsageError) as caught:
        export_evitpose(**options, output=tmp_path / "a.onnx")
    assert caught.value.exit_code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("batch", [1, 2])
def test_a_plan_with_methods_is_what_prune_makes(batch, two_blocks, crops, tmp_path):
    path = export_evitpose(
        plan="tome:100@0,joint:60@1", checkpoint="random", batch=batch, show_tokens=True,
        heatmaps=True, calibration=crops, output=tmp_path / "a.onnx",
    )  # fmt: skip
    card = read_card(path)
    told = card.tokens
    assert told is not None and told.score == "tome; joint" and told.fill == "delta"
    assert (told.blocks, told.keep, told.tokens, told.special) == ((0, 1), (100, 60), 192, 17)
    assert told.macs < told.macs_dense
    graph = onnx.load(path).graph
    values = [*graph.input, *graph.output, *graph.value_info]
    assert all(d.HasField("dim_value") for v in values for d in v.type.tensor_type.shape.dim)
    module = reference_module(card)
    crop = crops.arrays["image"][:batch]
    with torch.no_grad():
        wanted = module(torch.from_numpy(crop))
    with open_session(path, "onnxruntime", threads=1) as session:
        found = session.run({"image": crop})
    # Of the heatmaps: where fresh weights' maps are flat, places follow the last bit.
    np.testing.assert_allclose(found["heatmaps"], wanted[-1].numpy(), atol=1e-5)
    for number, block in enumerate(told.blocks, 1):
        assert np.array_equal(found[f"tokens_{block}"], wanted[number].numpy())
    assert found["tokens_0"].min() == 0 and len(np.unique(found["tokens_0"][0])) == 100


@pytest.mark.parametrize(
    "more", [{"score": "max"}, {"fill": "zero"}, {"precision": "int8"}, {"keep": 0.5}]
)
def test_a_plan_with_methods_leaves_no_other_choice(more, two_blocks, tmp_path):
    with pytest.raises(UsageError, match=r"a plan that names its methods|expected one of them"):
        export_evitpose(plan="tome:96@1", **more, output=tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_one_of_level_keep_and_plan_decides():
    assert choose_plan(None, None, None, 17).keep == ()
    assert choose_plan("L1", None, None, 17).keep == (135, 95, 71)
    assert choose_plan(None, None, "95/47@3/9", 17).blocks == (3, 9)
    assert len(choose_plan(None, 0.5, None, 17).keep) == 3


def test_keep_takes_a_share_or_a_plan():
    assert TokenOptions(keep="0.5").share_and_plan == (0.5, None)
    assert TokenOptions(keep="95/47@3/9").share_and_plan == (None, "95/47@3/9")
    assert TokenOptions(plan="95/47@3/9").share_and_plan == (None, "95/47@3/9")
    with pytest.raises(UsageError, match="Got --keep and --plan; expected one"):
        export_evitpose(keep=0.5, plan="95/47@3/9")
    with pytest.raises(UsageError, match="a share or a plan"):
        export_evitpose(keep="95/47@3/9", plan="95/47@3/9")


def test_the_command_names_its_file_after_the_options(
    two_blocks, noise_crops, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    np.savez("c.npz", crops=noise_crops[:2])
    arguments = ["--plan", "100@1", "--checkpoint", "random", "--calibration", "c.npz", "--quiet"]
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith("wrote evitpose-tiny-subpixel-K100at1-fp32.onnx  ")
    assert captured.out.count("\n") == 1 and captured.err == ""
    assert read_card(tmp_path / captured.out.split()[1]).tokens.level == "custom"


def test_the_command_fails_in_two_lines_with_the_right_code(tmp_path, capsys):
    assert main(["--variant", "tony", "-o", str(tmp_path / "a.onnx")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: Unknown EViTPose variant 'tony' (did you mean 'tiny'?)."
    assert len(lines) == 2
    assert main(["--variant", "tony", "--debug", "-o", str(tmp_path / "a.onnx")]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_help_shows_two_examples(capsys):
    assert main(["--help"]) == 0
    assert capsys.readouterr().out.count("python -m prunus.export.evitpose --variant") == 2


PRECISE = pytest.mark.skipif(not int8_flag(), reason="this CPU sums products of int8 in 16 bits")
SHIPPED_WITHIN_BUDGET = [
    ("L0", "fp32"), ("L0", "fp16"), ("L0", "int8"), ("L3", "fp32"), ("L3", "fp16"),
    *(pytest.param(level, "int8", marks=PRECISE) for level in ("L1", "L2", "L3")),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("level", "precision"), SHIPPED_WITHIN_BUDGET)
def test_shipped_weights_export_within_budget(level, precision, tmp_path):
    """The judge is inside: an export out of budget raises."""
    path = export_evitpose(level=level, precision=precision, output=tmp_path / "a.onnx")
    assert read_card(path).tokens.level == level


@pytest.mark.slow
def test_pruned_int8_graph_of_untrained_weights(tmp_path):
    path = export_evitpose(
        level="L3", precision="int8", checkpoint="random", output=tmp_path / "a.onnx"
    )
    card, names = read_card(path), [n.name for n in onnx.load(path).graph.node]
    assert card.tokens.level == "L3" and "network.blocks.3.attn" in card.precision.kept_higher
    rounded = {int(m[1]) for n in names if (m := re.search(r"blocks\.(\d+).*QuantizeLinear", n))}
    assert rounded == set(range(3, 12))  # the MLP of block 3 comes after the first cut
