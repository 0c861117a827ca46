"""Export UniTransPose: choose a size, a head, which joints come out, a number format; get one file.

Run as ``python -m prunus.export.unitranspose --help`` or as ``prunus export unitranspose``.

Skeleton and joints are fixed in the graph: joints that are not read cost nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import torch

from prunus.export.common.options import takes
from prunus.export.common.pipeline import exporter_name, require_writable
from prunus.export.pose.options import UnitransposeOptions
from prunus.export.pose.script import (
    PAPER,
    bfloat16_mode,
    check_batch,
    check_heatmaps,
    image_tensor,
    joint_postprocess,
    joint_tensors,
    seeded_network,
    write_pose,
)
from prunus.export.pose.weights import PoseWeights, find_weights, weights_of
from prunus.models.pose.deployed import DeployedPose
from prunus.models.pose.skeleton import COCO17, UNIFIED23, Skeleton, read_out
from prunus.models.pose.unitranspose.unitranspose import (
    VARIANTS,
    UniTransPose,
    UniTransPoseConfig,
    unitranspose_config,
)
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.pose.card import ImagePreprocess, KeypointPostprocess

MODEL = "unitranspose"
KNOWN = {skeleton.name: skeleton for skeleton in (COCO17, UNIFIED23)}


@takes(UnitransposeOptions)
def export_unitranspose(options: UnitransposeOptions, progress: Progress) -> Path:
    """Export UniTransPose as one self-describing ONNX file with constant shapes.

    Args:
        options: See `UnitransposeOptions`; its fields may be given by name instead.
        progress: Told about each step.

    Returns:
        Path of the file.

    Raises:
        UsageError: an option that cannot be.
        PrunusError: see `prunus.export.common.pipeline.export_artifact`.
    """
    file, form = options.file, options.file.format
    known, shown, readout = _joints(options.skeleton, options.joints)
    config = unitranspose_config(
        options.variant, head=options.head, joints=len(known.joints), readout=readout
    )
    check_batch(file.batch)
    check_heatmaps(config.head, file.heatmaps)
    path = Path(file.output or _default_name(config, known, shown, file.batch, form.precision))
    require_writable(path)
    weights = find_weights(config, file.weights.checkpoint, file.weights.seed)
    return write_pose(
        build_network(config, weights),
        build_card(config, weights, shown, file.batch, file.heatmaps),
        path,
        file,
        bf16=bfloat16_mode(form.bf16, form.precision, bool(weights.bf16_levels)),
        progress=progress,
    )


def reference_module(card: ModelCard, checkpoint: str | Path | None = None) -> torch.nn.Module:
    """Rebuild the float32 PyTorch module that an artifact was exported from.

    Args:
        card: The artifact's card.
        checkpoint: The weights file that was exported; None for shipped and for random weights.

    Returns:
        Module in evaluation mode: uint8 (B, height, width, 3) -> the card's outputs.

    Raises:
        ArtifactError: not a UniTransPose, or its weights are neither shipped, random nor given.
    """
    config = config_of(card)
    weights = weights_of(card.weights, config, checkpoint)
    heatmaps = any(output.name == "heatmaps" for output in card.outputs)
    return DeployedPose(build_network(config, weights), heatmaps=heatmaps).eval()


def config_of(card: ModelCard) -> UniTransPoseConfig:
    """Return the configuration that a card describes; raises ArtifactError when it is not one."""
    post = card.postprocess
    words = card.variant.rsplit("-", 2)
    variant, head, skeleton = words if len(words) == 3 else ("", "", "")
    known = KNOWN.get(skeleton)
    fits = isinstance(post, KeypointPostprocess) and isinstance(card.preprocess, ImagePreprocess)
    if card.model != MODEL or known is None or variant not in VARIANTS or not fits:
        raise ArtifactError(
            f"The card describes {card.model} {card.variant}; expected a UniTransPose.",
            "Give a file made by: prunus export unitranspose",
        )
    names = cast(KeypointPostprocess, post).joints
    _, readout = read_out(known, ",".join(names))
    return unitranspose_config(
        variant, head=cast(Any, head), joints=len(known.joints), readout=_all_or(readout, known)
    )


def build_network(config: UniTransPoseConfig, weights: PoseWeights) -> UniTransPose:
    """Build the network with its weights, in evaluation mode."""
    return seeded_network(lambda: UniTransPose(config), weights, config)


def build_card(
    config: UniTransPoseConfig,
    weights: PoseWeights,
    shown: Skeleton,
    batch: int = 1,
    heatmaps: bool = False,
) -> ModelCard:
    """Describe the artifact; number formats are filled in by the pipeline.

    Args:
        config: The network.
        weights: Its weights.
        shown: The joints that come out.
        batch: Crops per run.
        heatmaps: Whether heatmaps come out too.
    """
    skeleton = next(s.name for s in KNOWN.values() if len(s.joints) == config.joints)
    return ModelCard(
        task="pose",
        model=MODEL,
        variant=f"{config.variant}-{config.head}-{skeleton}",
        paper=PAPER,
        licence="Apache-2.0",
        exporter=exporter_name(),
        weights=weights.spec,
        inputs=(image_tensor(config, batch),),
        outputs=joint_tensors(config, config.outputs, batch, heatmaps),
        preprocess=ImagePreprocess(config.height, config.width, "udp_affine"),
        postprocess=joint_postprocess(config.head, shown),
    )


def _joints(
    skeleton: str | None, joints: str | None
) -> tuple[Skeleton, Skeleton, tuple[int, ...] | None]:
    """Return the network's skeleton, the one read out, and which of the former the latter is."""
    if joints is None:
        known = KNOWN[skeleton or COCO17.name]
        return known, known, None
    part, _ = read_out(UNIFIED23, joints)
    inside = set(part.joints) <= set(COCO17.joints)
    known = KNOWN[skeleton] if skeleton else COCO17 if inside else UNIFIED23
    if not set(part.joints) <= set(known.joints):
        raise UsageError(
            f"The joints {joints} are not all in {known.name}.", "Add --skeleton unified23."
        )
    shown, readout = read_out(known, joints)
    return known, shown, _all_or(readout, known)


def _all_or(readout: tuple[int, ...], known: Skeleton) -> tuple[int, ...] | None:
    return None if readout == tuple(range(len(known.joints))) else readout


def _default_name(
    config: UniTransPoseConfig, known: Skeleton, shown: Skeleton, batch: int, precision: str
) -> str:
    parts = [MODEL, config.variant, config.head, known.name]
    if shown.name != known.name:
        parts.append(shown.name)
    if batch > 1:
        parts.append(f"B{batch}")
    return "-".join([*parts, precision]) + ".onnx"


if __name__ == "__main__":
    from prunus.export.common.command import script

    sys.exit(script(MODEL))
