"""What `benchmarks/codec.py` times: a codec in the runtime, in PyTorch, and EnCodec.

Every runner codes and decodes the same sound. The functions are targets of
`prunus.runtime.runner`: called in a process of their own, they return a call without arguments.
EnCodec-24k is built by `transformers` from its published configuration, which is the default of its
class, with random weights: latency does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from prunus.export.codec_samples import voice_like
from prunus.export.verify.codec_stream import OfflineDecoder, OfflineEncoder
from prunus.models.macs import count_macs
from prunus.runtime.errors import MissingDependencyError

ENCODEC_RATE_HZ = 24000
ENCODEC_KBPS = 1.5  # the lowest of its bandwidths: two codebooks


def runtime_codec(
    inputs: Mapping[str, Any], threads: int | None, name: str, backend: str, seconds: str
) -> Callable[[], object]:
    """Run exported graphs: the encoder step by step or in windows, then the decoder.

    Args:
        inputs: Unused; the sound is voice-like.
        threads: CPU threads.
        name: NAME of the codec's files.
        backend: ``onnxruntime``, ``openvino-f32`` or ``openvino-bf16``.
        seconds: Length of the sound, as text.
    """
    from prunus.runtime.session import BackendOptions
    from prunus.runtime.tasks.codec import SpeechCodec

    plain, _, arithmetic = backend.partition("-")
    options = BackendOptions(inference_precision=cast(Any, arithmetic or "auto"), spin=True)
    codec = SpeechCodec.open(name, plain, threads=threads, options=options)
    sound = voice_like(codec.format.sample_rate_hz, float(seconds))
    return lambda: codec.decode(codec.encode(sound))


def torch_codec(
    inputs: Mapping[str, Any], threads: int | None, model: str, mode: str, seconds: str
) -> Callable[[], object]:
    """Run the published network on the whole sound at once, as its own scripts do.

    Args:
        inputs: Unused; the sound is voice-like.
        threads: CPU threads.
        model: ``wavtokenizer``, ``fusecodec`` or ``freecodec``.
        mode: ``eager`` or ``compile`` (torch.compile with its defaults).
        seconds: Length of the sound, as text.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    encode, decode, rate = halves(model)
    sound = torch.from_numpy(voice_like(rate, float(seconds)))[None]
    if mode == "compile":
        encode, decode = torch.compile(encode), torch.compile(decode)

    def call() -> object:
        with torch.inference_mode():
            return decode(*encode(sound))

    return call


def encodec(
    inputs: Mapping[str, Any], threads: int | None, mode: str, seconds: str
) -> Callable[[], object]:
    """Run EnCodec-24k on the whole sound at once.

    Args:
        inputs: Unused; the sound is voice-like.
        threads: CPU threads.
        mode: ``eager`` or ``compile``.
        seconds: Length of the sound, as text.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    network = encodec_network()
    sound = torch.from_numpy(voice_like(ENCODEC_RATE_HZ, float(seconds)))[None, None]
    whole: Any = EncodecWhole(network).eval()
    if mode == "compile":
        whole = torch.compile(whole)

    def call() -> object:
        with torch.inference_mode():
            return whole(sound)

    return call


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
    """Return encoder and decoder of a published network, weight norm folded, and its rate.

    The encoder takes (1, T) sound and returns what the decoder takes.
    """
    from prunus.export.codec_graphs import find_network

    variant = "tok75" if model == "wavtokenizer" else "16k"
    network: Any = find_network(model, variant, None, 0)[0]
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


def main(words: list[str]) -> None:
    """Print the CPU time of one runner with one thread: for machines that are busy.

    python benchmarks/codec_runners.py torch_codec wavtokenizer eager 3.0
    """
    import time

    torch.set_num_threads(1)
    call, taken = globals()[words[0]]({}, 1, *words[1:]), []
    call()
    for _ in range(3):
        begin = time.process_time()
        call()
        taken.append(time.process_time() - begin)
    print(f"{' '.join(words)}: {min(taken):.2f} s of CPU, real-time factor "
          f"{min(taken) / float(words[-1]):.3f}")  # fmt: skip


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
