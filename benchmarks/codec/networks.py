"""The PyTorch networks that `benchmarks/codec/speed.py` times, and how much they multiply.

EnCodec-24k is built by `transformers` from its published configuration, which is the default of its
class, with random weights: latency does not depend on them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from prunus.export.codec.samples import voice_like
from prunus.export.verify.codec_stream import OfflineDecoder, OfflineEncoder
from prunus.models.macs import count_macs
from prunus.runtime.errors import MissingDependencyError

ENCODEC_RATE_HZ = 24000
ENCODEC_KBPS = 1.5  # the lowest of its bandwidths: two codebooks


class EncodecWhole(nn.Module):
    """EnCodec: (1, 1, T) sound -> codes -> sound."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network

    def forward(self, sound: torch.Tensor) -> torch.Tensor:
        """Code and decode."""
        coded = self.network.encode(sound, bandwidth=ENCODEC_KBPS)
        out: torch.Tensor = self.network.decode(coded.audio_codes, coded.audio_scales)[0]
        return out


def encodec_network() -> Any:
    """Return EnCodec-24k with random weights; raises MissingDependencyError."""
    try:
        from transformers import EncodecConfig, EncodecModel
    except ImportError:
        raise MissingDependencyError("transformers", "peer", "EnCodec-24k") from None
    torch.manual_seed(0)
    return EncodecModel(EncodecConfig()).eval()


def halves(model: str) -> tuple[nn.Module, nn.Module, int]:
    """Return encoder and decoder of a whole network, weight norm folded, and its rate.

    The encoder takes (1, T) sound and returns what the decoder takes.
    """
    from prunus.export import nsfcodec
    from prunus.export.codec import graphs as codec_graphs

    variant = "tok75" if model == "wavtokenizer" else "16k"
    network: Any
    if model == "nsfcodec":
        network = nsfcodec.find_network().network
    else:
        network = codec_graphs.find_network(model, variant).network
    rate = 24000 if model == "wavtokenizer" else 16000
    return OfflineEncoder(network, model), OfflineDecoder(network, model), rate


def macs_per_second(encode: nn.Module, decode: nn.Module, rate: int) -> tuple[float, float]:
    """Return multiply-accumulates per second of sound of both halves, LSTMs included."""
    seconds = 1.6  # whole frames, and whole prosody codes, of every codec
    sound = torch.from_numpy(voice_like(rate, seconds))[None]
    with torch.inference_mode():
        codes = encode(sound)
    return _counted(encode, sound) / seconds, _counted(decode, *codes) / seconds


def _counted(module: nn.Module, *inputs: torch.Tensor) -> float:
    """Count what PyTorch's counter counts, and LSTMs, which it does not."""
    recurrent = [0]

    def note(layer: Any, arguments: tuple[torch.Tensor, ...], output: object) -> None:
        steps = arguments[0].numel() // arguments[0].shape[-1]
        ways = 2 if layer.bidirectional else 1
        for k in range(layer.num_layers):
            width = layer.input_size if k == 0 else layer.hidden_size * ways
            recurrent[0] += steps * ways * 4 * layer.hidden_size * (width + layer.hidden_size)

    hooks = [m.register_forward_hook(note) for m in module.modules() if isinstance(m, nn.LSTM)]
    try:
        plain = count_macs(module, *inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return float(plain + recurrent[0])


def encodec_macs_per_second() -> float:
    """Return multiply-accumulates per second of sound of EnCodec-24k, both halves."""
    whole = EncodecWhole(encodec_network()).eval()
    sound = torch.from_numpy(np.asarray(voice_like(ENCODEC_RATE_HZ, 1.0)))[None, None]
    return _counted(whole, sound)
