"""Global Style Tokens: a voice's style as a mixture of a few learned tokens (arXiv 1803.09017).

A reference encoder reads a mel spectrogram: six 3x3 convolutions of stride 2 with batch norm and
ReLU, then a GRU whose last state is the query. A bank of tokens, squashed by tanh, is attended with
several heads; the weighted sum of the tokens' values is the style:

    a = softmax_k(q_h . k_h / sqrt(token width)),   style_h = sum_k a_k v_k

No code was published. Widths follow the paper (10 tokens, 256 in all); the number of heads, biases
and the scale follow common re-implementations. What is added: clips of different lengths in one
static shape. Frames behind a clip's end are zeroed after every layer and the GRU's state is taken
at the clip's own end, so a padded clip gives exactly the style of the clip alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.runtime.errors import TensorError, UsageError


@dataclass(frozen=True, slots=True)
class StyleConfig:
    """Sizes.

    Attributes:
        bands: Mel bands.
        channels: Channels of the convolutions, each of stride 2.
        hidden: Width of the GRU's state.
        tokens: Tokens of the bank.
        heads: Attention heads.
        dim: Width of the style vector; a token is dim / heads wide.
    """

    bands: int = 80
    channels: tuple[int, ...] = (32, 32, 64, 64, 128, 128)
    hidden: int = 128
    tokens: int = 10
    heads: int = 8
    dim: int = 256

    def __post_init__(self) -> None:
        if min(self.bands, self.hidden, self.tokens, self.heads, *self.channels, 1) < 1:
            raise UsageError("A style encoder has a size of zero; expected 1 or more everywhere.")
        if not self.channels or self.dim % self.heads:
            raise UsageError(
                f"Got {len(self.channels)} convolutions and {self.heads} heads over {self.dim} "
                "numbers; expected one convolution or more and heads that divide."
            )

    @property
    def stride(self) -> int:
        """Mel frames per step of the GRU; lengths that are multiples lose nothing."""
        return int(2 ** len(self.channels))


class ReferenceEncoder(nn.Module):
    """Mel spectrogram -> one vector."""

    def __init__(self, config: StyleConfig) -> None:
        super().__init__()
        widths = (1, *config.channels)
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1, bias=False) for a, b in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in config.channels)
        bands = -(-config.bands // config.stride)
        self.bands, self.stride = config.bands, config.stride
        self.gru = nn.GRU(config.channels[-1] * bands, config.hidden, batch_first=True)

    def forward(self, mel: Tensor, frames: Tensor | None = None) -> Tensor:
        """Read clips.

        Args:
            mel: (B, T, bands) float32, any scale that training used.
            frames: (B,) int64 true lengths in 1..T; None: T.

        Returns:
            (B, hidden) float32.

        Raises:
            TensorError: other bands, lengths of another shape or out of range.
        """
        if mel.dim() != 3 or mel.shape[2] != self.bands:
            raise TensorError(
                f"Got a spectrogram of shape {tuple(mel.shape)}; expected (B, T, {self.bands})."
            )
        if frames is not None and frames.shape != mel.shape[:1]:
            raise TensorError(
                f"Got lengths of shape {tuple(frames.shape)}; expected ({mel.shape[0]},)."
            )
        if frames is not None and not torch.compiler.is_compiling():
            low, high = int(frames.min()), int(frames.max())
            if low < 1 or high > mel.shape[1]:
                raise TensorError(
                    f"Got lengths of {low} to {high} frames; expected 1 to {mel.shape[1]}."
                )
        x, left = _cut(mel.unsqueeze(1), frames), frames
        for conv, norm in zip(self.convs, self.norms, strict=True):
            left = None if left is None else torch.div(left + 1, 2, rounding_mode="floor")
            x = _cut(functional.relu(norm(conv(x))), left)
        states, last = self.gru(x.permute(0, 2, 1, 3).flatten(2))
        if left is None:
            return cast(Tensor, last[0])
        # The state at each clip's own last step.
        step = (left - 1).view(-1, 1, 1).expand(-1, 1, states.shape[2])
        return cast(Tensor, states.gather(1, step).squeeze(1))


def _cut(image: Tensor, frames: Tensor | None) -> Tensor:
    """Zero the frames of (B, C, T, F) behind each clip's end."""
    if frames is None:
        return image
    inside = torch.arange(image.shape[2], device=image.device) < frames[:, None]
    return image * inside.to(image.dtype)[:, None, :, None]


class TokenBank(nn.Module):
    """Learned tokens and the attention that mixes them."""

    def __init__(self, config: StyleConfig) -> None:
        super().__init__()
        width = config.dim // config.heads
        self.heads = config.heads
        self.tokens = nn.Parameter(0.5 * torch.randn(config.tokens, width))
        self.query = nn.Linear(config.hidden, config.dim, bias=False)
        self.key = nn.Linear(width, config.dim, bias=False)
        self.value = nn.Linear(width, config.dim, bias=False)

    def keys(self) -> Tensor:
        """Return the projected keys (heads, width, tokens), scaled."""
        keys = self.key(torch.tanh(self.tokens)).unflatten(1, (self.heads, -1))
        return cast(Tensor, keys.permute(1, 2, 0) / math.sqrt(self.tokens.shape[1]))

    def values(self) -> Tensor:
        """Return the projected values (heads, tokens, width)."""
        values = self.value(torch.tanh(self.tokens)).unflatten(1, (self.heads, -1))
        return cast(Tensor, values.transpose(0, 1))

    def weights(self, query: Tensor) -> Tensor:
        """Map queries (B, hidden) to weights (B, heads, tokens); each head's sum to one."""
        return attend(self.query(query).unflatten(1, (self.heads, -1)), self.keys())

    def mix(self, weights: Tensor) -> Tensor:
        """Map weights (B, heads, tokens), any numbers, to styles (B, dim)."""
        return blend(weights, self.values())


def attend(query: Tensor, keys: Tensor) -> Tensor:
    """Return softmax weights (B, heads, tokens) of queries (B, heads, width) and scaled keys."""
    return torch.matmul(query.unsqueeze(2), keys).squeeze(2).softmax(dim=2)


def blend(weights: Tensor, values: Tensor) -> Tensor:
    """Return styles (B, heads * width) of weights (B, heads, tokens)."""
    return torch.matmul(weights.unsqueeze(2), values).squeeze(2).flatten(1)


class StyleTokens(nn.Module):
    """Reference clip -> style vector.

    Args:
        config: Sizes.

    Example:
        >>> style, weights = StyleTokens().eval()(torch.zeros(1, 128, 80))
        >>> style.shape, weights.shape
        (torch.Size([1, 256]), torch.Size([1, 8, 10]))
    """

    def __init__(self, config: StyleConfig | None = None) -> None:
        super().__init__()
        self.config = config or StyleConfig()
        self.encoder = ReferenceEncoder(self.config)
        self.bank = TokenBank(self.config)

    def forward(self, mel: Tensor, frames: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Map mel (B, T, bands), and true lengths (B,), to styles (B, dim) and weights.

        Weights are (B, heads, tokens).
        """
        weights = self.bank.weights(self.encoder(mel, frames))
        return self.bank.mix(weights), weights

    def from_weights(self, weights: Tensor) -> Tensor:
        """Map weights (B, heads, tokens) set by hand to styles (B, dim).

        Raises:
            TensorError: another shape.
        """
        wanted = (self.config.heads, self.config.tokens)
        if weights.dim() != 3 or tuple(weights.shape[1:]) != wanted:
            raise TensorError(
                f"Got weights of shape {tuple(weights.shape)}; expected (B, {wanted[0]}, "
                f"{wanted[1]})."
            )
        return self.bank.mix(weights)


class StyleGraph(nn.Module):
    """The deployed form: the bank's keys and values are constants.

    Args:
        network: In evaluation mode.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, network: StyleTokens) -> None:
        super().__init__()
        self.encoder, self.query = network.encoder, network.bank.query
        self.heads = network.config.heads
        self.register_buffer("keys", network.bank.keys().detach())
        self.register_buffer("values", network.bank.values().detach())

    def forward(self, mel: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Map mel (B, T, bands) and true lengths (B,) int64 to styles and weights."""
        query = self.query(self.encoder(mel, frames)).unflatten(1, (self.heads, -1))
        weights = attend(query, self.keys)
        return blend(weights, self.values), weights


class WeightsGraph(nn.Module):
    """The deployed form of `from_weights`: weights (B, heads, tokens) -> styles (B, dim)."""

    values: Tensor

    def __init__(self, network: StyleTokens) -> None:
        super().__init__()
        self.register_buffer("values", network.bank.values().detach())

    def forward(self, weights: Tensor) -> Tensor:
        """Map weights (B, heads, tokens) to styles (B, dim)."""
        return blend(weights, self.values)
