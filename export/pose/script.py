"""What the export scripts of the pose networks share: crops, tensors, and the way to a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch

from prunus.export.common.pipeline import ExportOptions, export_artifact
from prunus.export.common.samples import Samples
from prunus.export.pose.options import PoseFileOptions
from prunus.export.pose.weights import PoseConfig, PoseWeights, apply_weights
from prunus.export.precision.calibration import crop_samples, load_calibration
from prunus.models.pose.deployed import DeployedPose
from prunus.models.pose.skeleton import Skeleton
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.precision import Precision
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.card.tokens import token_output, told_blocks
from prunus.runtime.errors import UsageError
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.pose.card import ImagePreprocess, KeypointPostprocess

PAPER = "arXiv 2503.00232"
MAX_BATCH = 64
JUDGED = 64  # crops on which an export is compared with PyTorch: a p99 needs a thousand joints
INT8_CROPS = 2 * JUDGED  # as many calibrate
_NOISE_JOINTS = 16
Bfloat16 = Literal["measure", "known", "no"]
Network = TypeVar("Network", bound=torch.nn.Module)


def load_samples(card: ModelCard, source: str | Path | None = None, limit: int = JUDGED) -> Samples:
    """Find crops of people for an artifact, see `load_calibration`."""
    return load_calibration(source, cast(ImagePreprocess, card.preprocess), limit)


def crops_for(
    source: str | Path | Samples | None,
    preprocess: ImagePreprocess,
    real: bool,
    joints: int,
    limit: int = JUDGED,
) -> Samples:
    """Return crops; where pictures cannot matter (random weights), noise stands in for them.

    Args:
        source: Crops, or where they are; None for the bundled media.
        preprocess: Size and colour order.
        real: Whether noise will not do.
        joints: Joints per crop; a comparison wants some joints in all.
        limit: At most this many crops are found.
    """
    if isinstance(source, Samples):
        return source
    if source is not None or real:
        return load_calibration(source, preprocess, limit)
    shape = (max(4, -(-_NOISE_JOINTS // joints)), preprocess.height, preprocess.width, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return crop_samples(noise, "noise, as the weights are random")


def check_batch(batch: int, maximum: int = MAX_BATCH) -> None:
    """Refuse batch sizes that nobody means; raises UsageError."""
    if not 1 <= batch <= maximum:
        raise UsageError(
            f"Got a batch of {batch}; expected 1 to {maximum}.", "The runtime uses 1, 2, 4 and 8."
        )


def bfloat16_mode(measure: bool, precision: Precision, known: bool) -> Bfloat16:
    """Return what an export does about OpenVINO's bfloat16.

    Args:
        measure: It was asked for.
        precision: Of the file.
        known: These weights were measured within budget before.

    Raises:
        UsageError: asked for a half-precision file, which has nothing left in float32.
    """
    if measure:
        if precision == "fp16":
            raise UsageError(
                "--bf16 concerns what a file keeps in float32; got --precision fp16.",
                "Leave out one.",
            )
        return "measure"
    return "known" if known and precision == "fp32" else "no"


def seeded_network(
    build: Callable[[], Network], weights: PoseWeights, config: PoseConfig
) -> Network:
    """Build a network with its weights, in evaluation mode."""
    # The generator is global in PyTorch: fork it, so that building a network disturbs nobody.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights.seed)
        network = build()
    apply_weights(network, weights, config)
    return network.eval()


def image_tensor(config: PoseConfig, batch: int) -> TensorSpec:
    """Return the graph's input: bytes of crops."""
    return TensorSpec(
        "image", "uint8", (batch, config.height, config.width, 3),
        ("batch", "height", "width", "rgb"), "intensity", 0.0, 255.0,
    )  # fmt: skip


def joint_tensors(
    config: PoseConfig, joints: int, batch: int, heatmaps: bool
) -> tuple[TensorSpec, ...]:
    """Return the graph's outputs: joints in pixels of the crop, and heatmaps if asked for."""
    keypoints = TensorSpec(
        "keypoints", "float32", (batch, joints, 3), ("batch", "joint", "x_y_score"), "pixel"
    )
    if not heatmaps:
        return (keypoints,)
    shape = (batch, joints, config.height // 4, config.width // 4)
    maps = TensorSpec("heatmaps", "float32", shape, ("batch", "joint", "row", "column"))
    return (keypoints, maps)


def token_tensors(blocks: Sequence[int], batch: int, patches: int) -> tuple[TensorSpec, ...]:
    """Return the outputs that tell what the cuts at some blocks did to each patch."""
    return tuple(
        TensorSpec(token_output(block), "int32", (batch, patches), ("batch", "patch"))
        for block in blocks
    )


def joint_postprocess(
    head: str, skeleton: Skeleton, *, decode: bool = True
) -> KeypointPostprocess:
    """Return how the outputs become joints of one person; `decode`: inside the graph."""
    inside: Literal["regression", "udp_dark"] = (
        "regression" if head == "regression" else "udp_dark"
    )
    return KeypointPostprocess(
        inside if decode else "heatmaps",
        skeleton.name,
        tuple(skeleton.joints),
        tuple((int(a), int(b)) for a, b in skeleton.limbs),
        tuple((int(a), int(b)) for a, b in skeleton.flip_pairs),
        tuple(float(s) for s in skeleton.sigmas),
    )


def deployed_pose(network: torch.nn.Module, card: ModelCard) -> DeployedPose:
    """Return a network with the outputs that a card names."""
    names = [output.name for output in card.outputs]
    return DeployedPose(
        cast(Any, network),
        heatmaps="heatmaps" in names,
        show_tokens=bool(told_blocks(names)),
        decode=cast(KeypointPostprocess, card.postprocess).decoder != "heatmaps",
    )


def write_pose(
    network: torch.nn.Module,
    card: ModelCard,
    path: Path,
    options: PoseFileOptions,
    *,
    bf16: Bfloat16 = "no",
    keep_fp32: tuple[str, ...] = (),
    npu: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Export a pose network with decoding inside the graph.

    Args:
        network: Takes normalised crops; see `DeployedPose`.
        card: Describes the file.
        path: The file.
        options: Number format and calibration.
        bf16: What to do about OpenVINO's bfloat16.
        keep_fp32: Modules that stay float32, see `ExportOptions`.
        npu: Refuse what is chosen by the data, see `ExportOptions`.
        progress: Told about each step.

    Raises:
        PrunusError: see `export_artifact`.
    """
    form = options.format
    preprocess = cast(ImagePreprocess, card.preprocess)
    post = cast(KeypointPostprocess, card.postprocess)
    real = card.weights.trained or form.precision == "int8"
    limit = INT8_CROPS if form.precision == "int8" else JUDGED
    crops = crops_for(options.calibration, preprocess, real, len(post.joints), limit)
    # Heatmaps are compared wherever there are any, and leave the file where the card has none.
    module = deployed_pose(network, card)
    module.heatmaps = post.decoder != "regression"
    shown = any(output.name == "heatmaps" for output in card.outputs)
    extra = () if not module.heatmaps or shown else ("heatmaps",)
    return export_artifact(
        module,
        card,
        crops,
        path,
        options=ExportOptions(
            form.precision, form.activations, extra, bf16=bf16, keep_fp32=keep_fp32, npu=npu
        ),
        progress=progress,
    )


def check_heatmaps(head: str, heatmaps: bool) -> None:
    """Refuse heatmaps of a head that has none; raises UsageError."""
    if head == "regression" and heatmaps:
        raise UsageError("A regression head has no heatmaps.", "Leave out --heatmaps.")
