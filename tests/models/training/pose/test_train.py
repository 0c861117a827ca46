import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from prunus.models.checkpoints.read import read_checkpoint
from prunus.models.pose.evitpose import EViTPose, evitpose_config
from prunus.models.training.pictures import Pools
from prunus.models.training.pose import evaluate as evaluate_pose
from prunus.models.training.pose import train
from prunus.models.training.pose.augment import NONE, AugmentConfig
from prunus.models.training.pose.dataset import STAGES, STREET, PoseStage, pose_batches
from prunus.models.training.pose.evaluation_sets import HeldOut, held_out_sets
from prunus.models.training.pose.shards import read_shards
from prunus.models.training.pose.ship import export_weights
from prunus.models.training.pose.train import PoseTrainer, TrainConfig
from prunus.models.training.schedule import locate_weight, rate_factor, stage_at
from prunus.models.training.state import read_run
from prunus.runtime.card.artifact import sha256_of
from prunus.runtime.errors import ArtifactError, UsageError

MILD = AugmentConfig(5.0, 0.05, 0.02, 0.0, 0.5, 0.2, 0.0, 0.0)
SMALL = (PoseStage(1.0, (64, 48), 4, 0.3, augment=MILD),)


def _config(out, data, **changes):
    base = TrainConfig(out, data, steps=50, warmup=5, workers=0, stages=SMALL)
    return dataclasses.replace(base, **changes)


def _losses(folder):
    return [json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def short_run(tmp_path_factory, figure_cache):
    """Fifty steps of the real command's loop on stick figures."""
    out = tmp_path_factory.mktemp("run")
    PoseTrainer(_config(out, figure_cache, muon=False, rate=1e-3), resume=False).run()
    return out


def test_fifty_steps_make_the_loss_fall(short_run):
    losses = _losses(short_run)
    assert len(losses) == 5
    assert losses[-1] < 0.8 * losses[0]
    assert read_run(short_run).clock.samples == 200


def test_a_resumed_run_goes_on_where_it_stopped(tmp_path, figure_cache):
    whole = _config(tmp_path / "whole", figure_cache, steps=4, average=0.5)
    PoseTrainer(whole, resume=False).run()
    parts = dataclasses.replace(whole, out=tmp_path / "parts")
    # A schedule is a function of the run's length, so the first part keeps the whole run's.
    first = PoseTrainer(parts, resume=True)
    first.config = dataclasses.replace(parts, steps=2)
    first.progress = lambda: max(first.clock.step / 4, first.clock.step // 2)
    first.run()
    second = PoseTrainer(parts, resume=True)
    assert second.clock.step == 2
    second.run()
    one, two = read_run(whole.out), read_run(parts.out)
    assert (two.clock.step, two.clock.samples) == (one.clock.step, one.clock.samples) == (4, 16)
    for name, value in one.network.items():
        torch.testing.assert_close(two.network[name], value, atol=2e-3, rtol=2e-2, msg=name)


@pytest.mark.slow
def test_a_run_grows_its_inputs_and_trains_pruned_levels(tmp_path, figure_cache):
    stages = (
        PoseStage(0.5, (64, 48), 2, 0.0, augment=NONE),
        PoseStage(1.0, (256, 192), 2, 0.5, pruned=0.5, augment=NONE),
    )
    config = _config(tmp_path, figure_cache, steps=2, stages=stages)
    PoseTrainer(config, resume=False).run()
    saved = read_run(tmp_path)
    assert (saved.facts["height"], saved.facts["width"]) == ("256", "192")
    assert saved.network["pos_embed"].shape == (1, 192, 192)
    assert saved.optimisers is not None
    PoseTrainer(dataclasses.replace(config, steps=3), resume=True).run()
    assert read_run(tmp_path).clock.step == 3


def test_exported_weights_fit_the_network_and_the_size_limit(short_run, tmp_path):
    target = export_weights(short_run, tmp_path / "pose.safetensors.xz")
    assert target.stat().st_size <= 12 * 2**20
    network = evaluate_pose.shipped_network(target, "tiny")
    assert torch.isfinite(network(torch.zeros(1, 3, 256, 192))).all()
    record = json.loads((tmp_path / "pose.json").read_text())
    assert (record["steps"], record["samples_seen"]) == (50, 200)
    assert [d["pictures"] for d in record["data"]] == [12, 12]
    assert not list(tmp_path.glob("*.part"))


def test_weights_in_eight_bits_are_half_as_large_and_say_so(short_run, tmp_path):
    whole = export_weights(short_run, tmp_path / "whole.safetensors")
    small = export_weights(short_run, tmp_path / "small.safetensors", eight_bits=True)
    assert small.stat().st_size < 0.55 * whole.stat().st_size
    assert "8 bits" in json.loads(small.with_suffix(".json").read_text())["precision"]
    for name, value in read_checkpoint(whole).items():
        other = read_checkpoint(small)[name].float()
        step = value.float().abs().max() / 127
        torch.testing.assert_close(other, value.float(), atol=float(step), rtol=0)


def test_a_run_starts_from_weights_and_says_so(short_run, figure_cache, tmp_path):
    weights = export_weights(short_run, tmp_path / "first.safetensors")
    tiny = (PoseStage(1.0, (256, 192), 2, 0.5, pruned=0.5, augment=NONE),)
    config = _config(tmp_path / "run", figure_cache, steps=1, stages=tiny, init=weights, rate=1e-9)
    PoseTrainer(config, resume=True).run()
    begun = read_checkpoint(weights)["blocks.0.attn.qkv.weight"]
    torch.testing.assert_close(
        read_run(config.out).network["blocks.0.attn.qkv.weight"], begun, atol=1e-5, rtol=0
    )
    second = export_weights(config.out, tmp_path / "second.safetensors")
    before = json.loads(second.with_suffix(".json").read_text())["continued_from"]
    assert before["sha256"] == sha256_of(weights)
    assert (before["steps"], before["samples_seen"]) == (50, 200)


def test_what_lies_below_a_frozen_block_stays_and_the_trunk_learns_slowly(figure_cache, tmp_path):
    full = (PoseStage(1.0, (256, 192), 4, 0.5, pruned=0.5, augment=NONE),)
    config = _config(
        tmp_path, figure_cache, steps=2, stages=full, frozen=10, trunk=0.1, noise=0.05, bf16=False
    )
    trainer = PoseTrainer(config, resume=False)
    pruned = trainer._pruned()
    assert [cut.noise for cut in pruned.cuts.values()] == [0.05] * 3
    assert [cut.noise for cut in trainer.network.cuts.values()] == []
    start = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    trainer.run()
    moved = {
        name: float((value - start[name]).float().abs().mean())
        for name, value in trainer.network.state_dict().items()
    }
    below = ("patch_embed.", "pos_embed", "joint_tokens", *(f"blocks.{i}." for i in range(10)))
    assert not any(moved[name] for name in moved if name.startswith(below) and "patch" not in name)
    head, trunk = moved["keypoint_head.up_layers.0.weight"], moved["blocks.11.mlp.fc1.weight"]
    assert 0 < trunk < 0.3 * head
    record = export_weights(tmp_path, tmp_path / "own.safetensors").with_suffix(".json")
    assert json.loads(record.read_text())["precision"].startswith("float32, ")


def test_a_run_of_one_plan_prunes_every_look_and_goes_on_with_no_other(figure_cache, tmp_path):
    stages = (PoseStage(1.0, (64, 32), 2, 0.5, augment=NONE),)
    first = "joint:5@1,strided:3@2"
    config = _config(tmp_path, figure_cache, steps=1, stages=stages, plan=first, depth=3)
    trainer = PoseTrainer(config, resume=False)
    lengths = []
    for block in trainer.network.blocks:
        block.register_forward_pre_hook(lambda _, given: lengths.append(given[0].shape[:2]))
    trainer.run()
    assert lengths == [(2, 17 + 8), (2, 17 + 8), (2, 17 + 5)]  # of both looks; no unpruned pass
    assert evaluate_pose.averaged_network(tmp_path).config.depth == 3
    again = PoseTrainer(dataclasses.replace(config, steps=2), resume=True)
    assert (again.clock.step, len(again.network.blocks)) == (1, 3)
    with pytest.raises(UsageError, match="have changed: it began with plan joint:5"):
        PoseTrainer(dataclasses.replace(config, steps=2, plan="dense"), resume=True).run()
    with pytest.raises(UsageError, match="trained 3 blocks; EViTPose-Tiny has 12"):
        export_weights(tmp_path, tmp_path / "short.safetensors")
    assert not (tmp_path / "short.safetensors").exists()


def test_what_needs_trained_weights_is_refused_without_them(monkeypatch, tmp_path):
    monkeypatch.setattr(
        "sys.argv", ["train", "--out", str(tmp_path), "--steps", "1", "--depth", "3"]
    )
    with pytest.raises(UsageError, match="expected the weights with --init"):
        train.main()
    assert not list(tmp_path.iterdir())


def test_noise_on_the_scores_changes_which_patches_stay():
    network = EViTPose(evitpose_config("tiny", "L3")).eval()
    images = torch.randn(1, 3, 256, 192)
    with torch.no_grad():
        quiet = [network(images) for _ in range(2)]
        for cut in network.cuts.values():
            cut.noise = 0.2
        noisy = [network(images) for _ in range(2)]
    assert torch.equal(*quiet)
    assert not torch.equal(*noisy)


def test_weights_of_another_network_are_refused(figure_cache, tmp_path):
    save_file({"pos_embed": torch.zeros(1, 2, 3)}, str(tmp_path / "other.safetensors"))
    full = (PoseStage(1.0, (256, 192), 2, 0.5, pruned=0.5, augment=NONE),)
    for name, reason in (("other", "does not fit"), ("none", "Checkpoint not found")):
        init = tmp_path / f"{name}.safetensors"
        config = _config(tmp_path / "run", figure_cache, steps=1, stages=full, init=init)
        with pytest.raises(ArtifactError, match=reason):
            PoseTrainer(config, resume=False)


def test_the_trained_run_beats_an_untrained_network(short_run, figure_cache):
    sets = [s for s in held_out_sets(figure_cache) if s.name != "portrait"]
    trained = evaluate_pose.averaged_network(short_run)
    torch.manual_seed(0)
    fresh = EViTPose(dataclasses.replace(evitpose_config("tiny"), height=64, width=48)).eval()
    readers = {
        "trained": evaluate_pose.network_reader(trained),
        "fresh": evaluate_pose.network_reader(fresh),
    }
    scores = evaluate_pose.evaluate(readers, sets)
    assert scores["trained"]["synthetic"].oks > 2 * scores["fresh"]["synthetic"].oks
    table = evaluate_pose.as_table(scores, sets)
    assert "synthetic (n=12" in table
    assert len(table.splitlines()) == 4


def test_a_reader_returns_picture_pixels(figure_cache):
    data = held_out_sets(figure_cache)[0]
    _, matrices = evaluate_pose.crop_people(data, (256, 192))
    inside = np.stack(
        [j @ m[:, :2].T + m[:, 2] for j, m in zip(data.joints, matrices, strict=True)]
    )
    back = evaluate_pose.to_picture(np.concatenate([inside, inside[..., :1]], 2), matrices)
    np.testing.assert_allclose(back[..., :2], data.joints, atol=1e-3)


def test_levels_are_measured_only_at_the_size_they_are_defined_for():
    small = EViTPose(dataclasses.replace(evitpose_config("tiny"), height=64, width=48))
    assert list(evaluate_pose.level_readers(small)) == ["EViTPose-Tiny L0"]
    full = evaluate_pose.level_readers(EViTPose(evitpose_config("tiny")))
    assert [name[-2:] for name in full] == ["L0", "L1", "L2", "L3"]


def test_a_missing_checkpoint_is_explained(tmp_path):
    with pytest.raises(ArtifactError, match="no checkpoint"):
        read_run(tmp_path)


def test_batches_depend_on_the_step_alone(figure_cache):
    pools = Pools.read(figure_cache, read_shards, STREET)
    stage = PoseStage(1.0, (64, 48), 4, 0.5, augment=AugmentConfig())
    one, two = (pose_batches(pools, stage, stage.batch, 7) for _ in range(2))
    one[0]
    for a, b in zip(one[5], two[5], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one[5][0], one[6][0])


def test_the_schedule_warms_up_decays_and_ends_with_the_place_loss_off():
    assert rate_factor(0.0, 0, 10) == pytest.approx(0.1)
    assert rate_factor(0.2, 100, 10) == 1.0
    assert rate_factor(1.0, 100, 10) == pytest.approx(0.01)
    factors = [rate_factor(p, 1000, 10) for p in np.linspace(0, 1, 50)]
    assert factors == sorted(factors, reverse=True)
    assert locate_weight(0.0) > 0 == locate_weight(0.7)
    last = len(STAGES) - 1
    assert [stage_at(p, STAGES) for p in (0.0, STAGES[0].until, 1.0, 2.0)] == [0, 1, last, last]


def test_joints_that_hang_on_red_and_blue_are_counted():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (40, 20, 3), np.uint8) for _ in range(3)]
    boxes = np.tile([0.0, 0.0, 20.0, 40.0], (3, 1))
    labelled = np.ones((3, 17), bool)
    labelled[0] = False
    people = HeldOut("set", "exact", images, boxes, np.zeros((3, 17, 2)), labelled)

    def read(data):
        found = np.zeros((3, 17, 3))
        for joints, image in zip(found, data.images, strict=True):
            if (image == images[1][..., ::-1]).all():  # one person of the two that count
                joints[:5, 0] = 2.5  # of 40 pixels: more than a twentieth
                joints[5:9, 0] = 1.5
        return found

    assert evaluate_pose.moved_by_colours(read, people) == pytest.approx(5 / 34)
