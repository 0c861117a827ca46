"""Export EViTPose: choose a size, how many patches survive and a number format; get one ONNX file.

Run as ``python -m prunus.export.evitpose --help`` or as ``prunus export evitpose``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from prunus.export.common.pipeline import exporter_name, require_writable
from prunus.export.common.samples import Samples
from prunus.export.pose.script import (
    PAPER,
    Bfloat16,
    add_shared_options,
    bfloat16_mode,
    check_batch,
    check_heatmaps,
    image_tensor,
    joint_postprocess,
    joint_tensors,
    load_samples,
    run_script,
    seeded_network,
    write_pose,
)
from prunus.export.pose.weights import PoseWeights, find_weights, weights_of
from prunus.models.macs import count_macs
from prunus.models.pose.deployed import DeployedPose
from prunus.models.pose.evitpose import EViTPose, EViTPoseConfig, evitpose_config
from prunus.models.pose.skeleton import COCO17, UNIFIED23, Skeleton
from prunus.models.tokens.plan import PruningPlan, evitpose_plan, parse_plan, plan_for_ratio
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.precision import Precision
from prunus.runtime.card.tokens import TokenPlan
from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.pose.card import ImagePreprocess, KeypointPostprocess

if TYPE_CHECKING:
    from prunus.export.precision.int8 import Activations

__all__ = ["export_evitpose", "load_samples", "main", "reference_module"]

HEADS = ("classic", "simple", "subpixel", "token", "regression")


def export_evitpose(
    variant: str = "tiny",
    *,
    level: str | None = None,
    keep: float | None = None,
    plan: str | None = None,
    head: str | None = None,
    joints: int = 17,
    batch: int = 1,
    precision: Precision = "fp32",
    heatmaps: bool = False,
    checkpoint: str | Path | None = None,
    fill: str = "carry",
    score: str = "sum",
    seed: int = 0,
    calibration: str | Path | Samples | None = None,
    activations: Activations = "int8",
    bf16: bool = False,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Export EViTPose as one self-describing ONNX file with constant shapes.

    Args:
        variant: ``tiny``, ``small`` or ``base``.
        level: ``L0`` (all patches) to ``L3``; give at most one of level, keep and plan.
        keep: Share of the patches that survives each of three cuts, 0..1.
        plan: Counts at blocks, e.g. ``135/95/71@3/6/9``.
        head: ``classic``, ``simple``, ``subpixel``, ``token`` or ``regression``; default by size.
        joints: Number of joints.
        batch: Crops per run.
        precision: ``fp32``, ``fp16`` or ``int8``.
        heatmaps: Give the heatmaps too.
        checkpoint: Weights file, ``random``, or None for the shipped ones where they fit.
        fill: What the decoder sees where a patch was dropped: ``carry``, ``zero`` or ``mask``.
        score: How the joints' attention becomes a rank: ``sum`` or ``max``.
        seed: Seed of random weights.
        calibration: Real crops (folder, ``.npz``, picture or clip) for int8 and for the comparison
            with PyTorch; None for the bundled media.
        activations: Integer type of int8 activations; ``uint8`` is for CPUs only.
        bf16: Measure OpenVINO's bfloat16 on this CPU with the budget of half precision, and write
            on the card that it may be used. Shipped weights are marked where they were measured.
        output: The file; default ``evitpose-<variant>-<head>-<plan>-<precision>.onnx`` here.
        progress: Told about each step.

    Returns:
        Path of the file.

    Raises:
        UsageError: an option that cannot be.
        PrunusError: see `export_artifact`.
    """
    config = _config(
        variant,
        choose_plan(level, keep, plan, joints),
        head=head,
        joints=joints,
        fill=fill,
        score=score,
    )
    check_batch(batch)
    check_heatmaps(config.head, heatmaps)
    path = Path(output) if output is not None else Path(_default_name(config, batch, precision))
    require_writable(path)
    weights = find_weights(config, checkpoint, seed)
    network = build_network(config, weights)
    return write_pose(
        network,
        build_card(network, weights, batch, heatmaps),
        path,
        precision=precision,
        activations=activations,
        bf16=_bfloat16(bf16, precision, config, weights),
        calibration=calibration,
        progress=progress,
    )


def _bfloat16(
    measure: bool, precision: Precision, config: EViTPoseConfig, weights: PoseWeights
) -> Bfloat16:
    return bfloat16_mode(measure, precision, config.plan.level in weights.bf16_levels)


def reference_module(card: ModelCard, checkpoint: str | Path | None = None) -> torch.nn.Module:
    """Rebuild the float32 PyTorch module that an artifact was exported from.

    Args:
        card: The artifact's card.
        checkpoint: The weights file that was exported; None for shipped and for random weights.

    Returns:
        Module in evaluation mode: uint8 (B, height, width, 3) -> the card's outputs.

    Raises:
        ArtifactError: not an EViTPose, or its weights are neither shipped, random nor given.
    """
    config = config_of(card)
    weights = weights_of(card.weights, config, checkpoint)
    heatmaps = any(output.name == "heatmaps" for output in card.outputs)
    return DeployedPose(build_network(config, weights), heatmaps=heatmaps).eval()


def config_of(card: ModelCard) -> EViTPoseConfig:
    """Return the configuration that a card describes; raises ArtifactError when it is not one."""
    post, tokens, image = card.postprocess, card.tokens, card.preprocess
    variant, _, head = card.variant.partition("-")
    fits = isinstance(post, KeypointPostprocess) and isinstance(image, ImagePreprocess)
    if card.model != "evitpose" or tokens is None or head not in HEADS or not fits:
        raise ArtifactError(
            f"The card describes {card.model} {card.variant}; expected an EViTPose.",
            "Give a file made by: prunus export evitpose",
        )
    plan = PruningPlan(tokens.level, tokens.blocks, tokens.keep)
    return _config(
        variant, plan, head=head, joints=tokens.special, fill=tokens.fill, score=tokens.score
    )


def build_network(config: EViTPoseConfig, weights: PoseWeights) -> EViTPose:
    """Build the network with its weights, in evaluation mode."""
    return seeded_network(lambda: EViTPose(config), weights, config)


def choose_plan(
    level: str | None, keep: float | None, plan: str | None, joints: int
) -> PruningPlan:
    """Return the plan of the one option that is given, L0 when none is.

    Raises:
        UsageError: several are given, or the one given is impossible.
    """
    given = [
        n for n, v in (("--level", level), ("--keep", keep), ("--plan", plan)) if v is not None
    ]
    if len(given) > 1:
        raise UsageError(f"Got {' and '.join(given)}; expected one of them.")
    if keep is not None:
        return plan_for_ratio(keep, joints)
    if plan is not None:
        return parse_plan(plan, joints)
    return evitpose_plan(level or "L0", joints)


def build_card(network: EViTPose, weights: PoseWeights, batch: int, heatmaps: bool) -> ModelCard:
    """Describe the artifact; number formats are filled in by the pipeline."""
    config = network.config
    return ModelCard(
        task="pose",
        model="evitpose",
        variant=f"{config.variant}-{config.head}",
        paper=PAPER,
        licence="Apache-2.0",
        exporter=exporter_name(),
        weights=weights.spec,
        inputs=(image_tensor(config, batch),),
        outputs=joint_tensors(config, config.joints, batch, heatmaps),
        preprocess=ImagePreprocess(config.height, config.width, "udp_affine"),
        postprocess=joint_postprocess(config.head, _skeleton(config.joints)),
        tokens=_token_plan(network),
    )


def _skeleton(joints: int) -> Skeleton:
    for known in (COCO17, UNIFIED23):
        if len(known.joints) == joints:
            return known
    names = tuple(f"joint{k}" for k in range(joints))
    # 0.05 is the middle of COCO's constants; an unknown skeleton has none of its own.
    return Skeleton(f"custom{joints}", names, (), (), (0.05,) * joints)


def _token_plan(network: EViTPose) -> TokenPlan:
    config = network.config
    image = torch.zeros(1, 3, config.height, config.width)
    macs = count_macs(network, image)
    dense = macs
    if config.plan.blocks:
        dense = count_macs(network.with_plan(evitpose_plan("L0", config.joints)), image)
    return TokenPlan(
        config.plan.level,
        config.plan.blocks,
        config.plan.keep,
        config.patches,
        config.joints,
        config.score,
        config.fill,
        macs,
        dense,
    )


def _config(
    variant: str, plan: PruningPlan, *, head: str | None, joints: int, fill: str, score: str
) -> EViTPoseConfig:
    for name, value, known in (
        ("head", head, (None, *HEADS)),
        ("fill", fill, ("carry", "zero", "mask")),
        ("score", score, ("sum", "max")),
    ):
        if value not in known:
            choices = ", ".join(k for k in known if k)
            raise UsageError(f"Unknown {name} '{value}'; expected one of {choices}.")
    if not 1 <= joints <= 256:
        raise UsageError(f"Got {joints} joints; expected 1 to 256.")
    config = evitpose_config(
        variant, head=cast(Any, head), joints=joints, fill=cast(Any, fill), score=cast(Any, score)
    )
    plan.check(config.patches, config.depth)
    return replace(config, plan=plan)


def _default_name(config: EViTPoseConfig, batch: int, precision: str) -> str:
    plan = config.plan
    level = plan.level
    if level == "custom":
        level = "K" + "-".join(map(str, plan.keep)) + "at" + "-".join(map(str, plan.blocks))
    parts = ["evitpose", config.variant, config.head, level]
    if config.joints != 17:
        parts.append(f"J{config.joints}")
    if batch > 1:
        parts.append(f"B{batch}")
    return "-".join([*parts, precision]) + ".onnx"


_EXAMPLES = """examples:
  python -m prunus.export.evitpose --variant tiny --level L1 -o evitpose-tiny-L1.onnx
  python -m prunus.export.evitpose --variant small --keep 0.5 --precision int8 --checkpoint s.pth
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this script."""
    parser = argparse.ArgumentParser(
        prog="python -m prunus.export.evitpose",
        description="Export EViTPose as one ONNX file with constant shapes, compared with PyTorch.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--variant", default="tiny", help="tiny, small or base (default tiny)")
    add("--level", help="pruning level L0 (all patches) to L3 (default L0)")
    add("--keep", type=float, help="share of the patches that survives each of three cuts")
    add("--plan", help="patches kept at blocks, e.g. 135/95/71@3/6/9")
    add("--head", help=f"{', '.join(HEADS)} (default by size)")
    add("--joints", type=int, default=17, help="number of joints (default 17)")
    add("--fill", default="carry", help="dropped patches in the decoder: carry, zero or mask")
    add("--score", default="sum", help="rank by sum or max over joints")
    add_shared_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    return run_script(build_parser(), export_evitpose, arguments)


if __name__ == "__main__":
    sys.exit(main())
