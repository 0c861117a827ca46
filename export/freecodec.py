"""Export FreeCodec: encoder and decoder on windows, and a speaker encoder that runs once.

Run as ``python -m prunus.export.freecodec --help`` or as ``prunus export freecodec``.
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
from prunus.export.codec.options import FreecodecOptions
from prunus.export.common.options import takes
from prunus.models.codec.deployed import FreeCodecDecoder, FreeCodecEncoder, FreeCodecSpeaker
from prunus.models.codec.freecodec.freecodec import FreeCodec, FreeCodecConfig
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.codec.card import CodecPreprocess, CodeStream

PAPER = "arXiv 2412.01053 (architecture; no published weights)"
SPEAKER_FRAMES = 150  # three seconds tell a voice
VOICE = "voice"


@takes(FreecodecOptions)
def export_freecodec(options: FreecodecOptions, progress: Progress) -> list[Path]:
    """Export ``NAME-encoder.onnx``, ``NAME-decoder.onnx`` and ``NAME-speaker.onnx``.

    Args:
        options: See `FreecodecOptions`; its fields may be given by name instead.
        progress: Told about each graph.

    Returns:
        Encoder, decoder and speaker encoder.

    Raises:
        PrunusError: see `export_artifact`.
    """
    file = options.file
    found = find_network("freecodec", "16k", file.weights.checkpoint, file.weights.seed)
    net = cast(FreeCodec, found.network)
    graphs = build_graphs(net, options.window, options.left, options.right)
    return export_graphs(graphs, family_of(net.config, found.variant), found.spec, file, progress)


def family_of(config: FreeCodecConfig, variant: str) -> CodecFamily:
    """Return what all graphs share."""
    streams = (
        CodeStream("content", config.content.stages, config.content.codes),
        CodeStream("prosody", 1, config.prosody_codes, config.prosody_stride),
    )
    return CodecFamily("freecodec", variant, PAPER, streams, config.timbre_dim)


def build_graphs(network: FreeCodec, window: int, left: int, right: int) -> list[CodecGraph]:
    """Return the three graphs of a folded network."""
    config = network.config
    rate, hop = config.sample_rate_hz, config.hop
    content, prosody = family_of(config, "").streams
    codes = (code_tensor(content, window), code_tensor(prosody, window))
    code_tensor(prosody, left)
    code_tensor(prosody, right)
    voice = TensorSpec(VOICE, "float32", (1, config.timbre_dim), ("batch", "channel"))
    fade = hop if right else 0
    return [
        CodecGraph(
            "encoder",
            FreeCodecEncoder(network),
            (sound_tensor("audio", window * hop),),
            codes,
            CodecPreprocess(rate, hop, window, left, right),
        ),
        CodecGraph(
            "decoder",
            FreeCodecDecoder(network),
            (*codes, voice),
            (sound_tensor("audio", window * hop),),
            CodecPreprocess(rate, hop, window, left, right, fade),
            # Waveform-rate layers: with them in int8 the sound is 15 dB off, without them over 20.
            float32_in_int8=("decoder.upsampler",),
        ),
        CodecGraph(
            "speaker",
            FreeCodecSpeaker(network),
            (sound_tensor("audio", SPEAKER_FRAMES * hop),),
            (voice,),
            CodecPreprocess(rate, hop, SPEAKER_FRAMES),
        ),
    ]


def reference_module(card: ModelCard, checkpoint: str | Path | None = None) -> torch.nn.Module:
    """Rebuild the module of one graph, see `prunus.export.common.registry`."""
    network = cast(FreeCodec, network_of(card, checkpoint))
    own = FreecodecOptions()  # a window of another size has the same module
    return pick(build_graphs(network, own.window, own.left, own.right), card)


if __name__ == "__main__":
    from prunus.export.common.command import script

    sys.exit(script("freecodec"))
