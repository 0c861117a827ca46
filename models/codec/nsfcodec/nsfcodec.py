"""NsfCodec: a causal codec for speech, 16 kHz, 50 frames a second, that the project trained itself.

Frame-rate analysis and inverse-STFT synthesis with ConvNeXt blocks as in Vocos (arXiv 2306.00814)
and WavTokenizer (arXiv 2408.16532), residual quantisation as in SoundStream (arXiv 2107.03312), and
a source of pulses and noise as in NSF (Wang et al., 2019) and HiFTNet (arXiv 2309.09493). What
differs: everything is causal, the pitch has a code of its own, and the network shapes the source's
spectrum instead of predicting phases: it learns to speak in an hour on two processor cores.

Two streams of codes per frame of 20 ms: one pitch code of 8 bits, and residual codes of the
spectral envelope. Encoder and decoder lag by one frame each: 40 ms of look-ahead in all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.codec.layers.causal import CausalStack
from prunus.models.codec.layers.source_filter import Source, SourceFilter, pitch_description
from prunus.models.codec.layers.speech_features import Autocorrelation, MelLevels
from prunus.models.codec.layers.vector_quantizer import ResidualQuantizer
from prunus.models.codec.nsfcodec.pitch_grid import PITCHES, pitch_hertz
from prunus.runtime.card.tensors import StateSpec

ENCODER_DELAY = DECODER_DELAY = 1  # frames


@dataclass(frozen=True, slots=True)
class NsfCodecConfig:
    """Sizes.

    Attributes:
        sample_rate_hz: Samples per second.
        hop: Samples per frame.
        window: Of spectra, in samples; two windows per frame.
        pitch_window: Of the autocorrelation, in samples.
        mel_bands: Levels that the encoder sees per window.
        bands: Levels of each filter per window.
        width: Channels.
        hidden: Width between the linear layers of a block.
        encoder_blocks: ConvNeXt blocks of the encoder.
        decoder_blocks: Of the decoder.
        pitch_width: Channels of the pitch reader.
        stages: Codebooks of the envelope.
        codes: Entries of each.
        dim: Width of an entry.
    """

    sample_rate_hz: int = 16000
    hop: int = 320
    window: int = 480
    pitch_window: int = 1024
    mel_bands: int = 80
    bands: int = 64
    width: int = 256
    hidden: int = 640
    encoder_blocks: int = 4
    decoder_blocks: int = 6
    pitch_width: int = 160
    stages: int = 3
    codes: int = 1024
    dim: int = 48

    @property
    def windows(self) -> int:
        """Windows per frame."""
        return 2

    @property
    def step(self) -> int:
        """Samples per window."""
        return self.hop // self.windows


def _states(prefix: str, shapes: Sequence[tuple[int, ...]]) -> list[StateSpec]:
    return [StateSpec(f"{prefix}{k}", "float32", shape) for k, shape in enumerate(shapes)]


class NsfEncoder(nn.Module):
    """Sound -> pitch logits and features of the envelope, one frame late.

    Args:
        config: Sizes.
    """

    def __init__(self, config: NsfCodecConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.levels = MelLevels(c.sample_rate_hz, c.window, c.step, c.mel_bands)
        periods = torch.from_numpy(c.sample_rate_hz / pitch_hertz())
        self.periodicity = Autocorrelation(c.pitch_window, c.hop, periods)
        seen = c.windows * c.mel_bands
        self.envelope = CausalStack(seen, c.width, c.hidden, c.encoder_blocks, 3)
        self.project = nn.Linear(c.width, c.dim)
        self.pitch = CausalStack(seen + PITCHES, c.pitch_width, 2 * c.pitch_width, 1, 3)
        self.pitch_logits = nn.Linear(c.pitch_width, 1 + PITCHES)

    def states(self) -> list[StateSpec]:
        """Return the states in the order of `forward`'s list."""
        c = self.config
        sound = StateSpec("sound_tail", "float32", (1, c.pitch_window - c.hop))
        envelope = _states("envelope", self.envelope.state_shapes)
        return [sound, *envelope, *_states("pitch_reader", self.pitch.state_shapes)]

    def forward(self, sound: Tensor, past: list[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Go on with a sound.

        Args:
            sound: (B, L * hop).
            past: See `states`.

        Returns:
            Pitch logits (B, L, 1 + PITCHES), features (B, L, dim) of the frames one earlier, and
            the next states.
        """
        c = self.config
        joined = torch.cat((past[0], sound), dim=1)
        recent = joined[:, c.pitch_window - c.window - c.step :]
        mel = self.levels(recent)
        batch, bands, windows = mel.shape
        mel = mel.view(batch, bands, windows // c.windows, c.windows)
        mel = mel.transpose(2, 3).reshape(batch, bands * c.windows, windows // c.windows)
        split = 1 + len(self.envelope.state_shapes)
        features, envelope = self.envelope(mel, past[1:split])
        both = torch.cat((mel, 3.0 * self.periodicity(joined)), dim=1)
        read, pitch = self.pitch(both, past[split:])
        tail = joined[:, joined.shape[1] - past[0].shape[1] :]
        return self.pitch_logits(read), self.project(features), [tail, *envelope, *pitch]


class NsfDecoder(nn.Module):
    """Pitch codes and code vectors -> sound, one frame late.

    Args:
        config: Sizes.
    """

    description: Tensor

    def __init__(self, config: NsfCodecConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        table = pitch_description()
        self.register_buffer("description", table, persistent=False)
        self.stack = CausalStack(c.dim + table.shape[1], c.width, c.hidden, c.decoder_blocks, 3)
        self.head = nn.Linear(c.width, c.windows * 2 * c.bands)
        self.source = Source(c.sample_rate_hz, c.hop)
        self.filter = SourceFilter(c.sample_rate_hz, c.window, c.step, c.bands)
        with torch.no_grad():  # begin as quiet as speech
            self.head.weight.mul_(0.3)
            self.head.bias.fill_(-5.0)

    def states(self) -> list[StateSpec]:
        """Return the states in the order of `forward`'s list."""
        c = self.config
        reach = c.window - c.step
        return [
            *_states("stack", self.stack.state_shapes),
            StateSpec("pitch_before", "float32", (1, 1)),
            StateSpec("phase", "float32", (1, 1)),
            StateSpec("count", "float32", (1, 1)),
            StateSpec("pulses_tail", "float32", (1, reach)),
            StateSpec("noise_tail", "float32", (1, reach)),
            StateSpec("sounding", "float32", (1, reach)),
        ]

    def forward(
        self, pitch: Tensor, vectors: Tensor, past: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """Go on with a sound.

        Args:
            pitch: (B, L) int64.
            vectors: (B, L, dim) code vectors.
            past: See `states`.

        Returns:
            Sound (B, L * hop) of the frames one earlier, not limited; the next states.
        """
        c = self.config
        batch, frames = pitch.shape
        layers = len(self.stack.state_shapes)
        described = functional.embedding(pitch, self.description)
        entering = torch.cat((vectors, described), dim=2).transpose(1, 2)
        features, stack = self.stack(entering, past[:layers])
        levels = self.head(features).reshape(batch, c.windows * frames, 2, c.bands)
        before, phase, count, pulses_tail, noise_tail, sounding = past[layers:]
        source, before, phase, count = self.source(pitch, before, phase, count)
        heard = torch.cat((pulses_tail, noise_tail), dim=0)
        sound, heard, sounding = self.filter(source, levels, heard, sounding)
        return sound, [*stack, before, phase, count, heard[:batch], heard[batch:], sounding]


class NsfCodec(nn.Module):
    """Speech <-> codes.

    Args:
        config: Sizes.
    """

    def __init__(self, config: NsfCodecConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = NsfEncoder(config)
        self.quantizer = ResidualQuantizer(config.stages, config.codes, config.dim)
        self.decoder = NsfDecoder(config)

    def encode(self, sound: Tensor) -> tuple[Tensor, Tensor]:
        """Encode whole sounds.

        Args:
            sound: (B, T) float32 at `sample_rate_hz`, nominally in [-1, 1].

        Returns:
            Pitch (B, L) and envelope codes (stages, B, L), int64; L = ceil(T / hop).
        """
        hop = self.config.hop
        frames = -(-sound.shape[1] // hop)
        missing = (frames + ENCODER_DELAY) * hop - sound.shape[1]
        past = zero_past(self.encoder.states(), sound.shape[0])
        logits, features, _ = self.encoder(functional.pad(sound, (0, missing)), past)
        codes = self.quantizer.encode(features.transpose(1, 2))
        return logits.argmax(dim=2)[:, ENCODER_DELAY:], codes[..., ENCODER_DELAY:]

    def decode(self, pitch: Tensor, codes: Tensor) -> Tensor:
        """Decode whole sounds.

        Args:
            pitch: (B, L) int64.
            codes: (stages, B, L) int64.

        Returns:
            (B, L * hop) float32 in [-1, 1]. Behind the end stands the code before the last one:
            what `runtime.tasks.codec` shows a step graph.
        """
        frames = pitch.shape[1]
        if frames > 1:
            behind = pitch[:, -2:-1], codes[..., -2:-1]
        else:
            behind = torch.zeros_like(pitch), torch.zeros_like(codes)
        pitch = torch.cat((pitch, behind[0]), dim=1)
        vectors = self.quantizer.decode(torch.cat((codes, behind[1]), dim=2)).transpose(1, 2)
        past = zero_past(self.decoder.states(), pitch.shape[0])
        sound, _ = self.decoder(pitch, vectors, past)
        result: Tensor = sound[:, DECODER_DELAY * self.config.hop :]
        return result.clamp(-1.0, 1.0)

    def forward(self, sound: Tensor) -> Tensor:
        """Encode and decode (B, T) samples to (B, L * hop)."""
        return self.decode(*self.encode(sound))


def zero_past(states: Sequence[StateSpec], batch: int) -> list[Tensor]:
    """Return the states of streams that have not begun."""
    return [torch.zeros(batch, *state.shape[1:]) for state in states]
