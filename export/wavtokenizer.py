"""Export WavTokenizer: an encoder in exact steps, a decoder on windows.

Run as ``python -m prunus.export.wavtokenizer --help`` or as ``prunus export wavtokenizer``.
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
from prunus.export.codec.options import WavtokenizerOptions
from prunus.export.codec.samples import VALID
from prunus.export.common.options import takes
from prunus.models.codec.deployed import WavTokenizerDecoder
from prunus.models.codec.deployed_seanet import DELAY, EncoderStep
from prunus.models.codec.wavtokenizer import WavTokenizer, WavTokenizerConfig
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.codec.card import CodecPreprocess, CodeStream

PAPER = "arXiv 2408.16532"
STEP_SECONDS, WINDOW_SECONDS = 0.2, 3.0
_RIGHT_SECONDS, _COMMIT_SECONDS = 0.65, 1.0


@takes(WavtokenizerOptions)
def export_wavtokenizer(options: WavtokenizerOptions, progress: Progress) -> list[Path]:
    """Export ``NAME-encoder.onnx`` and ``NAME-decoder.onnx``.

    Args:
        options: See `WavtokenizerOptions`; its fields may be given by name instead.
        progress: Told about each graph.

    Returns:
        Encoder and decoder.

    Raises:
        PrunusError: see `export_artifact`.
    """
    file = options.file
    weights = file.weights
    found = find_network("wavtokenizer", options.variant, weights.checkpoint, weights.seed)
    net = cast(WavTokenizer, found.network)
    graphs = build_graphs(net, *_sizes(net.config, options))
    return export_graphs(graphs, family_of(net.config, found.variant), found.spec, file, progress)


def _sizes(config: WavTokenizerConfig, options: WavtokenizerOptions) -> tuple[int, int, int, int]:
    step, window, left, right = options.step, options.window, options.left, options.right
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


if __name__ == "__main__":
    from prunus.export.common.command import script

    sys.exit(script("wavtokenizer"))
