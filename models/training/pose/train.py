"""Train EViTPose from scratch on rendered and teacher-labelled people: one resumable command.

``python -m prunus.models.training.pose.train --out runs/tiny --minutes 90 --resume auto``

Each step supervises unpruned and pruned passes of the same weights together, as GTPT (Wang et al.,
ECCV 2024) does, so that one checkpoint serves every level L0-L3.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from prunus.models.pose.evitpose import EViTPose
from prunus.models.tokens.plan import evitpose_plan
from prunus.models.training.pose.dataset import (
    DATA_RECORD,
    BatchPlan,
    PoseBatches,
    PosePools,
    batch_loader,
)
from prunus.models.training.pose.init import level_patches
from prunus.models.training.pose.losses import heatmap_loss
from prunus.models.training.pose.ship import SHIPPED, export_weights, record_start
from prunus.models.training.pose.state import (
    Average,
    Clock,
    Optimisers,
    build_network,
    load_checkpoint,
    moved_to_size,
    resize_positions,
    save_checkpoint,
    start_from,
)
from prunus.models.training.schedule import (
    FINE_STAGES,
    STAGES,
    Stage,
    locate_weight,
    rate_factor,
    stage_at,
)
from prunus.models.training.teachers.joint_readout import JointReadout, readout_loss

_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None] * 255
_STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None] * 255
_FOREVER = 10_000_000


@dataclass(frozen=True)
class TrainConfig:
    """Hold the settings of a run; ``minutes`` or ``steps`` ends it, whichever comes first."""

    out: Path
    data: Path
    minutes: float | None = None
    steps: int | None = None
    variant: str = "tiny"
    device: str = "cpu"
    seed: int = 0
    rate: float = 1.5e-3
    decay: float = 0.05
    muon: bool = True
    bf16: bool = True
    warmup: int = 60
    average: float = 0.998
    save_minutes: float = 3.0
    workers: int = 1
    stages: tuple[Stage, ...] = STAGES
    init: Path | None = None


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Turn RGB uint8 (B,3,H,W) into the ImageNet-normalised float32 the network expects."""
    return (images.float() - _MEAN.to(images.device)) / _STD.to(images.device)


def _few_tokens(network: EViTPose) -> bool:
    """Tell whether plain attention beats the fused kernel, whose backward pass is slow on CPUs."""
    return network.pos_embed.device.type == "cpu" and network.config.patches < 100


def _plain_attention() -> contextlib.AbstractContextManager[None]:
    return sdpa_kernel(SDPBackend.MATH)


class PoseTrainer:
    """Run the training loop and keep its state."""

    def __init__(self, config: TrainConfig, *, resume: bool) -> None:
        self.config = config
        self.clock = Clock()
        self.device = torch.device(config.device)
        if resume and (config.out / "weights.safetensors").is_file():
            self._restore()
        else:
            network = build_network(config.variant, config.stages[0].size, config.seed)
            if config.init is not None:
                start_from(network, config.init)
            self.network = network.to(self.device)
            self.readout = self._new_readout()
            self.optimisers = self._new_optimisers(self.network)
            self.average = Average(self.network, config.average)
        self._generator = torch.Generator().manual_seed(config.seed + self.clock.step)

    def _restore(self) -> None:
        config, saved = self.config, load_checkpoint(self.config.out)
        network = build_network(saved.variant, saved.size, config.seed)
        network.load_state_dict(saved.network)
        self.network = network.to(self.device)
        self.readout = self._new_readout()
        if saved.readout:
            self.readout.load_state_dict(saved.readout)
        self.optimisers = self._new_optimisers(self.network)
        if saved.optimisers is not None:
            self.optimisers.restore(saved.optimisers)
        self.average = Average(self.network, config.average)
        self.average.state = {k: v.to(self.device) for k, v in saved.average.items()}
        self.clock = saved.clock

    def _new_readout(self) -> JointReadout:
        config = self.network.config
        return JointReadout(config.dim, config.joints).to(self.device)

    def _new_optimisers(self, network: EViTPose) -> Optimisers:
        config = self.config
        return Optimisers(network, self.readout, config.rate, config.decay, config.muon)

    def progress(self) -> float:
        """Return how much of the run is done, 0..1."""
        shares = [0.0]
        if self.config.steps:
            shares.append(self.clock.step / self.config.steps)
        if self.config.minutes:
            shares.append(self.clock.seconds / (60 * self.config.minutes))
        return max(shares)

    def run(self) -> None:
        """Train until the time or the steps are used up, then save."""
        pools = PosePools.read(self.config.data)
        self.config.out.mkdir(parents=True, exist_ok=True)
        (self.config.out / DATA_RECORD).write_text(json.dumps(pools.counts()) + "\n")
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

    def _level(self, pools: PosePools) -> None:
        """Scale the patch filters on one batch of the first stage."""
        stage, config = self.config.stages[0], self.config
        plan = BatchPlan(stage.size, 64, stage.street, stage.augment, config.seed)
        images, _ = PoseBatches(pools, plan)[_FOREVER]
        level_patches(self.network.patch_embed, normalise(images.to(self.device)))
        self.average = Average(self.network, config.average)

    def _enter(self, stage: Stage) -> None:
        """Move weights, average and optimiser memory to the stage's input size."""
        network = self.network
        if (network.config.height, network.config.width) == stage.size:
            return
        old = network.config.grid
        moved = moved_to_size(network, self.config.variant, stage.size).to(self.device)
        states = self.optimisers.state()
        self.optimisers = self._new_optimisers(moved)
        self.optimisers.restore(states)
        self.average.state = resize_positions(self.average.state, old, moved.config.grid)
        self.network = moved

    def _run_stage(self, pools: PosePools, index: int) -> None:
        stage, config = self.config.stages[index], self.config
        plan = BatchPlan(stage.size, stage.batch, stage.street, stage.augment, config.seed)
        last = config.steps if config.steps is not None else _FOREVER
        loader = batch_loader(pools, plan, self.clock.step, last, config.workers)
        mark, saved = time.monotonic(), time.monotonic()
        with (config.out / "log.jsonl").open("a") as log:
            for images, joints in loader:
                loss, read = self._step(stage, images, joints)
                now = time.monotonic()
                self.clock.seconds, mark = self.clock.seconds + now - mark, now
                self.clock.step += 1
                self.clock.samples += len(images)
                if self.clock.step % 10 == 0:
                    record = {"loss": round(loss, 4), "readout": round(read, 4)}
                    record["progress"] = round(self.progress(), 4)
                    log.write(json.dumps({**asdict(self.clock), **record}) + "\n")
                    log.flush()
                if now - saved > 60 * config.save_minutes:
                    self.save()
                    saved = now
                if self.progress() >= 1 or stage_at(self.progress(), config.stages) != index:
                    return

    def _step(
        self, stage: Stage, images: torch.Tensor, joints: torch.Tensor
    ) -> tuple[float, float]:
        config, network = self.config, self.network
        network.train()
        inputs, labels = normalise(images.to(self.device)), joints.to(self.device)
        cut = len(images) - round(stage.pruned * len(images))
        parts: list[tuple[EViTPose, slice]] = [(network, slice(0, cut))]
        if cut < len(images):
            level = f"L{int(torch.randint(1, 4, (1,), generator=self._generator))}"
            pruned = network.with_plan(evitpose_plan(level, network.config.joints))
            parts.append((pruned, slice(cut, None)))
        locate = locate_weight(self.progress())
        kernels = _plain_attention if _few_tokens(network) else contextlib.nullcontext
        total, read = 0.0, 0.0
        for module, rows in parts:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=config.bf16), kernels():
                tokens, patches = module.features(inputs[rows])
                heatmaps = module.keypoint_head(tokens, patches)
            share = len(inputs[rows]) / len(inputs)
            maps = heatmap_loss(heatmaps, labels[rows], stage.size, locate, stage.sigma)
            lines = readout_loss(self.readout(tokens), labels[rows], stage.size)
            loss = share * (maps + lines)
            loss.backward()
            total += share * float(maps.detach())
            read += share * float(lines.detach())
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        self.optimisers.step(rate_factor(self.progress(), self.clock.step, config.warmup))
        self.average.update(network, self.clock.step)
        return total, read

    def save(self) -> None:
        """Write the checkpoint."""
        save_checkpoint(
            self.config.out,
            self.network,
            self.readout,
            average=self.average,
            optimisers=self.optimisers,
            clock=self.clock,
        )


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description="Train EViTPose on cached people.")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log")
    parser.add_argument("--data", type=Path, default=Path(".cache/training"))
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument(
        "--init", type=Path, metavar="FILE", help="start from these weights, at full size at once"
    )
    parser.add_argument("--resume", choices=("auto", "no"), default="auto")
    parser.add_argument(
        "--export-only",
        nargs="?",
        const=SHIPPED,
        type=Path,
        metavar="FILE",
        help="write the run's averaged weights as the shipped file, do not train",
    )
    args = parser.parse_args()
    if args.export_only is not None:
        print(export_weights(args.out, args.export_only, args.device))
        return
    torch.set_num_threads(args.threads)
    config = TrainConfig(
        args.out,
        args.data,
        args.minutes,
        args.steps,
        device=args.device,
        seed=args.seed,
        rate=args.rate,
        stages=FINE_STAGES if args.init else STAGES,
        init=args.init,
    )
    PoseTrainer(config, resume=args.resume == "auto").run()


if __name__ == "__main__":
    main()
