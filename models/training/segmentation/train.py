"""Train EDAFormer to tell people from background: one resumable command, any device.

``python -m prunus.models.training.segmentation.train --out runs/person --minutes 60``

A part of the steps runs with the published inference spatial reduction, so that one checkpoint
serves both settings (the paper trains without it; on so little data the habit costs nothing).
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

from prunus.models.segmentation.edaformer import EDAFormer, edaformer_config
from prunus.models.segmentation.isr import IsrSetting, parse_isr
from prunus.models.training.pose.state import Average, Clock
from prunus.models.training.schedule import rate_factor
from prunus.models.training.segmentation import state
from prunus.models.training.segmentation.dataset import MaskPlan, MaskPools, mask_loader
from prunus.models.training.segmentation.losses import mask_loss

DATA_RECORD = "data.json"  # in a run's folder: how many pictures of each set it used
_MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None] * 255
_STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None] * 255
_FOREVER = 10_000_000


@dataclass(frozen=True)
class Stage:
    """Hold what stays constant during a part of the training.

    Args:
        until: Progress (0..1) at which the stage ends.
        size: Height and width of the inputs.
        batch: Samples in a step.
        real: Share of real pictures.
    """

    until: float
    size: tuple[int, int]
    batch: int
    real: float


# Small inputs are cheap: they teach what people look like, large ones where exactly they end.
STAGES = (
    Stage(0.44, (96, 96), 32, 0.4),
    Stage(0.7, (160, 160), 16, 0.3),
    Stage(1.0, (256, 256), 12, 0.3),
)


@dataclass(frozen=True)
class TrainConfig:
    """Hold the settings of a run; ``minutes`` or ``steps`` ends it, whichever comes first."""

    out: Path
    data: Path
    minutes: float | None = None
    steps: int | None = None
    variant: str = "t"
    device: str = "cpu"
    seed: int = 0
    rate: float = 1.5e-3
    decay: float = 0.05
    bf16: bool = True
    warmup: int = 60
    average: float = 0.995
    reduced: float = 0.3
    save_minutes: float = 3.0
    workers: int = 1
    stages: tuple[Stage, ...] = STAGES


def normalise(images: torch.Tensor) -> torch.Tensor:
    """Turn RGB uint8 (B,3,H,W) into the ImageNet-normalised float32 the network expects."""
    return (images.float() - _MEAN.to(images.device)) / _STD.to(images.device)


def attention_kernel(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Return plain attention for CPUs, where the fused kernel's backward pass is slower."""
    return sdpa_kernel(SDPBackend.MATH) if device.type == "cpu" else contextlib.nullcontext()


class SegmentationTrainer:
    """Run the training loop and keep its state."""

    def __init__(self, config: TrainConfig, *, resume: bool) -> None:
        self.config = config
        self.device = torch.device(config.device)
        self.clock = Clock()
        saved = state.load(config.out) if resume and state.saved_in(config.out) else None
        if saved is None:
            network = state.fresh_network(config.variant, config.seed)
        else:
            network = EDAFormer(edaformer_config(saved.variant, classes=state.CLASSES))
            network.load_state_dict(saved.network)
        self.network = network.to(self.device)
        self.optimisers = state.Optimisers(self.network, config.rate, config.decay)
        self.average = Average(self.network, config.average)
        if saved is not None:
            self.clock = saved.clock
            self.average.state = {k: v.to(self.device) for k, v in saved.average.items()}
            if saved.optimisers is not None:
                self.optimisers.restore(saved.optimisers)
        self.reduced = self.network.with_isr(parse_isr("published"))
        self._generator = torch.Generator().manual_seed(config.seed + self.clock.step)

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
        pools = MaskPools.read(self.config.data)
        self.config.out.mkdir(parents=True, exist_ok=True)
        (self.config.out / DATA_RECORD).write_text(json.dumps(pools.counts()) + "\n")
        while self.progress() < 1:
            self.clock.stage = self._stage()
            self._run_stage(pools, self.clock.stage)
        self.save()

    def _stage(self) -> int:
        stages = self.config.stages
        later = [i for i, stage in enumerate(stages) if self.progress() < stage.until]
        return later[0] if later else len(stages) - 1

    def _run_stage(self, pools: MaskPools, index: int) -> None:
        stage, config = self.config.stages[index], self.config
        plan = MaskPlan(stage.size, stage.batch, stage.real, config.seed)
        last = config.steps if config.steps is not None else _FOREVER
        loader = mask_loader(pools, plan, self.clock.step, last, config.workers)
        mark = saved = time.monotonic()
        with (config.out / "log.jsonl").open("a") as log:
            for images, labels in loader:
                loss = self._step(images, labels)
                now = time.monotonic()
                self.clock.seconds, mark = self.clock.seconds + now - mark, now
                self.clock.step += 1
                self.clock.samples += len(images)
                if self.clock.step % 10 == 0:
                    record = {"loss": round(loss, 4), "progress": round(self.progress(), 4)}
                    log.write(json.dumps({**asdict(self.clock), **record}) + "\n")
                    log.flush()
                if now - saved > 60 * config.save_minutes:
                    self.save()
                    saved = now
                if self.progress() >= 1 or self._stage() != index:
                    return

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
        self.optimisers.step(rate_factor(self.progress(), self.clock.step, config.warmup))
        self.average.update(self.network, self.clock.step)
        return float(loss.detach())

    def save(self) -> None:
        """Write the checkpoint."""
        state.save(self.config.out, self.network, self.average, self.optimisers, self.clock)


def averaged_network(folder: Path, isr: IsrSetting | None = None) -> EDAFormer:
    """Return the averaged weights of a run as a network in evaluation mode."""
    saved = state.load(folder)
    network = EDAFormer(edaformer_config(saved.variant, classes=state.CLASSES, isr=isr))
    own = network.state_dict()
    network.load_state_dict({k: v.to(own[k].dtype) for k, v in saved.average.items()})
    return network.eval()


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description="Train EDAFormer on cached people and masks.")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoint and log")
    parser.add_argument("--data", type=Path, default=Path(".cache/segmentation"))
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--variant", default="t")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--resume", choices=("auto", "no"), default="auto")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    config = TrainConfig(
        args.out,
        args.data,
        args.minutes,
        args.steps,
        variant=args.variant,
        device=args.device,
        seed=args.seed,
        rate=args.rate,
    )
    SegmentationTrainer(config, resume=args.resume == "auto").run()


if __name__ == "__main__":
    main()
