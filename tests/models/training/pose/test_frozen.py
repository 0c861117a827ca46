import json
import shutil
import sys
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from prunus.models.pose.evitpose import EViTPose, EViTPoseConfig
from prunus.models.tokens.plan import PruningPlan
from prunus.models.training.pose import frozen
from prunus.models.training.pose.frozen import features_after
from prunus.models.training.pose.shards import read_shard, write_shard
from prunus.runtime.errors import UsageError

TOY = EViTPoseConfig(
    "toy3", 32, 2, PruningPlan("L0", (), ()), "simple", depth=3, height=64, width=48
)


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(
        frozen, "evitpose_config", lambda v: replace(TOY, variant=v, depth=int(v[-1]))
    )


def _main(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["frozen", *map(str, words)])
    frozen.main()


def test_features_after_all_blocks_are_the_networks():
    network = EViTPose(TOY).eval()
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        found = features_after(network, images, (1, 3))
        torch.testing.assert_close(found[3], network.features(images)[1])
    assert not torch.allclose(found[1], found[3])


def test_a_head_is_trained_for_each_depth_and_a_second_call_goes_on(
    toy, monkeypatch, figure_cache, tmp_path
):
    torch.manual_seed(0)
    trunk = EViTPose(TOY)
    save_file(trunk.state_dict(), tmp_path / "toy3.safetensors")
    out = tmp_path / "heads"
    words = ("--variant", "toy3", "--init", tmp_path / "toy3.safetensors", "--depths", 2, 3,
             "--files", 2, "--data", figure_cache, "--out", out, "--steps")  # fmt: skip
    _main(monkeypatch, *words, 10)
    first = load_file(out / "toy2.safetensors")
    assert first.keys() == EViTPose(replace(TOY, depth=2)).state_dict().keys()
    assert torch.equal(first["blocks.1.mlp.fc1.weight"], trunk.blocks[1].mlp.fc1.weight)
    record = json.loads((out / "toy2.json").read_text())
    assert (record["steps"], record["samples_seen"]) == (10, 160)
    assert record["trunk"]["sha256"] == frozen.sha256_of(tmp_path / "toy3.safetensors")
    head = "keypoint_head.final_layer.weight"
    assert not torch.equal(first[head], load_file(out / "toy3.safetensors")[head])
    written = {path: path.stat().st_mtime_ns for path in out.glob("features-*.npz")}
    assert len(written) == 2
    _main(monkeypatch, *words, 12)
    assert {p: p.stat().st_mtime_ns for p in out.glob("features-*.npz")} == written
    assert not torch.equal(load_file(out / "toy2.safetensors")[head], first[head])
    assert frozen.read_run(out / "depth2").clock.step == 12
    _main(monkeypatch, *words, 1, "--resume", "no")
    assert frozen.read_run(out / "depth2").clock.step == 1


def test_depths_that_the_trunk_lacks_are_refused(toy, monkeypatch, tmp_path):
    with pytest.raises(UsageError, match=r"\[4\]; expected 1 to 3"):
        words = ("--variant", "toy3", "--init", "x", "--depths", 4, "--steps", 1)
        _main(monkeypatch, *words, "--out", tmp_path)


def test_features_of_other_data_are_not_mixed(toy, monkeypatch, figure_cache, tmp_path):
    save_file(EViTPose(TOY).state_dict(), tmp_path / "toy3.safetensors")
    out, less = tmp_path / "heads", tmp_path / "less"
    (less / "synthetic").mkdir(parents=True)
    for shard in (figure_cache / "synthetic").iterdir():
        (less / "synthetic" / shard.name).write_bytes(shard.read_bytes())
    words = ("--variant", "toy3", "--init", tmp_path / "toy3.safetensors", "--depths", 3,
             "--files", 1, "--steps", 1, "--out", out, "--data")  # fmt: skip
    _main(monkeypatch, *words, figure_cache)
    before = (out / "data.json").read_text()
    with pytest.raises(UsageError, match=r"have changed: it began with .* now there are"):
        _main(monkeypatch, *words, less)
    assert (out / "data.json").read_text() == before


@pytest.mark.parametrize("change", ["weights", "variant", "seed", "data", "record"])
def test_features_of_another_trunk_or_data_are_never_used(
    toy, monkeypatch, figure_cache, tmp_path, capsys, change
):
    """As many pictures as before, and features that are not what the command would compute."""
    out, data, weights = tmp_path / "heads", tmp_path / "data", tmp_path / "toy3.safetensors"
    shutil.copytree(figure_cache, data)
    save_file(EViTPose(TOY).state_dict(), weights)

    def run(*more, variant="toy3"):
        words = ("--variant", variant, "--init", weights, "--depths", 2, "--files", 1,
                 "--steps", 1, "--out", out, "--data", data)  # fmt: skip
        _main(monkeypatch, *words, *more)
        (path,) = out.glob("features-*.npz")
        return path.read_bytes()

    first, words, variant = run(), (), "toy3"
    if change == "weights":
        torch.manual_seed(1)
        save_file(EViTPose(TOY).state_dict(), weights)
    elif change == "variant":
        variant = "same3"  # other sizes, whatever the weights are
    elif change == "seed":
        words = ("--seed", 1)
    elif change == "data":
        for path in (data / "synthetic").glob("*.npz"):
            shard = read_shard(path)
            write_shard(path, replace(shard, jpegs=shard.jpegs[::-1]))
    else:
        (out / "data.json").unlink()
    kept = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match=r"have changed: it began with .*--resume no"):
        run(*words, variant=variant)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == kept
    capsys.readouterr()
    again = run(*words, "--resume", "no", variant=variant)
    told = "computing features and heads again" in capsys.readouterr().out
    same = change in ("variant", "record")  # the same blocks; nothing but the note was lost
    assert told and (again == first) == same
    run(*words, variant=variant)
