"""The networks that a plan chooses from: cuts by several methods, and what stands beside them.

Beside every cut stand the plain ways to the same latency: fewer blocks, constant selections, and
networks of the user's own, such as one that makes its input smaller first.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from prunus.export.common.pipeline import ExportOptions, export_artifact
from prunus.export.common.samples import Samples
from prunus.export.foreign.options import ModuleOptions
from prunus.export.module import (
    DeployedModule,
    deploy,
    describe,
    noise_examples,
    read_inputs,
)
from prunus.export.planning.options import PlanOptions
from prunus.export.planning.points import Candidate, Kind
from prunus.models.macs import count_macs
from prunus.models.tokens import registry
from prunus.models.tokens.blocks.layouts import block_list, find_layout, replace_blocks
from prunus.models.tokens.plan import split_method
from prunus.models.tokens.prune import uncut
from prunus.models.tokens.registry import find_method
from prunus.models.user_network import build_network
from prunus.runtime.errors import CheckFailedError, UsageError
from prunus.runtime.progress import Progress

_DEPTHS = (5 / 6, 2 / 3, 1 / 2, 1 / 3)  # shares of the blocks that the plain rivals keep
_CHECKED = 2  # samples on which each file is compared with PyTorch; all are judged later


@dataclass
class Field:
    """All candidates of a network, made one at a time: only their descriptions are kept.

    Attributes:
        options: What was asked for.
        network: The dense network.
        depth: Its blocks.
        tokens: Patches that enter the first of them.
        candidates: Dense first.
        notes: What could not take part, and why.
    """

    options: PlanOptions
    network: nn.Module
    depth: int
    tokens: int = 0
    candidates: list[Candidate] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def module_options(self, plan: str = "dense") -> ModuleOptions:
        """Return the options with which a plan is exported."""
        told = self.options
        return ModuleOptions(
            told.network, input=told.inputs, plan=plan, restore=told.restore, grid=told.grid,
            outputs=told.outputs,
        )  # fmt: skip

    def make(self, candidate: Candidate) -> DeployedModule:
        """Return the network of a candidate; raises UsageError where it cannot be made."""
        network = self.network
        if candidate.reference:
            network = build_network(candidate.reference)
        elif candidate.kind == "blocks":
            network = first_blocks(network, candidate.depth)
        if not candidate.plan or candidate.plan == "dense":
            # As the pruned ones are written, where its blocks are known: the whole class may hold
            # what they do not, and seem slower than it need be.
            with contextlib.suppress(UsageError):
                network = uncut(network, self.examples())
        plan = candidate.plan or "dense"
        return deploy(network, self.module_options(plan), self.examples())

    def examples(self) -> list[Tensor]:
        """Return noise for the network's inputs."""
        return noise_examples(read_inputs(self.options.inputs))

    def write(self, candidate: Candidate, samples: Samples, path: Path) -> None:
        """Export a candidate.

        Raises:
            CheckFailedError: the file does not compute what PyTorch does.
            PrunusError: see `export_artifact`.
        """
        deployed = self.make(candidate)
        inputs = read_inputs(self.options.inputs)
        card = describe(deployed, self.module_options(candidate.plan), "candidate", inputs)
        checked = samples.first(_CHECKED)
        threads = self.options.threads or 2
        export_artifact(deployed, card, checked, path, options=ExportOptions(threads=threads))


def survey(options: PlanOptions, progress: Progress) -> Field:
    """Prune the network in every way that was asked for, and count; nothing is exported yet.

    Raises:
        UsageError: an unknown method, a block that does not exist, counts that do not fit, or a
            method that cannot stand at a block: before anything is measured.
    """
    network = build_network(options.network)
    methods = [_checked_method(word) for word in options.method]
    field = Field(options, network, len(block_list(network, find_layout(network, None))))
    controls = _controls(field)
    blocks = options.block or _default_blocks(field.depth)
    for block in blocks:
        _require_blocks(block, field.depth)
    words: list[tuple[str, Kind]] = [(m, "pruned") for m in methods]
    words += [(m, "constant") for m in controls]
    _add(field, Candidate("dense", "dense", 0, "dense", depth=field.depth))
    _add_cuts(field, list(itertools.product(words, blocks, options.keep)), progress)
    depths = sorted({round(field.depth * s) for s in _DEPTHS} - {0, field.depth}, reverse=True)
    for depth in depths:
        try:
            _add(field, Candidate(f"first {depth} blocks", "blocks", 0, depth=depth))
        except UsageError as error:
            field.notes.append(f"first {depth} blocks: {error.message}")
    for reference in options.rival:
        _add(field, Candidate(reference, "rival", 0, reference=reference))
    return field


def _checked_method(word: str) -> str:
    row = find_method(split_method(word)[0])
    if row.trained:
        raise UsageError(
            f"Method '{row.name}' has weights of its own, which nobody has trained yet.",
            "Train the network with it first, and give that as a --rival.",
        )
    return word


def _controls(field: Field) -> list[str]:
    """Return the constant selections that can take part; raises UsageError for an unknown one."""
    wanted = field.options.control
    if wanted != _default("control"):
        return [_checked_method(word) for word in wanted]
    known = {row.name for row in registry.METHODS}
    missing = [name for name in wanted if name not in known]
    if missing:
        field.notes.append(f"constant selection not compared: no method {', '.join(missing)}")
    return [name for name in wanted if name in known]


def _default(name: str) -> Any:
    return next(f.default for f in dataclasses.fields(PlanOptions) if f.name == name)


def _default_blocks(depth: int) -> tuple[str, ...]:
    return tuple(dict.fromkeys((str(depth // 4), str(depth // 2))))


def _require_blocks(text: str, depth: int) -> None:
    if not re.fullmatch(r"\d+(/\d+)*", text):
        raise UsageError(
            f"Got --block {text}; expected the number of a block, or of several cuts: 3/6.",
            f"The network has blocks 0..{depth - 1}.",
        )
    if any(int(word) >= depth for word in text.split("/")):
        raise UsageError(
            f"Got --block {text}; the network has blocks 0..{depth - 1}.", "Cut earlier."
        )


def _add_cuts(
    field: Field, steps: Sequence[tuple[tuple[str, Kind], str, str]], progress: Progress
) -> None:
    """Add what the methods can do; what one cannot (halve twice in one cut) is noted.

    Raises:
        UsageError: a method that can do nothing of it, or a count that none can; unless they are
            there by default.
    """
    failed: dict[str, UsageError] = {}
    worked: set[str] = set()
    for done, ((method, kind), block, keep) in enumerate(steps):
        progress.update(done, len(steps), "prune")
        try:
            _add_cut(field, kind, f"{method}:{keep}@{block}")
        except UsageError as error:
            failed |= {method: error, keep: error}
            field.notes.append(f"{method}:{keep}@{block} left out: {error.message}")
        else:
            worked |= {method, keep}
    told = field.options
    by_default: set[str] = set()
    for name in ("keep", "control"):
        by_default |= set(getattr(told, name)) if getattr(told, name) == _default(name) else set()
    by_default -= set(told.method)
    for word, failure in failed.items():
        if word not in worked and word not in by_default:
            raise failure


def _add_cut(field: Field, kind: Kind, words: str) -> None:
    deployed = field.make(Candidate("", kind, 0, words))
    stack = deployed.blocks
    assert stack is not None, "a plan with a cut makes pruned blocks"
    field.tokens = stack.entry.tokens
    plan = stack.plan
    counts, places = ("/".join(map(str, values)) for values in (plan.keep, plan.blocks))
    method = plan.methods[0]
    text = f"{method}:{counts}@{places}"
    if all(known.name != text for known in field.candidates):
        cut = Candidate(text, kind, 0, text, method, plan.blocks, plan.keep, field.depth)
        field.candidates.append(replace(cut, macs=_macs(field, deployed)))


def _add(field: Field, candidate: Candidate) -> None:
    macs = _macs(field, field.make(candidate))
    field.candidates.append(replace(candidate, macs=macs))


def _macs(field: Field, deployed: DeployedModule) -> int:
    examples = field.examples()
    return count_macs(deployed, *examples) // len(examples[0])


def first_blocks(network: nn.Module, depth: int) -> nn.Module:
    """Return a copy of a network that runs its first `depth` blocks; norm and head stay.

    Raises:
        UsageError: no list of blocks that is known, or not so many.
    """
    twin = copy.deepcopy(network)
    layout = find_layout(twin, None)
    blocks = list(block_list(twin, layout))
    if not 0 < depth <= len(blocks):
        raise UsageError(f"Got {depth} blocks; expected 1 to {len(blocks)}.")
    replace_blocks(twin, layout, blocks[:depth])
    return twin


def write_all(field: Field, samples: Samples, folder: Path, progress: Progress) -> dict[str, Path]:
    """Export the candidates into a folder; returns the files by name.

    One whose file does not compute what PyTorch does is left out, and noted; the dense network has
    to pass.
    """
    files: dict[str, Path] = {}
    for number, candidate in enumerate(field.candidates):
        progress.update(number, len(field.candidates), f"export {candidate.name}")
        path = folder / f"{number}.onnx"
        try:
            field.write(candidate, samples, path)
        except CheckFailedError as error:
            if candidate.kind == "dense":
                raise
            field.notes.append(f"{candidate.name} left out: {error.message}")
            continue
        files[candidate.name] = path
    return files
