"""What `methods` compares: networks, their cuts and plain rivals, and what is judged.

A judge gives two numbers a sample, and the accuracy is the sum of the first over the sum of the
second: object keypoint similarity over 1, or right words over words. So samples can be resampled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from prunus.export.common.samples import Samples
from prunus.export.planning.points import Candidate, Kind
from prunus.models.tokens.plan import read_plan, split_method
from prunus.models.tokens.prune import prune
from prunus.models.tokens.reducer import Restore
from prunus.models.tokens.registry import find_method

Array = npt.NDArray[Any]


class Scores(NamedTuple):
    """Two numbers a sample, (n,) each: what was right, and of how much."""

    right: Array
    whole: Array

    @property
    def accuracy(self) -> float:
        """What was right of all."""
        return float(self.right.sum() / self.whole.sum())

    def draws(self, count: int = 1000) -> tuple[float, ...]:
        """Return the accuracy on resampled samples, the same for all scores of one length."""
        total = len(self.right)
        chosen = np.random.default_rng(0).integers(0, total, (count, total))
        drawn = self.right[chosen].sum(1) / self.whole[chosen].sum(1)
        return tuple(drawn.tolist())


@dataclass(frozen=True)
class Entry:
    """A network that is compared.

    Attributes:
        candidate: Its name and kind.
        make: Makes it.
        restore: How dropped patches come back, for cuts.
    """

    candidate: Candidate
    make: Callable[[], nn.Module]
    restore: str = ""


@dataclass(frozen=True)
class Case:
    """A network with its rivals.

    Attributes:
        title: For tables.
        about: What is judged, on what, and what the labels are.
        input: Its input in the words of `prunus export module`.
        entries: Dense first.
        samples: Makes the inputs; None: noise, nothing is judged.
        score: Outputs of all samples -> scores; None: nothing is judged.
        metric: Name of the accuracy.
    """

    title: str
    about: str
    input: str
    entries: Sequence[Entry]
    samples: Callable[[], Samples] | None = None
    score: Callable[[Array], Scores] | None = None
    metric: str = ""


def cut(
    dense: Callable[[], nn.Module], words: str, tokens: int, example: torch.Tensor,
    restore: Restore = "none",
) -> Entry:  # fmt: skip
    """Return an entry whose patches are dropped by a plan in words."""
    made = partial(_pruned, dense, words, example, restore)
    return Entry(described(words, tokens, restore), made, restore if restore != "none" else "")


def _pruned(
    dense: Callable[[], nn.Module], words: str, example: torch.Tensor, restore: Restore
) -> nn.Module:
    return prune(dense(), words, example=example, restore=restore)


def described(words: str, tokens: int, restore: str = "none") -> Candidate:
    """Return what a plan does to `tokens` patches; constant choices are named as such."""
    plan = read_plan(words, tokens)
    method = plan.methods[0]
    control = find_method(split_method(method)[0]).mechanism == "control"
    counts, places = ("/".join(map(str, v)) for v in (plan.keep, plan.blocks))
    back = f", {restore}" if restore != "none" else ""
    kind: Kind = "constant" if control else "pruned"
    return Candidate(f"{method}:{counts}@{places}{back}", kind, 0, words, method, plan.blocks,
                     plan.keep)  # fmt: skip


def plain(name: str, kind: Kind, make: Callable[[], nn.Module]) -> Entry:
    """Return the dense network or a plain rival."""
    return Entry(Candidate(name, kind, 0), make)


def deit() -> Case:
    """Return DeiT-S's shape with random weights: the goal is speed against multiply-accumulates."""
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(hidden_size=384, num_hidden_layers=12, num_attention_heads=6,
                       intermediate_size=1536)  # fmt: skip

    def network() -> nn.Module:
        torch.manual_seed(0)
        return Tokens(ViTModel(config, add_pooling_layer=False))

    words = ("evit:0.5@4", "tome:0.5@4", "vscan:0.5@4", "average_pool:0.5@4", "strided:0.5@4",
             "evit:0.7@3/6/9")  # fmt: skip
    example = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    entries = [plain("dense", "dense", network)]
    entries += [cut(network, w, 196, example) for w in words]
    about = (
        "Random weights: speed alone, nothing is judged. Goal: at least 80 % of what the "
        "multiply-accumulates promise, at keep 0.5 after block 4, in ONNX Runtime at batch 1."
    )
    return Case("DeiT-S's shape, random weights, 224 x 224, 196 patches", about,
                "pixels:1x3x224x224", entries)  # fmt: skip


class Tokens(nn.Module):
    """A ViT of `transformers` from pixels to its last tokens.

    Without the mask that hides nothing, which an export of the whole class holds: pruned copies
    leave it out, and dense would seem slower than it is.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.config = network.config
        self.embeddings, self.layers = network.embeddings, network.layers
        self.norm = network.layernorm

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return (B, 1 + K, C)."""
        tokens = self.embeddings(pixels)
        for layer in self.layers:
            tokens = layer(tokens)
        out: torch.Tensor = self.norm(tokens)
        return out


def outputs_of(outputs: Mapping[str, Array]) -> Array:
    """Return the one output of a case's network."""
    (only,) = outputs.values()
    return only
