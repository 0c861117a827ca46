"""Export EViTPose: choose a size, how many patches survive and a number format; get one ONNX file.

Run as ``python -m prunus.export.evitpose --help`` or as ``prunus export evitpose``.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import torch

from prunus.export.common.options import takes
from prunus.export.common.pipeline import exporter_name, require_writable
from prunus.export.pose.options import EvitposeOptions, Head
from prunus.export.pose.script import (
    PAPER,
    Bfloat16,
    bfloat16_mode,
    check_batch,
    check_heatmaps,
    deployed_pose,
    image_tensor,
    joint_postprocess,
    joint_tensors,
    seeded_network,
    token_tensors,
    write_pose,
)
from prunus.export.pose.weights import PoseWeights, find_weights, weights_of
from prunus.models.macs import count_macs
from prunus.models.pose.evitpose import EViTPose, EViTPoseConfig, Score, evitpose_config
from prunus.models.pose.levels import DEPTH, evitpose_plan, parse_plan, plan_for_ratio
from prunus.models.pose.skeleton import COCO17, UNIFIED23, Skeleton
from prunus.models.tokens.blocks.stack import find_pruned, uncut_again
from prunus.models.tokens.plan import DENSE, PruningPlan
from prunus.models.tokens.prune import prune
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.precision import Precision
from prunus.runtime.card.tokens import METHODS, TokenPlan
from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.pose.card import ImagePreprocess, KeypointPostprocess

HEADS = get_args(Head)


@takes(EvitposeOptions)
def export_evitpose(options: EvitposeOptions, progress: Progress) -> Path:
    """Export EViTPose as one self-describing ONNX file with constant shapes.

    Args:
        options: See `EvitposeOptions`; its fields may be given by name instead. Shipped weights
            are marked for OpenVINO's bfloat16 where they were measured.
        progress: Told about each step.

    Returns:
        Path of the file.

    Raises:
        UsageError: an option that cannot be.
        PrunusError: see `export_artifact`.
    """
    file, form = options.file, options.file.format
    share, plan = options.tokens.share_and_plan
    depth = evitpose_config(options.variant).depth
    config = _config(
        options.variant,
        choose_plan(options.tokens.level, share, plan, options.joints, depth),
        head=options.head,
        joints=options.joints,
        fill=options.fill,
        score=options.score or ("strided" if options.npu else "sum"),
    )
    if config.plan.methods:
        _check_methods(options)
    if options.npu:
        _check_npu(options, config.head)
    if options.show_tokens and not config.plan.blocks:
        raise UsageError("Got --show-tokens without a cut.", "Choose one, as with --level L2.")
    check_batch(file.batch)
    check_heatmaps(config.head, file.heatmaps)
    path = Path(file.output or _default_name(config, file.batch, form.precision, options.npu))
    require_writable(path)
    weights = find_weights(config, file.weights.checkpoint, file.weights.seed)
    network = build_network(config, weights)
    shown, decode = options.show_tokens, not options.npu
    return write_pose(
        network,
        build_card(network, weights, file.batch, file.heatmaps, show_tokens=shown, decode=decode),
        path,
        file,
        bf16=_bfloat16(form.bf16, form.precision, config, weights),
        keep_fp32=_up_to_the_first_cut(config, form.precision),
        npu=options.npu,
        progress=progress,
    )


def _check_methods(options: EvitposeOptions) -> None:
    """Refuse what a plan with methods leaves no room for.

    Raises:
        UsageError: a choice of patches or a fill beside it, or int8, whose parts that stay float32
            are known for EViTPose's own cuts alone.
    """
    given = {
        f"--score {options.score}": options.score is not None,
        f"--fill {options.fill}": options.fill != "carry",
        "--precision int8": options.file.format.precision == "int8",
    }
    for words, there in given.items():
        if there:
            raise UsageError(
                f"Got {words} with a plan that names its methods.",
                "Leave it out, or give counts alone: --plan 135/95/71@3/6/9.",
            )


def _check_npu(options: EvitposeOptions, head: str) -> None:
    """Refuse what an NPU's graph cannot give: heatmaps alone, as the data choose their maximum.

    Raises:
        UsageError: another output was asked for.
    """
    if head == "regression":
        raise UsageError(
            "Got --npu with a regression head; expected a head with heatmaps.",
            "Leave out --npu: a regression head chooses nothing but patches (--score strided).",
        )
    for flag, asked in (
        ("--heatmaps", options.file.heatmaps), ("--show-tokens", options.show_tokens)
    ):  # fmt: skip
        if asked:
            raise UsageError(
                f"Got {flag} with --npu, whose one output are the heatmaps.", f"Leave out {flag}."
            )


def _up_to_the_first_cut(config: EViTPoseConfig, precision: Precision) -> tuple[str, ...]:
    """Return what int8 leaves in float32: a rounded token that takes another's place costs most."""
    if precision != "int8" or not config.plan.blocks:
        return ()
    first = config.plan.blocks[0]
    whole = (f"network.blocks.{number}" for number in range(first))
    return (*whole, f"network.blocks.{first}.attn")


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
    return deployed_pose(build_network(config, weights), card).eval()


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
    own = tokens.score in get_args(Score)
    methods = () if own else tuple(tokens.score.split(METHODS))
    plan = PruningPlan(tokens.level, tokens.blocks, tokens.keep, methods)
    fill, score = (tokens.fill, tokens.score) if own else ("carry", "sum")
    return _config(variant, plan, head=head, joints=tokens.special, fill=fill, score=score)


def build_network(config: EViTPoseConfig, weights: PoseWeights) -> EViTPose:
    """Build the network with its weights, in evaluation mode; methods of a plan are `prune`'s."""
    if not config.plan.methods:
        return seeded_network(lambda: EViTPose(config), weights, config)
    whole = replace(config, plan=DENSE)
    dense = seeded_network(lambda: EViTPose(whole), weights, whole)
    network = cast(EViTPose, prune(dense, config.plan))
    network.config = config
    return network


def choose_plan(
    level: str | None, keep: float | None, plan: str | None, joints: int, depth: int = DEPTH
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
        return plan_for_ratio(keep, joints, depth)
    if plan is not None:
        return parse_plan(plan, joints, depth)
    return evitpose_plan(level or "L0", joints, depth)


def build_card(
    network: EViTPose,
    weights: PoseWeights,
    batch: int,
    heatmaps: bool,
    *,
    show_tokens: bool = False,
    decode: bool = True,
) -> ModelCard:
    """Describe the artifact; number formats are filled in by the pipeline."""
    config = network.config
    keypoints, *maps = joint_tensors(config, config.joints, batch, heatmaps or not decode)
    told = config.plan.blocks if show_tokens else ()
    return ModelCard(
        task="pose",
        model="evitpose",
        variant=f"{config.variant}-{config.head}",
        paper=PAPER,
        licence="Apache-2.0",
        exporter=exporter_name(),
        weights=weights.spec,
        inputs=(image_tensor(config, batch),),
        outputs=(keypoints, *token_tensors(told, batch, config.patches), *maps)
        if decode
        else tuple(maps),
        preprocess=ImagePreprocess(config.height, config.width, "udp_affine"),
        postprocess=joint_postprocess(config.head, _skeleton(config.joints), decode=decode),
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
    dense, score, fill = macs, str(config.score), str(config.fill)
    if (stack := find_pruned(network)) is not None:
        with uncut_again(stack):
            dense = count_macs(network, image)
        score, fill = METHODS.join(config.plan.methods), stack.restoring
    elif config.plan.blocks:
        dense = count_macs(network.with_plan(evitpose_plan("L0", config.joints)), image)
    return TokenPlan(
        config.plan.level,
        config.plan.blocks,
        config.plan.keep,
        config.patches,
        config.joints,
        score,
        fill,
        macs,
        dense,
        config.grid,
    )


def _config(
    variant: str, plan: PruningPlan, *, head: str | None, joints: int, fill: str, score: str
) -> EViTPoseConfig:
    config = evitpose_config(
        variant, head=cast(Any, head), joints=joints, fill=cast(Any, fill), score=cast(Any, score)
    )
    plan.check(config.patches, config.depth)
    return replace(config, plan=plan)


def _default_name(config: EViTPoseConfig, batch: int, precision: str, npu: bool) -> str:
    plan = config.plan
    level = plan.level
    if plan.methods:
        level = re.sub(r"[^A-Za-z0-9.]+", "-", level).strip("-")
    elif level == "custom":
        level = "K" + "-".join(map(str, plan.keep)) + "at" + "-".join(map(str, plan.blocks))
    parts = ["evitpose", config.variant, config.head, level]
    if config.joints != 17:
        parts.append(f"J{config.joints}")
    if batch > 1:
        parts.append(f"B{batch}")
    if npu:
        parts.append(f"npu-{config.score}")
    return "-".join([*parts, precision]) + ".onnx"


if __name__ == "__main__":
    from prunus.export.common.command import script

    sys.exit(script("evitpose"))
