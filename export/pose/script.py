"""What the export scripts of the pose networks share: crops, tensors, options, one command line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import numpy as np
import torch

from prunus.export.common.pipeline import ExportOptions, export_artifact
from prunus.export.common.samples import Samples
from prunus.export.pose.weights import PoseConfig, PoseWeights, apply_weights
from prunus.export.precision.calibration import crop_samples, load_calibration
from prunus.models.pose.deployed import DeployedPose
from prunus.models.pose.skeleton import Skeleton
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.precision import Precision
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import HostError, PrunusError, UsageError
from prunus.runtime.progress import ConsoleProgress, Progress, Silent
from prunus.runtime.tasks.pose.card import ImagePreprocess, KeypointPostprocess

if TYPE_CHECKING:
    from prunus.export.precision.int8 import Activations

PAPER = "arXiv 2503.00232"
MAX_BATCH = 64
JUDGED = 64  # crops on which an export is compared with PyTorch: a p99 needs a thousand joints
_NOISE_JOINTS = 16
Bfloat16 = Literal["measure", "known", "no"]
Network = TypeVar("Network", bound=torch.nn.Module)


def load_samples(card: ModelCard, source: str | Path | None = None, limit: int = JUDGED) -> Samples:
    """Find crops of people for an artifact, see `load_calibration`."""
    return load_calibration(source, cast(ImagePreprocess, card.preprocess), limit)


def crops_for(
    source: str | Path | Samples | None, preprocess: ImagePreprocess, real: bool, joints: int
) -> Samples:
    """Return crops; where pictures cannot matter (random weights), noise stands in for them.

    Args:
        source: Crops, or where they are; None for the bundled media.
        preprocess: Size and colour order.
        real: Whether noise will not do.
        joints: Joints per crop; a comparison wants some joints in all.
    """
    if isinstance(source, Samples):
        return source
    if source is not None or real:
        return load_calibration(source, preprocess)
    shape = (max(4, -(-_NOISE_JOINTS // joints)), preprocess.height, preprocess.width, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return crop_samples(noise, "noise, as the weights are random")


def check_batch(batch: int) -> None:
    """Refuse batch sizes that nobody means; raises UsageError."""
    if not 1 <= batch <= MAX_BATCH:
        raise UsageError(
            f"Got a batch of {batch}; expected 1 to {MAX_BATCH}.", "The runtime uses 1, 2, 4 and 8."
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


def joint_postprocess(head: str, skeleton: Skeleton) -> KeypointPostprocess:
    """Return how the outputs become joints of one person."""
    return KeypointPostprocess(
        "regression" if head == "regression" else "udp_dark",
        skeleton.name,
        tuple(skeleton.joints),
        tuple((int(a), int(b)) for a, b in skeleton.limbs),
        tuple((int(a), int(b)) for a, b in skeleton.flip_pairs),
        tuple(float(s) for s in skeleton.sigmas),
    )


def write_pose(
    network: torch.nn.Module,
    card: ModelCard,
    path: Path,
    *,
    precision: Precision,
    activations: Activations,
    bf16: Bfloat16,
    calibration: str | Path | Samples | None,
    progress: Progress | None,
) -> Path:
    """Export a pose network with decoding inside the graph.

    Args:
        network: Takes normalised crops; see `DeployedPose`.
        card: Describes the file.
        path: The file.
        precision: Number format.
        activations: Integer type of int8 activations.
        bf16: What to do about OpenVINO's bfloat16.
        calibration: Real crops, or where they are.
        progress: Told about each step.

    Raises:
        PrunusError: see `export_artifact`.
    """
    preprocess = cast(ImagePreprocess, card.preprocess)
    post = cast(KeypointPostprocess, card.postprocess)
    real = card.weights.trained or precision == "int8"
    crops = crops_for(calibration, preprocess, real, len(post.joints))
    regresses = post.decoder == "regression"
    shown = any(output.name == "heatmaps" for output in card.outputs)
    extra = () if regresses or shown else ("heatmaps",)
    return export_artifact(
        DeployedPose(cast(Any, network), heatmaps=not regresses),
        card,
        crops.first(JUDGED),
        path,
        options=ExportOptions(precision, activations, extra, bf16=bf16),
        calibration=crops,
        progress=progress,
    )


def check_heatmaps(head: str, heatmaps: bool) -> None:
    """Refuse heatmaps of a head that has none; raises UsageError."""
    if head == "regression" and heatmaps:
        raise UsageError("A regression head has no heatmaps.", "Leave out --heatmaps.")


def add_shared_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every pose script has, after its own."""
    add = parser.add_argument
    add("--batch", type=int, default=1, help="crops per run (default 1)")
    add("--precision", default="fp32", choices=("fp32", "fp16", "int8"))
    add("--activations", default="int8", choices=("int8", "uint8"), help="uint8: CPUs only")
    add("--bf16", action="store_true", help="measure bfloat16 and allow it on the card")
    add("--heatmaps", action="store_true", help="give the heatmaps as a second output")
    add("--checkpoint", help="weights file, or 'random' (default: the shipped ones that fit)")
    add("--seed", type=int, default=0, help="seed of random weights (default 0)")
    add("--calibration", help="folder, .npz, picture or clip with people (default: bundled)")
    add("-o", "--output", help="output file (default: named after the options, in this folder)")
    add("--quiet", action="store_true", help="no progress")
    add("--debug", action="store_true", help="show the stack trace of an error")


def run_script(
    parser: argparse.ArgumentParser,
    export: Callable[..., Path],
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a script's command line; return its exit code.

    Args:
        parser: Its options are the keyword arguments of `export`, besides quiet and debug.
        export: Writes the file and returns its path.
        arguments: Words of the command line; None: this process' own.
    """
    options = vars(parser.parse_args(arguments))
    quiet, debug = options.pop("quiet"), options.pop("debug")
    try:
        if quiet:
            path = export(**options, progress=Silent())
        else:
            with ConsoleProgress("export") as progress:
                path = export(**options, progress=progress)
    except PrunusError as error:
        if debug:
            raise
        sys.stderr.write(f"error: {error.message}\n" + (f"{error.hint}\n" if error.hint else ""))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except MemoryError:
        full = HostError("Not enough memory for this export.", "Choose a smaller batch or variant.")
        sys.stderr.write(f"error: {full}\n")
        return full.exit_code
    sys.stdout.write(f"{path}\n")
    return 0
