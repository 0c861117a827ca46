"""Options of `prunus export module`, and what `prunus plan` and `prunus layers` share with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prunus.export.common.options import CALIBRATION, OUTPUT, PrecisionOptions, npu
from prunus.runtime.card import foreign
from prunus.runtime.options import argument, group, option


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """A network: what makes it, what goes in and what comes out."""

    network: str = argument(
        "What makes the network: package.module:function, or file.py:function; called without "
        "arguments, it returns a torch.nn.Module. Or one that ships: evitpose_tiny, evitpose_dino6."
    )
    input: tuple[str, ...] = option(
        "An input, NAME:1x3x224x224 of float32, or NAME:1x16:int64 of another type; repeatable, in "
        "the order of the network's arguments; networks that ship tell theirs.", default=(),
        metavar="NAME:SIZES[:TYPE]",
    )  # fmt: skip
    outputs: str | None = option(
        "Outputs to keep, names between commas; default: all.", default=None, metavar="NAMES"
    )

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs in words, those of a network that ships where none are given."""
        from prunus.models.pose.shipped import shipped_input, shipped_names

        if self.input or self.network not in shipped_names():
            return self.input
        return (shipped_input(self.network),)


@dataclass(frozen=True, slots=True)
class CutOptions(NetworkOptions):
    """A network of the user's own whose tokens are cut."""

    restore: Literal["none", "scatter", "copy", "transpose", "delta", "learned"] | None = option(
        "What follows the blocks sees: none: the tokens that are left; else all of them again; "
        "default: delta where the network says that it needs all, else none.",
        default=None,
    )
    grid: str | None = option(
        "Rows and columns of the patches, e.g. 14x14, where the network does not tell.",
        default=None, metavar="ROWSxCOLUMNS",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModuleOptions(CutOptions):
    """Options of any PyTorch network."""

    plan: str = option(
        "Tokens dropped: METHOD:COUNTS@BLOCKS, e.g. evit:0.5@4 or tome:160/120@3/6; dense: none.",
        default="dense", metavar="PLAN",
    )  # fmt: skip
    show_tokens: bool = option(
        "Give one more output per cut: the token that stands for each patch, -1 where it is gone.",
        default=False,
    )
    name: str = option("Name of the model; default: the function's.", default="")
    licence: str = option("Licence of the weights.", default="unknown")
    origin: str = option("Where the weights come from, one sentence.", default="")
    before: tuple[str, ...] = foreign.before()
    npu: bool = npu()
    format: PrecisionOptions = group(PrecisionOptions)
    calibration: Path | None = option(
        "Inputs for int8 and for the comparison with PyTorch: an .npz with an array per input, or "
        "pictures (with --before); default: noise, which int8 refuses.",
        **CALIBRATION,
    )
    output: Path | None = option("The file; default: NAME-PLAN.onnx, here.", **OUTPUT)
