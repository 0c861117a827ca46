"""UniTransPose as files: card, subsets, heads, parity with PyTorch, command line, refusals."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import pytest
import torch

from prunus.apps.cli.main import main as prunus
from prunus.export import unitranspose
from prunus.export.common.command import script
from prunus.export.common.pipeline import run_onnx
from prunus.export.common.registry import model_of
from prunus.export.graph.functions import attention_nodes, attributes_of
from prunus.export.pose.weights import find_weights
from prunus.export.precision.calibration import crop_samples
from prunus.export.unitranspose import config_of, export_unitranspose, reference_module
from prunus.export.verify.check import check_artifact
from prunus.models.pose.skeleton import COCO17, SUBSETS, UNIFIED23, read_out
from prunus.models.pose.unitranspose.unitranspose import UniTransPose, UniTransPoseConfig
from prunus.runtime.card.artifact import read_card
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import ArtifactError, UsageError

main = partial(script, "unitranspose")


def narrow(variant, *, head="heatmap", joints=17, readout=None):
    """Return four stages of one block, so that an export takes seconds."""
    return UniTransPoseConfig(
        variant,
        32,
        (1, 1, 1, 1),
        decoder=16,
        mlp_ratio=1,
        head=head,
        joints=joints,
        readout=readout,
    )


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(unitranspose, "unitranspose_config", narrow)


@pytest.fixture(scope="module")
def crops(noise_crops):
    return crop_samples(noise_crops[:2], "noise")


@pytest.fixture(scope="module")
def subset(crops, tmp_path_factory):
    """A file with MPII's joints of a unified network with peaks in its maps; and its weights."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("subset")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        network = UniTransPose(narrow("tiny", joints=23))
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.15)
    file = folder / "w.safetensors"
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(unitranspose, "unitranspose_config", narrow)
        # Noise has no people, so pixels of joints mean nothing: only heatmaps are compared below.
        patch.setattr("prunus.export.common.pipeline._judge", lambda *_, **__: None)
        path = export_unitranspose(
            joints="mpii16", batch=2, heatmaps=True, checkpoint=file, calibration=crops,
            output=folder / "a.onnx",
        )  # fmt: skip
    return path, file, network.eval()


def test_the_file_computes_what_the_network_computes(subset, crops):
    path, _, network = subset
    pixels = torch.from_numpy(crops["image"]).permute(0, 3, 1, 2).float()
    mean = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
    std = torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)
    _, chosen = read_out(UNIFIED23, "mpii16")
    with torch.no_grad():
        expected = network((pixels - mean) / std)[:, list(chosen)].numpy()
    got = run_onnx(onnx.load(path), crops, 1)
    assert got["keypoints"].shape == (2, 16, 3)
    span = expected.max() - expected.min()
    assert expected.std() > 0.02 * span  # the maps are not flat
    np.testing.assert_allclose(got["heatmaps"], expected, atol=1e-4 * span, rtol=0)


def test_every_shape_is_constant_and_attention_is_one_node(subset):
    model = onnx.load(subset[0])
    values = [*model.graph.value_info, *model.graph.input, *model.graph.output]
    assert all(d.dim_value > 0 for v in values for d in v.type.tensor_type.shape.dim)
    kinds = [attributes_of(node)["combine"] for node in attention_nodes(model)]
    assert kinds == ["local", "global"] * 4
    assert len(model.functions) == 2
    # Joints that are not read are not computed: the last convolution has 16 filters, not 23.
    final = [n for n in model.graph.node if n.op_type == "Conv"][-1]
    weights = {t.name: list(t.dims) for t in model.graph.initializer}
    assert weights[final.input[1]] == [16, 16, 1, 1]


def test_the_card_tells_network_and_joints_apart(subset, small):
    path, file, network = subset
    card = read_card(path)
    assert ModelCard.from_json(card.to_json()) == card
    assert card.variant == "tiny-heatmap-unified23"
    assert card.tokens is None
    assert card.postprocess.skeleton == "mpii16"
    assert card.postprocess.joints == SUBSETS["mpii16"]
    assert [o.shape for o in card.outputs] == [(2, 16, 3), (2, 16, 64, 48)]
    assert config_of(card) == narrow("tiny", joints=23, readout=read_out(UNIFIED23, "mpii16")[1])
    rebuilt = reference_module(card, file).network
    for name, value in network.state_dict().items():
        assert torch.equal(rebuilt.state_dict()[name], value), name
    with pytest.raises(ArtifactError, match="not shipped"):
        reference_module(card)


@pytest.mark.slow
def test_untrained_files_say_so_and_check_out(small, crops, tmp_path):
    path = export_unitranspose(seed=3, calibration=crops, output=tmp_path / "a.onnx")
    card = read_card(path)
    assert (card.weights.trained, card.weights.sha256) == (False, "random:3")
    assert "benchmarks only" in card.weights.origin
    assert card.postprocess.joints == COCO17.joints
    assert model_of(card).name == "unitranspose"
    report = check_artifact(path, samples=crops)
    assert report.passed, report.to_text()


@pytest.mark.slow
def test_int8_quantises_around_the_nodes(small, noise_crops, tmp_path):
    crops = crop_samples(noise_crops, "noise")
    path = export_unitranspose(precision="int8", calibration=crops, output=tmp_path / "a.onnx")
    model = onnx.load(path)
    assert len(attention_nodes(model)) == 8
    made = {value: n for n in model.graph.node for value in n.output}
    layers = [n for n in model.graph.node if n.op_type in ("MatMul", "Gemm", "Conv")]
    integer = [
        n for n in layers if n.input[1] in made and made[n.input[1]].op_type == "DequantizeLinear"
    ]
    assert len(integer) > 20
    assert check_artifact(path, samples=crops).passed


@pytest.mark.slow
def test_half_precision_keeps_its_nodes(small, crops, tmp_path):
    path = export_unitranspose(precision="fp16", calibration=crops, output=tmp_path / "a.onnx")
    model = onnx.load(path)
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    nodes = attention_nodes(model)
    assert len(nodes) == 8
    assert {types[n.output[0]] for n in nodes} == {onnx.TensorProto.FLOAT16}
    assert check_artifact(path, samples=crops).passed


def test_the_verb_exports_a_regression_of_any_joints(
    small, crops, noise_crops, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    np.savez("c.npz", crops=noise_crops[:2])
    joints = "left_foot,nose,left_ear,neck,pelvis"
    words = ["export", "unitranspose", "--joints", joints, "--head", "regression", "--quiet"]
    assert prunus([*words, "--calibration", "c.npz"]) == 0
    path = tmp_path / "unitranspose-tiny-regression-unified23-custom5-fp32.onnx"
    card = read_card(path)
    assert (card.variant, card.postprocess.decoder) == ("tiny-regression-unified23", "regression")
    assert card.postprocess.joints == tuple(joints.split(","))
    assert [(o.name, o.shape) for o in card.outputs] == [("keypoints", (1, 5, 3))]
    assert check_artifact(path, samples=crops).passed
    assert not any(n.name.startswith("network.decoder") for n in onnx.load(path).graph.node)
    capsys.readouterr()
    assert prunus(["inspect", path.name]) == 0
    seen = capsys.readouterr().out
    assert "unitranspose tiny-regression-unified23 (pose)" in seen
    assert "** not trained **" in seen
    assert "prunus::LocalGlobalAttention" in seen
    with pytest.raises(UsageError, match="no heatmaps"):
        export_unitranspose(head="regression", heatmaps=True, output=tmp_path / "b.onnx")
    assert prunus(["export", "unitranspose", "--precision", "fp8"]) == 2
    assert "Unknown precision 'fp8'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"variant": "huge"}, "Unknown UniTransPose variant"),
        ({"head": "classic"}, "Unknown head"),
        ({"skeleton": "coco"}, "Unknown skeleton 'coco'"),
        ({"joints": "mpii"}, "Unknown joint set 'mpii' .did you mean 'mpii16'"),
        ({"joints": "mpii16", "skeleton": "coco17"}, "not all in coco17"),
        ({"joints": "nose,nose"}, "expected each once"),
        ({"joints": "nose,tail"}, "no joint 'tail'"),
        ({"batch": 0}, "batch of 0"),
        ({"seed": -1}, "seed -1"),
        ({"precision": "fp16", "bf16": True}, "got --precision fp16"),
    ],
)
def test_impossible_options_are_usage_errors(options, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        export_unitranspose(**options, output=tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


def test_weights_and_cards_of_other_networks_are_refused(small, subset, tmp_path):
    with pytest.raises(ArtifactError, match="does not fit tiny-heatmap: it has joint_tokens"):
        export_unitranspose(checkpoint=subset[1], output=tmp_path / "a.onnx")
    config = narrow("tiny")
    card = unitranspose.build_card(config, find_weights(config), COCO17)
    for changes in ({"model": "evitpose"}, {"variant": "tiny-heatmap"}, {"postprocess": None}):
        with pytest.raises(ArtifactError, match="expected a UniTransPose"):
            config_of(replace(card, **changes))


def test_the_skeleton_follows_the_joints(small, tmp_path):
    assert unitranspose._joints(None, None)[0] is COCO17
    assert unitranspose._joints(None, "coco17")[::2] == (COCO17, None)
    assert unitranspose._joints(None, "left_wrist,nose")[0] is COCO17
    assert unitranspose._joints(None, "aic14")[0] is UNIFIED23
    known, shown, readout = unitranspose._joints("unified23", "coco17")
    assert (known, shown.joints, readout) == (UNIFIED23, COCO17.joints, tuple(range(17)))
    assert set(shown.limbs) == set(COCO17.limbs)


def test_the_script_fails_in_two_lines_with_the_right_code(capsys):
    assert main(["--variant", "tinny", "-o", "a.onnx"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].endswith("(did you mean 'tiny'?).")
    assert len(lines) == 2
