"""`prunus layers` on networks whose blocks are known to need their patches, or not to."""

import json

import numpy as np
import pytest
import torch

from prunus.apps.cli.main import main
from prunus.export.planning import layers
from prunus.export.planning.layers import Layer, Layers, find_layers
from prunus.runtime.errors import UsageError
from prunus.runtime.progress import Silent

NETWORKS = """
import torch
from torch import nn
from tests.models.tokens import networks

class Pooled(nn.Module):
    def __init__(self, deaf):
        super().__init__()
        torch.manual_seed(0)
        self.vit = networks.PlainVit()
        for block in self.vit.blocks[deaf:]:
            nn.init.zeros_(block.attn.proj.weight)
            nn.init.zeros_(block.attn.proj.bias)

    def forward(self, x):
        return self.vit(x)[:, 0]

def early():
    return Pooled(1)

def all_along():
    return Pooled(3)

def likeness(outputs, references):
    return -float(abs(outputs["output"] - references["wanted"]).mean())

def broken(outputs, references):
    return outputs["nothing"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("layers")
    (path / "nets.py").write_text(NETWORKS)
    from prunus.models.user_network import build_network

    x = torch.randn(5, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    for name in ("early", "all_along"):
        with torch.no_grad():
            wanted = build_network(f"{path / 'nets.py'}:{name}")(x)
        np.savez(path / f"{name}.npz", pixels=x.numpy(), wanted=wanted.numpy())
    return path


def _found(folder, name, **more):
    nets = folder / "nets.py"
    return find_layers(
        f"{nets}:{name}", input=("pixels:2x3x64x64",), calibration=folder / f"{name}.npz",
        progress=Silent(), **{"score": f"{nets}:likeness", "lose": 1e-4, **more},
    )  # fmt: skip


def test_blocks_whose_attention_adds_nothing_are_found(folder):
    found = _found(folder, "early")
    first, *others = found.layers
    assert found.dense - first.alone > 0.01 and first.alone == pytest.approx(first.from_here)
    assert all(layer.alone == layer.from_here == found.dense for layer in others)
    assert found.proposed == 0
    assert "cut after block 0" in found.to_text()


def test_a_network_that_needs_its_patches_to_the_end_is_told_so(folder):
    found = _found(folder, "all_along")
    assert all(found.dense - layer.from_here > 1e-3 for layer in found.layers)
    assert found.layers[0].from_here != found.layers[0].alone
    assert found.proposed is None and "no cut" in found.to_text()


def test_a_block_is_proposed_only_if_all_that_follows_agrees():
    layers = tuple(Layer(k, 0.9, value, {}) for k, value in enumerate((0.2, 0.895, 0.5, 0.899)))
    assert Layers("n", "on x", False, 0.9, 0.01, layers).proposed == 2


def test_the_command_writes_what_it_says(folder, tmp_path, capsys):
    out = tmp_path / "layers.json"
    words = ["layers", f"{folder / 'nets.py'}:early", "--input", "pixels:1x3x64x64"]
    assert main([*words, "-o", str(out), "--quiet"]) == 0
    told = json.loads(out.read_text())
    assert told["noise"] is True and len(told["layers"]) == 3
    assert set(told["layers"][0]["ranks"]) > {"class attention", "attention received"}
    assert told["layers"][-1]["ranks"] == {}
    assert main(words) == 0
    text = capsys.readouterr().out
    assert "On noise" in text and "rank correlation" in text


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["--score", "nets.py:likeness"], "nothing to compare with"),
        (["--output", "layers.txt"], "ending in .json"),
        (["--calibration", "none.npz"], "none.npz"),
    ],
)
def test_what_it_cannot_do_is_refused(folder, monkeypatch, capsys, more, reason):
    monkeypatch.chdir(folder)
    assert main(["layers", "nets.py:early", "--input", "pixels:1x3x64x64", *more]) == 2
    assert reason in capsys.readouterr().err
    assert not list(folder.glob("layers.*"))


def test_a_score_that_fails_is_named(folder):
    with pytest.raises(UsageError, match="broken fails"):
        _found(folder, "early", score=f"{folder / 'nets.py'}:broken")


def test_a_network_that_ships_needs_no_input(monkeypatch):
    monkeypatch.setattr(layers, "rank_table", lambda *_: {})  # minutes, and tested elsewhere
    found = find_layers("evitpose_dino6", samples=1, progress=Silent())
    assert len(found.layers) == 6 and found.dense == pytest.approx(1)
    assert all(layer.from_here < 1 for layer in found.layers)
