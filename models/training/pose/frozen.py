"""Train heads on a frozen trunk, whose features of a set of looks are computed once.

``python -m prunus.models.training.pose.frozen --variant dino12 --init dino12.safetensors
--depths 6 8 12 --out runs/heads --steps 400``

One pass of the trunk serves every depth: a head is trained on the features after each, so that
depths are compared before anything is fine-tuned. For each a file of weights is written that
`prunus.models.training.pose.train --init` goes on with.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from prunus.models.pose.evitpose import EViTPose, evitpose_config
from prunus.models.pose.heads import build_head
from prunus.models.training.data_record import note_data
from prunus.models.training.loop import Facts, RunConfig, Trainer, start, train_parser
from prunus.models.training.pictures import Pools, normalise, read_shard, write_shard
from prunus.models.training.pose.dataset import FINE_STAGES, STREET, pose_batches
from prunus.models.training.pose.losses import heatmap_loss
from prunus.models.training.pose.shards import PeopleShard, read_shards
from prunus.models.training.pose.state import start_from
from prunus.models.training.schedule import locate_weight
from prunus.models.training.shipping import run_facts, write_weights
from prunus.models.training.state import (
    WEIGHTS,
    Average,
    Optimisers,
    adam_of,
    read_run,
    saved_in,
    write_run,
)
from prunus.runtime.card.artifact import sha256_of
from prunus.runtime.errors import UsageError

_LOOKS = 16  # in a file of features


@dataclass(frozen=True)
class FrozenConfig(RunConfig):
    """Settings of the heads' training.

    Attributes:
        init: Weights of the trunk.
        variant: The trunk's size.
        depths: Numbers of blocks to compare.
        files: Files of `_LOOKS` looks whose features are kept.
        batch: Looks in a step.
    """

    init: Path = Path()
    variant: str = "dino12"
    depths: tuple[int, ...] = (8,)
    files: int = 60
    batch: int = 16


def features_after(network: EViTPose, images: Tensor, depths: Sequence[int]) -> dict[int, Tensor]:
    """Return the normed patches (B, N, C) after each of the given numbers of blocks.

    Args:
        network: The trunk, nothing pruned.
        images: (B, 3, height, width) float32, normalised.
        depths: Numbers of blocks, each at most the network's.
    """
    joints, tokens = network.config.joints, network.embed(images)
    found = {}
    for number, block in enumerate(network.blocks[: max(depths)], 1):
        tokens, _ = block(tokens)
        if number in depths:
            found[number] = network.last_norm(tokens[:, joints:])
    return found


def cache_features(
    network: EViTPose, pools: Pools[PeopleShard], config: FrozenConfig
) -> list[Path]:
    """Write the features of random looks, file by file; files that exist are kept.

    Args:
        network: The frozen trunk.
        pools: People.
        config: Folder, depths, seed and number of files.
    """
    own = network.config
    stage = replace(FINE_STAGES[0], size=(own.height, own.width))
    batches = pose_batches(pools, stage, _LOOKS, config.seed)
    name = "-".join(map(str, config.depths))
    paths = [config.out / f"features-{name}-{i:04d}.npz" for i in range(config.files)]
    for index, path in enumerate(paths):
        if path.exists():
            continue
        images, joints = batches[index]
        with torch.no_grad():
            found = features_after(network, normalise(images), config.depths)
        halves = {f"after{k}": v.half().numpy() for k, v in found.items()}
        write_shard(path, joints=joints.numpy(), **halves)
    return paths


class HeadTrainer(Trainer):
    """Train the head of one depth on cached features."""

    config: FrozenConfig

    def __init__(self, config: FrozenConfig, trunk: EViTPose, depth: int, *, resume: bool) -> None:
        super().__init__(replace(config, out=config.out / f"depth{depth}"))
        own = trunk.config
        torch.manual_seed(config.seed)
        self.size, self.depth = (own.height, own.width), depth
        self.network: nn.Module = build_head(own.head, own.dim, own.joints, own.grid)
        self.optimisers = Optimisers(
            [adam_of(self.network, config.rate, config.decay, 0.99)], config.rate
        )
        self.average = Average(self.network, config.average)
        if resume and saved_in(self.config.out):
            self.restore(read_run(self.config.out))

    def run(self, paths: Sequence[Path]) -> None:
        """Train until the time or the steps are used up, then save."""
        after = f"after{self.depth}"
        loaded = [read_shard(path, after, "joints") for path in paths]
        features = torch.from_numpy(np.concatenate([f[after] for f in loaded]))
        joints = torch.from_numpy(np.concatenate([f["joints"] for f in loaded]))
        self.config.out.mkdir(parents=True, exist_ok=True)

        class Batches:
            def __getitem__(own, step: int) -> Tensor:  # noqa: N805
                draw = torch.Generator().manual_seed(self.config.seed * 100_003 + step)
                return torch.randperm(len(joints), generator=draw)[: self.config.batch]

        def step(rows: Tensor) -> tuple[int, Facts]:
            self.network.train()
            maps = self.network(features[rows, :0].float(), features[rows].float())
            loss = heatmap_loss(maps, joints[rows], self.size, locate_weight(self.progress()))
            loss.backward()
            self.optimisers.step(self.factor())
            self.average.update(self.network, self.clock.step)
            return len(rows), {"loss": float(loss.detach())}

        self.go_through(self.until_done(Batches()), step)
        self.save()

    def save(self) -> None:
        """Write the checkpoint."""
        parts = {"network": self.network.state_dict(), "average": self.average.state}
        write_run(self.config.out, parts, self.optimisers, self.clock, {})


def _note_origin(config: FrozenConfig, pools: Pools[PeopleShard], *, resume: bool) -> None:
    """Note what the features are made of; those of anything else are refused, or made again.

    Raises:
        UsageError: the run goes on, and data, trunk, variant or seed are not those that it began
            with.
    """
    about = {
        **pools.hashes(), "trunk": sha256_of(config.init), "variant": config.variant,
        "seed": str(config.seed),
    }  # fmt: skip
    kept = sorted(config.out.glob("features-*.npz"))
    note = partial(note_data, config.out, pools.counts(), about, older=False)
    if resume:
        begun = bool(kept) or any(saved_in(folder) for folder in config.out.glob("depth*"))
        note(begun=begun)
        return
    try:
        note(begun=bool(kept))
    except UsageError as error:
        # Before the record, so that no kill leaves them with one that is not theirs.
        for path in (*kept, *config.out.glob(f"depth*/{WEIGHTS}")):
            path.unlink()
        note(begun=False)
        print(f"computing features and heads again: {error.message}", flush=True)


def with_head(trunk: EViTPose, head: dict[str, Tensor], variant: str) -> dict[str, Tensor]:
    """Return the state of a network of ``variant``: the trunk's first blocks and a trained head."""
    config = evitpose_config(variant)
    state = EViTPose(config).state_dict()
    taken = {**trunk.state_dict(), **{f"keypoint_head.{k}": v for k, v in head.items()}}
    return {name: taken[name].to(like.dtype).contiguous() for name, like in state.items()}


def main() -> None:
    """Parse the command line, compute the features and train the heads."""
    parser = train_parser(__doc__, ".cache/training", 2e-3)
    parser.add_argument("--init", type=Path, required=True, metavar="FILE", help="trunk's weights")
    parser.add_argument("--variant", default="dino12", help="the trunk's size (dino12)")
    parser.add_argument("--depths", type=int, nargs="+", default=[8], help="blocks (8)")
    parser.add_argument("--files", type=int, default=60, help="files of 16 looks (60)")
    args = parser.parse_args()
    own = start(args, "init", "variant", "files")
    config = FrozenConfig(**own, depths=tuple(args.depths), average=0.98)
    trunk = EViTPose(evitpose_config(config.variant))
    if max(config.depths) > trunk.config.depth or min(config.depths) < 1:
        raise UsageError(f"Got the depths {args.depths}; expected 1 to {trunk.config.depth}.")
    start_from(trunk, config.init)
    family = re.sub(r"\d+$", "", config.variant)
    pools = Pools.read(config.data, read_shards, STREET)
    _note_origin(config, pools, resume=args.resume == "auto")
    paths = cache_features(trunk.eval(), pools, config)
    for depth in config.depths:
        trainer = HeadTrainer(config, trunk, depth, resume=args.resume == "auto")
        trainer.run(paths)
        state = with_head(trunk, trainer.average.state, f"{family}{depth}")
        target = config.out / f"{family}{depth}.safetensors"
        record = {
            "trained_by": "prunus.models.training.pose.frozen",
            **run_facts(trainer.clock, config.device),
            "samples_seen": trainer.clock.samples,
            "trunk": {"file": config.init.name, "sha256": sha256_of(config.init)},
        }
        print(write_weights(target, state, {}, record))


if __name__ == "__main__":
    main()
