"""Train EViTPose from scratch on rendered and teacher-labelled people: one resumable command.

``python -m prunus.models.training.pose.train --out runs/tiny --minutes 90 --resume auto``

Each step supervises unpruned and pruned passes of the same weights together, as GTPT (Wang et al.,
ECCV 2024) does, so that one checkpoint serves every level L0-L3.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from prunus.models.pose.evitpose import EViTPose, evitpose_config
from prunus.models.pose.levels import evitpose_plan
from prunus.models.tokens.plan import read_plan
from prunus.models.training.data_record import note_data
from prunus.models.training.loop import (
    FOREVER,
    Facts,
    RunConfig,
    Trainer,
    add_bf16,
    start,
    train_parser,
)
from prunus.models.training.pictures import Pools, normalise
from prunus.models.training.pose.dataset import (
    STAGES,
    STREET,
    PoseStage,
    fine_stages,
    pose_batches,
)
from prunus.models.training.pose.init import level_patches
from prunus.models.training.pose.losses import agreement_loss, heatmap_loss
from prunus.models.training.pose.shards import PeopleShard, read_shards
from prunus.models.training.pose.ship import export_weights
from prunus.models.training.pose.state import (
    build_network,
    facts_of,
    freeze,
    moved_to_size,
    pose_optimisers,
    resize_positions,
    saved_config,
    start_from,
    trunk_optimisers,
)
from prunus.models.training.schedule import locate_weight, stage_at
from prunus.models.training.shipping import record_start
from prunus.models.training.state import (
    Average,
    Optimisers,
    read_run,
    saved_in,
    write_run,
)
from prunus.models.training.teachers.joint_readout import JointReadout, readout_loss
from prunus.runtime.errors import UsageError


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Settings of a run.

    Attributes:
        variant: Size of the network.
        muon: Drive matrices with Muon.
        workers: Processes that prepare batches.
        stages: What changes on the way.
        init: Weights to start from.
        frozen: Leading blocks that do not learn, and with them all that lies before.
        trunk: Learning rate of a trained trunk, relative to the head's; None: it is not one.
        noise: Relative noise on the scores before each cut; the two noisy selections of a crop
            are then held to the same heatmap.
        plan: The one plan that every look runs through, in the words of
            `prunus.models.tokens.plan`; None: half of them at a random level.
        depth: Leading blocks that are kept; None: all.
    """

    variant: str = "tiny"
    muon: bool = True
    workers: int = 1
    stages: tuple[PoseStage, ...] = STAGES
    init: Path | None = None
    frozen: int = 0
    trunk: float | None = None
    noise: float = 0.0
    plan: str | None = None
    depth: int | None = None


def _attention(network: EViTPose) -> contextlib.AbstractContextManager[None]:
    """Return plain attention where it beats the fused kernel, whose backward is slow on CPUs."""
    few = network.pos_embed.device.type == "cpu" and network.config.patches < 100
    return sdpa_kernel(SDPBackend.MATH) if few else contextlib.nullcontext()


class PoseTrainer(Trainer):
    """Run the training loop and keep its state."""

    config: TrainConfig
    network: EViTPose

    def __init__(self, config: TrainConfig, *, resume: bool) -> None:
        super().__init__(config)
        saved = read_run(config.out) if resume and saved_in(config.out) else None
        variant, size, depth = config.variant, config.stages[0].size, config.depth
        if saved is not None:
            now = saved_config(saved)
            variant, size, depth = now.variant, (now.height, now.width), now.depth
        network = build_network(variant, size, config.seed, depth)
        if saved is None and config.init is not None:
            start_from(network, config.init, evitpose_config(variant))
        self.network = network.to(self.device)
        own = self.network.config
        self._plan = None if config.plan is None else read_plan(config.plan, own.patches)
        self.readout = JointReadout(own.dim, own.joints).to(self.device)
        self.optimisers = self._new_optimisers(self.network)
        self.average = Average(self.network, config.average)
        if saved is not None:
            self.readout.load_state_dict(saved.parts.get("readout") or self.readout.state_dict())
            self.restore(saved)
        self._generator = torch.Generator().manual_seed(config.seed + self.clock.step)

    def _new_optimisers(self, network: EViTPose) -> Optimisers:
        config = self.config
        freeze(network, config.frozen)
        if config.trunk is not None:
            return trunk_optimisers(
                network, self.readout, config.rate, config.decay, share=config.trunk
            )
        return pose_optimisers(
            network, self.readout, config.rate, config.decay, with_muon=config.muon
        )

    def run(self) -> None:
        """Train until the time or the steps are used up, then save."""
        pools = Pools.read(self.config.data, read_shards, STREET)
        begun = self.clock.step > 0
        about = {} if self.config.plan is None else {"plan": self.config.plan}
        note_data(self.config.out, pools.counts(), pools.hashes() | about, begun=begun)
        if self.clock.step == 0 and self.config.init is not None:
            record_start(self.config.out, self.config.init)
        elif self.clock.step == 0:
            self._level(pools)
        while self.progress() < 1:
            index = stage_at(self.progress(), self.config.stages)
            self._enter(self.config.stages[index])
            self.clock.stage = index
            self._run_stage(pools, index)
        self.save()

    def _level(self, pools: Pools[PeopleShard]) -> None:
        """Scale the patch filters on one batch of the first stage."""
        stage, config = self.config.stages[0], self.config
        images, _ = pose_batches(pools, stage, 64, config.seed)[FOREVER]
        level_patches(self.network.patch_embed, normalise(images.to(self.device)))
        self.average = Average(self.network, config.average)

    def _enter(self, stage: PoseStage) -> None:
        """Move weights, average and optimiser memory to the stage's input size."""
        network = self.network
        if (network.config.height, network.config.width) == stage.size:
            return
        old = network.config.grid
        moved = moved_to_size(network, stage.size).to(self.device)
        states = self.optimisers.state()
        self.optimisers = self._new_optimisers(moved)
        self.optimisers.restore(states)
        self.average.state = resize_positions(self.average.state, old, moved.config.grid)
        self.network = moved

    def _run_stage(self, pools: Pools[PeopleShard], index: int) -> None:
        stage, config = self.config.stages[index], self.config

        def step(batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[int, Facts]:
            loss, read = self._step(stage, *batch)
            return len(batch[0]), {"loss": loss, "readout": read}

        def over() -> bool:
            return self.progress() >= 1 or stage_at(self.progress(), config.stages) != index

        batches = pose_batches(pools, stage, stage.batch, config.seed)
        last = config.steps if config.steps is not None else FOREVER
        self.go_through(batches.loader(self.clock.step, last, config.workers), step, over)

    def _step(
        self, stage: PoseStage, images: torch.Tensor, joints: torch.Tensor
    ) -> tuple[float, float]:
        config, network = self.config, self.network
        network.train()
        inputs, labels = normalise(images.to(self.device)), joints.to(self.device)
        pruned = stage.pruned if self._plan is None else 1.0
        cut = len(images) - round(pruned * len(images))
        parts: list[tuple[EViTPose, slice]] = [(network, slice(0, cut))] if cut else []
        if cut < len(images):
            parts.append((self._pruned(), slice(cut, None)))
        locate = locate_weight(self.progress())
        total, read = 0.0, 0.0
        for module, rows in parts:
            twice = config.noise > 0 and module is not network
            seen = inputs[rows].repeat(2, 1, 1, 1) if twice else inputs[rows]
            wanted = labels[rows].repeat(2, 1, 1) if twice else labels[rows]
            cast = torch.autocast(self.device.type, torch.bfloat16, enabled=config.bf16)
            with cast, _attention(network):
                tokens, patches = module.features(seen)
                heatmaps = module.keypoint_head(tokens, patches)
            share = len(inputs[rows]) / len(inputs)
            maps = heatmap_loss(heatmaps, wanted, stage.size, locate, stage.sigma)
            lines = readout_loss(self.readout(tokens), wanted, stage.size)
            loss = maps + lines
            if twice:
                one, other = heatmaps.chunk(2)
                loss = loss + agreement_loss(one, other, stage.sigma)
            (share * loss).backward()
            total += share * float(maps.detach())
            read += share * float(lines.detach())
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        self.optimisers.step(self.factor())
        self.average.update(network, self.clock.step)
        return total, read

    def _pruned(self) -> EViTPose:
        """Return the network at the run's plan or a random level, its cuts as noisy as it wants."""
        own, plan = self.network.config, self._plan
        if plan is None:
            level = f"L{int(torch.randint(1, 4, (1,), generator=self._generator))}"
            plan = evitpose_plan(level, own.joints, own.depth)
        pruned = self.network.with_plan(plan)
        for cut in pruned.cuts.values():
            cut.noise = self.config.noise  # type: ignore[assignment]
        return pruned

    def save(self) -> None:
        """Write the checkpoint."""
        parts = {
            "network": self.network.state_dict(),
            "readout": self.readout.state_dict(),
            "average": self.average.state,
        }
        facts = {**facts_of(self.network), "bf16": str(self.config.bf16)}
        write_run(self.config.out, parts, self.optimisers, self.clock, facts)


def _size(text: str) -> tuple[int, int]:
    height, width = map(int, text.split("x"))
    return height, width


def main() -> None:
    """Parse the command line and train."""
    parser = train_parser(__doc__, ".cache/training", 1.5e-3)
    parser.add_argument(
        "--init", type=Path, metavar="FILE", help="start from these weights, at full size at once"
    )
    parser.add_argument("--variant", default="tiny", help="size of the network (tiny)")
    parser.add_argument(
        "--frozen", type=int, default=0, help="leading blocks that do not learn (0)"
    )
    parser.add_argument(
        "--trunk", type=float, help="learning rate of a trained trunk, relative to the head's"
    )
    parser.add_argument(
        "--noise", type=float, default=0.0, help="relative noise on the scores before each cut (0)"
    )
    begun = parser.add_argument_group("with --init")
    told = "the one plan of every look, as 'joint:96@3' or 'dense' (half at a random level)"
    begun.add_argument("--plan", metavar="WORDS", help=told)
    begun.add_argument("--depth", type=int, help="leading blocks that stay (all)")
    begun.add_argument("--size", type=_size, metavar="HxW", help="of the input (256x192)")
    parser.add_argument(
        "--export-only",
        nargs="?",
        const="",
        metavar="FILE",
        help="write the run's averaged weights as the shipped file, do not train",
    )
    parser.add_argument(
        "--eight-bits", action="store_true", help="with --export-only: matrices in 8 bits"
    )
    add_bf16(parser)
    args = parser.parse_args()
    if args.export_only is not None:
        target = Path(args.export_only) if args.export_only else None
        print(export_weights(args.out, target, args.device, eight_bits=args.eight_bits))
        return
    if args.init is None and (args.plan or args.depth or args.size):
        raise UsageError("Got --plan, --depth or --size; expected the weights with --init, too.")
    own = start(args, "init", "variant", "frozen", "trunk", "noise", "plan", "depth")
    config = TrainConfig(**own, stages=fine_stages(args.size) if args.init else STAGES)
    PoseTrainer(config, resume=args.resume == "auto").run()


if __name__ == "__main__":
    main()
