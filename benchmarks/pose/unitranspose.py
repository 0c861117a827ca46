"""UniTransPose in the usual form and in prunus', same weights: PyTorch and ONNX Runtime.

    python -m benchmarks.pose.unitranspose                     # some four minutes on two cores
    python -m benchmarks.pose.unitranspose --quick --variant tiny

All graphs compute the same heatmaps from the same random weights (checked before anything is
timed); latency does not depend on the weights:

* ``usual``: windows cut by reshapes, every attention on its own, exported by PyTorch alone;
* ``usual-simplified``: the same network through prunus' export;
* ``operator``: attention as `prunus::LocalGlobalAttention` nodes, which ONNX Runtime inlines;
* ``prunus``: that, and patch -> joint attention in its cheaper form; what `prunus export` writes.

Each runs in a process of its own, in turns A B A B; ratios are times relative to ``usual``, below 1
is faster. The last column is that ratio in CPU time of one thread, which a busy machine disturbs
least.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from prunus.apps.bench.runs import session_runner, torch_runner
from prunus.export import unitranspose as script
from prunus.export.common.pipeline import write_model
from prunus.export.graph.simplify import with_shapes
from prunus.export.graph.trace import OPSET
from prunus.export.pose.options import PoseFileOptions
from prunus.export.pose.script import write_pose
from prunus.export.pose.weights import find_weights
from prunus.models.pose.deployed import DeployedPose
from prunus.models.pose.skeleton import COCO17
from prunus.models.pose.unitranspose.naive import NaiveUniTransPose
from prunus.models.pose.unitranspose.unitranspose import VARIANTS, UniTransPose, unitranspose_config
from prunus.runtime.card.artifact import sha256_of
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import CheckFailedError
from prunus.runtime.measure.latency import environment
from prunus.runtime.progress import ConsoleProgress
from prunus.runtime.session.base import open as open_session

from ..cpu_time import cpu_times
from ..record import MODELS, Settings, finish, new_parser, settings, show, take_turns, write_record

FORMS = ("usual", "usual-simplified", "operator", "prunus")
TOLERANCE = 1e-4  # of the heatmaps' range


def models(variant: str) -> dict[str, Path]:
    """Return one file per form, written on first use, after checking that they agree.

    Raises:
        CheckFailedError: two forms give different heatmaps.
    """
    paths = {form: MODELS / f"unitranspose-{variant}-{form}.onnx" for form in FORMS}
    if not all(path.is_file() for path in paths.values()):
        MODELS.mkdir(parents=True, exist_ok=True)
        with ConsoleProgress(f"export {variant}") as progress:
            for k, form in enumerate(FORMS):
                progress.update(k, len(FORMS), form)
                _write(form, variant, paths[form])
    _agree(list(paths.values()))
    return paths


def _write(form: str, variant: str, path: Path) -> None:
    config = unitranspose_config(variant)
    weights = find_weights(config, "random")
    network: UniTransPose = script.build_network(config, weights).absorb(form == "prunus")
    card = script.build_card(config, weights, COCO17, heatmaps=True)
    if form.startswith("usual"):
        network = NaiveUniTransPose(network)
    if form == "usual":
        _plain_export(network, card, path)
        return
    write_pose(network, card, path, PoseFileOptions())


def _plain_export(network: UniTransPose, card: ModelCard, path: Path) -> None:
    """Export as PyTorch does by itself; only shapes and the card are added."""
    image = torch.zeros(card.inputs[0].shape, dtype=torch.uint8)
    program = torch.onnx.export(
        DeployedPose(network, heatmaps=True).eval(), (image,), dynamo=True, opset_version=OPSET,
        input_names=["image"], output_names=["keypoints", "heatmaps"], verbose=False,
    )  # fmt: skip
    write_model(with_shapes(cast(Any, program).model_proto), card, path)


def _agree(paths: Sequence[Path]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (1, 256, 192, 3), dtype=np.uint8)
    maps = []
    for path in paths:
        with open_session(path, "onnxruntime", threads=1) as session:
            maps.append(session.run({"image": image})["heatmaps"].copy())
    span = float(maps[0].max() - maps[0].min())
    for path, got in zip(paths[1:], maps[1:], strict=True):
        gap = float(np.abs(got - maps[0]).max()) / span
        if not gap <= TOLERANCE:
            raise CheckFailedError(
                f"{path.name} differs from {paths[0].name} by {gap:.2g} of the heatmaps' range.",
                f"Delete {MODELS} if these files are old.",
            )


def measure(variant: str, how: Settings, calls: int) -> dict[str, Any]:
    """Measure one size and print its table."""
    paths = models(variant)
    cpu = dict(zip(FORMS, cpu_times([paths[form] for form in FORMS], calls), strict=True))
    found: dict[str, Any] = {"cpu": {form: times.to_dict() for form, times in cpu.items()}}
    cells = {form: [""] * 4 for form in FORMS}
    if how.clock == "wall":
        runners = [session_runner(paths[f], "onnxruntime", how.threads, f) for f in FORMS]
        runners.append(torch_runner("torch-eager", paths["prunus"], how.threads))
        result = take_turns(f"unitranspose {variant}", runners, how)
        for name, entry in zip((*FORMS, "PyTorch eager"), result.results, strict=True):
            low, high = (1 / r for r in reversed(entry.ratio_range))
            cells[name] = [
                f"{entry.latency.p50_ms:.2f}", f"{entry.latency.p90_ms:.2f}",
                f"{1 / entry.ratio:.2f}", f"{low:.2f}-{high:.2f}",
            ]  # fmt: skip
        found |= json.loads(result.to_json())
    rows = [
        [name, *row, f"{cpu[name].ratio:.2f}" if name in cpu else ""] for name, row in cells.items()
    ]
    heads = ("form", "p50 ms", "p90 ms", "ratio", "range", "CPU ratio")
    show(f"## UniTransPose-{variant}, float32, {how.threads} threads", heads, rows)
    found["files"] = {path.name: sha256_of(path) for path in paths.values()}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit code."""
    parser = new_parser(
        __doc__, "unitranspose.json", cpu="CPU time alone: for a busy machine"
    )
    add = parser.add_argument
    add("--variant", choices=VARIANTS, action="append", help="default: tiny and small")
    add("--calls", type=int, default=30, help="calls whose CPU time is taken")
    options = parser.parse_args(arguments)
    how = settings(options, rounds=(2, 6), seconds=(0.5, 2.0))

    def work() -> None:
        variants = options.variant or ("tiny", "small")
        found = {v: measure(v, how, options.calls) for v in variants}
        write_record(options.output, {"environment": environment(how.threads), "cases": found})

    return finish(work, options.output)


if __name__ == "__main__":
    sys.exit(main())
