"""The training command's loop on bright discs: it learns, resumes and ships."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from prunus.export.segmentation.weights import find_weights
from prunus.models.segmentation.isr import IsrSetting, parse_isr
from prunus.models.training.data_record import noted_counts
from prunus.models.training.pictures import normalise
from prunus.models.training.schedule import Stage
from prunus.models.training.segmentation.shards import MaskImage, pack, write_masks
from prunus.models.training.segmentation.ship import export_weights
from prunus.models.training.segmentation.train import (
    SegmentationTrainer,
    TrainConfig,
    averaged_network,
)
from prunus.models.training.state import read_run
from prunus.runtime.errors import ArtifactError

SMALL = (Stage(0.5, (64, 64), 4, 0.0), Stage(1.0, (96, 64), 4, 0.0))


def _disc(rng):
    y, x = np.mgrid[:96, :96]
    middle = rng.uniform(30, 66, 2)
    labels = (np.hypot(y - middle[0], x - middle[1]) < 24).astype(np.uint8)
    image = np.full((96, 96, 3), rng.integers(0, 60, 3), np.uint8)
    image[labels > 0] = rng.integers(190, 255, 3)
    return MaskImage(image, labels)


@pytest.fixture(scope="module")
def discs(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("discs"), np.random.default_rng(0)
    write_masks(root / "synthetic" / "a.npz", pack([_disc(rng) for _ in range(12)]))
    return root


def _config(out, data, **changes):
    base = TrainConfig(out, data, steps=20, warmup=4, workers=0, stages=SMALL, average=0.8)
    return dataclasses.replace(base, **changes)


@pytest.fixture(scope="module")
def short_run(tmp_path_factory, discs):
    out = tmp_path_factory.mktemp("run")
    SegmentationTrainer(_config(out, discs), resume=False).run()
    return out


def test_twenty_steps_make_the_loss_fall(short_run):
    log = (short_run / "log.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in log]
    assert losses[-1] < 0.85 * losses[0]
    saved = read_run(short_run)
    assert (saved.clock.step, saved.clock.samples, saved.clock.stage) == (20, 80, 1)
    assert noted_counts(short_run) == {"synthetic": 12, "real": 0}


def test_both_settings_run_on_the_same_weights(short_run, discs):
    image = torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        off, published = (
            averaged_network(short_run, isr)(normalise(image))
            for isr in (IsrSetting(), parse_isr("published"))
        )
    assert off.shape == published.shape == (1, 2, 8, 8)
    assert not torch.equal(off, published)


def test_a_stopped_run_goes_on_where_it_was(short_run, discs, tmp_path):
    whole, half = tmp_path / "whole", tmp_path / "half"
    stages = (Stage(1.0, (64, 64), 2, 0.0),)
    config = _config(whole, discs, stages=stages, steps=6, reduced=0.0, bf16=False)
    SegmentationTrainer(config, resume=False).run()
    trainer = SegmentationTrainer(dataclasses.replace(config, out=half), resume=False)
    real = trainer.progress
    trainer.progress = lambda: 1.0 if trainer.clock.step >= 3 else real()
    trainer.run()
    assert read_run(half).clock.step == 3
    SegmentationTrainer(dataclasses.replace(config, out=half), resume=True).run()
    first, second = read_run(whole), read_run(half)
    assert second.clock.step == 6
    for name, value in first.network.items():
        torch.testing.assert_close(second.network[name], value, rtol=1e-4, atol=1e-5)


def test_shipped_weights_come_back_as_the_network(short_run, tmp_path):
    target = export_weights(short_run, tmp_path / "person.safetensors")
    record = json.loads(target.with_suffix(".json").read_text())
    assert record["steps"] == 20 and record["size"] == target.stat().st_size
    assert [row["pictures"] for row in record["data"]] == [12]
    found = find_weights(target)
    assert found.classes == ("background", "person") and found.palette[0] == (0, 0, 0)
    assert found.spec.trained and found.spec.sha256 == record["sha256"]
    image = normalise(torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8))
    with torch.no_grad():
        mine = averaged_network(short_run)(image)
        theirs = found.build(IsrSetting())(image)
    assert (mine - theirs).abs().max() < 0.05 * mine.abs().max()


def test_a_run_begins_with_given_weights_and_says_so(short_run, discs, tmp_path):
    begun = export_weights(short_run, tmp_path / "start.safetensors")
    config = _config(tmp_path / "run", discs, steps=1, init=begun, rate=1e-9)
    SegmentationTrainer(config, resume=False).run()
    now, then = averaged_network(tmp_path / "run"), find_weights(begun).build(IsrSetting())
    image = normalise(torch.randint(0, 255, (1, 3, 64, 64), dtype=torch.uint8))
    with torch.no_grad():
        difference = (now(image) - then.eval()(image)).abs().max()
        torch.testing.assert_close(difference, torch.tensor(0.0), atol=0.05, rtol=0)
    target = export_weights(tmp_path / "run", tmp_path / "next.safetensors")
    record = json.loads(target.with_suffix(".json").read_text())
    assert record["trained_by"].endswith("--init") and record["steps"] == 1
    assert record["continued_from"]["steps"] == 20
    assert (
        record["continued_from"]["sha256"]
        == json.loads(begun.with_suffix(".json").read_text())["sha256"]
    )
    with pytest.raises(ArtifactError):
        SegmentationTrainer(
            _config(tmp_path / "none", discs, init=tmp_path / "absent.safetensors"), resume=False
        )


def test_nothing_to_ship_is_said(tmp_path):
    with pytest.raises(ArtifactError, match="no checkpoint"):
        export_weights(tmp_path)
