"""What every training shares: the settings of a run, its command line, and its loop."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from prunus.models.training.schedule import rate_factor
from prunus.models.training.state import (
    Average,
    Clock,
    Optimisers,
    SavedRun,
    multiplies_bfloat16,
)
from prunus.runtime.errors import UsageError

FOREVER = 10_000_000  # steps
_B = TypeVar("_B")
_C_co = TypeVar("_C_co", covariant=True)
Facts = dict[str, float]


class _ByStep(Protocol[_C_co]):
    def __getitem__(self, step: int, /) -> _C_co: ...


@dataclass(frozen=True)
class RunConfig:
    """Settings of any run; `minutes` or `steps` ends it, whichever comes first.

    Attributes:
        out: Folder of checkpoint and log.
        data: Folder of the cached data.
        minutes: Length of the run by the clock, resumed parts included.
        steps: Length of the run in steps.
        device: ``cpu``, ``cuda`` ...
        seed: Of weights and batches.
        rate: Learning rate.
        decay: Weight decay of matrices.
        bf16: Compute in bfloat16 where the network allows it; `start` asks the machine.
        warmup: Steps of rising rate.
        average: Decay of the averaged weights.
        save_minutes: Time between checkpoints.
    """

    out: Path
    data: Path
    minutes: float | None = None
    steps: int | None = None
    device: str = "cpu"
    seed: int = 0
    rate: float = 1.5e-3
    decay: float = 0.05
    bf16: bool = False
    warmup: int = 60
    average: float = 0.998
    save_minutes: float = 3.0

    def __post_init__(self) -> None:
        """Refuse a run without an end."""
        if self.minutes is None and self.steps is None:
            raise UsageError("Got no length of the run.", "Give --minutes or --steps.")


class Trainer:
    """The state of a run and its loop; a training adds its network, its step and `save`.

    Attributes:
        every: A line of the log stands for so many steps.
    """

    every = 10
    config: RunConfig
    network: nn.Module
    average: Average
    optimisers: Optimisers

    def __init__(self, config: RunConfig) -> None:
        self.config, self.clock = config, Clock()
        self.device = torch.device(config.device)

    def save(self) -> None:
        """Write the checkpoint."""
        raise NotImplementedError

    def details(self) -> dict[str, Any]:
        """Return what a line of the log says besides the measured facts."""
        return {}

    def progress(self) -> float:
        """Return how much of the run is done, 0..1."""
        shares = [0.0]
        if self.config.steps:
            shares.append(self.clock.step / self.config.steps)
        if self.config.minutes:
            shares.append(self.clock.seconds / (60 * self.config.minutes))
        return max(shares)

    def factor(self) -> float:
        """Return the learning rate's factor of this step."""
        return rate_factor(self.progress(), self.clock.step, self.config.warmup)

    def restore(self, saved: SavedRun) -> None:
        """Take over weights, average, optimisers and clock of a checkpoint."""
        self.network.load_state_dict(saved.network)
        self.average.put(saved.average, self.device)
        if saved.optimisers is not None:
            self.optimisers.restore(saved.optimisers)
        self.clock = saved.clock

    def until_done(self, batches: _ByStep[_B]) -> Iterator[_B]:
        """Yield the batch of each step until the run is over."""
        while self.progress() < 1:
            yield batches[self.clock.step]

    def go_through(
        self,
        batches: Iterable[_B],
        step: Callable[[_B], tuple[int, Facts]],
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take a step for each batch, keep the log, and save every few minutes.

        Args:
            batches: Batches, beginning at the clock's step.
            step: Takes one step; returns the number of samples and what was measured.
            over: Asked after each step whether to stop.
        """
        mark = saved = time.monotonic()
        with (self.config.out / "log.jsonl").open("a") as log:
            for batch in batches:
                samples, facts = step(batch)
                now = time.monotonic()
                self.clock.seconds, mark = self.clock.seconds + now - mark, now
                self.clock.step += 1
                self.clock.samples += samples
                if self.clock.step % self.every == 0:
                    measured = {**facts, "progress": self.progress()}
                    record = {k: round(v, 4) for k, v in measured.items()}
                    line = {**asdict(self.clock), **record, **self.details()}
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                if now - saved > 60 * self.config.save_minutes:
                    self.save()
                    saved = now
                if over():
                    return


def train_parser(doc: str | None, data: str, rate: float) -> argparse.ArgumentParser:
    """Return a command line with the flags of every training.

    Args:
        doc: The module's text, whose first line is shown.
        data: Default folder of the cached data.
        rate: Default learning rate.
    """
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder of checkpoint and log")
    add("--data", type=Path, default=Path(data), help=f"folder of the cached data ({data})")
    add("--minutes", type=float, help="length of the run by the clock")
    add("--steps", type=int, help="length of the run in steps")
    add("--device", default="cpu", help="cpu, cuda ...")
    add("--threads", type=int, default=2, help="CPU threads")
    add("--seed", type=int, default=0, help="of weights and batches")
    add("--rate", type=float, default=rate, help=f"learning rate ({rate:g})")
    add("--resume", choices=("auto", "no"), default="auto")
    return parser


def add_bf16(parser: argparse.ArgumentParser, recipe: bool | None = None) -> None:
    """Add ``--bf16`` and ``--no-bf16``.

    Args:
        parser: The command line.
        recipe: What counts without either; None: what the device multiplies in hardware.
    """
    usual = {None: "where the device multiplies it", True: "yes", False: "no"}[recipe]
    told = f"compute in bfloat16 (default: {usual})"
    parser.add_argument("--bf16", action=argparse.BooleanOptionalAction, help=told)
    parser.set_defaults(recipe_bf16=recipe)


def start(args: argparse.Namespace, *more: str) -> dict[str, Any]:
    """Set the threads and return the settings that the command line has, and those named.

    Where there is a ``--bf16``, the choice is made here and said.
    """
    torch.set_num_threads(args.threads)
    names = ("out", "data", "minutes", "steps", "device", "seed", "rate", *more)
    settings = {name: getattr(args, name) for name in names}
    if hasattr(args, "bf16"):
        settings["bf16"], told = _arithmetic(args.device, args.bf16, args.recipe_bf16)
        print(f"arithmetic: {told}", flush=True)
    return settings


def _arithmetic(device: str, asked: bool | None, recipe: bool | None) -> tuple[bool, str]:
    """Return whether to compute in bfloat16, and what to say of it."""
    able, why = multiplies_bfloat16(device)
    wanted = recipe if asked is None else asked
    chosen = able if wanted is None else wanted
    if wanted is None or (chosen and not able):
        reason = why if wanted is None else f"although {why.removeprefix('as ')}"
    else:
        reason = "as asked for" if asked is not None else "as in the recipe"
    return chosen, f"{'bfloat16' if chosen else 'float32'}, {reason}"
