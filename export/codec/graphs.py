"""From the modules of one codec to its set of ONNX files: what the codec scripts share."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from prunus.export.codec.options import CodecFileOptions
from prunus.export.codec.samples import codec_samples
from prunus.export.common.pipeline import (
    ExportOptions,
    export_artifact,
    exporter_name,
    require_writable,
)
from prunus.export.common.weights import Ways, find, find_again
from prunus.models.checkpoints.codecs import build_codec, load_codec
from prunus.models.codec.layers.mel import LogMel
from prunus.models.codec.layers.source_filter import Source, SourceFilter
from prunus.models.codec.layers.speech_features import Autocorrelation, MelLevels
from prunus.models.codec.layers.vector_quantizer import CodeSearch
from prunus.models.codec.layers.vocos import FrameGroupNorm, SpectrumHead
from prunus.models.codec.layers.weight_norm import fold_weight_norm
from prunus.models.codec.untrained import initialise
from prunus.runtime.card.artifact import sha256_of
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import StateSpec, Streaming, TensorSpec
from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.codec.card import CodecPostprocess, CodecPreprocess, CodeStream, Part

_JUDGED = 6  # windows on which an export is compared with PyTorch; as many more calibrate int8
# Phases are unbounded, powers reach far, and near-ties flip codes: none of it survives half.
_FLOAT32 = (
    Autocorrelation, CodeSearch, FrameGroupNorm, LogMel, MelLevels, Source, SourceFilter,
    SpectrumHead,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class CodecGraph:
    """One graph of a codec before it is exported.

    Attributes:
        part: Which one.
        module: Takes `inputs` and then the states; returns `outputs` and then the next states.
        inputs: Without states.
        outputs: Without states.
        preprocess: Window or step.
        states: Of a step graph, in the module's order.
        delay: Frames by which a step graph lags.
        float32_in_int8: Modules that int8 leaves alone.
    """

    part: Part
    module: nn.Module
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: CodecPreprocess
    states: tuple[StateSpec, ...] = ()
    delay: int = 0
    float32_in_int8: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CodecFamily:
    """What all graphs of a codec have in common.

    Attributes:
        model: Name on the card and of the export script.
        variant: Configuration.
        paper: Source of the architecture.
        streams: Sequences of codes.
        voice: Width of the voice vector, 0 for none.
    """

    model: str
    variant: str
    paper: str
    streams: tuple[CodeStream, ...]
    voice: int = 0


@dataclass(frozen=True, slots=True)
class CodecWeights:
    """A network with its weights, and their provenance.

    Attributes:
        spec: What the card says.
        network: Folded, in evaluation mode.
        variant: Of the network; a checkpoint has its own.
    """

    spec: Weights
    network: nn.Module
    variant: str


def find_network(
    model: str, variant: str, checkpoint: str | Path | None = None, seed: int = 0
) -> CodecWeights:
    """Choose network and weights of an export, see `prunus.export.common.weights.find`.

    Args:
        model: Family.
        variant: Of random weights; a checkpoint has its own.
        checkpoint: A file written by ``prunus models import``; None or ``random``: untrained.
        seed: Of random weights.
    """
    return find(_ways(model, variant), checkpoint, seed)


def network_of(card: ModelCard, checkpoint: str | Path | None = None) -> nn.Module:
    """Return the network that a card's file was exported from, see `find_again`."""
    return find_again(_ways(card.model, card.variant), card.weights, checkpoint).network


def _ways(model: str, variant: str) -> Ways[CodecWeights]:
    def read(path: Path) -> CodecWeights:
        network, found, about = load_codec(path, model)
        origin = f"imported from {about.get('source', 'a checkpoint')}"
        if fresh := about.get("fresh"):
            origin += f"; {len(fresh)} parameters are untrained"
        spec = Weights(origin, sha256_of(path), "as its publisher states", not fresh)
        return CodecWeights(spec, network, found)

    def untrained(spec: Weights, seed: int) -> CodecWeights:
        network = build_codec(model, variant)
        initialise(network, seed)
        return CodecWeights(spec, fold_weight_norm(network).eval(), variant)

    return Ways(read, untrained)


def pick(graphs: Sequence[CodecGraph], card: ModelCard) -> nn.Module:
    """Return the module of the graph that a card describes.

    Raises:
        ArtifactError: the codec has no such graph.
    """
    post = card.postprocess
    for graph in graphs:
        if isinstance(post, CodecPostprocess) and graph.part == post.part:
            return graph.module.eval()
    raise ArtifactError(
        f"The card describes {card.name}; expected a graph of a codec.",
        f"Give a file made by: prunus export {card.model}",
    )


def card_of(graph: CodecGraph, family: CodecFamily, weights: Weights) -> ModelCard:
    """Describe one graph; the number format is filled in by the pipeline."""
    entering = tuple(_state_tensor(state, state.name) for state in graph.states)
    leaving = tuple(_state_tensor(state, f"{state.name}_next") for state in graph.states)
    pre = graph.preprocess
    streaming = None
    if graph.states:
        streaming = Streaming(graph.states, pre.frames * pre.hop, graph.delay * pre.hop)
    return ModelCard(
        task="codec",
        model=family.model,
        variant=family.variant,
        paper=family.paper,
        licence="Apache-2.0",
        exporter=exporter_name(),
        weights=weights,
        inputs=(*graph.inputs, *entering),
        outputs=(*graph.outputs, *leaving),
        preprocess=pre,
        postprocess=CodecPostprocess(graph.part, family.streams, family.voice),
        streaming=streaming,
    )


def export_graphs(
    graphs: Sequence[CodecGraph],
    family: CodecFamily,
    weights: Weights,
    options: CodecFileOptions,
    progress: Progress,
) -> list[Path]:
    """Export every graph: ``NAME-encoder.onnx``, ``NAME-decoder.onnx`` and so on.

    int8 is for decoders: rounding in an encoder turns into other codes, so the others stay float32.

    Args:
        graphs: Of one codec.
        family: What they share.
        weights: For the cards.
        options: NAME with or without ``.onnx``, number format, calibration.
        progress: Told about each graph.

    Returns:
        The files in the order of `graphs`.

    Raises:
        PrunusError: see `export_artifact`.
    """
    precision = options.precision
    paths = [path_of(options.output, family, precision, graph.part) for graph in graphs]
    for path in paths:
        require_writable(path)
    # A codec is of use as a whole: no file takes its name before all are judged.
    with tempfile.TemporaryDirectory(prefix=".prunus-", dir=paths[0].absolute().parent) as folder:
        made = [Path(folder) / path.name for path in paths]
        for k, (graph, path) in enumerate(zip(graphs, made, strict=True)):
            progress.update(k, len(graphs), graph.part)
            card = card_of(graph, family, weights)
            chosen = precision if precision != "int8" or graph.part == "decoder" else "fp32"
            module = graph.module.eval()
            count = 2 * _JUDGED if chosen == "int8" else _JUDGED
            samples = codec_samples(card, options.calibration, count)
            kept = (*float32_modules(module), *(graph.float32_in_int8 if chosen == "int8" else ()))
            how = ExportOptions(chosen, keep_fp32=kept)
            export_artifact(module, card, samples, path, options=how)
        for path, new in zip(paths, made, strict=True):
            new.replace(path)
    progress.update(len(graphs), len(graphs), "done")
    return paths


def path_of(output: str | Path | None, family: CodecFamily, precision: str, part: str) -> Path:
    """Return where a graph goes."""
    base = f"{family.model}-{family.variant}-{precision}" if output is None else str(output)
    return Path(f"{base.removesuffix('.onnx')}-{part}.onnx")


def float32_modules(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the outermost modules that must stay float32."""
    found: list[str] = []
    for name, child in module.named_modules():
        inside = any(name.startswith(f"{outer}.") for outer in found)
        if isinstance(child, _FLOAT32) and not inside:
            found.append(name)
    return tuple(found)


def sound_tensor(name: str, samples: int) -> TensorSpec:
    """Return the entry of (1, samples) sound."""
    return TensorSpec(name, "float32", (1, samples), ("batch", "sample"), "1", -1.0, 1.0)


def code_tensor(stream: CodeStream, frames: int) -> TensorSpec:
    """Return the entry of a stream's codes in `frames` frames."""
    if frames % stream.stride:
        raise UsageError(
            f"Got {frames} frames per window; expected a multiple of {stream.stride} "
            f"(frames per code of '{stream.name}')."
        )
    shape = (1, stream.codebooks, frames // stream.stride)
    return TensorSpec(
        stream.name, "int64", shape, ("batch", "codebook", "code"), "index", 0.0, stream.size - 1.0
    )


def _state_tensor(state: StateSpec, name: str) -> TensorSpec:
    axes = ("batch", *(f"axis{k}" for k in range(1, len(state.shape))))
    return TensorSpec(name, state.dtype, state.shape, axes)


def example(graph: CodecGraph) -> list[torch.Tensor]:
    """Return zeros of every input, states behind: enough to run a module once."""
    dtypes = {"float32": torch.float32, "int64": torch.int64}
    tensors = [torch.zeros(i.shape, dtype=dtypes[i.dtype]) for i in graph.inputs]
    return [*tensors, *(torch.zeros(s.shape) for s in graph.states)]
