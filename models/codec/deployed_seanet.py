"""Step graphs of WavTokenizer's encoder and SpeechTokenizer's decoder: exact in pieces of any size.

Both are convolutions around an LSTM of one direction. The convolutions look a bounded way ahead, so
a step lags behind its input: by one frame for the strided layers (their reach is below one frame)
and by three for the convolution of seven frames. What lies to the left travels in state tensors.
At the start of a sound the published networks mirror it at every layer; the first step does the
same, chosen by the state `started`. Frames that would lie before the start run through the LSTM
too, and its state is set back behind them. The end is not mirrored: what follows a sound is
silence.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from prunus.models.codec.layers.seanet import (
    PaddedConv1d,
    ResidualLstm,
    SeanetDecoder,
    SeanetEncoder,
)
from prunus.models.codec.layers.vector_quantizer import CodeSearch, ResidualQuantizer
from prunus.runtime.card.tensors import StateSpec
from prunus.runtime.errors import UsageError

DELAY = 4  # frames by which a step's output lags behind its input
SMALLEST = 5  # frames per step: the first step must hold what it mirrors
_REACH = 3  # frames on either side of the convolution of seven


def require_step(frames: int) -> None:
    """Refuse steps that are too short to start with."""
    if frames < SMALLEST:
        raise UsageError(f"Got {frames} frames per step; expected {SMALLEST} or more.")


class EncoderStep(nn.Module):
    """Sound -> codes, `frames` at a time, `DELAY` frames late.

    Args:
        encoder: Folded, with an LSTM of one direction.
        quantizer: Its quantiser.
        hop: Samples per frame.
        frames: Frames per step.
    """

    def __init__(
        self, encoder: SeanetEncoder, quantizer: ResidualQuantizer, hop: int, frames: int
    ) -> None:
        super().__init__()
        require_step(frames)
        layers = encoder.model
        self.frames, self.hop = frames, hop
        self.front = layers[:-3]
        self.lstm = cast(ResidualLstm, layers[-3])
        self.activation = layers[-2]
        self.last = cast(PaddedConv1d, layers[-1]).conv["conv"]
        self.search = CodeSearch(quantizer)
        self.width = self.lstm.lstm.hidden_size

    def states(self) -> tuple[StateSpec, ...]:
        """Return the states in the order of the arguments behind the sound."""
        return (
            StateSpec("started", "float32", (1, 1)),
            StateSpec("sound_tail", "float32", (1, 2 * self.hop)),
            StateSpec("hidden", "float32", (1, 2, self.width)),
            StateSpec("cell", "float32", (1, 2, self.width)),
            StateSpec("frame_tail", "float32", (1, self.width, 2 * _REACH)),
        )

    def forward(  # noqa: PLR0917 - the order is that of the graph's inputs
        self,
        audio: Tensor,
        started: Tensor,
        sound_tail: Tensor,
        hidden: Tensor,
        cell: Tensor,
        frame_tail: Tensor,
    ) -> tuple[Tensor, ...]:
        """Take one step.

        Args:
            audio: (1, frames * hop) samples that follow those of the step before.
            started: (1, 1), 0 in the first step and 1 later.
            sound_tail: (1, 2 * hop) last samples of the step before.
            hidden: (1, 2, C) of the LSTM.
            cell: (1, 2, C) of the LSTM.
            frame_tail: (1, C, 6) last frames before the last convolution.

        Returns:
            Codes (1, stages, frames) int64 and the next states in the same order.
        """
        later = started > 0.5
        n = self.frames
        ahead = torch.cat((audio, torch.zeros_like(sound_tail)), dim=1)
        window = torch.where(later, torch.cat((sound_tail, audio), dim=1), ahead)
        # In windows both outer frames are wrong; the first window begins where the sound does.
        framed = self.front(window.unsqueeze(1))
        before = torch.cat((framed[..., :1], framed[..., : n - 1]), dim=2)
        lagged = torch.where(later.unsqueeze(2), framed[..., 1 : n + 1], before)
        y, h, c = _lstm_from_start(self.lstm, lagged, 1, started, hidden, cell)
        y = self.activation(y)
        mirrored = y[..., 2 : 2 + _REACH].flip(2)
        unused = torch.zeros_like(y[..., : 2 * _REACH + 1 - _REACH])
        begun = torch.cat((unused, mirrored, y[..., 1:]), dim=2)
        buffer = torch.where(later.unsqueeze(2), torch.cat((frame_tail, y), dim=2), begun)
        codes = self.search(self.last(buffer)).permute(1, 0, 2)
        tails = audio[:, -2 * self.hop :], h, c, buffer[..., -2 * _REACH :]
        return (codes, torch.ones_like(started), *tails)


class DecoderStep(nn.Module):
    """Codes -> sound, `frames` at a time, `DELAY` frames late.

    Args:
        decoder: Folded.
        quantizer: Its quantiser.
        hop: Samples per frame.
        frames: Frames per step.
    """

    def __init__(
        self, decoder: SeanetDecoder, quantizer: ResidualQuantizer, hop: int, frames: int
    ) -> None:
        super().__init__()
        require_step(frames)
        layers = decoder.model
        self.frames, self.hop = frames, hop
        self.first = cast(PaddedConv1d, layers[0]).conv["conv"]
        self.lstm = cast(ResidualLstm, layers[1])
        self.stack = layers[2:]
        self.table = quantizer
        self.dim = quantizer.codebooks[0].embed.shape[1]
        self.width = self.lstm.lstm.hidden_size

    def states(self) -> tuple[StateSpec, ...]:
        """Return the states in the order of the arguments behind the codes."""
        return (
            StateSpec("started", "float32", (1, 1)),
            StateSpec("vector_tail", "float32", (1, self.dim, 2 * _REACH)),
            StateSpec("hidden", "float32", (1, 2, self.width)),
            StateSpec("cell", "float32", (1, 2, self.width)),
            StateSpec("frame_tail", "float32", (1, self.width, 2)),
        )

    def forward(  # noqa: PLR0917 - the order is that of the graph's inputs
        self,
        codes: Tensor,
        started: Tensor,
        vector_tail: Tensor,
        hidden: Tensor,
        cell: Tensor,
        frame_tail: Tensor,
    ) -> tuple[Tensor, ...]:
        """Take one step.

        Args:
            codes: (1, stages, frames) int64 that follow those of the step before.
            started: (1, 1), 0 in the first step and 1 later.
            vector_tail: (1, D, 6) last code vectors of the step before.
            hidden: (1, 2, C) of the LSTM.
            cell: (1, 2, C) of the LSTM.
            frame_tail: (1, C, 2) last frames behind the LSTM.

        Returns:
            Sound (1, frames * hop) and the next states in the same order.
        """
        later = (started > 0.5).unsqueeze(2)
        n, hop = self.frames, self.hop
        q = self.table.decode(codes.permute(1, 0, 2))
        mirrored = q[..., 1 : 1 + _REACH].flip(2)
        begun = torch.cat((torch.zeros_like(mirrored), mirrored), dim=2)
        buffer = torch.cat((torch.where(later, vector_tail, begun), q), dim=2)
        z = self.first(buffer)
        y, h, c = _lstm_from_start(self.lstm, z, _REACH, started, hidden, cell)
        ahead = torch.cat((y[..., _REACH:], torch.zeros_like(y[..., : _REACH + 2])), dim=2)
        window = torch.where(later, torch.cat((frame_tail, y), dim=2), ahead)
        sound = self.stack(window)
        silence = torch.zeros_like(sound[..., : DELAY * hop])
        beginning = torch.cat((silence, sound[..., : (n - DELAY) * hop]), dim=2)
        audio = torch.where(later, sound[..., hop : (n + 1) * hop], beginning)
        tails = buffer[..., -2 * _REACH :], h, c, y[..., -2:]
        return (audio.squeeze(1), torch.ones_like(started), *tails)


def _lstm_from_start(  # noqa: PLR0917
    lstm: ResidualLstm, x: Tensor, before: int, started: Tensor, hidden: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Run (1, C, T); in the first step the state is zero behind the first `before` frames."""
    h, c = hidden.transpose(0, 1).contiguous(), cell.transpose(0, 1).contiguous()
    head, h, c = lstm.step(x[..., :before], h, c)
    rest, h, c = lstm.step(x[..., before:], h * started, c * started)
    return torch.cat((head, rest), dim=2), h.transpose(0, 1), c.transpose(0, 1)
