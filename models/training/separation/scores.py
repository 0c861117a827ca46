"""How near a separated voice is to the true one, in decibels; differentiable."""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-8


def si_sdr(got: Tensor, voice: Tensor) -> Tensor:
    """Return the scale-invariant signal-to-distortion ratio (arXiv 1811.02508) in dB, (B,).

    Args:
        got: (B, T) float32.
        voice: (B, T) float32, the truth. Means are removed from both.
    """
    got, voice = (x - x.mean(dim=-1, keepdim=True) for x in (got, voice))
    share = (got * voice).sum(-1, keepdim=True) / (voice.square().sum(-1, keepdim=True) + _TINY)
    target = share * voice
    power, noise = target.square().sum(-1), (got - target).square().sum(-1)
    return 10 * torch.log10((power + _TINY) / (noise + _TINY))


def limited_snr(got: Tensor, voice: Tensor, limit_db: float = 30.0) -> Tensor:
    """Return the signal-to-noise ratio in dB, (B,), which levels off at a limit.

    Unlike `si_sdr` it sees the level, which must not change from window to window; the limit
    (arXiv 2011.02421) keeps easy mixtures from taking all of the gradient.
    """
    soft = 10 ** (-limit_db / 10)
    power = voice.square().sum(-1)
    noise = (got - voice).square().sum(-1)
    return 10 * torch.log10((power + _TINY) / (noise + soft * power + _TINY))
