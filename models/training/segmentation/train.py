"""Train EDAFormer to tell people from background: one resumable command, any device.

``python -m prunus.models.training.segmentation.train --out runs/person --minutes 60``

A part of the steps runs with the published inference spatial reduction, so that one checkpoint
serves both settings (the paper trains without it; on so little data the habit costs nothing).
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from prunus.models.checkpoints.edaformer import convert_edaformer
from prunus.models.checkpoints.read import load_raw
from prunus.models.segmentation.edaformer import EDAFormer, edaformer_config
from prunus.models.segmentation.isr import IsrSetting, parse_isr
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
from prunus.models.training.schedule import Stage, stage_at
from prunus.models.training.segmentation.dataset import mask_batches
from prunus.models.training.segmentation.losses import mask_loss
from prunus.models.training.segmentation.shards import MaskShard, read_masks
from prunus.models.training.segmentation.state import CLASSES, fresh_network, mask_optimisers
from prunus.models.training.shipping import record_start
from prunus.models.training.state import Average, read_run, saved_in, write_run

# Small inputs are cheap: they teach what people look like, large ones where exactly they end.
STAGES = (
    Stage(0.44, (96, 96), 32, 0.4),
    Stage(0.7, (160, 160), 16, 0.3),
    Stage(1.0, (256, 256), 12, 0.3),
)
# From trained weights on: most of what is seen are real people.
FINE_STAGES = (
    Stage(0.35, (128, 128), 32, 0.65),
    Stage(0.7, (192, 192), 16, 0.65),
    Stage(1.0, (256, 256), 12, 0.65),
)


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Settings of a run.

    Attributes:
        average: Decay of the averaged weights.
        variant: Size of the network.
        reduced: Share of the steps that run with reduced keys and values.
        workers: Processes that prepare batches.
        stages: What changes on the way.
        init: Weights to start from.
    """

    average: float = 0.995
    variant: str = "t"
    reduced: float = 0.3
    workers: int = 1
    stages: tuple[Stage, ...] = STAGES
    init: Path | None = None


def attention_kernel(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Return plain attention for CPUs, where the fused kernel's backward pass is slower."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()


class SegmentationTrainer(Trainer):
    """Run the training loop and keep its state."""

    config: TrainConfig
    network: EDAFormer

    def __init__(self, config: TrainConfig, *, resume: bool) -> None:
        super().__init__(config)
        saved = read_run(config.out) if resume and saved_in(config.out) else None
        variant = config.variant if saved is None else saved.facts["variant"]
        network = fresh_network(variant, config.seed)
        if saved is None and config.init is not None:
            start = convert_edaformer(load_raw(config.init), variant=variant, classes=CLASSES)
            network.load_state_dict(start.state)
        self.network = network.to(self.device)
        self.optimisers = mask_optimisers(self.network, config.rate, config.decay)
        self.average = Average(self.network, config.average)
        if saved is not None:
            self.restore(saved)
        self.reduced = self.network.with_isr(parse_isr("published"))
        self._generator = torch.Generator().manual_seed(config.seed + self.clock.step)

    def run(self) -> None:
        """Train until the time or the steps are used up, then save."""
        pools = Pools.read(self.config.data, read_masks)
        begun = self.clock.step > 0
        note_data(self.config.out, pools.counts(), pools.hashes(), begun=begun)
        if not begun and self.config.init is not None:
            record_start(self.config.out, self.config.init)
        while self.progress() < 1:
            self.clock.stage = stage_at(self.progress(), self.config.stages)
            self._run_stage(pools, self.clock.stage)
        self.save()

    def _run_stage(self, pools: Pools[MaskShard], index: int) -> None:
        stage, config = self.config.stages[index], self.config

        def step(batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[int, Facts]:
            return len(batch[0]), {"loss": self._step(*batch)}

        def over() -> bool:
            return self.progress() >= 1 or stage_at(self.progress(), config.stages) != index

        batches = mask_batches(pools, stage, config.seed)
        last = config.steps if config.steps is not None else FOREVER
        self.go_through(batches.loader(self.clock.step, last, config.workers), step, over)

    def _step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        config = self.config
        coarse = float(torch.rand(1, generator=self._generator)) < config.reduced
        network = self.reduced if coarse else self.network
        network.train()
        inputs, target = normalise(images.to(self.device)), labels.to(self.device)
        with (
            torch.autocast(self.device.type, torch.bfloat16, enabled=config.bf16),
            attention_kernel(self.device),
        ):
            logits = network(inputs)
        loss = mask_loss(logits, target)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimisers.step(self.factor())
        self.average.update(self.network, self.clock.step)
        return float(loss.detach())

    def save(self) -> None:
        """Write the checkpoint."""
        parts = {"network": self.network.state_dict(), "average": self.average.state}
        facts = {"variant": self.network.config.variant, "bf16": str(self.config.bf16)}
        write_run(self.config.out, parts, self.optimisers, self.clock, facts)


def averaged_network(folder: Path, isr: IsrSetting | None = None) -> EDAFormer:
    """Return the averaged weights of a run as a network in evaluation mode."""
    saved = read_run(folder)
    network = EDAFormer(edaformer_config(saved.facts["variant"], classes=CLASSES, isr=isr))
    own = network.state_dict()
    network.load_state_dict({k: v.to(own[k].dtype) for k, v in saved.average.items()})
    return network.eval()


def main() -> None:
    """Parse the command line and train."""
    parser = train_parser(__doc__, ".cache/segmentation", 1.5e-3)
    parser.add_argument("--variant", default="t", help="size of the network")
    parser.add_argument(
        "--init", type=Path, metavar="FILE", help="start from these weights, with more real people"
    )
    add_bf16(parser)
    args = parser.parse_args()
    stages = FINE_STAGES if args.init else STAGES
    config = TrainConfig(**start(args, "init", "variant"), stages=stages)
    SegmentationTrainer(config, resume=args.resume == "auto").run()


if __name__ == "__main__":
    main()
