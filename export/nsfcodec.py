"""Export NsfCodec: encoder and decoder as step graphs whose results are those of whole files.

Run as ``python -m prunus.export.nsfcodec --help`` or as ``prunus export nsfcodec``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch

from prunus.export.codec.graphs import (
    CodecFamily,
    CodecGraph,
    code_tensor,
    export_graphs,
    pick,
    sound_tensor,
)
from prunus.export.codec.options import NsfcodecOptions
from prunus.export.codec.samples import codec_samples
from prunus.export.common.options import require_fp32, takes
from prunus.export.common.samples import Samples
from prunus.export.common.weights import Ways, find, find_again
from prunus.export.graph.compact import FourierMatrix, compact_file, stored
from prunus.models.codec.nsfcodec.deployed import NsfDecoderStep, NsfEncoderStep
from prunus.models.codec.nsfcodec.nsfcodec import (
    DECODER_DELAY,
    ENCODER_DELAY,
    NsfCodec,
    NsfCodecConfig,
)
from prunus.models.codec.nsfcodec.pitch_grid import PITCHES
from prunus.models.codec.nsfcodec.weights import VARIANT, load_nsf, rounded, untrained_nsf
from prunus.models.zoo import entries, model_path
from prunus.runtime.card.artifact import read_card, sha256_of
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.codec.card import CodecPreprocess, CodeStream

PAPER = "arXiv 2306.00814, 2408.16532, 2309.09493"
SHIPPED = ("nsfcodec_16k_encoder", "nsfcodec_16k_decoder")


@takes(NsfcodecOptions)
def export_nsfcodec(options: NsfcodecOptions, progress: Progress) -> list[Path]:
    """Export ``NAME-encoder.onnx`` and ``NAME-decoder.onnx``.

    Args:
        options: See `NsfcodecOptions`; its fields may be given by name instead.
        progress: Told about each graph.

    Returns:
        Encoder and decoder.

    Raises:
        PrunusError: see `export_artifact`.
        UsageError: small files in another number format.
    """
    file = options.file
    require_fp32(options.small, file.precision)
    found = find_network(file.weights.checkpoint, file.weights.seed)
    config = found.network.config
    graphs = build_graphs(found.network, options.step)
    paths = export_graphs(graphs, family_of(config), found.spec, file, progress)
    if options.small:
        for path in paths:
            make_small(path, config)
    return paths


def family_of(config: NsfCodecConfig) -> CodecFamily:
    """Return what both graphs share."""
    streams = (
        CodeStream("pitch", 1, 1 + PITCHES),
        CodeStream("codes", config.stages, config.codes),
    )
    return CodecFamily("nsfcodec", VARIANT, PAPER, streams)


def build_graphs(network: NsfCodec, step: int) -> list[CodecGraph]:
    """Return both graphs, `step` frames at a time."""
    config = network.config
    if step < 1:
        raise UsageError(f"Got {step} frames per step; expected 1 or more.")
    encoder, decoder = NsfEncoderStep(network), NsfDecoderStep(network)
    pre = CodecPreprocess(config.sample_rate_hz, config.hop, step)
    sound = (sound_tensor("audio", step * config.hop),)
    codes = tuple(code_tensor(stream, step) for stream in family_of(config).streams)
    return [
        CodecGraph("encoder", encoder, sound, codes, pre, encoder.states(), ENCODER_DELAY),
        CodecGraph("decoder", decoder, codes, sound, pre, decoder.states(), DECODER_DELAY),
    ]


@dataclass(frozen=True, slots=True)
class NsfWeights:
    """A network with its weights, and what the card says about them."""

    spec: Weights
    network: NsfCodec


def find_network(checkpoint: str | Path | None = None, seed: int = 0) -> NsfWeights:
    """Choose network and weights of an export, see `prunus.export.common.weights.find`.

    Args:
        checkpoint: A file of the trainer, ``random``, or None: the shipped weights.
        seed: Of random weights.
    """
    return find(_WAYS, checkpoint, seed)


def network_of(card: ModelCard, checkpoint: str | Path | None = None) -> NsfCodec:
    """Return the network that a card's file was exported from, see `find_again`."""
    return find_again(_WAYS, card.weights, checkpoint).network


def _read(path: Path) -> NsfWeights:
    network, about = load_nsf(path)
    origin = about.get("origin", f"read from {path.name}")
    licence = about.get("licence", "as its maker states")
    return NsfWeights(Weights(origin, sha256_of(path), licence, True), network)


def _untrained(spec: Weights, seed: int) -> NsfWeights:
    return NsfWeights(spec, untrained_nsf(seed))


def _shipped(sha256: str | None) -> NsfWeights:
    """Read the weights back from the shipped graphs: they are stored once.

    Raises:
        ArtifactError: a file is missing or damaged.
    """
    if not {entry.name for entry in entries()} >= set(SHIPPED):
        raise ArtifactError("No weights of NsfCodec are shipped.", "Give --checkpoint FILE.")
    encoder, decoder = (model_path(name) for name in SHIPPED)
    network = NsfCodec(NsfCodecConfig())
    state = network.state_dict()
    graphs = (onnx.load(str(encoder)), onnx.load(str(decoder)))
    for name, value in state.items():
        if name.endswith(("cluster_size", "inited", "embed_avg")):
            continue
        found = _weight(graphs, name)
        if found is None or found.shape != value.shape:
            raise ArtifactError(
                f"The shipped graphs of NsfCodec lack {name}.", "Install prunus again."
            )
        state[name] = found
    network.load_state_dict(rounded(state))
    return NsfWeights(read_card(encoder).weights, network.eval())


_WAYS = Ways(_read, _untrained, _shipped)


def _weight(graphs: tuple[onnx.ModelProto, ...], name: str) -> torch.Tensor | None:
    # A quantiser is inside both graphs, under another name; linear layers are stored transposed.
    names = [name.replace("quantizer.", "table.", 1)] if name.startswith("quantizer.") else [name]
    for place in names:
        for graph in graphs:
            values = stored(graph, place)
            if values is not None:
                return torch.from_numpy(values.copy())
            layer = place.removesuffix(".weight")
            values = stored(graph, f"{layer}/MatMul_in1")
            if values is not None:
                return torch.from_numpy(values.T.copy())
    return None


def make_small(path: Path, config: NsfCodecConfig) -> None:
    """Rewrite a float32 file with compact constants.

    Args:
        path: Encoder or decoder.
        config: Sizes.
    """
    c = config
    gain = 8.0 * c.step / (3.0 * c.window)
    matrices = {
        "encoder.levels.basis": FourierMatrix(c.window),
        "encoder.periodicity.basis": FourierMatrix(c.pitch_window),
        "decoder.filter.analysis": FourierMatrix(c.window),
        "decoder.filter.synthesis": FourierMatrix(c.window, inverse=True, gain=gain),
    }
    compact_file(path, matrices)


def reference_module(card: ModelCard, checkpoint: str | Path | None = None) -> torch.nn.Module:
    """Rebuild the module of one graph, see `prunus.export.common.registry`.

    Raises:
        ArtifactError: the weights are others than the card's.
    """
    network = network_of(card, checkpoint)
    if not isinstance(card.preprocess, CodecPreprocess):
        raise ArtifactError(f"The card describes {card.name}; expected a graph of a codec.")
    return pick(build_graphs(network, card.preprocess.frames), card)


def load_samples(card: ModelCard, source: str | Path | None = None, limit: int = 64) -> Samples:
    """Find inputs for one graph, see `codec_samples`; steps are short, so many count."""
    return codec_samples(card, source, min(limit, 256))


if __name__ == "__main__":
    from prunus.export.common.command import script

    sys.exit(script("nsfcodec"))
