"""A pruned ViT learns to be its dense self again: it learns, resumes, comes back, and refuses."""

import dataclasses
import json
import shutil
import sys
import textwrap

import numpy as np
import pytest
import torch

from prunus.models.tokens.blocks.stack import pruned_blocks, reductions
from prunus.models.tokens.prune import prune
from prunus.models.training.state import read_run
from prunus.models.training.tokens import distil
from prunus.models.training.tokens.distil import DistilConfig, Distiller, distilled
from prunus.models.training.tokens.inputs import FolderBatches, InputFolder
from prunus.runtime.errors import ArtifactError, CheckFailedError, UsageError

# A module of a user's own, in the common form of ViT code.
NETWORK = textwrap.dedent(
    """
    import torch
    from torch import nn

    class Attention(nn.Module):
        def __init__(self, dim, heads):
            super().__init__()
            self.num_heads, self.qkv = heads, nn.Linear(dim, 3 * dim)
            self.proj = nn.Linear(dim, dim)

        def forward(self, x):
            b, n, c = x.shape
            q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
            y = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.proj(y.transpose(1, 2).reshape(b, n, c))

    class Block(nn.Module):
        def __init__(self, dim, heads):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.attn, self.ls1, self.ls2 = Attention(dim, heads), nn.Identity(), nn.Identity()
            self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

        def forward(self, x):
            x = x + self.attn(self.norm1(x))
            return x + self.mlp(self.norm2(x))

    class Vit(nn.Module):
        num_prefix_tokens = 1

        def __init__(self):
            super().__init__()
            self.patches = nn.Conv2d(3, 16, 4, 4)
            self.front = nn.Parameter(torch.randn(1, 1, 16))
            self.places = nn.Parameter(torch.randn(1, 17, 16))
            self.blocks = nn.ModuleList(Block(16, 2) for _ in range(4))
            self.norm = nn.LayerNorm(16)

        def forward(self, x):
            x = self.patches(x).flatten(2).transpose(1, 2)
            x = torch.cat((self.front.expand(len(x), -1, -1), x), 1) + self.places
            for block in self.blocks:
                x = block(x)
            return self.norm(x)

    def build():
        torch.manual_seed(5)
        return Vit()

    def broken():
        raise ValueError("no weights here")

    number = 3
    """
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures and arrays side by side."""
    import cv2

    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    (root / "deeper").mkdir()
    for k in range(4):
        image = cv2.resize(rng.integers(0, 255, (5, 7, 3)).astype(np.uint8), (28, 20))
        cv2.imwrite(str(root / "deeper" / f"{k}.png"), image)
        np.save(root / f"{k}.npy", rng.normal(size=(3, 16, 16)).astype(np.float32))
    return root


@pytest.fixture(autouse=True)
def _network(tmp_path, monkeypatch):
    (tmp_path / "my_vit.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("my_vit", None)


def _config(out, data, **changes):
    base = DistilConfig(
        out, data, steps=60, warmup=4, rate=3e-3, average=0.8, bf16=False, network="my_vit:build",
        plan="evit:6@1", batch=4, shape=(3, 16, 16), grid=(4, 4),
    )  # fmt: skip
    return dataclasses.replace(base, **changes)


def _losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("plan", "restore", "trained"),
    [
        ("evit:6@1", "none", "all"),
        ("stf:4@2", "none", "reducers"),
        ("tokenlearner(width=8):4@1", "learned", "all"),
        ("laco:4@0,wle(layers=0):2@2", "delta", "all"),
    ],
)
def test_the_loss_falls(data, tmp_path, plan, restore, trained):
    out = tmp_path / "run"
    Distiller(_config(out, data, plan=plan, restore=restore, trained=trained), resume=False).run()
    losses = _losses(out)
    assert losses[-1] < 0.8 * losses[0], losses
    line = json.loads((out / "log.jsonl").read_text().splitlines()[0])
    assert ("own" in line) == ("wle" in plan)


def test_nearer_to_the_dense_network_than_before(data, tmp_path):
    """On inputs that it was not trained on, and through the function that reads a run."""
    import my_vit

    config = _config(tmp_path / "run", data, steps=150)
    Distiller(config, resume=False).run()
    dense = my_vit.build().eval()
    x = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        wanted = dense(x)[:, 0]
        before = prune(dense, config.plan, example=x[:1], grid=(4, 4))(x)[:, 0] - wanted
        after = distilled(tmp_path / "run")(x)[:, 0] - wanted
    assert after.square().mean() < 0.8 * before.square().mean()


def test_only_reducers_learn_when_asked(data, tmp_path):
    trainer = Distiller(
        _config(tmp_path / "run", data, plan="wico:4@1", trained="reducers"), resume=False
    )
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    teacher = {k: v.clone() for k, v in trainer.teacher.state_dict().items()}
    trainer.step(torch.randn(2, 3, 16, 16))
    moved = {k for k, v in trainer.network.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {"blocks.0.cuts.1.proj.weight", "blocks.0.cuts.1.proj.bias"}
    assert all(torch.equal(v, teacher[k]) for k, v in trainer.teacher.state_dict().items())


def test_a_stopped_run_goes_on_where_it_was(data, tmp_path):
    config = _config(tmp_path / "whole", data, steps=6, plan="wle(layers=0):8@1")
    Distiller(config, resume=False).run()
    half = dataclasses.replace(config, out=tmp_path / "half")
    trainer = Distiller(half, resume=False)
    real = trainer.progress
    trainer.progress = lambda: 1.0 if trainer.clock.step >= 3 else real()
    trainer.run()
    assert read_run(half.out).clock.step == 3
    Distiller(half, resume=True).run()
    first, second = read_run(config.out), read_run(half.out)
    assert second.clock.step == 6 and second.clock.samples == first.clock.samples
    for part in ("network", "average"):
        for name, value in first.parts[part].items():
            assert torch.equal(second.parts[part][name], value), name


def test_the_target_is_the_teachers_tokens_by_what_the_cuts_did(data, tmp_path):
    """With two cuts: the second one's matrix times the first one's, on the dense tokens."""
    config = _config(tmp_path / "run", data, plan="laco:4@0,evit:3@2")
    trainer = Distiller(config, resume=False)
    x = torch.randn(2, 3, 16, 16)
    features, own = trainer.losses(x)
    with torch.no_grad(), reductions(trainer.network) as done:
        got = trainer.network.norm(trainer.network(x)) * 0  # the hooks fill `done`
        assert got.shape == (2, 4, 16)
        seen = []
        trainer.teacher.blocks[-1].register_forward_hook(lambda _m, _g, out: seen.append(out))
        trainer.teacher(x)
        inner = []
        pruned_blocks(trainer.network).register_forward_hook(lambda _m, _g, out: inner.append(out))
        trainer.network(x)
    assert float(own) == 0
    first = done[0].assign
    second = done[2].assign
    target = torch.cat((seen[0][:, :1], second @ (first @ seen[0][:, 1:])), dim=1)

    def plain(t):
        return (t - t.mean(-1, keepdim=True)) / (
            t.var(-1, keepdim=True, correction=0) + 1e-5
        ).sqrt()

    expected = (plain(inner[0]) - plain(target)).square().mean()
    torch.testing.assert_close(features, expected)


def test_batches_are_decided_by_the_step(data):
    folder = InputFolder.read(data, (3, 16, 16), (0.5,) * 3, (0.25,) * 3)
    assert len(folder.files) == 8
    batches = FolderBatches(folder, 6, seed=1)
    assert torch.equal(batches[3], batches[3]) and not torch.equal(batches[3], batches[4])
    assert batches[3].shape == (6, 3, 16, 16)
    picture = next(p for p in folder.files if p.suffix == ".png")
    value = folder.load(picture, np.random.default_rng(0))
    assert value.min() >= -2 and value.max() <= 2  # (0..1 - 0.5) / 0.25


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": "my_vit:nothing"}, "Cannot build the network 'my_vit:nothing'"),
        ({"network": "no_such:build"}, "Cannot build the network 'no_such:build'"),
        ({"network": "my_vit:broken"}, "no weights here"),
        ({"network": "builtins:dict"}, "returns dict; expected a torch module"),
        ({"shape": ()}, "inputs of Vit are not known"),
        ({"plan": "dense"}, "nothing to recover"),
        ({"plan": "laco:5@1"}, "no such cells make 5"),
        ({"trained": "reducers"}, "have no weights"),
        ({"restore": "learned"}, "no learned way back"),
    ],
)
def test_what_cannot_be_built_is_said(data, tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        Distiller(_config(tmp_path / "run", data, **changes), resume=False)
    assert not (tmp_path / "run").exists()


def _broken(tmp_path, name, content):
    folder = tmp_path / "bad"
    folder.mkdir()
    if isinstance(content, np.ndarray):
        np.save(folder / name, content)
    elif content is not None:
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("", None, "No training data"),
        ("a.npy", np.full((3, 16, 16), np.nan), "not finite"),
        ("a.npy", np.zeros((3, 16, 15)), r"float64 \[3, 16, 15\]; expected numbers \[3, 16, 16\]"),
        ("a.npy", np.zeros((3, 16, 16), "U1"), "expected numbers"),
        ("a.npy", b"not an array", "is not a complete .npy file"),
        ("a.jpg", b"not a picture", "Cannot read the picture"),
    ],
)
def test_bad_data_is_refused(tmp_path, name, content, message):
    folder = _broken(tmp_path, name, content)
    with pytest.raises(UsageError, match=message):
        Distiller(_config(tmp_path / "run", folder), resume=False).run()
    assert not (tmp_path / "run" / "weights.safetensors").exists()


def test_a_cut_photo_is_refused(tmp_path):
    """Its decoder would fill the rest with grey and say nothing."""
    import cv2

    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    whole = cv2.imencode(".jpg", noise)[1].tobytes()
    folder = _broken(tmp_path, "a.jpg", whole[: len(whole) // 2])
    inputs = InputFolder.read(folder, (3, 16, 16), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(UsageError, match=r"Cannot read the picture .*not a complete picture"):
        inputs.load(folder / "a.jpg", np.random.default_rng(0))


def test_pictures_for_a_network_that_takes_none(data):
    with pytest.raises(UsageError, match=r"is a picture, and the network takes \[80, 3000\]"):
        InputFolder.read(data, (80, 3000), (0.5,) * 3, (0.5,) * 3)
    with pytest.raises(UsageError, match="three numbers each"):
        InputFolder.read(data, (3, 16, 16), (0.5,), (0.5,))
    with pytest.raises(UsageError, match="0 inputs per step"):
        _config(data, data, batch=0)


def test_a_loss_that_is_not_finite_ends_the_run(data, tmp_path):
    trainer = Distiller(_config(tmp_path / "run", data), resume=False)
    with torch.no_grad():
        trainer.network.norm.weight.fill_(1.0)
        pruned_blocks(trainer.network).blocks[0].mlp[0].bias.fill_(torch.inf)
    before = {k: v.clone() for k, v in trainer.average.state.items()}
    with pytest.raises(CheckFailedError, match="loss of step 0 is nan"):
        trainer.run()
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    assert all(torch.equal(v, before[k]) for k, v in trainer.average.state.items())


def test_another_run_is_not_gone_on_with(data, tmp_path):
    out = tmp_path / "run"
    Distiller(_config(out, data, steps=1), resume=False).run()
    with pytest.raises(UsageError, match="has plan 'evit:6@1'; got 'evit:5@1'"):
        Distiller(_config(out, data, plan="evit:5@1"), resume=True)
    with pytest.raises(ArtifactError, match="no checkpoint"):
        distilled(tmp_path)


def test_the_command_line(data, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    words = [
        "distil", "my_vit:build", "--plan", "wtc:4@1", "--restore", "delta", "--data", str(data),
        "--out", str(out), "--steps", "2", "--input", "3x16x16", "--grid", "4x4", "--threads", "1",
        "--mean", "0.5,0.5,0.5", "--train", "reducers",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", words)
    distil.main()
    assert read_run(out).clock.step == 2
    monkeypatch.setattr(sys, "argv", [*words, "--plan", "wtc:5@1"])
    with pytest.raises(SystemExit) as end:
        distil.main()
    assert end.value.code == 2 and "has plan 'wtc:4@1'" in capsys.readouterr().err


def test_a_run_goes_on_with_the_data_that_it_began_with(data, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    config = _config(tmp_path / "run", folder, steps=1)
    Distiller(config, resume=False).run()
    longer = dataclasses.replace(config, steps=2)
    (folder / "0.npy").rename(folder / "9.npy")  # as many files
    before = {p: p.read_bytes() for p in config.out.iterdir()}
    with pytest.raises(UsageError, match="have changed: it began with files"):
        Distiller(longer, resume=True).run()
    assert {p: p.read_bytes() for p in config.out.iterdir()} == before
    (folder / "9.npy").rename(folder / "0.npy")
    Distiller(longer, resume=True).run()
    assert read_run(config.out).clock.step == 2
