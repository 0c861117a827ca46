"""What every quantiser does: encode, decode, and pass gradients straight through.

A frame is a vector of D numbers, the last axis. Its codes are K integers, the last axis too:

    latent  = condition(x)        what the quantiser compares: x itself, bounded or normed
    codes   = search(latent)      (..., K) integers, code k in [0, sizes[k])
    vectors = decode(codes)       (..., D)
    output  = latent + stop_gradient(vectors - latent)

Graphs of `encode` and `decode` have constant shapes and use MatMul, ArgMax, Gather and element-wise
operators only.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.runtime.errors import TensorError, UsageError


class Quantized(NamedTuple):
    """What `forward` returns.

    Attributes:
        vectors: (..., D) float32, `decode(codes)` up to rounding; gradients pass to the input.
        codes: (..., K) int64.
        losses: Training losses by name, scalars; sum them with weights of your own.
    """

    vectors: Tensor
    codes: Tensor
    losses: dict[str, Tensor]


class FrameQuantizer(nn.Module):
    """Base of the quantisers; subclasses give `search` and `decode`, some `condition`.

    Args:
        dim: Width D of a frame.
        sizes: Number of values of each of the K codes.

    Raises:
        UsageError: no code, or one without values.
    """

    def __init__(self, dim: int, sizes: tuple[int, ...]) -> None:
        super().__init__()
        if dim < 1 or not sizes or min(sizes) < 2:
            raise UsageError(
                f"Got frames of {dim} numbers and codes of sizes {list(sizes)}; expected one or "
                "more of each, and two or more values per code."
            )
        self.dim, self.sizes = dim, tuple(sizes)

    @property
    def codes_per_frame(self) -> int:
        """K, integers per frame."""
        return len(self.sizes)

    @property
    def codebook_size(self) -> int:
        """Number of different frames that codes can tell apart."""
        return math.prod(self.sizes)

    @property
    def bits_per_frame(self) -> float:
        """Bits that the codes of a frame carry without entropy coding: log2 of `codebook_size`."""
        return math.fsum(math.log2(size) for size in self.sizes)

    @property
    def packed_bits_per_frame(self) -> int:
        """Bits when every code is stored in whole bits."""
        return sum((size - 1).bit_length() for size in self.sizes)

    def condition(self, x: Tensor) -> Tensor:
        """Return what is compared with code vectors, (..., D); gradients pass here."""
        return x

    def search(self, latent: Tensor) -> Tensor:
        """Return codes (..., K) int64 of conditioned frames (..., D)."""
        raise NotImplementedError

    def decode(self, codes: Tensor) -> Tensor:
        """Return vectors (..., D) of codes (..., K).

        Raises:
            TensorError: a code is out of range, or there are not K of them.
        """
        raise NotImplementedError

    def encode(self, x: Tensor) -> Tensor:
        """Return codes (..., K) int64 of frames.

        Args:
            x: (..., D) float32.

        Raises:
            TensorError: frames of another width.
        """
        self.check_frames(x)
        return self.search(self.condition(x))

    def index(self, vectors: Tensor) -> Tensor:
        """Return the codes of vectors (..., D) that `decode` gave; `condition` is not applied."""
        self.check_frames(vectors)
        return self.search(vectors)

    def losses(self, latent: Tensor, vectors: Tensor) -> dict[str, Tensor]:
        """Return the training losses of conditioned frames and the vectors chosen for them."""
        return {"commitment": functional.mse_loss(latent, vectors.detach())}

    def forward(self, x: Tensor) -> Quantized:
        """Quantise frames (..., D) float32, with gradients straight through."""
        self.check_frames(x)
        latent = self.condition(x)
        codes = self.search(latent.detach())
        vectors = self.decode(codes)
        passed = latent + (vectors - latent).detach()
        return Quantized(passed, codes, self.losses(latent, vectors))

    def check_frames(self, x: Tensor) -> None:
        """Refuse frames of another width; raises TensorError."""
        if x.dim() < 1 or x.shape[-1] != self.dim:
            raise TensorError(
                f"Got frames of shape {tuple(x.shape)}; expected (..., {self.dim}).",
                "The last axis is the frame's.",
            )

    def check_codes(self, codes: Tensor) -> None:
        """Refuse codes that no frame has; raises TensorError. Traced graphs skip the range."""
        if codes.dim() < 1 or codes.shape[-1] != len(self.sizes) or codes.is_floating_point():
            raise TensorError(
                f"Got codes of shape {tuple(codes.shape)} and type {codes.dtype}; expected "
                f"(..., {len(self.sizes)}) integers."
            )
        if torch.compiler.is_compiling() or codes.numel() == 0:
            return
        flat = codes.reshape(-1, len(self.sizes))
        low, high = flat.amin(dim=0).tolist(), flat.amax(dim=0).tolist()
        for k, size in enumerate(self.sizes):
            if low[k] < 0 or high[k] >= size:
                raise TensorError(
                    f"Code {k} holds {low[k]} to {high[k]}; expected 0 to {size - 1}.",
                    "Were the codes made by another quantiser, or damaged?",
                )


class EncodeGraph(nn.Module):
    """`encode` as a module, for exporters."""

    def __init__(self, quantizer: FrameQuantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, x: Tensor) -> Tensor:
        """Map frames (..., D) float32 to codes (..., K) int64."""
        return self.quantizer.encode(x)


class DecodeGraph(nn.Module):
    """`decode` as a module, for exporters."""

    def __init__(self, quantizer: FrameQuantizer) -> None:
        super().__init__()
        self.quantizer = quantizer

    def forward(self, codes: Tensor) -> Tensor:
        """Map codes (..., K) int64 to vectors (..., D) float32."""
        return self.quantizer.decode(codes)
