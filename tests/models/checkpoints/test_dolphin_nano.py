"""Weights of our own recipe say how they are used; those of others say nothing."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from prunus.export.dolphin import build_card
from prunus.export.separation.weights import find_weights
from prunus.models.checkpoints.dolphin_nano import OwnDolphin, read_own
from prunus.models.separation.config import dolphin_config
from prunus.models.separation.dolphin import build_dolphin
from prunus.models.training.separation.ship import export_weights
from prunus.models.training.separation.train import SeparationTrainConfig, SeparationTrainer
from prunus.runtime.errors import ArtifactError

ABOUT = OwnDolphin("nano", "somebody", "CC-BY-SA-3.0", "lips", "relative")


def test_the_header_reaches_the_cards(tmp_path: Path) -> None:
    path, config = tmp_path / "nano.safetensors", dolphin_config("nano")
    save_file(build_dolphin(config).state_dict(), path, metadata=ABOUT.header())
    assert read_own(path) == ABOUT
    weights = find_weights(config, path)
    assert weights.spec.trained and weights.spec.licence == "CC-BY-SA-3.0"
    assert build_card(config, weights, "lips", 20).preprocess.drawing == "lips"
    assert build_card(config, weights, "voice", 20).postprocess.level == "relative"
    random = find_weights(config, "random")
    assert build_card(config, random, "lips", 20).preprocess.drawing == "picture"
    assert build_card(config, random, "voice", 20).postprocess.level == "free"


def test_other_files_have_no_such_header(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, str(path))
    assert read_own(path) is None and read_own(tmp_path / "none.safetensors") is None
    (tmp_path / "bad.safetensors").write_bytes(b"nothing")
    assert read_own(tmp_path / "bad.safetensors") is None
    save_file({"x": torch.zeros(1)}, str(path), metadata={"prunus.separator": '{"colour": 1}'})
    with pytest.raises(ArtifactError, match="header"):
        read_own(path)
    with pytest.raises(ArtifactError, match="expected one of"):
        OwnDolphin("nano", "", "", "paint", "free")  # type: ignore[arg-type]


def test_a_run_becomes_a_weights_file(tmp_path: Path) -> None:
    trainer = SeparationTrainer(SeparationTrainConfig(tmp_path, tmp_path, steps=1), resume=False)
    trainer.clock.step, trainer.clock.seconds = 7, 120.0
    trainer.save()
    about = export_weights(tmp_path, tmp_path / "out.safetensors")
    assert "7 steps" in about.origin and "2 minutes" in about.origin
    assert about.drawing == "lips" and about.level == "relative"
    assert find_weights(dolphin_config("nano"), tmp_path / "out.safetensors").state is not None
