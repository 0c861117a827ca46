"""What a codec's training minimises: spectra at several resolutions, mel levels, pitch codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.codec.layers.mel import mel_filters
from prunus.models.codec.nsfcodec.pitch_grid import PITCHES

_FLOOR = 3e-4  # -70 dB below full scale: what lies under it is not worth bits
_BLUR = 1.0  # steps of the pitch grid: neighbours are nearly as good


class SpectralLoss(nn.Module):
    """Distance of log magnitudes at several resolutions and of log-mel levels.

    Phases do not count: the decoder draws its own. As in Parallel WaveGAN (arXiv 1910.11480), with
    log magnitudes alone and a mel term as in HiFi-GAN (arXiv 2010.05646).

    Args:
        sample_rate_hz: Samples per second.
        sizes: Windows in samples; the hop is a quarter.
        bands: Mel bands of each window of at least 512 samples.
    """

    def __init__(
        self,
        sample_rate_hz: int = 16000,
        sizes: tuple[int, ...] = (240, 512, 1024),
        bands: int = 80,
    ) -> None:
        super().__init__()
        self.sizes = sizes
        for size in sizes:
            window = torch.hann_window(size)
            self.register_buffer(f"window{size}", window / window.pow(2).sum().sqrt())
            if size >= 512:
                filters = mel_filters(sample_rate_hz, size, bands)
                filters = filters / filters.sum(dim=0).clamp(min=1e-3)
                self.register_buffer(f"mel{size}", filters)

    def forward(self, got: Tensor, expected: Tensor) -> Tensor:
        """Return the loss of (B, T) sounds."""
        total = got.new_zeros(())
        for size in self.sizes:
            window = self.get_buffer(f"window{size}")
            a, b = _magnitude(got, window), _magnitude(expected, window)
            total = total + (_log(a) - _log(b)).abs().mean()
            if size >= 512:
                mel = self.get_buffer(f"mel{size}")
                level = _log(a.transpose(1, 2) @ mel) - _log(b.transpose(1, 2) @ mel)
                total = total + 2.0 * level.abs().mean()
        return total / len(self.sizes)


def pitch_loss(logits: Tensor, pitch: Tensor) -> Tensor:
    """Return the cross-entropy of pitch codes with targets blurred over neighbouring pitches.

    Args:
        logits: (B, L, 1 + PITCHES).
        pitch: (B, L) int64, 0 for no voice.
    """
    grid = torch.arange(PITCHES, device=pitch.device)
    distance = (grid - (pitch.unsqueeze(2) - 1)).float()
    bump = torch.exp(-0.5 * (distance / _BLUR) ** 2)
    voiced = (pitch > 0).float().unsqueeze(2)
    bump = bump / bump.sum(dim=2, keepdim=True).clamp(min=1e-6) * voiced
    target = torch.cat((1.0 - voiced, bump), dim=2)
    return -(target * functional.log_softmax(logits.float(), dim=2)).sum(dim=2).mean()


def pitch_agreement(found: Tensor, pitch: Tensor) -> float:
    """Return the share of frames with the right voicing and, where voiced, within 50 cents."""
    same_voicing = (found > 0) == (pitch > 0)
    near = ((found - pitch).abs() <= 3) | (pitch == 0)
    return float((same_voicing & near).float().mean())


def _magnitude(sound: Tensor, window: Tensor) -> Tensor:
    size = len(window)
    spectrum = torch.stft(sound, size, size // 4, window=window, center=False, return_complex=True)
    return torch.sqrt(spectrum.real.pow(2) + spectrum.imag.pow(2) + 1e-12)


def _log(magnitude: Tensor) -> Tensor:
    return torch.log(magnitude + _FLOOR)
