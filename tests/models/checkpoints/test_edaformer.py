"""Published files go in whole or not at all; every difference is named."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from prunus.apps.cli.main import main
from prunus.models.checkpoints.edaformer import convert_edaformer, import_checkpoint
from prunus.models.segmentation.classes import CITYSCAPES, palette
from prunus.models.segmentation.edaformer import EDAFormer, edaformer_config
from prunus.runtime.errors import ArtifactError, UsageError


@pytest.fixture(scope="module")
def published():
    """Return what an mmseg file of EDAFormer-T with 19 classes holds."""
    torch.manual_seed(1)
    state = EDAFormer(edaformer_config("t", classes=19)).state_dict()
    meta = {
        "mmseg_version": "0.11.0",
        "CLASSES": tuple(f"name {k}" for k in range(19)),
        "PALETTE": [[k, 2 * k, 255 - k] for k in range(19)],
        "env_info": "PyTorch: 1.8",
        "hook_msgs": {"best_score": np.float64(0.42), "epoch": np.int64(3)},
    }
    optimizer = {"state": {0: {"step": 1}}, "param_groups": [{"lr": 6e-5, "params": [0]}]}
    return {"meta": meta, "state_dict": state, "optimizer": optimizer}


def with_state(published, state):
    return published | {"state_dict": state}


def test_a_published_file_becomes_ours(published, tmp_path) -> None:
    source, target = tmp_path / "ade.pth", tmp_path / "ade.safetensors"
    torch.save(published, source)
    imported = import_checkpoint(source, target)
    assert (imported.config.variant, imported.config.classes) == ("t", 19)
    assert imported.classes[3] == "name 3" and imported.palette[3] == (3, 6, 252)
    assert imported.fresh == () and imported.dropped == ()
    written = load_file(target)
    assert len(written) == 354
    assert all(torch.equal(written[k], v) for k, v in published["state_dict"].items())
    with safe_open(target, "pt") as file:
        about = json.loads(file.metadata()["prunus"])
    assert about["variant"] == "t" and about["classes"][0] == "name 0"
    EDAFormer(imported.config).load_state_dict(written)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_wrappers_come_off(published, prefix) -> None:
    bare = {prefix + k: v for k, v in published["state_dict"].items()}
    for checkpoint in (bare, {"state_dict": bare}):
        imported = convert_edaformer(checkpoint)
        assert imported.classes == CITYSCAPES and imported.palette == palette(19)


def test_the_layer_that_is_never_called_may_be_missing(published) -> None:
    state = {k: v for k, v in published["state_dict"].items() if "conv_seg" not in k}
    imported = convert_edaformer(with_state(published, state))
    assert imported.fresh == ()
    assert imported.state["decode_head.conv_seg.weight"].abs().max() == 0


def test_an_encoder_file_leaves_the_decoder_fresh(published) -> None:
    state = {
        k.removeprefix("backbone."): v
        for k, v in published["state_dict"].items()
        if k.startswith("backbone.")
    }
    state["head.weight"], state["head.bias"] = torch.zeros(1000, 256), torch.zeros(1000)
    imported = convert_edaformer({"model": state}, classes=2)
    assert set(imported.dropped) == {"head.weight", "head.bias"}
    assert all(n.startswith("decode_head.") for n in imported.fresh)
    assert "decode_head.linear_pred.weight" in imported.fresh
    assert torch.equal(imported.state["backbone.norm4.bias"], state["norm4.bias"])


def test_every_difference_is_named_and_nothing_is_written(published, tmp_path) -> None:
    state = dict(published["state_dict"])
    del state["backbone.block3.7.attn.sr.weight"]
    state["backbone.block3.7.attn.q.weight"] = torch.zeros(2, 2)
    state["decode_head.attn2.attn.norm.bias"] = torch.zeros(3)
    source, target = tmp_path / "bad.pth", tmp_path / "bad.safetensors"
    torch.save(with_state(published, state), source)
    with pytest.raises(UsageError) as error:
        import_checkpoint(source, target)
    text = str(error.value)
    assert "missing: backbone.block3.7.attn.sr.weight;" in text
    assert "unexpected: backbone.block3.7.attn.q.weight;" in text
    assert "mismatched: decode_head.attn2.attn.norm.bias is [3], expected [64]." in text
    assert list(tmp_path.iterdir()) == [source]


def test_another_variant_or_class_count_is_refused_with_the_right_one(published) -> None:
    with pytest.raises(UsageError, match="32 channels: choose another variant"):
        convert_edaformer(published, variant="b")
    with pytest.raises(UsageError, match="19 classes: ask for that many"):
        convert_edaformer(published, classes=150)
    with pytest.raises(UsageError, match="not an EDAFormer"):
        convert_edaformer({"state_dict": {"backbone.stem.weight": torch.zeros(1)}})
    with pytest.raises(ArtifactError, match="No tensors"):
        convert_edaformer({"state_dict": {}})


def test_meta_that_does_not_fit_is_not_believed(published) -> None:
    odd = published | {"meta": {"CLASSES": ["one"], "PALETTE": [[1, 2], "x"]}}
    assert convert_edaformer(odd).classes == CITYSCAPES


def test_the_command_imports_and_says_how_to_go_on(published, tmp_path, capsys) -> None:
    source, target = tmp_path / "ade.pth", tmp_path / "ade.safetensors"
    torch.save(published, source)
    words = ["models", "import", str(source), "--model", "edaformer", "-o", str(target)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "EDAFormer-T with 19 classes" in out and f"--checkpoint {target}" in out
    assert main([*words, "--head", "classic"]) == 2
    assert main(["models", "import", str(source), "--model", "edaforme"]) == 2
    assert "did you mean 'edaformer'" in capsys.readouterr().err
