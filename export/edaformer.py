"""Export EDAFormer: choose a size, an ISR setting and a number format; get one ONNX file.

Run as ``python -m prunus.export.edaformer --help`` or as ``prunus export edaformer``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import torch

from prunus.export.common.pipeline import (
    ExportOptions,
    export_artifact,
    exporter_name,
    require_writable,
)
from prunus.export.common.samples import Samples
from prunus.export.pose.script import bfloat16_mode, run_script
from prunus.export.segmentation.samples import load_scenes
from prunus.export.segmentation.weights import SegmentationWeights, find_weights, weights_of
from prunus.models.macs import count_macs
from prunus.models.segmentation.deployed import BYTE_CLASSES, DeployedSegmentation
from prunus.models.segmentation.edaformer import LOGIT_STRIDE, EDAFormer, EDAFormerConfig
from prunus.models.segmentation.isr import (
    DECODER_STRIDES,
    ENCODER_STRIDES,
    IsrSetting,
    parse_isr,
)
from prunus.models.segmentation.static import LITERAL, Rewrites
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.precision import Precision
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.card.tokens import TokenPlan
from prunus.runtime.errors import ArtifactError, UsageError, nearest
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.segmentation.card import MaskPostprocess, ScenePreprocess

if TYPE_CHECKING:
    from prunus.export.precision.int8 import Activations

PAPER = "arXiv 2407.17261"
MAX_BATCH = 16
_JUDGED = 8  # images on which an export is compared: each has hundreds of thousands of pixels
_FITS = ("letterbox", "stretch", "ade20k", "cityscapes")
_FOREGROUND = "person"
Form = Literal["class_ids", "logits", "probability"]


def export_edaformer(
    variant: str | None = None,
    *,
    isr: str = "off",
    size: str = "512x512",
    classes: int | None = None,
    weights: str | Path | None = None,
    fit: str = "letterbox",
    logits: bool = False,
    probability: bool = False,
    batch: int = 1,
    precision: Precision = "fp32",
    activations: Activations = "int8",
    bf16: bool = False,
    literal: bool = False,
    full_argmax: bool = False,
    drop_remainder: bool = False,
    seed: int = 0,
    calibration: str | Path | Samples | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Export EDAFormer as one self-describing ONNX file with constant shapes.

    Args:
        variant: ``t`` or ``b``; None: what the weights are, ``t`` without any.
        isr: Inference spatial reduction, e.g. ``2211-222`` (factors on the trained pooling of
            encoder stages 1 to 4 and of the decoder at 1/8, 1/16, 1/32) or a name, see `parse_isr`.
        size: Input as HEIGHTxWIDTH.
        classes: Number of classes; None: the weights', 150 without any.
        weights: File of ``prunus models import``, a published one, ``person`` (the shipped ones),
            or ``random``; None: ``person`` unless a variant or classes are asked for, see
            `find_weights`.
        fit: ``letterbox``, ``stretch``, ``ade20k`` or ``cityscapes`` (the published protocols).
        logits: Give logits at 1/8 of the input instead of class numbers at its full size.
        probability: Give the second class's probability of each pixel instead, for soft edges;
            only for weights with two classes.
        batch: Images per run.
        precision: ``fp32``, ``fp16`` or ``int8``.
        activations: Integer type of int8 activations; ``uint8`` is for CPUs only.
        bf16: Measure OpenVINO's bfloat16 on this CPU and allow it on the card.
        literal: The network as published, without the exact rewrites and with the full arg-max.
        full_argmax: Compare all classes at every pixel; else, of many classes, those that are
            among the best four of one of the four cells around it (see `CandidateArgMax`).
        drop_remainder: Accept sizes that a pooling does not divide: the last keys are left out.
        seed: Seed of random weights.
        calibration: Real images (folder, picture, clip, array file) for int8 and for the
            comparison with PyTorch; None for the bundled media.
        output: The file; default ``edaformer-<variant>-<isr>-<size>-<precision>.onnx`` here.
        progress: Told about each step.

    Returns:
        Path of the file.

    Raises:
        UsageError: an option that cannot be; sizes that do not fit come with the nearest ones.
        PrunusError: see `export_artifact`.
    """
    setting, (height, width) = parse_isr(isr), parse_size(size)
    setting.check_size(height, width, drop_remainder=drop_remainder)
    if not 1 <= batch <= MAX_BATCH:
        raise UsageError(f"Got a batch of {batch}; expected 1 to {MAX_BATCH}.")
    preprocess = _preprocess(fit, height, width, logits)
    found = find_weights(weights, variant, classes, seed)
    output_form = _form(logits, probability, len(found.classes))
    name = _default_name(found, setting, preprocess, batch, precision=precision, form=output_form)
    path = Path(output) if output is not None else Path(name)
    require_writable(path)
    network = found.build(setting)
    card = build_card(network, found, preprocess, batch, output_form)
    samples = (
        calibration if isinstance(calibration, Samples) else load_scenes(calibration, preprocess)
    )
    return export_artifact(
        DeployedSegmentation(
            network,
            preprocess,
            classes=not logits,
            logits=output_form == "class_ids",
            rewrites=LITERAL if literal else Rewrites(),
            candidates=not (literal or full_argmax),
            probability=probability,
        ),
        card,
        samples.first(_JUDGED),
        path,
        options=ExportOptions(
            precision,
            activations,
            ("logits",) if output_form == "class_ids" else (),
            bf16=bfloat16_mode(bf16, precision, known=False),
        ),
        calibration=samples,
        progress=progress,
    )


def reference_module(card: ModelCard, checkpoint: str | Path | None = None) -> torch.nn.Module:
    """Rebuild the float32 PyTorch module that an artifact was exported from, without rewrites.

    Args:
        card: The artifact's card.
        checkpoint: The weights file that was exported; None for random weights.

    Returns:
        Module in evaluation mode: uint8 (B, height, width, 3) -> the card's output.

    Raises:
        ArtifactError: not an EDAFormer, or its weights are not given.
    """
    post, before = card.postprocess, card.preprocess
    fits = isinstance(post, MaskPostprocess) and isinstance(before, ScenePreprocess)
    if card.model != "edaformer" or card.tokens is None or not fits:
        raise ArtifactError(
            f"The card describes {card.model} {card.variant}; expected an EDAFormer.",
            "Give a file made by: prunus export edaformer",
        )
    after = cast(MaskPostprocess, post)
    weights = weights_of(card.weights, card.variant, len(after.classes), checkpoint)
    return DeployedSegmentation(
        weights.build(parse_isr(card.tokens.level)),
        cast(ScenePreprocess, before),
        classes=after.decoder != "logits",
        rewrites=LITERAL,
        probability=after.decoder == "probability",
    ).eval()


def load_samples(card: ModelCard, source: str | Path | None = None, limit: int = 16) -> Samples:
    """Find real images for an artifact, see `load_scenes`."""
    return load_scenes(source, cast(ScenePreprocess, card.preprocess), limit)


def parse_size(text: str) -> tuple[int, int]:
    """Return height and width of ``512x1024``, or of ``512`` for a square.

    Raises:
        UsageError: another form.
    """
    first, _, second = text.lower().partition("x")
    second = second or first
    if not (first.isdigit() and second.isdigit() and int(first) and int(second)):
        raise UsageError(f"Got --size {text}; expected HEIGHTxWIDTH.", "Example: --size 512x512")
    return int(first), int(second)


def _form(logits: bool, probability: bool, classes: int) -> Form:
    """Return what the graph gives, after refusing what cannot be."""
    if not probability:
        return "logits" if logits else "class_ids"
    if logits:
        raise UsageError("Got --logits and --probability; expected one of them at most.")
    if classes != 2:
        raise UsageError(
            f"--probability needs weights with two classes; got {classes}.",
            "Leave --probability out, or use --weights person.",
        )
    return "probability"


def _preprocess(fit: str, height: int, width: int, logits: bool) -> ScenePreprocess:
    if fit not in _FITS:
        raise UsageError(
            f"Unknown fit '{fit}'{nearest(fit, list(_FITS))}.", f"Choose one of {', '.join(_FITS)}."
        )
    if fit == "letterbox":
        return ScenePreprocess(height, width, "letterbox")
    if fit == "stretch":
        return ScenePreprocess(height, width, "stretch")
    if fit == "ade20k":
        return ScenePreprocess(height, width, "keep_ratio", longest=2048, shortest=512, multiple=32)
    if not logits:
        raise UsageError(
            "The fit 'cityscapes' averages logits of overlapping windows; got class numbers.",
            "Add --logits.",
        )
    steps = (max(height * 3 // 4, 1), max(width * 3 // 4, 1))
    return ScenePreprocess(height, width, "sliding", longest=2048, shortest=1024, stride=steps)


def build_card(
    network: EDAFormer,
    weights: SegmentationWeights,
    preprocess: ScenePreprocess,
    batch: int,
    form: Form,
) -> ModelCard:
    """Describe the artifact; number formats are filled in by the pipeline."""
    height, width = preprocess.height, preprocess.width
    count = len(weights.classes)
    image = TensorSpec(
        "image", "uint8", (batch, height, width, 3), ("batch", "height", "width", "rgb"),
        "intensity", 0.0, 255.0,
    )  # fmt: skip
    if form == "logits":
        shape = (batch, count, -(-height // LOGIT_STRIDE), -(-width // LOGIT_STRIDE))
        result = TensorSpec(
            "logits", "float32", shape, ("batch", "class", "row", "column"), "logit"
        )
    elif form == "probability":
        result = TensorSpec(
            form, "float32", (batch, 1, height, width), ("batch", "class", "row", "column"),
            form, 0.0, 1.0,
        )  # fmt: skip
    else:
        dtype = "uint8" if count <= BYTE_CLASSES else "int32"
        result = TensorSpec(
            "classes", dtype, (batch, height, width), ("batch", "row", "column"), "class number",
            0.0, float(count - 1),
        )  # fmt: skip
    names = list(weights.classes)
    foreground = names.index(_FOREGROUND) if _FOREGROUND in names else -1
    return ModelCard(
        task="segmentation",
        model="edaformer",
        variant=network.config.variant,
        paper=PAPER,
        licence="Apache-2.0",
        exporter=exporter_name(),
        weights=weights.spec,
        inputs=(image,),
        outputs=(result,),
        preprocess=preprocess,
        postprocess=MaskPostprocess(
            form,
            weights.classes,
            weights.palette,
            LOGIT_STRIDE if form == "logits" else 1,
            1 if form == "probability" else foreground,
        ),
        tokens=isr_plan(network.config, height, width),
    )


def isr_plan(config: EDAFormerConfig, height: int, width: int) -> TokenPlan:
    """Describe the pooling as a token plan: keys that survive in each stage and branch.

    Blocks 0 to 3 are the encoder's stages, 4 to 6 the decoder's branches at 1/8, 1/16 and 1/32.
    """
    strides = (*ENCODER_STRIDES, *DECODER_STRIDES)
    pooling = (*config.isr.encoder_pooling, *config.isr.decoder_pooling)
    keys = tuple(
        (-(-height // s) // p) * (-(-width // s) // p)
        for s, p in zip(strides, pooling, strict=True)
    )
    with torch.device("meta"):
        network = EDAFormer(config)
        image = torch.zeros(1, 3, height, width)
        macs = count_macs(network, image)
        dense = macs if config.isr.is_off else count_macs(network.with_isr(IsrSetting()), image)
    return TokenPlan(
        level=config.isr.name,
        blocks=tuple(range(len(keys))),
        keep=keys,
        tokens=-(-height // ENCODER_STRIDES[0]) * -(-width // ENCODER_STRIDES[0]),
        special=0,
        score="average pooling of keys",
        fill="none: queries are never dropped",
        macs=macs,
        macs_dense=dense,
    )


def _default_name(
    weights: SegmentationWeights,
    isr: IsrSetting,
    preprocess: ScenePreprocess,
    batch: int,
    *,
    precision: str,
    form: Form,
) -> str:
    size = f"{preprocess.height}x{preprocess.width}"
    parts = ["edaformer", weights.variant, isr.name, size]
    if len(weights.classes) != 150:
        parts.append(f"C{len(weights.classes)}")
    if batch > 1:
        parts.append(f"B{batch}")
    if form != "class_ids":
        parts.append(form)
    return "-".join([*parts, precision]) + ".onnx"


_EXAMPLES = """examples:
  python -m prunus.export.edaformer --variant t --isr 2211-222 --size 512x512
  python -m prunus.export.edaformer --weights edaformer-b.safetensors --isr published
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line of this script."""
    parser = argparse.ArgumentParser(
        prog="python -m prunus.export.edaformer",
        description="Export EDAFormer as one static ONNX file, compared with PyTorch.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--variant", help="t or b (default: what the weights are, else t)")
    add("--isr", default="off", help="off, decoder, published, maximum, or e.g. 2211-222")
    add("--size", default="512x512", help="input as HEIGHTxWIDTH (default 512x512)")
    add("--classes", type=int, help="number of classes (default: the weights', else 150)")
    add("--weights", help="file of 'prunus models import', a published one, 'person', 'random'")
    add("--fit", default="letterbox", help=f"{', '.join(_FITS)} (default letterbox)")
    add("--logits", action="store_true", help="give logits at 1/8 instead of class numbers")
    add("--probability", action="store_true", help="give the second of two classes' probability")
    add("--batch", type=int, default=1, help="images per run (default 1)")
    add("--precision", default="fp32", choices=("fp32", "fp16", "int8"))
    add("--activations", default="int8", choices=("int8", "uint8"), help="uint8: CPUs only")
    add("--bf16", action="store_true", help="measure bfloat16 and allow it on the card")
    add("--literal", action="store_true", help="without the exact rewrites")
    add("--full-argmax", action="store_true", help="compare all classes at every pixel")
    add("--drop-remainder", action="store_true", help="accept sizes that lose the last keys")
    add("--seed", type=int, default=0, help="seed of random weights (default 0)")
    add("--calibration", help="folder, picture, clip or array file (default: bundled)")
    add("-o", "--output", help="output file (default: named after the options, in this folder)")
    add("--quiet", action="store_true", help="no progress")
    add("--debug", action="store_true", help="show the stack trace of an error")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    return run_script(build_parser(), export_edaformer, arguments)


if __name__ == "__main__":
    sys.exit(main())
