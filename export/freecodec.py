"""Export FreeCodec: encoder and decoder on windows, and a speaker encoder that runs once.

Run as ``python -m prunus.export.freecodec --help`` or as ``prunus export freecodec``.
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
from prunus.models.codec.deployed import FreeCodecDecoder, FreeCodecEncoder, FreeCodecSpeaker
from prunus.models.codec.freecodec.freecodec import FreeCodec, FreeCodecConfig
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.precision import Precision
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.codec.card import CodecPreprocess, CodeStream

PAPER = "arXiv 2412.01053 (architecture; no published weights)"
# Frames of 20 ms. About as long as the training segments of the paper, whole prosody codes.
WINDOW, LEFT, RIGHT = 64, 8, 8
SPEAKER_FRAMES = 150  # three seconds tell a voice
VOICE = "voice"


def export_freecodec(
    *,
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
    """Export ``NAME-encoder.onnx``, ``NAME-decoder.onnx`` and ``NAME-speaker.onnx``.

    Args:
        window: Frames per window, whole prosody codes (8 frames).
        left: Of these, past context, whole prosody codes.
        right: Of these, future context, whole prosody codes.
        precision: ``fp32``, ``fp16`` or ``int8`` (decoder only).
        checkpoint: A file of ``prunus models import``, None for untrained weights.
        seed: Of untrained weights.
        sound: A recording for comparison and calibration.
        output: NAME.
        progress: Told about each graph.

    Returns:
        Encoder, decoder and speaker encoder.

    Raises:
        PrunusError: see `export_artifact`.
    """
    network, variant, weights = find_network("freecodec", "16k", checkpoint, seed)
    net = cast(FreeCodec, network)
    return export_graphs(
        build_graphs(net, window, left, right),
        family_of(net.config, variant),
        weights,
        output,
        precision=precision,
        sound=sound,
        progress=progress,
    )


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
    return pick(build_graphs(network, WINDOW, LEFT, RIGHT), card)


def load_samples(card: ModelCard, source: str | Path | None = None, limit: int = 16) -> Samples:
    """Find inputs for one graph, see `codec_samples`."""
    return codec_samples(card, source, min(limit, 16))
