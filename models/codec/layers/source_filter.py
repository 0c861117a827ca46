"""Speech as filtered pulses and noise: source and filter of a neural vocoder, in static shapes.

As in DDSP (Engel et al., ICLR 2020), NSF (Wang et al., 2019) and HiFTNet (arXiv 2309.09493) the
source follows a known pitch and the network shapes its spectrum; here filter and inverse transform
stand in the short-time Fourier domain as in Vocos (arXiv 2306.00814).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.codec.layers.istft import forward_kernel, inverse_kernel
from prunus.models.codec.nsfcodec.pitch_grid import LOWEST_HZ, PITCHES, pitch_hertz

NOISE_FRAMES = 128
_TOP_HZ = 7600.0  # no harmonic above
_NEAR = 1e-4  # of a pulse's centre, where its closed form is 0 / 0
_LOUDEST = 3.0  # log amplitude of a band


class Source(nn.Module):
    """Pitch codes -> a train of band-limited pulses and white noise, both of unit power.

    The sum of N cosines is a Dirichlet kernel: (sin((2 N + 1) x) / sin(x) - 1) / 2 with x = pi u,
    u the place in the period. The pitch moves to a new code's over the first half of its frame.

    Args:
        sample_rate_hz: Samples per second.
        hop: Samples per frame.
    """

    hertz: Tensor
    noise: Tensor
    ramp: Tensor
    ramp_sum: Tensor

    def __init__(self, sample_rate_hz: int, hop: int) -> None:
        super().__init__()
        self.rate, self.hop = float(sample_rate_hz), hop
        hertz = torch.from_numpy(np.concatenate(([0.0], pitch_hertz()))).float()
        self.register_buffer("hertz", hertz, persistent=False)
        self.register_buffer("noise", _white_noise(NOISE_FRAMES, hop), persistent=False)
        ramp = ((torch.arange(hop, dtype=torch.float64) + 0.5) / (hop / 2)).clamp(max=1.0)
        self.register_buffer("ramp", ramp.float(), persistent=False)
        self.register_buffer("ramp_sum", ramp.cumsum(0).float(), persistent=False)

    def forward(
        self, pitch: Tensor, before: Tensor, phase: Tensor, count: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Make the source of some frames.

        Args:
            pitch: (B, L) int64 codes, 0 for no voice.
            before: (B, 1) float32 pitch in hertz of the frame before, 0 for no voice.
            phase: (B, 1) float32 place in the period at the start, in [0, 1).
            count: (B, 1) float32 number of the first frame, modulo `NOISE_FRAMES`.

        Returns:
            Sound (2 B, L * hop): pulses, then noise; and the next `before`, `phase`, `count`.
        """
        frames = pitch.shape[1]
        now = functional.embedding(pitch, self.hertz.unsqueeze(1)).squeeze(2)
        last = torch.cat((before, now[:, :-1]), dim=1)
        voice, voice_last = (now > 0).float(), (last > 0).float()
        # Where a voice begins or ends, its pitch stays that of the voiced side.
        begin = last + (1 - voice_last) * now
        end = now + (1 - voice) * last
        slope = end - begin
        advance = (self.hop * begin + self.ramp_sum[-1] * slope) / self.rate
        starts = []
        for k in range(frames):  # one after the other: a stream then gives the very same numbers
            starts.append(phase)
            moved = phase + advance[:, k : k + 1]
            phase = moved - torch.floor(moved)
        samples = torch.arange(1, self.hop + 1, device=pitch.device, dtype=torch.float32)
        travelled = (
            samples * begin.unsqueeze(2) + self.ramp_sum * slope.unsqueeze(2)
        ) / self.rate + torch.cat(starts, dim=1).unsqueeze(2)
        place = travelled - torch.floor(travelled + 0.5)  # in [-0.5, 0.5)
        highest = torch.maximum(begin, end).clamp(min=LOWEST_HZ)
        harmonics = torch.floor(_TOP_HZ / highest).unsqueeze(2)
        pulses = _dirichlet(place, 2.0 * harmonics + 1.0)
        hertz = begin.unsqueeze(2) + self.ramp * slope.unsqueeze(2)
        gate = voice_last.unsqueeze(2) + self.ramp * (voice - voice_last).unsqueeze(2)
        pulses = pulses * gate * torch.sqrt(2.0 * hertz / (self.rate / 2.0))
        order = count + torch.arange(frames, device=pitch.device, dtype=torch.float32)
        wrapped = order - NOISE_FRAMES * torch.floor(order / NOISE_FRAMES)
        noise = functional.embedding(wrapped.long(), self.noise)
        following = count + frames
        following = following - NOISE_FRAMES * torch.floor(following / NOISE_FRAMES)
        both = torch.cat((pulses, noise), dim=0).flatten(1)
        return both, now[:, -1:], phase, following


class SourceFilter(nn.Module):
    """Shape pulses and noise with band levels; the pulses' filter has minimum phase.

    The minimum phase is the Hilbert transform of the log magnitude (Oppenheim & Schafer): linear,
    so one constant matrix leads from band levels to phases.

    Args:
        sample_rate_hz: Samples per second.
        size: Window in samples.
        hop: Samples per window.
        bands: Mel-spaced levels of each filter.
    """

    analysis: Tensor
    synthesis: Tensor
    spread: Tensor
    turn: Tensor

    def __init__(self, sample_rate_hz: int, size: int, hop: int, bands: int) -> None:
        super().__init__()
        self.size, self.hop = size, hop
        gain = 8.0 * hop / (3.0 * size)  # overlapped squared Hann windows sum to 3 size / 8 hop
        self.register_buffer("analysis", forward_kernel(size), persistent=False)
        self.register_buffer("synthesis", inverse_kernel(size) * gain, persistent=False)
        spread = band_spread(sample_rate_hz, size, bands)
        turn = spread @ minimum_phase(size)
        # Constants that float16 holds: half the bytes in a file, the same sound.
        self.register_buffer("spread", spread.half().float(), persistent=False)
        self.register_buffer("turn", turn.half().float(), persistent=False)

    def forward(
        self, source: Tensor, levels: Tensor, heard: Tensor, sounding: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Filter.

        Args:
            source: (2 B, T) pulses, then noise.
            levels: (B, T / hop, 2, bands) log amplitudes of pulses and noise per window.
            heard: (2 B, size - hop) source before.
            sounding: (B, size - hop) sound that windows before this step reach into.

        Returns:
            Sound (B, T), later by size - hop samples; the next `heard` and `sounding`.
        """
        joined = torch.cat((heard, source), dim=1)
        spectrum = functional.conv1d(joined.unsqueeze(1), self.analysis, stride=self.hop)
        pulses, noise = spectrum.chunk(2, dim=0)
        levels = levels.clamp(max=_LOUDEST)
        gains = torch.exp(torch.matmul(levels, self.spread)).transpose(1, 3)  # (B, bins, 2, W)
        angle = torch.matmul(levels[:, :, 0], self.turn).transpose(1, 2)
        pulse_gain, noise_gain = gains[:, :, 0], gains[:, :, 1]
        real, imaginary = pulses.chunk(2, dim=1)
        cosine, sine = pulse_gain * torch.cos(angle), pulse_gain * torch.sin(angle)
        noise_real, noise_imaginary = noise.chunk(2, dim=1)
        shaped = torch.cat(
            (
                real * cosine - imaginary * sine + noise_real * noise_gain,
                real * sine + imaginary * cosine + noise_imaginary * noise_gain,
            ),
            dim=1,
        )
        sound = functional.conv_transpose1d(shaped, self.synthesis, stride=self.hop).squeeze(1)
        reach, length = self.size - self.hop, source.shape[1]
        # By concatenation, not in place: the tail of the step before overlaps the beginning.
        sound = torch.cat((sound[:, :reach] + sounding, sound[:, reach:]), dim=1)
        kept = joined[:, joined.shape[1] - reach :]
        return sound[:, :length], kept, sound[:, length:]


def band_spread(sample_rate_hz: int, size: int, bands: int) -> Tensor:
    """Return (bands, bins) float64: linear interpolation between mel-spaced levels."""
    top = 2595.0 * math.log10(1.0 + sample_rate_hz / 2.0 / 700.0)
    bins = np.arange(size // 2 + 1) * sample_rate_hz / size
    place = 2595.0 * np.log10(1.0 + bins / 700.0) / top * (bands - 1)
    rows = [np.interp(place, np.arange(bands), np.eye(bands)[k]) for k in range(bands)]
    return torch.from_numpy(np.stack(rows))


def minimum_phase(size: int) -> Tensor:
    """Return (bins, bins) float64 that maps log magnitudes to the phases of minimum phase."""
    bins = size // 2 + 1
    cepstrum = np.fft.irfft(np.eye(bins), size, axis=1)
    fold = np.zeros(size)
    fold[0] = fold[size // 2] = 1.0
    fold[1 : size // 2] = 2.0
    return torch.from_numpy(np.fft.rfft(cepstrum * fold, axis=1).imag.copy())


def _dirichlet(place: Tensor, terms: Tensor) -> Tensor:
    """Return the sum of (terms - 1) / 2 cosines at a place of the period in [-0.5, 0.5]."""
    x = math.pi * place
    low = torch.sin(x)
    near = (low.abs() < _NEAR).float()
    ratio = torch.sin(terms * x) / (low + near) * (1.0 - near) + terms * near
    return 0.5 * (ratio - 1.0)


def _white_noise(frames: int, hop: int) -> Tensor:
    # Raw bits of a fixed generator: the same on every machine and in every version.
    # 255 levels are plenty for noise, and one byte each in a file.
    bits = np.random.PCG64(17).random_raw(frames * hop)
    steps = (bits % np.uint64(255)).astype(np.float64) - 127.0
    scale = round(2.0**16 / math.sqrt(127.0 * 128.0 / 3.0)) / 2.0**16
    return torch.from_numpy((steps * scale).astype(np.float32)).view(frames, hop)


def pitch_description() -> Tensor:
    """Return (1 + PITCHES, 17) float32: voiced or not, and 16 overlapping places in pitch."""
    centres = np.linspace(0.0, 1.0, 16)
    place = np.arange(PITCHES) / (PITCHES - 1)
    bumps = np.exp(-(((place[:, None] - centres) * 15.0) ** 2) / 2.0)
    table = np.zeros((1 + PITCHES, 17))
    table[1:, 0], table[1:, 1:] = 1.0, bumps
    return torch.from_numpy(table).float()
