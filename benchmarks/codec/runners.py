"""What `benchmarks/codec/speed.py` times: a codec in the runtime, in PyTorch, and EnCodec.

Every runner codes and decodes the same sound. The functions are targets of
`prunus.runtime.measure.runner`: called in a process of their own, they return a call without
arguments.
PyTorch is loaded by those that run it alone: the memory of the others is theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from prunus.export.codec.samples import voice_like


def runtime_codec(  # noqa: PLR0917
    inputs: Mapping[str, Any],
    threads: int | None,
    name: str,
    backend: str,
    seconds: str,
    kept: str = "",
) -> Callable[[], object]:
    """Run exported graphs: the encoder step by step or in windows, then the decoder.

    Args:
        inputs: Unused; the sound is voice-like.
        threads: CPU threads.
        name: NAME of the codec's files.
        backend: ``onnxruntime``, ``openvino-f32`` or ``openvino-bf16``.
        seconds: Length of the sound, as text.
        kept: Write here what this back end makes of the sound, and of random codes, to compare.
    """
    from prunus.runtime.measure.runner import benchmarked
    from prunus.runtime.tasks.codec.codec import Speech, SpeechCodec

    plain, options = benchmarked(backend)
    codec = SpeechCodec.open(name, plain, threads=threads, options=options)
    sound = voice_like(codec.format.sample_rate_hz, float(seconds))
    if kept:
        rng, speech = np.random.default_rng(0), codec.encode(sound)
        codes = {
            s.name: rng.integers(0, s.size, speech.codes[s.name].shape)
            for s in codec.format.streams
        }
        decoded = codec.decode(Speech(codes, speech.samples, speech.voice))
        np.savez(kept, codes=np.concatenate([c.ravel() for c in speech.codes.values()]),
                 sound=decoded)  # fmt: skip
    return lambda: codec.decode(codec.encode(sound))


def torch_codec(
    inputs: Mapping[str, Any], threads: int | None, model: str, mode: str, seconds: str
) -> Callable[[], object]:
    """Run the network on the whole sound at once, as published scripts do.

    Args:
        inputs: Unused; the sound is voice-like.
        threads: CPU threads.
        model: ``wavtokenizer``, ``fusecodec``, ``freecodec`` or ``nsfcodec``.
        mode: ``eager`` or ``compile`` (torch.compile with its defaults).
        seconds: Length of the sound, as text.
    """
    import torch

    from benchmarks.codec.networks import halves

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
    import torch

    from benchmarks.codec.networks import ENCODEC_RATE_HZ, EncodecWhole, encodec_network

    if threads is not None:
        torch.set_num_threads(threads)
    sound = torch.from_numpy(voice_like(ENCODEC_RATE_HZ, float(seconds)))[None, None]
    whole: Any = EncodecWhole(encodec_network()).eval()
    if mode == "compile":
        whole = torch.compile(whole)

    def call() -> object:
        with torch.inference_mode():
            return whole(sound)

    return call


def main(words: list[str]) -> None:
    """Print the CPU time of one runner with one thread: for machines that are busy.

    python -m benchmarks.codec.runners torch_codec wavtokenizer eager 3.0
    """
    import time

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
