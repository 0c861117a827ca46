"""Other blocks in EDAFormer-T's frame: parameters, multiply-accumulates and ONNX Runtime latency.

    python -m benchmarks.segmentation.siblings                   # some six minutes on two cores
    python -m benchmarks.segmentation.siblings --quick --only gcnet --only svit
    python -m benchmarks.segmentation.siblings --size 256x256 --export-only
    python -m benchmarks.segmentation.siblings --reuse           # time the files of an earlier run

Every network has EDAFormer-T's widths, depths, patch embeddings and decoder (150 classes), and
random weights; only the encoder's blocks differ. A graph takes a normalised picture and gives
logits at 1/8. Each is compared with PyTorch before it is timed, and runs in a process of its own,
in turns A B A B; ratios refer to EDAFormer-T, above 1 is faster. ``edaformer-isr`` is EDAFormer-T
with published ISR; ``clsclip-K`` looks for K classes, given as 512-wide vectors, in one run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import nn

from prunus.apps.bench.runs import session_runner
from prunus.export.common.options import parse_size
from prunus.export.common.pipeline import write_model
from prunus.export.graph.audit import require_clean
from prunus.export.graph.simplify import simplify
from prunus.export.graph.trace import trace
from prunus.models.blocks.segmentation.class_vectors import VECTOR
from prunus.models.blocks.segmentation.deployed import deploy
from prunus.models.blocks.segmentation.network import SIBLINGS, build_sibling
from prunus.models.macs import count_macs, count_parameters
from prunus.models.segmentation.edaformer import EDAFormer
from prunus.models.segmentation.isr import parse_isr
from prunus.models.segmentation.static import StaticEDAFormer
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import CheckFailedError
from prunus.runtime.measure.latency import environment
from prunus.runtime.session.base import open as open_session

from ..record import MODELS, Settings, finish, new_parser, settings, show, take_turns, write_record

GRAPHS = MODELS / "siblings"
CASES = (
    "edaformer", "edaformer-isr",
    *(name for name in SIBLINGS if name not in {"edaformer", "clsclip"}),
    "clsclip-1", "clsclip-4",
)  # fmt: skip
TOLERANCE = 1e-4  # of the logits' spread


@dataclass(frozen=True, slots=True)
class Case:
    """One exported network.

    Attributes:
        name: A word of `CASES`.
        path: Its file.
        parameters: Trainable values of the network as published, unused classifier left out.
        macs: Multiply-accumulates of the graph's network.
        nodes: Nodes of the graph.
    """

    name: str
    path: Path
    parameters: int
    macs: int
    nodes: int


def export(name: str, size: tuple[int, int], *, reuse: bool = False) -> Case:
    """Write one network with random weights and check it against PyTorch.

    Args:
        name: A word of `CASES`.
        size: Height and width of the input.
        reuse: Take the file of an earlier run, which was checked then.

    Raises:
        CheckFailedError: ONNX Runtime and PyTorch differ.
        PrunusError: unknown name, a size that does not fit, or a graph that cannot ship.
    """
    kind, number = _block(name)
    network = build_sibling(kind, size=size)
    if name.endswith("-isr"):
        assert isinstance(network, EDAFormer)
        network = network.with_isr(parse_isr("published"))
    form: nn.Module = network
    form = StaticEDAFormer(network) if isinstance(network, EDAFormer) else deploy(network)
    generator = torch.Generator().manual_seed(1)
    feeds = {"image": torch.randn(1, 3, *size, generator=generator)}
    if number:
        feeds["vectors"] = torch.randn(number, VECTOR, generator=generator)
    path = GRAPHS / f"{name}-{size[0]}x{size[1]}.onnx"
    if not (reuse and path.is_file()):
        _write(network, form.eval(), name, feeds, path)
    graph = onnx.load(path, load_external_data=False)
    unused = sum(p.numel() for n, p in network.named_parameters() if ".conv_seg." in n)
    with torch.device("meta"):
        shapes = [torch.zeros(value.shape) for value in feeds.values()]
    macs = count_macs(form.to("meta"), *shapes)
    return Case(name, path, count_parameters(network) - unused, macs, len(graph.graph.node))


def _write(
    network: nn.Module, form: nn.Module, name: str, feeds: dict[str, torch.Tensor], path: Path
) -> None:
    with torch.no_grad():
        expected = network(*feeds.values()).numpy()
    graph = simplify(trace(form, tuple(feeds.values()), list(feeds), ["logits"]))
    require_clean(graph)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_model(graph, _card(name, feeds, expected.shape), path)
    session = open_session(path, "onnxruntime")
    got = session.run({k: v.numpy() for k, v in feeds.items()})["logits"].copy()
    session.close()
    gap = float(np.abs(got - expected).max())
    if not gap <= TOLERANCE * float(expected.std()):
        path.unlink()
        raise CheckFailedError(f"{path.name} differs from PyTorch by {gap:.2g}.")


def _block(name: str) -> tuple[str, int]:
    """Return a case's key of `SIBLINGS` and its number of class vectors, 0 for fixed classes."""
    if name.startswith("clsclip-"):
        return "clsclip", int(name.removeprefix("clsclip-"))
    return name.removesuffix("-isr"), 0


def _card(name: str, feeds: dict[str, torch.Tensor], shape: tuple[int, ...]) -> ModelCard:
    axes = {"image": ("batch", "channel", "row", "column"), "vectors": ("class", "vector")}
    paper = SIBLINGS[_block(name)[0]].paper
    return ModelCard(
        task="segmentation", model="segmentation-sibling", variant=name, paper=paper,
        licence="Apache-2.0", exporter="benchmark",
        weights=Weights("random initialisation, seed 0", "random:0", "Apache-2.0", False),
        inputs=tuple(
            TensorSpec(key, "float32", tuple(value.shape), axes[key])
            for key, value in feeds.items()
        ),
        outputs=(TensorSpec("logits", "float32", shape, ("batch", "class", "row", "column")),),
    )  # fmt: skip


def measure(cases: Sequence[Case], size: str, how: Settings | None) -> dict[str, Any]:
    """Time every case in turns and print the table; without settings, sizes alone."""
    rows = [
        [c.name, f"{c.parameters / 1e6:.2f}", f"{c.macs / 1e9:.2f}", str(c.nodes)] for c in cases
    ]
    heads = ["block", "M parameters", "GMAC", "nodes"]
    found: dict[str, Any] = {
        c.name: {"parameters": c.parameters, "macs": c.macs, "nodes": c.nodes} for c in cases
    }
    if how is not None:
        heads += ["p50 ms", "p90 ms", "ratio", "range", "GMAC/s"]
        runners = [session_runner(c.path, "onnxruntime", how.threads) for c in cases]
        result = take_turns("siblings", runners, how, shipped=False)
        for row, case, one in zip(rows, cases, result.results, strict=True):
            low, high = one.ratio_range
            row += [
                f"{one.latency.p50_ms:.1f}", f"{one.latency.p90_ms:.1f}", f"{one.ratio:.2f}",
                f"{low:.2f}-{high:.2f}", f"{case.macs / 1e6 / one.latency.p50_ms:.0f}",
            ]  # fmt: skip
        found["latency"] = json.loads(result.to_json())
    timed = f", ONNX Runtime float32, {how.threads} threads" if how is not None else ""
    show(f"## {size}{timed}", heads, rows)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = new_parser(__doc__, "segmentation_siblings.json", CASES)
    add = parser.add_argument
    add("--size", default="512x512", help="input as HEIGHTxWIDTH (default 512x512)")
    add("--export-only", action="store_true", help="sizes without latency")
    add("--reuse", action="store_true", help="take the files of an earlier run")
    options = parser.parse_args(arguments)
    how = settings(options, rounds=(3, 6), seconds=(1.0, 3.0))

    def work() -> None:
        names = list(dict.fromkeys(("edaformer", *(options.only or CASES))))  # ratios refer to it
        size = parse_size(options.size)
        cases = [export(name, size, reuse=options.reuse) for name in names]
        found = measure(cases, options.size, None if options.export_only else how)
        body = {"environment": environment(how.threads), "size": options.size, "cases": found}
        write_record(options.output, body)

    return finish(work, options.output)


if __name__ == "__main__":
    sys.exit(main())
