"""Export FuseCodec's generator (SpeechTokenizer): an encoder on windows, a decoder in exact steps.

Run as ``python -m prunus.export.fusecodec --help`` or as ``prunus export fusecodec``.
"""

from __future__ import annotations

import sys
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
from prunus.export.codec.options import FusecodecOptions
from prunus.export.common.options import takes
from prunus.models.codec.deployed import SpeechTokenizerEncoder
from prunus.models.codec.deployed_seanet import DELAY, DecoderStep
from prunus.models.codec.fusecodec.speechtokenizer import SpeechTokenizer, SpeechTokenizerConfig
from prunus.runtime.card.card import ModelCard
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.codec.card import CodecPreprocess, CodeStream

PAPER = "arXiv 2509.11425 (generator: arXiv 2308.16692)"


@takes(FusecodecOptions)
def export_fusecodec(options: FusecodecOptions, progress: Progress) -> list[Path]:
    """Export ``NAME-encoder.onnx`` and ``NAME-decoder.onnx``.

    Args:
        options: See `FusecodecOptions`; its fields may be given by name instead.
        progress: Told about each graph.

    Returns:
        Encoder and decoder.

    Raises:
        PrunusError: see `export_artifact`.
    """
    file = options.file
    found = find_network("fusecodec", "16k", file.weights.checkpoint, file.weights.seed)
    net = cast(SpeechTokenizer, found.network)
    graphs = build_graphs(net, options.step, options.window, options.left, options.right)
    return export_graphs(graphs, family_of(net.config, found.variant), found.spec, file, progress)


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
    # The part that is not asked for may have any size that it can.
    step = pre.frames if card.streaming else FusecodecOptions().step
    return pick(build_graphs(network, step, pre.frames, pre.left, pre.right), card)


if __name__ == "__main__":
    from prunus.export.common.command import script

    sys.exit(script("fusecodec"))
