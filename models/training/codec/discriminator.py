"""Judges of sound: small 2-D networks over complex spectra at several resolutions.

After the multi-scale STFT discriminator of EnCodec (arXiv 2210.13438, 3.4), with hinge losses and
feature matching. Training only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

_SLOPE = 0.2


class SpectrumJudge(nn.Module):
    """One resolution.

    Args:
        size: Window in samples; the hop is a quarter.
        width: Channels.
    """

    window: Tensor

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        window = torch.hann_window(size)
        self.register_buffer("window", window / window.pow(2).sum().sqrt())
        self.layers = nn.ModuleList([weight_norm(nn.Conv2d(2, width, (9, 3), padding=(4, 1)))])
        for dilation in (1, 2, 4):
            self.layers.append(
                weight_norm(
                    nn.Conv2d(width, width, (9, 3), stride=(2, 1), dilation=(1, dilation),
                              padding=(4, dilation))
                )
            )  # fmt: skip
        self.last = weight_norm(nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, sound: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Map (B, T) to scores (B, 1, bins, frames) and the features of each layer."""
        size = len(self.window)
        spectrum = torch.stft(
            sound, size, size // 4, window=self.window, center=False, return_complex=True
        )
        h = torch.stack((spectrum.real, spectrum.imag), dim=1)
        # Loud bins would drown the rest: magnitudes are compressed, phases kept.
        magnitude = h.pow(2).sum(dim=1, keepdim=True).add(1e-8).sqrt()
        h = h * magnitude.pow(-0.6)
        features = []
        for layer in self.layers:
            h = functional.leaky_relu(layer(h), _SLOPE)
            features.append(h)
        return self.last(h), features


class SpectrumDiscriminator(nn.Module):
    """Judges at several resolutions."""

    def __init__(self, sizes: tuple[int, ...] = (256, 512, 1024), width: int = 32) -> None:
        super().__init__()
        self.judges = nn.ModuleList(SpectrumJudge(size, width) for size in sizes)

    def loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the hinge loss of telling (B, T) recordings from (B, T) detached output."""
        total = real.new_zeros(())
        for judge in self.judges:
            total = total + functional.relu(1.0 - judge(real)[0]).mean()
            total = total + functional.relu(1.0 + judge(fake.detach())[0]).mean()
        return total / len(self.judges)

    def generator_loss(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Return the loss of not being believed, and the distance of features."""
        disbelief, distance = fake.new_zeros(()), fake.new_zeros(())
        for judge in self.judges:
            score, features = judge(fake)
            with torch.no_grad():
                _, wanted = judge(real)
            disbelief = disbelief + functional.relu(1.0 - score).mean()
            for got, target in zip(features, wanted, strict=True):
                distance = distance + (got - target).abs().mean() / target.abs().mean().add(1e-6)
        return disbelief / len(self.judges), distance / len(self.judges)
