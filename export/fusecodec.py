"""Export FuseCodec's generator (SpeechTokenizer): an encoder on windows, a decoder in exact steps.

Run as ``python -m prunus.export.fusecodec --help`` or as ``prunus export fusecodec``.
"""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch

from prunus.export.codec.graphs import (
    CodecFamily,
    CodecGraph,
    code_tensor,
    export_graphs,
    find_network,
    network_of,
    pick,
    sound_tensor,
)
from prunus.export.codec.samples import codec_samples
from prunus.export.common.samples import Samples
from prunus.models.codec.deployed import SpeechTokenizerEncoder
from prunus.models.codec.deployed_seanet import DELAY, DecoderStep
from prunus.models.codec.fusecodec.speechtokenizer import SpeechTokenizer, SpeechTokenizerConfig
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.precision import Precision
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.codec.card import CodecPreprocess, CodeStream

PAPER = "arXiv 2509.11425 (generator: arXiv 2308.16692)"
STEP, WINDOW, LEFT, RIGHT = 10, 100, 25, 25  # frames of 20 ms


def export_fusecodec(
    *,
    step: int = STEP,
    window: int = WINDOW,
    left: int = LEFT,
    right: int = RIGHT,
    precision: Precision = "fp32",
    checkpoint: str | Path | None = None,
    seed: int = 0,
    sound: str | Path | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Export ``NAME-encoder.onnx`` and ``NAME-decoder.onnx``.

    Args:
        step: Frames per step of the decoder.
        window: Frames that the encoder sees at once; its LSTM runs in both directions.
        left: Of these, past context.
        right: Of these, future context.
        precision: ``fp32``, ``fp16`` or ``int8`` (decoder only).
        checkpoint: A file of ``prunus models import``, None for untrained weights.
        seed: Of untrained weights.
        sound: A recording for comparison and calibration.
        output: NAME.
        progress: Told about each graph.

    Returns:
        Encoder and decoder.

    Raises:
        PrunusError: see `export_artifact`.
    """
    network, variant, weights = find_network("fusecodec", "16k", checkpoint, seed)
    net = cast(SpeechTokenizer, network)
    return export_graphs(
        build_graphs(net, step, window, left, right),
        family_of(net.config, variant),
        weights,
        output,
        precision=precision,
        sound=sound,
        progress=progress,
    )


def family_of(config: SpeechTokenizerConfig, variant: str) -> CodecFamily:
    """Return what both graphs share."""
    stream = CodeStream("codes", config.stages, config.codes)
    return CodecFamily("fusecodec", variant, PAPER, (stream,))


def build_graphs(
    network: SpeechTokenizer, step: int, window: int, left: int, right: int
) -> list[CodecGraph]:
    """Return both graphs of a folded network."""
    config = network.config
    rate, hop = config.sample_rate_hz, config.hop
    decoder = DecoderStep(network.decoder, network.quantizer, hop, step)
    stream = family_of(config, "").streams[0]
    return [
        CodecGraph(
            "encoder",
            SpeechTokenizerEncoder(network),
            (sound_tensor("audio", window * hop),),
            (code_tensor(stream, window),),
            CodecPreprocess(rate, hop, window, left, right, resampler="torchaudio"),
        ),
        CodecGraph(
            "decoder",
            decoder,
            (code_tensor(stream, step),),
            (sound_tensor("audio", step * hop),),
            CodecPreprocess(rate, hop, step, resampler="torchaudio"),
            decoder.states(),
            DELAY,
        ),
    ]


def reference_module(card: ModelCard, checkpoint: str | Path | None = None) -> torch.nn.Module:
    """Rebuild the module of one graph, see `prunus.export.common.registry`."""
    network = cast(SpeechTokenizer, network_of(card, checkpoint))
    pre = cast(CodecPreprocess, card.preprocess)
    step = pre.frames if card.streaming else STEP
    return pick(build_graphs(network, step, pre.frames, pre.left, pre.right), card)


def load_samples(card: ModelCard, source: str | Path | None = None, limit: int = 16) -> Samples:
    """Find inputs for one graph, see `codec_samples`."""
    return codec_samples(card, source, min(limit, 16))
