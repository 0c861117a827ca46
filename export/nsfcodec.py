"""Export NsfCodec: encoder and decoder as step graphs whose results are those of whole files.

Run as ``python -m prunus.export.nsfcodec --help`` or as ``prunus export nsfcodec``.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import torch

from prunus.export.codec.graphs import (
    RANDOM,
    CodecFamily,
    CodecGraph,
    code_tensor,
    export_graphs,
    pick,
    sound_tensor,
)
from prunus.export.codec.samples import codec_samples
from prunus.export.common.samples import Samples
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
from prunus.runtime.card.precision import Precision
from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.codec.card import CodecPreprocess, CodeStream

PAPER = "arXiv 2306.00814, 2408.16532, 2309.09493"
SHIPPED = ("nsfcodec_16k_encoder", "nsfcodec_16k_decoder")


def export_nsfcodec(
    *,
    step: int = 1,
    precision: Precision = "fp32",
    small: bool = False,
    checkpoint: str | Path | None = None,
    seed: int = 0,
    sound: str | Path | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Export ``NAME-encoder.onnx`` and ``NAME-decoder.onnx``.

    Args:
        step: Frames of 20 ms per step.
        precision: ``fp32``, ``fp16`` or ``int8`` (decoder only).
        small: Store the constants of a float32 file compactly; no number changes.
        checkpoint: A file of the trainer, ``random``, or None for the shipped weights.
        seed: Of random weights.
        sound: A recording for comparison and calibration.
        output: NAME.
        progress: Told about each graph.

    Returns:
        Encoder and decoder.

    Raises:
        PrunusError: see `export_artifact`.
        UsageError: `small` in another number format.
    """
    if small and precision != "fp32":
        raise UsageError(f"Got small files in {precision}; expected fp32.", "Leave out one.")
    network, weights = find_network(checkpoint, seed)
    paths = export_graphs(
        build_graphs(network, step),
        family_of(network.config),
        weights,
        output,
        precision=precision,
        sound=sound,
        progress=progress,
    )
    if small:
        for path in paths:
            make_small(path, network.config)
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


def find_network(checkpoint: str | Path | None, seed: int) -> tuple[NsfCodec, Weights]:
    """Return a network and where its numbers come from.

    Args:
        checkpoint: A file of the trainer, ``random``, or None: the shipped weights.
        seed: Of random weights.

    Raises:
        ArtifactError: the weights cannot be used.
    """
    if checkpoint is None:
        return shipped_network()
    if str(checkpoint) == RANDOM:
        network = untrained_nsf(seed)
        origin = f"UNTRAINED random numbers, seed {seed}: for timing and checking graphs only"
        return network, Weights(origin, f"{RANDOM}:{seed}", "Apache-2.0", False)
    network, about = load_nsf(checkpoint)
    origin = about.get("origin", f"read from {Path(checkpoint).name}")
    licence = about.get("licence", "as its maker states")
    return network, Weights(origin, sha256_of(checkpoint), licence, True)


def shipped_network() -> tuple[NsfCodec, Weights]:
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
    return network.eval(), read_card(encoder).weights


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


def network_of(card: ModelCard, checkpoint: str | Path | None = None) -> NsfCodec:
    """Return the network that a card's file was exported from.

    Args:
        card: Of the encoder or the decoder.
        checkpoint: A file of the trainer, None for the shipped or random weights.

    Raises:
        ArtifactError: the weights are others than the card's.
    """
    kind, _, seed = card.weights.sha256.partition(":")
    if kind == RANDOM:
        return untrained_nsf(int(seed))
    network, weights = find_network(checkpoint, 0)
    if weights.sha256 != card.weights.sha256:
        raise ArtifactError(
            f"The model was exported from weights with sha256 {card.weights.sha256[:12]}..., "
            f"not {weights.sha256[:12]}...",
            "Give the file that was exported with --checkpoint.",
        )
    return network


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
    """Find inputs for one graph, see `codec_samples`."""
    return codec_samples(card, source, min(limit, 256))
