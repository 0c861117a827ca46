"""Discrete tokens out of the layers of a speech encoder (Mousavi et al., Interspeech 2024).

Hidden states of a few layers of a self-supervised encoder are clustered, one k-means per layer; a
frame's token in a layer is its nearest centre. Layers get disjoint ids, token + layer * k + 1, with
0 for padding, so that one embedding table serves all of them and any subset of layers can be used.

The paper's encoders have some 315 M parameters. `SpeechEncoder` is the same form at any size
(wav2vec 2.0, arXiv 2006.11477, section 2: seven convolutions to 50 frames per second, convolutional
positions, Transformer) with weights of your own; its names are ours, no checkpoint is claimed.

What differs: convolutions are followed by layer norms (the form of the large encoders); layers
behind the last one used are left out of the graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.codec.layers.kmeans import fit_kmeans
from prunus.models.codec.layers.vector_quantizer import nearest_code
from prunus.runtime.errors import TensorError, UsageError

KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)
HOP = 320  # samples per frame, 20 ms at 16 kHz
FIELD = 400  # samples that the first frame needs


@dataclass(frozen=True, slots=True)
class SpeechEncoderConfig:
    """Sizes; the large published encoders have 512, 1024, 4096, 24 and 16.

    Attributes:
        channels: Channels of the convolutions.
        dim: Width of hidden states.
        hidden: Width of feed-forwards.
        layers: Transformer layers.
        heads: Attention heads.
        positions: Odd width of the convolution that gives positions.
        groups: Its groups.
    """

    channels: int = 64
    dim: int = 128
    hidden: int = 512
    layers: int = 6
    heads: int = 4
    positions: int = 31
    groups: int = 8

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.dim % self.groups or self.positions % 2 == 0:
            raise UsageError(
                f"Got {self.heads} heads, {self.groups} groups and {self.positions} positions "
                f"for a width of {self.dim}; expected divisors and an odd width."
            )


class EncoderLayer(nn.Module):
    """Pre-norm self attention and feed-forward."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.norm1 = nn.LayerNorm(config.dim)
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.proj = nn.Linear(config.dim, config.dim)
        self.norm2 = nn.LayerNorm(config.dim)
        self.fc1 = nn.Linear(config.dim, config.hidden)
        self.fc2 = nn.Linear(config.hidden, config.dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, frames, dim) to the same shape."""
        each = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(each[0], each[1], each[2])
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        out: Tensor = x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))
        return out


class SpeechEncoder(nn.Module):
    """Samples -> hidden states of every layer."""

    def __init__(self, config: SpeechEncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or SpeechEncoderConfig()
        widths = [1] + [config.channels] * len(KERNELS)
        self.convs = nn.ModuleList(
            nn.Conv1d(widths[k], widths[k + 1], kernel, stride=stride)
            for k, (kernel, stride) in enumerate(zip(KERNELS, STRIDES, strict=True))
        )
        self.norms = nn.ModuleList(nn.LayerNorm(config.channels) for _ in KERNELS)
        self.norm = nn.LayerNorm(config.channels)
        self.project = nn.Linear(config.channels, config.dim)
        self.positions = nn.Conv1d(
            config.dim, config.dim, config.positions, padding=config.positions // 2,
            groups=config.groups,
        )  # fmt: skip
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))

    def forward(self, audio: Tensor, last: int | None = None) -> list[Tensor]:
        """Return the hidden states behind each layer.

        Args:
            audio: (B, T) float32 at 16 kHz, at least 400 samples.
            last: Number of the last layer wanted, from 1; None: all.

        Returns:
            A list; entry i is (B, 1 + (T - 400) // 320, dim) behind i layers, entry 0 the input of
            the first one.

        Raises:
            TensorError: fewer samples than one frame needs.
        """
        if audio.dim() != 2 or audio.shape[1] < FIELD:
            raise TensorError(
                f"Got sound of shape {tuple(audio.shape)}; expected (B, {FIELD} samples or more)."
            )
        x = audio.unsqueeze(1)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = functional.gelu(norm(conv(x).transpose(1, 2)).transpose(1, 2))
        x = self.project(self.norm(x.transpose(1, 2)))
        x = x + functional.gelu(self.positions(x.transpose(1, 2)).transpose(1, 2))
        states = [x]
        for layer in list(self.layers)[:last]:
            states.append(layer(states[-1]))
        return states


class TokenExtractor(nn.Module):
    """Samples -> one token per frame and layer; what is exported.

    Args:
        encoder: The encoder; layers behind the last one used are dropped.
        layers: Numbers of the layers used, from 1, increasing.
        centres: (layers, k, dim) float32, one codebook per layer.

    Raises:
        UsageError: layers that do not exist or are not increasing.
        TensorError: centres of another shape.
    """

    centres: Tensor

    def __init__(self, encoder: SpeechEncoder, layers: Sequence[int], centres: Tensor) -> None:
        super().__init__()
        check_layers(layers, encoder.config.layers)
        if centres.dim() != 3 or centres.shape[0] != len(layers):
            raise TensorError(
                f"Got centres of shape {tuple(centres.shape)}; expected ({len(layers)}, k, dim)."
            )
        self.encoder, self.used = encoder, tuple(layers)
        self.register_buffer("centres", centres.detach().clone())

    @property
    def clusters(self) -> int:
        """k, tokens per layer."""
        return int(self.centres.shape[1])

    @property
    def vocabulary(self) -> int:
        """Different ids: one per layer and centre, and 0 for padding."""
        return len(self.used) * self.clusters + 1

    def forward(self, audio: Tensor) -> Tensor:
        """Map (B, T) float32 at 16 kHz to tokens (B, frames, layers) int64 in [0, k)."""
        states = self.encoder(audio, self.used[-1])
        found = [nearest_code(states[layer], self.centres[k]) for k, layer in enumerate(self.used)]
        return torch.stack(found, dim=2)

    def ids(self, tokens: Tensor) -> Tensor:
        """Return disjoint ids (B, frames, layers) of tokens; 0 is left for padding."""
        steps = torch.arange(len(self.used), device=tokens.device) * self.clusters
        return tokens + steps + 1


def check_layers(layers: Sequence[int], count: int) -> None:
    """Refuse layers that do not exist or do not increase; raises UsageError."""
    increasing = all(a < b for a, b in pairwise(layers))
    if not layers or not increasing or layers[0] < 1 or layers[-1] > count:
        raise UsageError(
            f"Got the layers {list(layers)}; expected increasing numbers from 1 to {count}."
        )


def fit_extractor(
    encoder: SpeechEncoder,
    sounds: Iterable[Tensor],
    layers: Sequence[int],
    clusters: int,
    *,
    seed: int = 0,
    steps: int = 100,
) -> TokenExtractor:
    """Cluster the hidden states of sounds.

    Args:
        encoder: In evaluation mode.
        sounds: (T,) float32 at 16 kHz, each at least 400 samples.
        layers: Numbers of the layers used, from 1, increasing.
        clusters: k, centres per layer.
        seed: Of the k-means; same sounds and seed, same centres.
        steps: Limit of Lloyd's steps.

    Raises:
        UsageError: layers that do not exist.
        TensorError: fewer frames than clusters, or sounds too short.
    """
    check_layers(layers, encoder.config.layers)
    gathered: list[list[Tensor]] = [[] for _ in layers]
    with torch.no_grad():
        for sound in sounds:
            states = encoder(sound.unsqueeze(0), layers[-1])
            for frames, layer in zip(gathered, layers, strict=True):
                frames.append(states[layer][0])
    if not gathered[0]:
        raise TensorError("Got no sounds; expected at least one.")
    tables = [
        fit_kmeans(torch.cat(frames), clusters, seed=seed, steps=steps).centres
        for frames in gathered
    ]
    return TokenExtractor(encoder, layers, torch.stack(tables))


def without_repeats(tokens: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], ...]:
    """Merge runs of equal tokens, on the host: the length depends on the data.

    Args:
        tokens: (frames,) tokens of one layer.

    Returns:
        The tokens without repeats, and how many frames each stands for; both (runs,).

    Example:
        >>> without_repeats(np.array([4, 4, 1, 1, 1, 4]))
        (array([4, 1, 4]), array([2, 3, 1]))
    """
    if tokens.ndim != 1:
        raise TensorError(f"Got tokens of shape {tokens.shape}; expected (frames,).")
    if not len(tokens):
        return tokens, np.zeros(0, np.int64)
    starts = np.flatnonzero(np.concatenate(([True], tokens[1:] != tokens[:-1])))
    lengths = np.diff(np.append(starts, len(tokens)))
    return tokens[starts], lengths


class LayerPooling(nn.Module):
    """Ids of several layers -> one vector per frame, for a vocoder that takes any subset.

    Each layer's embedding is weighted by a small attention over the layers: linear, ReLU, linear,
    softmax. Ids of 0 take no part.

    Args:
        vocabulary: Different ids, 0 included.
        dim: Width of the embeddings.
    """

    def __init__(self, vocabulary: int, dim: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, dim, padding_idx=0)
        self.fc1 = nn.Linear(dim, dim)
        self.fc2 = nn.Linear(dim, 1)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids (B, frames, layers) int64 to (B, frames, dim)."""
        vectors = self.embed(ids)
        scores = self.fc2(functional.relu(self.fc1(vectors))).squeeze(3)
        scores = scores.masked_fill(ids == 0, -1e4)
        pooled: Tensor = torch.matmul(scores.softmax(dim=2).unsqueeze(2), vectors).squeeze(2)
        return pooled


def draw_encoder(config: SpeechEncoderConfig, seed: int) -> SpeechEncoder:
    """Return an encoder with random weights that keep signals alive; same seed, same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = SpeechEncoder(config)
        with torch.no_grad():
            for value in encoder.parameters():
                if value.dim() > 1:
                    value.normal_(std=cast(float, value[0].numel() ** -0.5))
    return encoder.eval()
