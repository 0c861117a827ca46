"""Export UniTransPose: choose a size, a head, which joints come out, a number format; get one file.

Run as ``python -m prunus.export.unitranspose --help`` or as ``prunus export unitranspose``.

The skeleton is what the network knows (its joint tokens); the joints are what the file returns.
Both are fixed in the graph: joints that are not read cost nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from prunus.export.common.pipeline import exporter_name, require_writable
from prunus.export.common.samples import Samples
from prunus.export.pose.script import (
    PAPER,
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
from prunus.models.pose.deployed import DeployedPose
from prunus.models.pose.skeleton import COCO17, SUBSETS, UNIFIED23, Skeleton, read_out
from prunus.models.pose.unitranspose.unitranspose import (
    VARIANTS,
    UniTransPose,
    UniTransPoseConfig,
    unitranspose_config,
)
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.precision import Precision
from prunus.runtime.errors import ArtifactError, UsageError, nearest
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.pose.card import ImagePreprocess, KeypointPostprocess

if TYPE_CHECKING:
    from prunus.export.precision.int8 import Activations

__all__ = ["export_unitranspose", "load_samples", "main", "reference_module"]

MODEL = "unitranspose"
KNOWN = {skeleton.name: skeleton for skeleton in (COCO17, UNIFIED23)}


def export_unitranspose(
    variant: str = "tiny",
    *,
    head: str = "heatmap",
    skeleton: str | None = None,
    joints: str | None = None,
    batch: int = 1,
    precision: Precision = "fp32",
    heatmaps: bool = False,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    calibration: str | Path | Samples | None = None,
    activations: Activations = "int8",
    bf16: bool = False,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Export UniTransPose as one self-describing ONNX file with constant shapes.

    Args:
        variant: One of `VARIANTS`.
        head: ``heatmap``, or ``regression`` for coordinates.
        skeleton: Joints that the network knows, ``coco17`` or ``unified23``; None: ``coco17``, or
            ``unified23`` where `joints` asks for joints that COCO lacks.
        joints: Joints that come out: a name of `SUBSETS`, or joints between commas; None for all.
        batch: Crops per run.
        precision: ``fp32``, ``fp16`` or ``int8``.
        heatmaps: Give the heatmaps too.
        checkpoint: Weights file, ``random``, or None: random ones, as none are shipped.
        seed: Seed of random weights.
        calibration: Real crops (folder, ``.npz``, picture or clip) for int8 and for the comparison
            with PyTorch; None for the bundled media.
        activations: Integer type of int8 activations; ``uint8`` is for CPUs only.
        bf16: Measure OpenVINO's bfloat16 on this CPU with the budget of half precision, and write
            on the card that it may be used.
        output: The file; default ``unitranspose-<variant>-<head>-<joints>-<precision>.onnx`` here.
        progress: Told about each step.

    Returns:
        Path of the file.

    Raises:
        UsageError: an option that cannot be.
        PrunusError: see `prunus.export.common.pipeline.export_artifact`.
    """
    known, shown, readout = _joints(skeleton, joints)
    config = unitranspose_config(
        variant, head=cast(Any, head), joints=len(known.joints), readout=readout
    )
    check_batch(batch)
    check_heatmaps(config.head, heatmaps)
    name = _default_name(config, known, shown, batch, precision)
    path = Path(output) if output is not None else Path(name)
    require_writable(path)
    weights = find_weights(config, checkpoint, seed)
    return write_pose(
        build_network(config, weights),
        build_card(config, weights, shown, batch, heatmaps),
        path,
        precision=precision,
        activations=activations,
        bf16=bfloat16_mode(bf16, precision, bool(weights.bf16_levels)),
        calibration=calibration,
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
    if skeleton is not None and skeleton not in KNOWN:
        raise UsageError(
            f"Unknown skeleton '{skeleton}'{nearest(skeleton, list(KNOWN))}.",
            f"Choose one of {', '.join(KNOWN)}.",
        )
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


_EXAMPLES = """examples:
  python -m prunus.export.unitranspose --variant tiny -o unitranspose-tiny.onnx
  python -m prunus.export.unitranspose --variant small --skeleton unified23 --joints mpii16
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this script."""
    parser = argparse.ArgumentParser(
        prog="python -m prunus.export.unitranspose",
        description="Export UniTransPose as one ONNX file with constant shapes, compared with "
        "PyTorch.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--variant", default="tiny", help=f"{', '.join(VARIANTS)} (default tiny)")
    add("--head", default="heatmap", help="heatmap (default) or regression")
    add("--skeleton", help="joints that the network knows: coco17 (default) or unified23")
    add("--joints", help=f"joints that come out: {', '.join(SUBSETS)}, or names between commas")
    add_shared_options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    return run_script(build_parser(), export_unitranspose, arguments)


if __name__ == "__main__":
    sys.exit(main())
