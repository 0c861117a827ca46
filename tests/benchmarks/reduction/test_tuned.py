"""The ways that are compared: of one length, from one start."""

from dataclasses import replace
from pathlib import Path

from benchmarks.reduction.tuned import CONSTANT, DENSE, PRUNED, RIVALS, VARIANT, fine_tune
from prunus.models.pose.evitpose import EViTPose, evitpose_config
from prunus.models.pose.levels import evitpose_plan
from prunus.models.tokens.plan import read_plan

START = Path("weights.safetensors")


def test_the_cut_is_the_level_that_ships_and_constant_ones_are_no_dearer():
    config = evitpose_config(VARIANT)
    level = evitpose_plan("L2", depth=config.depth)
    for arm in (PRUNED, *CONSTANT):
        plan = read_plan(arm.plan, config.patches)
        assert plan.blocks == level.blocks
        assert plan.keep == level.keep or sum(plan.keep) < sum(level.keep)
        EViTPose(replace(config, plan=plan, dim=12, heads=3))  # it takes the plan
    assert read_plan(PRUNED.plan, config.patches).keep == level.keep


def test_arms_differ_in_what_a_step_runs_alone(monkeypatch, tmp_path):
    told = []

    class Recorder:
        def __init__(self, config, *, resume):
            assert resume
            told.append(config)

        def run(self):
            pass

    monkeypatch.setattr("benchmarks.reduction.tuned.PoseTrainer", Recorder)
    arms = (DENSE, PRUNED, *RIVALS, *CONSTANT)
    folders = {fine_tune(arm, START, tmp_path, tmp_path / "runs", 7) for arm in arms}
    assert len(folders) == len(arms)
    same = {(c.steps, c.seed, c.rate, c.trunk, c.init, c.warmup, c.stages[0].batch) for c in told}
    assert same == {(7, 0, 1e-3, 0.15, START, 20, 24)}
    assert [c.stages[0].size for c in told[2:4]] == [(208, 160), (256, 128)]
    assert [c.depth for c in told[:5]] == [None, None, None, None, 4]
    assert [c.plan for c in told[:3]] == ["dense", PRUNED.plan, "dense"]
