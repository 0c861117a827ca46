"""What the separation benchmark runs: Dolphin as published in PyTorch, its graphs, hops, peers.

Each function is a target of `prunus.runtime.measure.runner`, see
`prunus.apps.bench.targets`. A call takes
one clip: mouths through the lip coder and the mixture through the separator.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import HostError

Inputs = Mapping[str, npt.NDArray[Any]]
PEERS = {"Conv-TasNet": "ConvTasNet", "DPTNet": "DPTNet"}  # name -> class of Asteroid


def published(
    inputs: Inputs, threads: int | None, variant: str, heat: str
) -> Callable[[], object]:
    """Run the network in PyTorch eager with untrained weights.

    Args:
        inputs: ``mixture`` (n, 1, L) float32 and ``mouth`` (n, 1, F, 88, 88) uint8.
        threads: CPU threads.
        variant: ``base`` or ``nano``.
        heat: ``dense`` (the published cosine transform, one table for layers of equal length; the
            published code holds one per layer) or ``filter``.
    """
    import dataclasses

    import torch

    from prunus.export.dolphin import build_network
    from prunus.export.separation.weights import find_weights
    from prunus.models.separation.config import dolphin_config
    from prunus.models.separation.deployed import MOUTH_MEAN, MOUTH_STD
    from prunus.models.separation.voice.heat_layer import heat_layers

    if threads is not None:
        torch.set_num_threads(threads)
    config = dataclasses.replace(
        dolphin_config(variant), heat=cast(Any, heat), positions="table"
    )
    network = build_network(config, find_weights(config)).eval()
    if heat == "dense":
        shared: dict[int, torch.Tensor] = {}
        for layer in heat_layers(network):
            layer._tables = shared
    turns = itertools.cycle(zip(inputs["mixture"], inputs["mouth"], strict=True))

    def call() -> object:
        mixture, mouth = next(turns)
        with torch.inference_mode():
            scaled = (torch.from_numpy(mouth).float() / 255 - MOUTH_MEAN) / MOUTH_STD
            return network(torch.from_numpy(mixture), scaled.unsqueeze(1))

    return call


def graphs(
    inputs: Inputs, threads: int | None, backend: str, name: str
) -> Callable[[], object]:
    """Run the lip graph and the voice graph on a clip of their length.

    Args:
        inputs: As for `published`.
        threads: CPU threads.
        backend: See `prunus.runtime.measure.runner.benchmarked`.
        name: NAME of ``NAME-lips.onnx`` and ``NAME-voice.onnx``.
    """
    separator = _open(name, backend, threads)
    turns = itertools.cycle(zip(inputs["mixture"], inputs["mouth"], strict=True))

    def call() -> object:
        mixture, mouth = next(turns)
        features = np.array(separator.lips.run({"mouth": mouth})["lips"])
        return separator.voice.run({"mixture": mixture, "lips": features})

    return call


def hops(
    inputs: Inputs, threads: int | None, backend: str, name: str, hop_s: str
) -> Callable[[], object]:
    """Run a live stream, one hop per call: lip features of the new frames, one window.

    Args:
        inputs: As for `published`; only the first clip counts.
        threads: CPU threads.
        backend: As for `graphs`.
        name: As for `graphs`.
        hop_s: Seconds between windows as text, empty for the default.
    """
    separator = _open(name, backend, threads)
    stream = separator.stream(hop_s=float(hop_s) if hop_s else None)
    plan = stream.plan
    frames = itertools.cycle(inputs["mouth"][0, 0])
    sound = itertools.cycle(np.split(inputs["mixture"][0, 0], len(inputs["mouth"][0, 0])))
    time = itertools.count()

    def call() -> object:
        given = stream.given
        while stream.given == given:
            stream.watch(next(frames), next(time) / plan.frame_rate_hz)
            stream.push(next(sound))
        return stream.given

    return call


def peer(inputs: Inputs, threads: int | None, name: str) -> Callable[[], object]:
    """Run another separator on the same mixture in PyTorch eager, with random weights.

    It hears only: no lips, and both voices come out at once.

    Args:
        inputs: As for `published`; mouths are not read.
        threads: CPU threads.
        name: One of `PEERS`.

    Raises:
        HostError: Asteroid is not installed.
    """
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    network = build_peer(name)
    turns = itertools.cycle(inputs["mixture"])

    def call() -> object:
        with torch.inference_mode():
            return network(torch.from_numpy(next(turns)))

    return call


def build_peer(name: str) -> Any:
    """Build a peer for two voices at 16 kHz with windows of 2 ms, as in its paper.

    Conv-TasNet (arXiv 1809.07454, best non-causal model) and DPTNet (arXiv 2007.13975) come from
    Asteroid with its own defaults otherwise.

    Raises:
        HostError: Asteroid is not installed.
    """
    import torch

    try:
        from asteroid import models
    except ImportError as error:
        raise HostError(
            f"The peer {name} needs the package '{error.name}', which is not installed.",
            "Install the peers with: make peer-deps",
        ) from None
    torch.manual_seed(0)
    found = getattr(models, PEERS[name])(2, kernel_size=32, stride=16, sample_rate=16000)
    return found.eval()


def peer_macs(name: str, samples: int) -> int:
    """Return the multiply-accumulates of a peer on a mixture of so many samples."""
    import torch
    from torch import nn

    from prunus.models.macs import count_macs

    network, recurrent = build_peer(name), [0]

    def count(layer: Any, inputs: Any, _: object) -> None:  # the counter does not know them
        sides = 2 if layer.bidirectional else 1
        steps = inputs[0].numel() // layer.input_size
        wide = layer.input_size + layer.hidden_size
        recurrent[0] += 4 * sides * layer.num_layers * steps * layer.hidden_size * wide

    for layer in network.modules():
        if isinstance(layer, nn.LSTM):
            layer.register_forward_hook(count)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # nor that one
    try:
        return count_macs(network, torch.zeros(1, samples)) + recurrent[0]
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def dolphin_macs(variant: str, heat: str, seconds: float) -> int:
    """Return the multiply-accumulates of Dolphin on a clip, as counted on the written layers."""
    import dataclasses

    import torch

    from prunus.models.macs import count_macs
    from prunus.models.separation.config import dolphin_config
    from prunus.models.separation.dolphin import Dolphin

    config = dataclasses.replace(dolphin_config(variant), heat=cast(Any, heat))
    with torch.device("meta"):
        mouth = torch.zeros(1, 1, round(25 * seconds), 88, 88)
        clip = torch.zeros(1, round(16000 * seconds)), mouth
        return count_macs(Dolphin(config), *clip)


def _open(name: str, backend: str, threads: int | None) -> Any:
    from prunus.runtime.measure.runner import benchmarked
    from prunus.runtime.tasks.separation.separator import SpeechSeparator

    plain, options = benchmarked(backend)
    return SpeechSeparator.open(name, plain, threads=threads, options=options)
