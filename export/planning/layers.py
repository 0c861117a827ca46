"""Which blocks need their patches to meet, and which cheap score ranks patches as they count.

Attention to other patches is knocked out of one block at a time, and of all from a block on, as
"What's in the Image?" (arXiv 2411.17491) does to the image tokens of a language model: where
nothing is lost from a block on, patches have told what they know, and may be dropped there.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path

import torch

from prunus.export.common.options import takes
from prunus.export.common.pipeline import run_torch
from prunus.export.common.samples import full_batches
from prunus.export.foreign.options import ModuleOptions
from prunus.export.module import DeployedModule, deploy, describe, noise_examples, read_inputs
from prunus.export.planning.judge import Judge, find_score, load_labelled
from prunus.export.planning.options import LayersOptions
from prunus.models.tokens.analysis.parts import in_parts
from prunus.models.tokens.analysis.ranks import rank_table
from prunus.models.user_network import build_network
from prunus.runtime.card.artifact import write_whole
from prunus.runtime.json_text import json_text
from prunus.runtime.progress import Progress


@dataclass(frozen=True, slots=True)
class Layer:
    """What a block is needed for.

    Attributes:
        block: Its number, from 0.
        alone: Accuracy without its attention to other patches.
        from_here: Accuracy without that of this block and all that follow.
        ranks: Correlation with attribution, and its deviation over samples, by score.
    """

    block: int
    alone: float
    from_here: float
    ranks: dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Layers:
    """What was found about all blocks.

    Attributes:
        network: What made the network.
        judgement: What the accuracies are.
        noise: They were measured on noise.
        dense: Accuracy of the network as it is.
        lose: Highest loss for a block to be proposed.
        layers: All blocks in order.
    """

    network: str
    judgement: str
    noise: bool
    dense: float
    lose: float
    layers: tuple[Layer, ...]

    @property
    def proposed(self) -> int | None:
        """First block after which patches need not meet any more; None: they always do."""
        for before, layer in zip(self.layers, self.layers[1:], strict=False):
            rest = self.layers[layer.block :]
            if all(self.dense - later.from_here <= self.lose for later in rest):
                return before.block
        return None

    def to_json(self) -> str:
        """Return everything."""
        return json_text({**dataclasses.asdict(self), "proposed": self.proposed}, indent=1)

    def to_text(self) -> str:
        """Return two tables and what is proposed."""
        names = list(self.layers[0].ranks)
        lines = [self.judgement]
        if self.noise:
            lines.append("On noise: give --calibration with real inputs before you believe this.")
        lines += ["", f"dense {self.dense:.4g}; without attention to other patches:"]
        lines.append(f"{'block':>5}  {'in it alone':>12}  {'from it on':>12}")
        for layer in self.layers:
            lines.append(f"{layer.block:>5}  {layer.alone:>12.4g}  {layer.from_here:>12.4g}")
        if names:
            lines += ["", "rank correlation with attribution (GlobEnc), mean and deviation:"]
            lines.append("block  " + "  ".join(f"{name:>18}" for name in names))
            for layer in self.layers[:-1]:
                cells = (f"{mean:>10.2f} +- {off:.2f}" for mean, off in layer.ranks.values())
                lines.append(f"{layer.block:>5}  " + "  ".join(f"{cell:>18}" for cell in cells))
        block = self.proposed
        lines += ["", f"proposed: cut after block {block} (from there on patches lose no more than "
                  f"{self.lose:g} by not meeting); compare with: prunus plan --block {block}"
                  if block is not None else
                  f"proposed: no cut; from every block on more than {self.lose:g} is lost when "
                  "patches do not meet"]  # fmt: skip
        return "\n".join(lines)

    def write(self, path: Path) -> None:
        """Write `to_json` to a file, whole or not at all."""
        write_whole(path, self.to_json() + "\n")


@takes(LayersOptions)
def find_layers(options: LayersOptions, progress: Progress) -> Layers:
    """Knock attention out block by block, and grade the scores.

    Args:
        options: See `LayersOptions`; its fields may be given by name instead.
        progress: Told about each block.

    Raises:
        UsageError: the network is not one that `prune` takes, or the score fails.
        SourceError: samples that cannot be read.
    """
    inputs = read_inputs(options.inputs)
    examples = noise_examples(inputs)
    network = build_network(options.network)
    told = ModuleOptions(options.network, input=options.inputs, outputs=options.outputs)
    deployed = deploy(network, told, examples)
    card = describe(deployed, told, "dense", inputs)
    labelled = load_labelled(card, options.calibration, options.samples)
    score = find_score(options.score)
    dense = run_torch(deployed, card, labelled.samples, deployed.outputs)
    judge = Judge(labelled, dense, score, options.score or "")
    twin, parts = in_parts(network, examples)
    wrapped = DeployedModule(twin, deployed.outputs, show_tokens=False).eval()
    depth = len(parts.blocks)

    @functools.cache  # the last block alone, and from it on, are one
    def without(blocks: range) -> float:
        with parts.without(blocks):
            value, _ = judge(run_torch(wrapped, card, labelled.samples, deployed.outputs))
        assert value is not None, "no token is dropped, so the outputs have the dense shapes"
        return value

    found = []
    for block in range(depth):
        progress.update(block, depth + 1, f"without block {block}")
        found.append((without(range(block, block + 1)), without(range(block, depth))))
    progress.update(depth, depth + 1, "attribution")
    feeds = full_batches(labelled.samples.arrays, inputs[0].shape[0])
    batches = [[torch.from_numpy(feed[spec.name]) for spec in inputs] for feed in feeds]
    table = rank_table(twin, parts, batches)
    layers = tuple(
        Layer(block, *pair, {n: row[block] for n, row in table.items() if block < len(row)})
        for block, pair in enumerate(found)
    )
    whole = without(range(0))
    return Layers(
        options.network, judge.describe(), labelled.noise, whole, options.lose, layers
    )
