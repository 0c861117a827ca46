"""A trained network and its plain rivals, each fine-tuned as it is: for `token_reduction_tuned`.

All arms start from the same weights, take the same number of steps at the same rates, and draw
people by the same seed. They differ in what a step runs: one plan, one size of input, one depth.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunus.export.planning.points import Kind
from prunus.models.pose.evitpose import EViTPose, evitpose_config
from prunus.models.tokens.plan import read_plan
from prunus.models.training.pose.dataset import fine_stages
from prunus.models.training.pose.evaluate import averaged_network
from prunus.models.training.pose.state import build_network, start_from
from prunus.models.training.pose.train import PoseTrainer, TrainConfig

VARIANT = "dino6"
STEPS = 200
_COUNTS, _BLOCKS = "119/71/47", "1/3/4"  # level L2


@dataclass(frozen=True)
class Arm:
    """One way to run the network.

    Attributes:
        name: For tables and files.
        kind: Pruned, dense, or one of the plain ways.
        plan: Words of a plan, for what it was trained with and is judged with.
        size: Height and width of the input.
        depth: Leading blocks that are kept; None: all.
        tuned: It is fine-tuned; otherwise it stands as it starts.
    """

    name: str
    kind: Kind
    plan: str = "dense"
    size: tuple[int, int] = (256, 192)
    depth: int | None = None
    tuned: bool = True

    @property
    def folder(self) -> str:
        """Name of the run's folder."""
        return "".join(c if c.isalnum() else "-" for c in self.name)


def _planned(plan: str, kind: Kind) -> Arm:
    return Arm(plan, kind, plan)


DENSE = Arm("dense", "dense", tuned=False)
PRUNED = _planned(f"joint:{_COUNTS}@{_BLOCKS}", "pruned")
CONSTANT = (
    _planned(f"strided:{_COUNTS}@{_BLOCKS}", "constant"),
    _planned("centre:119@1,strided:71@3,strided:47@4", "constant"),
    _planned("centre(rows=16):112@1,centre(rows=14):70@3,centre(rows=12):48@4", "constant"),
)
RIVALS = (
    Arm("input of 208 x 160", "rival", size=(208, 160)),
    Arm("crop of 256 x 128", "rival", size=(256, 128)),
    Arm("first 4 blocks", "blocks", depth=4),
)


def fine_tune(arm: Arm, start: Path, people: Path, out: Path, steps: int = STEPS) -> Path:
    """Fine-tune one arm, or go on where it stopped; return the run's folder.

    Args:
        arm: What a step runs.
        start: Weights that all arms begin with.
        people: Folder of labelled people.
        out: Folder of all runs.
        steps: Of 24 looks.
    """
    config = TrainConfig(
        out / arm.folder, people, steps=steps, variant=VARIANT, stages=fine_stages(arm.size),
        init=start, trunk=0.15, rate=1e-3, warmup=20, workers=0, plan=arm.plan, depth=arm.depth,
    )  # fmt: skip
    PoseTrainer(config, resume=True).run()
    return config.out


def network_of(arm: Arm, start: Path) -> EViTPose:
    """Return an arm's network with the weights that all begin with."""
    network = build_network(VARIANT, arm.size, 0, arm.depth)
    start_from(network, start, evitpose_config(VARIANT))
    return _cut(network, arm)


def tuned_network(arm: Arm, start: Path, runs: Path) -> EViTPose:
    """Return an arm's network with the averaged weights of its run, if it has one."""
    return _cut(averaged_network(runs / arm.folder), arm) if arm.tuned else network_of(arm, start)


def _cut(network: EViTPose, arm: Arm) -> EViTPose:
    return network.with_plan(read_plan(arm.plan, network.config.patches)).eval()
