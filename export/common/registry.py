"""Which models can be exported: one row each, from which come verb, script, `check` and `bench`.

A row names its parts as ``module:attribute`` within `prunus.export`, or with the whole name of a
module outside of it, so that the table and the help of every model load neither torch nor onnx.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunus.runtime import references
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.foreign import VARIANT
from prunus.runtime.errors import UsageError
from prunus.runtime.options import parameters
from prunus.runtime.progress import Progress

if TYPE_CHECKING:
    import torch

    from prunus.export.common.samples import Samples


@dataclass(frozen=True, slots=True)
class ExportModel:
    """A model that can be exported.

    Attributes:
        name: Word after ``prunus export``.
        task: What its files are for.
        help: What the command does, one sentence.
        examples: Options of two commands that work.
        options: Dataclass of the options, light to load.
        build: (options, progress) -> path, or paths, of what was written.
        families: Names on cards that it answers for; empty: no PyTorch network stands behind it.
        reference: (card, checkpoint) -> the float32 module that a file was exported from, with the
            inputs and outputs of the card.
        samples: (card, source, limit) -> real inputs; source None: the bundled media.
        exact: Like `reference`, where a file is held to more than float32: two float32 computations
            of a hundred layers differ by the errors of both.
        remarks: (paths) -> lines about what was written.
    """

    name: str
    task: str
    help: str
    examples: tuple[str, ...]
    options: str
    build: str
    families: tuple[str, ...] = ()
    reference: str = ""
    samples: str = ""
    exact: str = ""
    remarks: str = ""

    def export(self, options: Any, progress: Progress) -> tuple[Path, ...]:
        """Write the files that the options ask for; raises PrunusError."""
        made = load(self.build)(options, progress=progress)
        return (made,) if isinstance(made, Path) else tuple(made)


def _network(
    name: str, task: str, help: str, *examples: str, options: str, samples: str, **details: str
) -> ExportModel:
    """Return the row of a PyTorch network whose script is ``export/NAME.py``."""
    return ExportModel(
        name, task, help, examples, options, f"{name}:export_{name}", (name,),
        f"{name}:reference_module", samples, **details,
    )  # fmt: skip


def _package(name: str, task: str, help: str, *examples: str, options: str) -> ExportModel:
    """Return the row of public weights that ``export/NAME.py`` converts."""
    return ExportModel(
        name, task, help, examples, f"convert.options:{options}", f"{name}:export_{name}",
        remarks="convert.package:verdicts",
    )  # fmt: skip


MODELS: tuple[ExportModel, ...] = (
    _network(
        "evitpose",
        "pose",
        "Export EViTPose, dense (L0) or with tokens pruned to constants (L1 to L3, or --keep).",
        "--variant tiny --level L2 -o evitpose-tiny-L2.onnx",
        "--variant small --keep 0.5 --checkpoint random --precision int8",
        options="pose.options:EvitposeOptions",
        samples="pose.script:load_samples",
    ),
    _network(
        "unitranspose",
        "pose",
        "Export UniTransPose; read out all joints that it knows, or any subset of them.",
        "--variant tiny -o unitranspose-tiny.onnx",
        "--skeleton unified23 --joints left_wrist,right_wrist",
        options="pose.options:UnitransposeOptions",
        samples="pose.script:load_samples",
    ),
    _package(
        "movenet",
        "pose",
        "Convert a MoveNet model from the npm package that carries its public weights.",
        "package/ -o movenet_lightning.onnx",
        "package/ --variant multipose --size 256x320 -o people.onnx",
        options="MovenetOptions",
    ),
    _network(
        "edaformer",
        "segmentation",
        "Export EDAFormer; ISR enlarges its key pooling without retraining.",
        "--size 256x256 --isr published --probability -o person.onnx",
        "--checkpoint edaformer-b.safetensors --isr 2211-222 --precision fp16",
        options="segmentation.options:EdaformerOptions",
        samples="edaformer:load_samples",
    ),
    _package(
        "selfie",
        "segmentation",
        "Convert MediaPipe's selfie segmentation from the npm package that carries its weights.",
        "package/",
        "package/ -o selfie.onnx",
        options="PackageOptions",
    ),
    _package(
        "faces",
        "detection",
        "Convert the face finder or the face mesh from the npm package that carries their weights.",
        "package/ -o facemesh.onnx",
        "package/ --variant blazeface_full -o blazeface_full.onnx",
        options="FacesOptions",
    ),
    _network(
        "nsfcodec",
        "codec",
        "Export the codec that prunus trained: encoder and decoder in exact steps of 20 ms.",
        "--step 2 -o nsfcodec-40ms",
        "--checkpoint mine.safetensors --small -o mine",
        options="codec.options:NsfcodecOptions",
        samples="nsfcodec:load_samples",
    ),
    _network(
        "wavtokenizer",
        "codec",
        "Export WavTokenizer as NAME-encoder.onnx (exact steps) and NAME-decoder.onnx (windows).",
        "--checkpoint wavtokenizer.safetensors -o wavtokenizer",
        "--variant tok40 --precision fp16 -o tok40",
        options="codec.options:WavtokenizerOptions",
        samples="codec.samples:load_samples",
    ),
    _network(
        "freecodec",
        "codec",
        "Export FreeCodec (paper architecture; no published weights): encoder, decoder, speaker.",
        "-o freecodec",
        "--checkpoint mine.safetensors --precision int8 -o freecodec-int8",
        options="codec.options:FreecodecOptions",
        samples="codec.samples:load_samples",
    ),
    _network(
        "fusecodec",
        "codec",
        "Export FuseCodec's generator, SpeechTokenizer's: encoder on windows, decoder in steps.",
        "--checkpoint speechtokenizer.safetensors -o speech",
        "--precision fp16 -o speech-half",
        options="codec.options:FusecodecOptions",
        samples="codec.samples:load_samples",
    ),
    _network(
        "dolphin",
        "separation",
        "Export Dolphin as NAME-lips.onnx (25 frames a second) and NAME-voice.onnx (16 kHz).",
        "--variant nano --seconds 2 -o nano",
        "--checkpoint dolphin.prunus.safetensors --precision fp16 -o dolphin",
        options="separation.options:DolphinOptions",
        samples="dolphin:load_samples",
        exact="dolphin:exact_module",
        remarks="dolphin:approximations",
    ),
    _network(
        "module",
        "generic",
        "Export any PyTorch network, the tokens of its transformer pruned or not.",
        "networks.py:build --input pixels:1x3x224x224 --plan evit:0.5@4",
        "mine.vit:tiny --input image:1x3x224x224 --plan tome:0.7@4 --restore delta",
        options="foreign.options:ModuleOptions",
        samples="foreign.samples:load_samples",
    ),
)


def load(reference: str) -> Any:
    """Return what ``module:attribute`` names; a module without a dot is one of `prunus.export`."""
    module = reference.partition(":")[0]
    try:
        return references.load(f"prunus.export.{reference}")
    except ModuleNotFoundError as error:
        if error.name != f"prunus.export.{module.partition('.')[0]}":
            raise
        return references.load(reference)


def find_model(name: str) -> ExportModel:
    """Return the row of a name; raises KeyError for another, which no command line lets through."""
    return {model.name: model for model in MODELS}[name]


def model_of(card: ModelCard) -> ExportModel:
    """Return the model that a card's file was exported from.

    Raises:
        UsageError: this model was not exported by prunus.
    """
    if not has_network(card):
        raise UsageError(
            f"No PyTorch network stands behind {card.name}.",
            "Compare it with another file of the network: prunus check MODEL.onnx --against "
            "REFERENCE.onnx",
        )
    return _families()[card.model]


def has_network(card: ModelCard) -> bool:
    """Tell whether a PyTorch network of prunus stands behind a card's file."""
    return card.variant != VARIANT and card.model in _families()


def _families() -> dict[str, ExportModel]:
    return {family: model for model in MODELS for family in model.families}


def reference_module(card: ModelCard, checkpoint: str | Path | None = None) -> torch.nn.Module:
    """Rebuild the float32 module that a file was exported from, in evaluation mode.

    Args:
        card: The card of the file.
        checkpoint: The weights that were exported; None for shipped and for random ones.

    Raises:
        UsageError: this model was not exported by prunus.
        ArtifactError: the weights are neither shipped, random nor given.
    """
    module: torch.nn.Module = load(model_of(card).reference)(card, checkpoint).eval()
    return module


def judged_module(card: ModelCard, checkpoint: str | Path | None = None) -> torch.nn.Module:
    """Return the module that a file is held to: `reference_module`, or the exact one of its row."""
    exact = model_of(card).exact
    if not exact:
        return reference_module(card, checkpoint)
    module: torch.nn.Module = load(exact)(card, checkpoint)
    return module


def load_samples(card: ModelCard, source: str | Path | None = None, limit: int = 64) -> Samples:
    """Find real inputs of a file.

    Args:
        card: The card of the file.
        source: A file or folder that the task understands; None for the bundled media.
        limit: At most this many samples.

    Raises:
        UsageError: this model was not exported by prunus.
    """
    samples: Samples = load(model_of(card).samples)(card, source, limit)
    return samples


def faults(models: Sequence[ExportModel]) -> list[str]:
    """Return what is wrong with rows, a line each: for the tests, which import all they name."""
    found: list[str] = []
    for kind, words in (
        ("name", [m.name for m in models]),
        ("family", [f for m in models for f in m.families]),
    ):
        found += [f"two rows of the {kind} '{w}'" for w in sorted(set(words)) if words.count(w) > 1]
    return found + [f"{model.name}: {fault}" for model in models for fault in _row_faults(model)]


def _row_faults(model: ExportModel) -> Iterator[str]:
    for part in ("options", "build", "reference", "samples", "exact", "remarks"):
        reference = getattr(model, part)
        needed = part in ("options", "build") or (
            model.families and part in ("reference", "samples")
        )
        if not reference and needed:
            yield f"no {part}"
        if reference:
            try:
                load(reference)
            except (ImportError, AttributeError) as error:
                yield f"{part}: {error}"
    if not model.help.strip() or len(model.examples) < 2:
        yield "no help with two examples"
    try:
        parameters(load(model.options))
    except (ImportError, AttributeError, TypeError) as error:
        yield str(error)
