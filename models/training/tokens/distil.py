"""Let a pruned network learn to be its dense self again: self-distillation, one command.

``python -m prunus.models.training.tokens.distil package.module:build --plan stf:64@4 \\
    --data pictures --out runs/stf --steps 2000``

FCoT-VL's recipe (arXiv 2502.18512, section 3): the teacher is the uncompressed network, the student
the same network with the compression in it, and no label is needed. ``build`` is a function of
yours that returns the network with its weights.

    loss = mean square of LN(student's tokens) - LN(W teacher's tokens), behind the last block

W is what the cuts did in this very pass, so that each token is held to the mean of the patches it
stands for; with ``--restore`` all N tokens are there and W is the identity. LN has no weights: the
norm behind the blocks takes scale and shift out anyway.

Differs from the paper, where the loss is on a language model's predictions behind an encoder; the
weights that it trains first, those of the compression alone, are ``--train reducers``. Losses that
a method has of its own (``wle``) are added.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.tokens.blocks.layouts import example_input
from prunus.models.tokens.blocks.stack import PrunedBlocks, pruned_blocks, reductions
from prunus.models.tokens.prune import prune
from prunus.models.tokens.reducer import Reduced, Restore, assignment
from prunus.models.training.data_record import note_data
from prunus.models.training.loop import Facts, RunConfig, Trainer, add_bf16, start, train_parser
from prunus.models.training.state import (
    Average,
    Optimisers,
    SavedRun,
    adam_of,
    read_run,
    saved_in,
    write_run,
)
from prunus.models.training.tokens.inputs import FolderBatches, InputFolder
from prunus.models.user_network import build_network
from prunus.runtime.errors import CheckFailedError, PrunusError, UsageError

Trained = Literal["all", "reducers"]


@dataclass(frozen=True)
class DistilConfig(RunConfig):
    """Settings of a run.

    Attributes:
        network: ``package.module:build`` or ``file.py:build``, a function without arguments that
            returns the network.
        plan: What is pruned, see `prunus.models.tokens.plan`.
        restore: What follows the blocks, see `prunus.models.tokens.prune.prune`.
        trained: ``all`` weights, or those of the ``reducers`` alone.
        batch: Inputs per step.
        shape: Of one input without the batch; empty: as the network's configuration says.
        grid: Rows and columns of the patches where the network does not say.
        mean: Of pictures, see `InputFolder`.
        std: Likewise.
    """

    rate: float = 1e-4
    average: float = 0.999
    network: str = ""
    plan: str = ""
    restore: Restore = "none"
    trained: Trained = "all"
    batch: int = 16
    shape: tuple[int, ...] = ()
    grid: tuple[int, ...] = ()
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        """Refuse settings that cannot be."""
        RunConfig.__post_init__(self)
        if self.batch < 1 or len(self.grid) not in (0, 2):
            raise UsageError(
                f"Got {self.batch} inputs per step and a grid of {self.grid}; expected 1 or more, "
                "and rows and columns or nothing."
            )

    def facts(self) -> dict[str, str]:
        """Return what a checkpoint must agree in to be gone on with."""
        shape, grid = ("x".join(map(str, sides)) for sides in (self.shape, self.grid))
        return {
            "network": self.network, "plan": self.plan, "restore": self.restore,
            "trained": self.trained, "shape": shape, "grid": grid,
        }  # fmt: skip


class Distiller(Trainer):
    """Run the training loop and keep its state.

    Args:
        config: Settings.
        resume: Go on from the checkpoint in `config.out`, if there is one.

    Raises:
        UsageError: a network that cannot be built or pruned so, or a checkpoint of another run.
    """

    config: DistilConfig

    def __init__(self, config: DistilConfig, *, resume: bool) -> None:
        super().__init__(config)
        saved = read_run(config.out) if resume and saved_in(config.out) else None
        if saved is not None:
            _same_run(saved, config)
        self.teacher, self.network, self.shape = _networks(config)
        for parameter in self.teacher.parameters():
            parameter.requires_grad_(False)
        self.teacher.to(self.device)
        self.network.to(self.device)
        self.stack = pruned_blocks(self.network)
        learning = self._learning()
        self.optimisers = Optimisers([adam_of(learning, config.rate, config.decay)], config.rate)
        self.average = Average(self.network, config.average)
        if saved is not None:
            self.restore(saved)

    def _learning(self) -> nn.Module:
        """Return what learns; the rest is frozen."""
        if self.config.trained == "all":
            return self.network
        if not list(self.stack.cuts.parameters()):
            raise UsageError(
                f"The reducers of '{self.config.plan}' have no weights.",
                "Train all of the network.",
            )
        for parameter in self.network.parameters():
            parameter.requires_grad_(False)
        for parameter in self.stack.cuts.parameters():
            parameter.requires_grad_(True)
        return self.stack.cuts

    def run(self) -> None:
        """Train until the time or the steps are used up, then save."""
        config = self.config
        folder = InputFolder.read(config.data, self.shape, config.mean, config.std)
        batches = FolderBatches(folder, config.batch, config.seed)
        hashes = {"files": folder.fingerprint()}
        note_data(config.out, {"files": len(folder.files)}, hashes, begun=self.clock.step > 0)

        def step(inputs: Tensor) -> tuple[int, Facts]:
            return len(inputs), self.step(inputs.to(self.device))

        self.go_through(self.until_done(batches), step)
        self.save()

    def step(self, inputs: Tensor) -> Facts:
        """Take one step on inputs (B, ...); return what was measured.

        Raises:
            CheckFailedError: the loss is not finite; nothing has been changed by this step.
        """
        config = self.config
        torch.manual_seed(config.seed * 1_000_003 + self.clock.step)  # of losses that draw
        with torch.autocast(self.device.type, torch.bfloat16, enabled=config.bf16):
            features, own = self.losses(inputs)
        loss = features + own
        if not bool(torch.isfinite(loss)):
            raise CheckFailedError(
                f"The loss of step {self.clock.step} is {float(loss.detach())}.",
                "Lower --rate; the last checkpoint is untouched.",
            )
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimisers.step(self.factor())
        self.average.update(self.network, self.clock.step)
        facts = {"loss": float(features.detach())}
        return facts if not own.requires_grad else {**facts, "own": float(own.detach())}

    def losses(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss on features and the sum of the reducers' own losses."""
        with torch.no_grad(), _output_of(_last_block(self.teacher, self.stack)) as wanted:
            self.teacher(inputs)
        own: list[Tensor] = []
        with _output_of(self.stack) as got, reductions(self.network) as done, _own(self.stack, own):
            self.network(inputs)
        target = wanted[0]
        if self.config.restore == "none":
            target = reduce_like(target, [done[b] for b, _ in self.stack.reducers()], self.stack)
        width = target.shape[-1:]
        error = functional.layer_norm(got[0].float(), width) - functional.layer_norm(
            target.float(), width
        )
        return error.square().mean(), torch.stack([error.new_zeros(()), *own]).sum()

    def save(self) -> None:
        """Write the checkpoint."""
        parts = {"network": self.network.state_dict(), "average": self.average.state}
        write_run(self.config.out, parts, self.optimisers, self.clock, self.config.facts())


def reduce_like(tokens: Tensor, done: list[Reduced], stack: PrunedBlocks) -> Tensor:
    """Return tokens (B, special + N, C) brought to special + K by the matrices of some cuts."""
    cuts = [cut for _, cut in stack.reducers()]
    special = cuts[0].place.special
    patches = tokens[:, special:]
    for cut, reduced in zip(cuts, done, strict=True):
        patches = assignment(reduced, cut.place.tokens, patches.dtype).detach() @ patches
    return torch.cat((tokens[:, :special], patches), dim=1)


def distilled(folder: Path) -> nn.Module:
    """Return the averaged weights of a run as a pruned network in evaluation mode.

    Raises:
        ArtifactError: there is no checkpoint.
        UsageError: the network that it names cannot be built any more.
    """
    saved = read_run(folder)
    words: dict[str, Any] = {k: saved.facts[k] for k in ("network", "plan", "restore")}
    words |= {k: _sides(saved.facts[k]) for k in ("shape", "grid")}
    config = DistilConfig(folder, folder, steps=saved.clock.step, **words)
    _, network, _ = _networks(config)
    own = network.state_dict()
    network.load_state_dict({k: v.to(own[k].dtype) for k, v in saved.average.items()})
    return network.eval()


def _networks(config: DistilConfig) -> tuple[nn.Module, nn.Module, tuple[int, ...]]:
    """Return the dense network, the pruned one, both in evaluation mode, and an input's shape."""
    try:
        teacher = build_network(config.network, config.seed)
    except UsageError as error:
        raise UsageError(
            f"Cannot build the network '{config.network}': {error.message}",
            "Name a function without arguments that returns it: package.module:build.",
        ) from error
    made = example_input(teacher) if not config.shape else torch.zeros(1, *config.shape)
    if made is None:
        raise UsageError(
            f"The inputs of {type(teacher).__name__} are not known.",
            "Give the shape of one: --input 3x224x224.",
        )
    torch.manual_seed(config.seed)
    grid = (config.grid[0], config.grid[1]) if config.grid else None
    network = prune(teacher, config.plan, example=made, grid=grid, restore=config.restore)
    if not any(isinstance(module, PrunedBlocks) for module in network.modules()):
        raise UsageError("A dense plan leaves nothing to recover.", "Give a plan with cuts.")
    return teacher, network.eval(), tuple(made.shape[1:])


def _same_run(saved: SavedRun, config: DistilConfig) -> None:
    for name, value in config.facts().items():
        if saved.facts.get(name) != value:
            raise UsageError(
                f"The run in {config.out} has {name} '{saved.facts.get(name)}'; got '{value}'.",
                "Name another folder with --out, or start anew with --resume no.",
            )


def _last_block(teacher: nn.Module, stack: PrunedBlocks) -> nn.Module:
    """Return the dense network's last block: the one that the pruned network's was copied from."""
    blocks = teacher.get_submodule(stack.layout.blocks)
    assert isinstance(blocks, nn.ModuleList | nn.Sequential)
    return blocks[-1]


@contextmanager
def _output_of(module: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the tokens that a module returns while the context lasts."""
    seen: list[Tensor] = []

    def hear(_module: nn.Module, _given: Any, out: Any) -> None:
        seen.append(out[0] if isinstance(out, tuple) else out)

    handle = module.register_forward_hook(hear)
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def _own(stack: PrunedBlocks, losses: list[Tensor]) -> Iterator[None]:
    """Collect the losses that reducers have of their own."""

    def hear(cut: Any, given: tuple[Tensor, ...], _out: Any) -> None:
        loss = cut.own_loss(given[0])
        if loss is not None:
            losses.append(loss)

    handles = [cut.register_forward_hook(hear) for _, cut in stack.reducers()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(word) for word in text.split(","))


def _sides(text: str) -> tuple[int, ...]:
    return tuple(int(word) for word in text.split("x") if word)


def main() -> None:
    """Parse the command line and train."""
    parser = train_parser(__doc__, ".cache/pictures", DistilConfig.rate)
    add = parser.add_argument
    add("network", help="package.module:build or file.py:build, a function that returns it")
    add("--plan", required=True, help="what is pruned, e.g. evit:0.5@4")
    add("--restore", choices=get_args(Restore), default="none", help="what follows the blocks")
    add("--train", dest="trained", choices=get_args(Trained), default="all", help="what learns")
    add("--batch", type=int, default=DistilConfig.batch, help="inputs per step")
    add("--input", dest="shape", type=_sides, default=(), help="shape of one input, e.g. 3x224x224")
    add("--grid", type=_sides, default=(), help="rows and columns of the patches, e.g. 14x14")
    add("--mean", type=_numbers, default=DistilConfig.mean, help="of pictures in 0..1")
    add("--std", type=_numbers, default=DistilConfig.std, help="their standard deviation")
    add_bf16(parser)
    args = parser.parse_args()
    more = (
        "network",
        "plan",
        "restore",
        "trained",
        "batch",
        "shape",
        "grid",
        "mean",
        "std",
    )
    try:
        Distiller(DistilConfig(**start(args, *more)), resume=args.resume == "auto").run()
    except PrunusError as error:
        parser.exit(error.exit_code, f"{error}\n")


if __name__ == "__main__":
    main()
