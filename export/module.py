"""Export any PyTorch network, its tokens pruned or not, as one self-describing ONNX file.

The network comes from a function of the user's own; it is traced, simplified, audited, brought to a
number format and compared with PyTorch like every other model, and its card has the task
``generic``. Run as ``python -m prunus.export.module --help`` or as ``prunus export module``.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from prunus.export.common.options import takes
from prunus.export.common.pipeline import (
    ExportOptions,
    export_artifact,
    exporter_name,
    require_writable,
)
from prunus.export.foreign.options import ModuleOptions
from prunus.export.foreign.samples import load_samples
from prunus.export.graph.shapes import read_shapes
from prunus.models.macs import count_macs
from prunus.models.tokens.blocks.stack import (
    PrunedBlocks,
    find_pruned,
    pruned_blocks,
    reductions,
    uncut_again,
)
from prunus.models.tokens.plan import PruningPlan
from prunus.models.tokens.prune import prune
from prunus.models.tokens.reducer import Restore
from prunus.models.tokens.report import token_maps
from prunus.models.user_network import build_network
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import DTYPES, TensorSpec
from prunus.runtime.card.tokens import METHODS, TokenPlan, token_output
from prunus.runtime.errors import ArtifactError, UsageError, nearest
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.adopting import BEFORE, picture_part, read_words

MODEL = "module"


@takes(ModuleOptions)
def export_module(options: ModuleOptions, progress: Progress) -> Path:
    """Export a network that a function of the user's makes.

    Args:
        options: See `ModuleOptions`; its fields may be given by name instead.
        progress: Told about each step.

    Returns:
        Path of the file.

    Raises:
        UsageError: no such function, inputs that it does not run on, or a plan that does not fit.
        PrunusError: see `export_artifact`.
    """
    inputs = read_inputs(options.inputs)
    network = build_network(options.network)
    name = options.name or options.network.rpartition(":")[2]
    plan = re.sub(r"[^A-Za-z0-9.]+", "-", options.plan).strip("-")
    path = options.output or Path(f"{name}-{plan}-{options.format.precision}.onnx")
    require_writable(path)
    if options.format.precision == "int8" and options.calibration is None:
        raise UsageError(
            "int8 needs real inputs to measure its ranges on; got none.",
            "Give --calibration FILE.npz, or pictures together with --before.",
        )
    deployed = deploy(network, options, noise_examples(inputs))
    card = describe(deployed, options, name, inputs)
    if options.before:
        from prunus.runtime.tasks.segmentation.card import ScenePreprocess

        part = picture_part(card, ScenePreprocess, read_words(options.before, BEFORE))
        card = replace(card, preprocess=part)
    samples = load_samples(card, options.calibration)
    return export_artifact(
        deployed,
        card,
        samples,
        path,
        options=ExportOptions(
            options.format.precision,
            options.format.activations,
            bf16="measure" if options.format.bf16 else "no",
            npu=options.npu,
        ),
        progress=progress,
    )


class DeployedModule(nn.Module):
    """A network whose outputs are a tuple of tensors, with what its cuts did behind them.

    Args:
        network: What `prune` made, or any other.
        outputs: Names of the outputs to give, in their order.
        show_tokens: Give the map of each cut, too.
    """

    def __init__(self, network: nn.Module, outputs: Sequence[str], show_tokens: bool) -> None:
        super().__init__()
        self.network = network
        self.outputs = tuple(outputs)
        self.show_tokens = show_tokens

    @property
    def blocks(self) -> PrunedBlocks | None:
        """The pruned blocks, None in a network without any."""
        return find_pruned(self.network)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs, then one (B, N) int32 map per cut, see `token_maps`."""
        blocks = self.blocks if self.show_tokens else None
        if blocks is None:
            return self._chosen(self.network(*inputs))
        with reductions(self.network) as seen:
            out = self.network(*inputs)
        return (*self._chosen(out), *token_maps(seen, blocks.entry.tokens).values())

    def _chosen(self, out: Any) -> tuple[Tensor, ...]:
        made = named_outputs(out)
        return tuple(made[name] for name in self.outputs)


def deploy(
    network: nn.Module, options: ModuleOptions, examples: Sequence[Tensor]
) -> DeployedModule:
    """Prune a network and fix the names of its outputs; see `export_module` for the errors."""
    grid = _grid(options.grid)
    if options.plan.strip() != "dense":
        network = prune(network, options.plan, example=examples, grid=grid, restore=options.restore)
    elif options.show_tokens:
        raise UsageError("Got --show-tokens without a cut; expected a --plan with one.")
    return _wrap(network, options.outputs, options.show_tokens, examples)


def _wrap(
    network: nn.Module, outputs: str | None, show_tokens: bool, examples: Sequence[Tensor]
) -> DeployedModule:
    made = named_outputs(_run(network.eval(), examples))
    names = [word.strip() for word in outputs.split(",")] if outputs else list(made)
    for name in names:
        if name not in made:
            raise UsageError(
                f"The network has no output '{name}'{nearest(name, list(made))}.",
                f"It gives: {', '.join(made)}.",
            )
    return DeployedModule(network, names, show_tokens).eval()


def _run(network: nn.Module, examples: Sequence[Tensor]) -> Any:
    try:
        with torch.no_grad():
            return network(*examples)
    except Exception as error:  # the network is the user's: anything may happen in it
        reason = (str(error).splitlines() or [""])[0]
        raise UsageError(
            f"{type(network).__name__} does not run on {[list(e.shape) for e in examples]}: "
            f"{type(error).__name__}: {reason[:200].rstrip('.')}.",
            "Give the inputs in the order of its arguments: --input NAME:SIZES[:TYPE].",
        ) from error


def named_outputs(out: Any) -> dict[str, Tensor]:
    """Return the tensors of whatever a network returns, by name.

    A mapping (or an output of `transformers`) has names of its own; a tuple's are ``output0``,
    ``output1``, ...; what is None is left out.

    Raises:
        UsageError: something else is in it.
    """
    if isinstance(out, Tensor):
        return {"output": out}
    if isinstance(out, Mapping):
        pairs = list(out.items())
    elif isinstance(out, tuple | list):
        pairs = [(f"output{k}", value) for k, value in enumerate(out)]
    else:
        pairs = [("output", out)]
    found = {str(name): value for name, value in pairs if value is not None}
    for name, value in found.items():
        if not isinstance(value, Tensor):
            raise UsageError(
                f"The network returns a {type(value).__name__} as '{name}'; expected tensors.",
                "Let the function wrap it in a module that returns a tensor or a tuple of them.",
            )
    if not found:
        raise UsageError("The network returns nothing; expected tensors.")
    return found


def read_inputs(words: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Read words of the form ``NAME:1x3x224x224[:TYPE]``; the first axis is the batch.

    Raises:
        UsageError: none, another form, or an unknown type.
    """
    if not words:
        raise UsageError(
            "The inputs of the network are not given.",
            "For each: --input NAME:SIZES[:TYPE], e.g. --input pixels:1x3x224x224",
        )
    specs = []
    for word in words:
        head, _, kind = word.rpartition(":")
        shape_word, dtype = (head, kind) if kind.isidentifier() else (word, "float32")
        if dtype not in DTYPES:
            raise UsageError(
                f"Unknown type '{dtype}' in --input {word}{nearest(dtype, list(DTYPES))}.",
                f"Choose one of {', '.join(DTYPES)}.",
            )
        ((name, shape),) = read_shapes([shape_word]).items()
        specs.append(TensorSpec(name, dtype, shape, _axes(len(shape))))
    names = [spec.name for spec in specs]
    if len(set(names)) < len(names):
        raise UsageError(f"Got two inputs of one name: {names}.")
    if len({spec.shape[:1] for spec in specs}) != 1 or not specs[0].shape:
        raise UsageError(
            f"The inputs have the batches {[list(s.shape[:1]) for s in specs]}; expected one size "
            "as the first axis of all."
        )
    return tuple(specs)


def _axes(count: int) -> tuple[str, ...]:
    return ("batch", *(f"axis{k}" for k in range(1, count)))[:count]


def noise_examples(inputs: Sequence[TensorSpec]) -> list[Tensor]:
    """Return the same uniform noise for the inputs each time; whole numbers are 0 or 1."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for spec in inputs:
        dtype = getattr(torch, spec.dtype)
        noise = torch.rand(spec.shape, generator=generator)
        made.append(noise.to(dtype) if dtype.is_floating_point else (2 * noise).to(dtype))
    return made


def _grid(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    rows, _, columns = text.lower().partition("x")
    if not (rows.isdecimal() and columns.isdecimal()):
        raise UsageError(f"Got --grid {text}; expected ROWSxCOLUMNS.", "Example: --grid 14x14")
    return int(rows), int(columns)


def describe(
    deployed: DeployedModule, options: ModuleOptions, name: str, inputs: tuple[TensorSpec, ...]
) -> ModelCard:
    """Return the card of a network; its outputs are seen on noise."""
    examples = noise_examples(inputs)
    made = _run(deployed, examples)
    names = list(deployed.outputs)
    if deployed.show_tokens:
        names += [token_output(block) for block, _ in pruned_blocks(deployed).reducers()]
    outputs = [
        TensorSpec(n, str(t.dtype).removeprefix("torch."), tuple(t.shape), _axes(t.dim()))
        for n, t in zip(names, made, strict=True)
    ]
    origin = options.origin or f"as {options.network} made them"
    return ModelCard(
        task="generic",
        model=MODEL,
        variant=f"{name} {options.network}",
        paper="",
        licence=options.licence,
        exporter=exporter_name(),
        weights=Weights(origin, weights_hash(deployed.network), options.licence, True),
        inputs=inputs,
        outputs=tuple(outputs),
        tokens=_token_plan(deployed, options, examples),
    )


def _token_plan(
    deployed: DeployedModule, options: ModuleOptions, examples: Sequence[Tensor]
) -> TokenPlan | None:
    stack = deployed.blocks
    if stack is None:
        return None
    cuts = dict(stack.reducers())
    macs = count_macs(deployed.network, *examples)
    with uncut_again(stack):
        dense = count_macs(deployed.network, *examples)
    batch = examples[0].shape[0]
    return TokenPlan(
        stack.plan.level,
        tuple(cuts),
        tuple(cut.place.keep for cut in cuts.values()),
        stack.entry.tokens,
        stack.entry.special,
        METHODS.join(stack.plan.methods),
        stack.restoring,
        macs // batch,
        dense // batch,
        stack.entry.grid,
    )


def weights_hash(network: nn.Module) -> str:
    """Return a sha256 of all parameters and buffers, in their order; names do not count."""
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)  # bytes need an axis
        digest.update(values.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def reference_module(card: ModelCard, checkpoint: str | Path | None = None) -> nn.Module:
    """Make the network of a card again, by the function that its export named.

    Args:
        card: The artifact's card.
        checkpoint: Not used: the function makes the weights.

    Raises:
        ArtifactError: the function makes other weights now.
        UsageError: it is not to be found from here, or a checkpoint is given.
    """
    if checkpoint is not None:
        raise UsageError(
            "Got --checkpoint for a network that a function of yours makes.", "Leave it out."
        )
    _, _, reference = card.variant.partition(" ")
    network = build_network(reference)
    names = [spec.name for spec in card.outputs]
    told = [] if card.tokens is None else [token_output(block) for block in card.tokens.blocks]
    shown = bool(told) and names[-len(told) :] == told
    own = names[: -len(told)] if shown else names
    if card.tokens is not None:
        plan = PruningPlan(
            card.tokens.level,
            card.tokens.blocks,
            card.tokens.keep,
            tuple(card.tokens.score.split(METHODS)),
        )
        network = prune(
            network,
            plan,
            example=noise_examples(card.inputs),
            grid=card.tokens.grid,
            restore=cast(Restore, card.tokens.fill),
        )
    if weights_hash(network) != card.weights.sha256:
        raise ArtifactError(
            f"{reference} makes other weights now than those in the file.",
            "Let it load them from a file, or seed them: torch.manual_seed(0).",
        )
    return DeployedModule(network, own, shown).eval()


if __name__ == "__main__":
    from prunus.export.common.command import script

    sys.exit(script("module"))
