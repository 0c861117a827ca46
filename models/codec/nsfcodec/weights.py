"""Weights of NsfCodec: files, rounding, and random ones for tests.

Trained weights are rounded once, before anything is measured: matrices to 8 bits with a scale per
output channel, code vectors with one each. Everything that is shipped or exported later has these
very numbers, so small files and exact comparisons do not exclude each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prunus.models.checkpoints.compact import on_grid
from prunus.models.checkpoints.header import read_entry
from prunus.models.codec.nsfcodec.nsfcodec import NsfCodec, NsfCodecConfig
from prunus.runtime.card.artifact import atomic_path
from prunus.runtime.errors import ArtifactError, UsageError

VARIANT = "16k"
_KEY = "prunus"
_SMALLEST = 1024
_UNTRAINED_GAIN = 4.0  # features without training hardly move: most sounds would get one code
_UNTRAINED_SPREAD = 2.4  # of those features


def rounded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict whose large tensors fit into small files without loss.

    Training statistics of the codebooks are left out: they become those of the code vectors.
    """
    found = {}
    for name, value in state.items():
        if name.endswith(("cluster_size", "inited")):
            found[name] = torch.ones_like(value)
        elif name.endswith("_codebook.embed"):
            found[name] = on_grid(value.float())
        elif name.endswith("embed_avg"):
            found[name] = on_grid(state[name.replace("embed_avg", "embed")].float())
        elif value.dim() > 1 and value.numel() >= _SMALLEST:
            found[name] = on_grid(value.float())
        else:
            found[name] = value.float()
    return found


def save_nsf(
    state: Mapping[str, Tensor],
    config: NsfCodecConfig,
    about: Mapping[str, Any],
    path: str | Path,
) -> None:
    """Write rounded weights with their sizes and what is known about them.

    Args:
        state: Of an `NsfCodec`.
        config: Its sizes.
        about: JSON values; ``origin`` goes on the cards of exports.
        path: ``.safetensors`` file.
    """
    from safetensors.torch import save_file

    facts = {**about, "model": "nsfcodec", "variant": VARIANT, "config": asdict(config)}
    tensors = {name: value.contiguous() for name, value in rounded(state).items()}
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={_KEY: json.dumps(facts, sort_keys=True)})
        temporary.chmod(0o644)


def load_nsf(path: str | Path) -> tuple[NsfCodec, dict[str, Any]]:
    """Open a file that `save_nsf` wrote.

    Returns:
        The network in evaluation mode, and what the file says about itself.

    Raises:
        ArtifactError: no such file, or not one of these.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise ArtifactError(f"There are no weights at {path}.", "Name a .safetensors file.")
    try:
        about = read_entry(path, _KEY)
        state = load_file(str(path))
    except (SafetensorError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be read as weights: {error}.") from None
    if about.get("model") != "nsfcodec" or "config" not in about:
        raise ArtifactError(
            f"{path} holds {about.get('model', 'weights of something else')}; expected NsfCodec.",
            "Write it with: python -m prunus.models.training.codec.train --export-only FILE",
        )
    network = NsfCodec(NsfCodecConfig(**about["config"]))
    network.load_state_dict(state)
    return network.eval(), about


def untrained_nsf(seed: int, config: NsfCodecConfig | None = None) -> NsfCodec:
    """Return a network of random numbers in which signals have about their usual size.

    Raises:
        UsageError: a negative seed.
    """
    if seed < 0:
        raise UsageError(f"Got the seed {seed}; expected 0 or more.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = NsfCodec(config or NsfCodecConfig())
        for k, book in enumerate(network.quantizer.codebooks):
            book.embed.normal_(std=_UNTRAINED_SPREAD * 0.5**k)
        with torch.no_grad():
            network.encoder.project.weight.mul_(_UNTRAINED_GAIN)
    network.load_state_dict(rounded(network.state_dict()))
    return network.eval()
