"""Export EViTPose: choose a size, how many patches survive and a number format; get one ONNX file.

Run as ``python -m prunus.export.evitpose --help`` or as ``prunus export evitpose``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch

from prunus.export.calibration import crop_samples, load_calibration
from prunus.export.pipeline import ExportOptions, export_artifact, exporter_name, require_writable
from prunus.export.pose_weights import PoseWeights, apply_weights, find_weights, weights_of
from prunus.export.samples import Samples
from prunus.models.macs import count_macs
from prunus.models.pose.deployed import DeployedPose
from prunus.models.pose.evitpose import EViTPose, EViTPoseConfig, evitpose_config
from prunus.models.pose.skeleton import COCO17, UNIFIED23, Skeleton
from prunus.models.tokens.plan import PruningPlan, evitpose_plan, parse_plan, plan_for_ratio
from prunus.runtime.card import (
    ImagePreprocess,
    KeypointPostprocess,
    ModelCard,
    Precision,
    TensorSpec,
    TokenPlan,
)
from prunus.runtime.errors import ArtifactError, HostError, PrunusError, UsageError
from prunus.runtime.progress import ConsoleProgress, Progress, Silent

if TYPE_CHECKING:
    from prunus.export.quantize import Activations

Decoder = Literal["udp_dark", "regression"]
PAPER = "arXiv 2503.00232"
HEADS = ("classic", "simple", "subpixel", "token", "regression")
MAX_BATCH = 64
_JUDGED = 64  # crops on which an export is compared with PyTorch: a p99 needs a thousand joints


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
    _check_batch(batch)
    path = Path(output) if output is not None else Path(_default_name(config, batch, precision))
    require_writable(path)
    weights = find_weights(config, checkpoint, seed)
    network = build_network(config, weights)
    regresses = config.head == "regression"
    if regresses and heatmaps:
        raise UsageError("A regression head has no heatmaps.", "Leave out --heatmaps.")
    card = build_card(network, weights, batch, heatmaps)
    preprocess = cast(ImagePreprocess, card.preprocess)
    crops = _crops(calibration, preprocess, weights.spec.trained or precision == "int8")
    extra = () if regresses or heatmaps else ("heatmaps",)
    return export_artifact(
        DeployedPose(network, heatmaps=not regresses),
        card,
        crops.first(_JUDGED),
        path,
        options=ExportOptions(
            precision, activations, extra, bf16=_bfloat16(bf16, precision, config, weights)
        ),
        calibration=crops,
        progress=progress,
    )


def _bfloat16(
    measure: bool, precision: Precision, config: EViTPoseConfig, weights: PoseWeights
) -> Literal["measure", "known", "no"]:
    if measure:
        if precision != "fp32":
            raise UsageError(
                f"--bf16 concerns float32 files; got --precision {precision}.", "Leave out one."
            )
        return "measure"
    known = precision == "fp32" and config.plan.level in weights.bf16_levels
    return "known" if known else "no"


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


def load_samples(
    card: ModelCard, source: str | Path | None = None, limit: int = _JUDGED
) -> Samples:
    """Find crops of people for an artifact, see `load_calibration`."""
    return load_calibration(source, cast(ImagePreprocess, card.preprocess), limit)


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
    # The generator is global in PyTorch: fork it, so that building a network disturbs nobody.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights.seed)
        network = EViTPose(config)
    apply_weights(network, weights)
    return network.eval()


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
    height, width, joints = config.height, config.width, config.joints
    image = TensorSpec(
        "image", "uint8", (batch, height, width, 3), ("batch", "height", "width", "rgb"),
        "intensity", 0.0, 255.0,
    )  # fmt: skip
    outputs = [
        TensorSpec(
            "keypoints", "float32", (batch, joints, 3), ("batch", "joint", "x_y_score"), "pixel"
        )
    ]
    if heatmaps:
        shape = (batch, joints, height // 4, width // 4)
        outputs.append(
            TensorSpec("heatmaps", "float32", shape, ("batch", "joint", "row", "column"))
        )
    return ModelCard(
        task="pose",
        model="evitpose",
        variant=f"{config.variant}-{config.head}",
        paper=PAPER,
        licence="Apache-2.0",
        exporter=exporter_name(),
        weights=weights.spec,
        inputs=(image,),
        outputs=tuple(outputs),
        preprocess=ImagePreprocess(height, width, "udp_affine"),
        postprocess=_postprocess(config),
        tokens=_token_plan(network),
    )


def _postprocess(config: EViTPoseConfig) -> KeypointPostprocess:
    decoder: Decoder = "regression" if config.head == "regression" else "udp_dark"
    known: dict[int, Skeleton] = {len(s.joints): s for s in (COCO17, UNIFIED23)}
    skeleton = known.get(config.joints)
    if skeleton is None:
        names = tuple(f"joint{k}" for k in range(config.joints))
        # 0.05 is the middle of COCO's constants; an unknown skeleton has none of its own.
        return KeypointPostprocess(
            decoder, f"custom{config.joints}", names, (), (), (0.05,) * len(names)
        )
    return KeypointPostprocess(
        decoder,
        skeleton.name,
        tuple(skeleton.joints),
        tuple((int(a), int(b)) for a, b in skeleton.limbs),
        tuple((int(a), int(b)) for a, b in skeleton.flip_pairs),
        tuple(float(s) for s in skeleton.sigmas),
    )


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


def _check_batch(batch: int) -> None:
    if not 1 <= batch <= MAX_BATCH:
        raise UsageError(
            f"Got a batch of {batch}; expected 1 to {MAX_BATCH}.", "The runtime uses 1, 2, 4 and 8."
        )


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


def _crops(
    source: str | Path | Samples | None, preprocess: ImagePreprocess, real: bool
) -> Samples:
    """Return crops; where pictures cannot matter (random weights), noise stands in for them."""
    if isinstance(source, Samples):
        return source
    if source is not None or real:
        return load_calibration(source, preprocess)
    shape = (4, preprocess.height, preprocess.width, 3)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return crop_samples(noise, "noise, as the weights are random")


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
    add("--batch", type=int, default=1, help="crops per run (default 1)")
    add("--precision", default="fp32", choices=("fp32", "fp16", "int8"))
    add("--activations", default="int8", choices=("int8", "uint8"), help="uint8: CPUs only")
    add("--bf16", action="store_true", help="measure bfloat16 and allow it on the card")
    add("--heatmaps", action="store_true", help="give the heatmaps as a second output")
    add("--checkpoint", help="weights file, or 'random' (default: the shipped ones that fit)")
    add("--seed", type=int, default=0, help="seed of random weights (default 0)")
    add("--fill", default="carry", help="dropped patches in the decoder: carry, zero or mask")
    add("--score", default="sum", help="rank by sum or max over joints")
    add("--calibration", help="folder, .npz, picture or clip with people (default: bundled)")
    add("-o", "--output", help="output file (default: named after the options, in this folder)")
    add("--quiet", action="store_true", help="no progress")
    add("--debug", action="store_true", help="show the stack trace of an error")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    options = vars(build_parser().parse_args(arguments))
    quiet, debug = options.pop("quiet"), options.pop("debug")
    try:
        if quiet:
            path = export_evitpose(**options, progress=Silent())
        else:
            with ConsoleProgress("export") as progress:
                path = export_evitpose(**options, progress=progress)
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


if __name__ == "__main__":
    sys.exit(main())
