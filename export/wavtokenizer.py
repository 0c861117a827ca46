"""Export WavTokenizer: an encoder in exact steps, a decoder on windows.

Run as ``python -m prunus.export.wavtokenizer --help`` or as ``prunus export wavtokenizer``.
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
from prunus.export.codec.samples import VALID, codec_samples
from prunus.export.common.samples import Samples
from prunus.models.codec.deployed import WavTokenizerDecoder
from prunus.models.codec.deployed_seanet import DELAY, EncoderStep
from prunus.models.codec.wavtokenizer import WavTokenizer, WavTokenizerConfig
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.precision import Precision
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.codec.card import CodecPreprocess, CodeStream

PAPER = "arXiv 2408.16532"
STEP_SECONDS, WINDOW_SECONDS = 0.2, 3.0
_RIGHT_SECONDS, _COMMIT_SECONDS = 0.65, 1.0


def export_wavtokenizer(
    variant: str = "tok75",
    *,
    step: int | None = None,
    window: int | None = None,
    left: int | None = None,
    right: int | None = None,
    precision: Precision = "fp32",
    checkpoint: str | Path | None = None,
    seed: int = 0,
    sound: str | Path | None = None,
    output: str | Path | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Export ``NAME-encoder.onnx`` and ``NAME-decoder.onnx``.

    Args:
        variant: ``tok75`` or ``tok40``; a checkpoint has its own.
        step: Frames per step of the encoder; default 0.2 s.
        window: Frames that the decoder sees at once; default 3 s, the length it was trained on.
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
    network, variant, weights = find_network("wavtokenizer", variant, checkpoint, seed)
    net = cast(WavTokenizer, network)
    sizes = _sizes(net.config, step, window, left, right)
    return export_graphs(
        build_graphs(net, *sizes),
        family_of(net.config, variant),
        weights,
        output,
        precision=precision,
        sound=sound,
        progress=progress,
    )


def _sizes(
    config: WavTokenizerConfig,
    step: int | None,
    window: int | None,
    left: int | None,
    right: int | None,
) -> tuple[int, int, int, int]:
    rate = config.sample_rate_hz / config.hop
    step = round(STEP_SECONDS * rate) if step is None else step
    window = round(WINDOW_SECONDS * rate) if window is None else window
    right = min(round(_RIGHT_SECONDS * rate), window // 4) if right is None else right
    if left is None:
        left = window - right - min(round(_COMMIT_SECONDS * rate), window // 2)
    return step, window, left, right


def family_of(config: WavTokenizerConfig, variant: str) -> CodecFamily:
    """Return what both graphs share."""
    stream = CodeStream("codes", 1, config.codes)
    return CodecFamily("wavtokenizer", variant, PAPER, (stream,))


def build_graphs(
    network: WavTokenizer, step: int, window: int, left: int, right: int
) -> list[CodecGraph]:
    """Return both graphs of a folded network, with the norms' row 0, which is the published one."""
    config = network.config
    rate, hop = config.sample_rate_hz, config.hop
    encoder = EncoderStep(network.encoder, network.quantizer, hop, step)
    stream = family_of(config, "").streams[0]
    valid = TensorSpec(VALID, "float32", (1, window), ("batch", "frame"), "1", 0.0, 1.0)
    return [
        CodecGraph(
            "encoder",
            encoder,
            (sound_tensor("audio", step * hop),),
            (code_tensor(stream, step),),
            CodecPreprocess(rate, hop, step, resampler="torchaudio"),
            encoder.states(),
            DELAY,
        ),
        CodecGraph(
            "decoder",
            WavTokenizerDecoder(network),
            (code_tensor(stream, window), valid),
            (sound_tensor("audio", window * hop),),
            CodecPreprocess(
                rate, hop, window, left, right, fade=hop if right else 0, resampler="torchaudio"
            ),
        ),
    ]


def reference_module(card: ModelCard, checkpoint: str | Path | None = None) -> torch.nn.Module:
    """Rebuild the module of one graph, see `prunus.export.common.registry`."""
    network = cast(WavTokenizer, network_of(card, checkpoint))
    pre = cast(CodecPreprocess, card.preprocess)
    # The part that is not asked for may have any size.
    step = pre.frames if card.streaming else 5
    graphs = build_graphs(network, step, pre.frames, pre.left, pre.right)
    return pick(graphs, card)


def load_samples(card: ModelCard, source: str | Path | None = None, limit: int = 16) -> Samples:
    """Find inputs for one graph, see `codec_samples`."""
    return codec_samples(card, source, min(limit, 16))
