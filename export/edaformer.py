"""Export EDAFormer: choose a size, an ISR setting and a number format; get one ONNX file.

Run as ``python -m prunus.export.edaformer --help`` or as ``prunus export edaformer``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal, cast

import torch

from prunus.export.common.options import parse_size, takes
from prunus.export.common.pipeline import (
    ExportOptions,
    export_artifact,
    exporter_name,
    require_writable,
)
from prunus.export.common.samples import Samples
from prunus.export.pose.script import bfloat16_mode, check_batch
from prunus.export.segmentation.options import EdaformerOptions, Fit
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
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.card.tokens import TokenPlan
from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.segmentation.card import MaskPostprocess, ScenePreprocess

PAPER = "arXiv 2407.17261"
MAX_BATCH = 16
# Images on which an export is compared: each has hundreds of thousands of pixels. int8 takes twice
# as many, half of which calibrate.
_JUDGED = 8
_FOREGROUND = "person"
Form = Literal["class_ids", "logits", "probability"]


@takes(EdaformerOptions)
def export_edaformer(options: EdaformerOptions, progress: Progress) -> Path:
    """Export EDAFormer as one self-describing ONNX file with constant shapes.

    Args:
        options: See `EdaformerOptions`; its fields may be given by name instead.
        progress: Told about each step.

    Returns:
        Path of the file.

    Raises:
        UsageError: an option that cannot be; sizes that do not fit come with the nearest ones.
        PrunusError: see `export_artifact`.
    """
    given, form = options, options.format
    setting, (height, width) = parse_isr(given.isr), parse_size(given.size)
    setting.check_size(height, width, drop_remainder=given.drop_remainder)
    check_batch(given.batch, MAX_BATCH)
    preprocess = _preprocess(given.fit, height, width, given.logits)
    found = find_weights(given.checkpoint, given.variant, given.classes, given.seed)
    result = _form(given.logits, given.probability, len(found.classes))
    name = _default_name(
        found, setting, preprocess, given.batch, precision=form.precision, form=result
    )
    path = Path(given.output or name)
    require_writable(path)
    network = found.build(setting)
    samples: Any = given.calibration
    if not isinstance(samples, Samples):
        judged = 2 * _JUDGED if form.precision == "int8" else _JUDGED
        samples = load_scenes(samples, preprocess, judged)
    return export_artifact(
        DeployedSegmentation(
            network,
            preprocess,
            classes=not given.logits,
            logits=result == "class_ids",
            rewrites=LITERAL if given.literal else Rewrites(),
            candidates=not (given.literal or given.full_argmax),
            probability=given.probability,
        ),
        build_card(network, found, preprocess, given.batch, result),
        samples,
        path,
        options=ExportOptions(
            form.precision,
            form.activations,
            ("logits",) if result == "class_ids" else (),
            bf16=bfloat16_mode(form.bf16, form.precision, known=False),
        ),
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


def _form(logits: bool, probability: bool, classes: int) -> Form:
    """Return what the graph gives, after refusing what cannot be."""
    if not probability:
        return "logits" if logits else "class_ids"
    if logits:
        raise UsageError("Got --logits and --probability; expected one of them at most.")
    if classes != 2:
        raise UsageError(
            f"--probability needs weights with two classes; got {classes}.",
            "Leave --probability out, or use --checkpoint person.",
        )
    return "probability"


def _preprocess(fit: Fit, height: int, width: int, logits: bool) -> ScenePreprocess:
    if fit in ("letterbox", "stretch"):
        return ScenePreprocess(height, width, fit)
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


if __name__ == "__main__":
    from prunus.export.common.command import script

    sys.exit(script("edaformer"))
