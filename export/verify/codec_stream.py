"""How far a stream through exported graphs is from the offline PyTorch network.

    python -m prunus.export.verify.codec_stream                      # the codec that ships
    python -m prunus.export.verify.codec_stream wavtokenizer-tok75-fp32 --seconds 8

`prunus check` compares single graphs. This compares what users get: a whole sound in steps or
overlapping windows, against the network on all of it at once. Codes are counted; the sound is
decoded from the same codes on both sides, so that one difference is not seen twice.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from prunus.export import nsfcodec
from prunus.export.codec import graphs as codec_graphs
from prunus.export.codec.samples import find_sound
from prunus.models.zoo import model_path
from prunus.runtime.audio.quality import mel_distance_db
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import PrunusError, UsageError
from prunus.runtime.tasks.codec.codec import SpeechCodec
from prunus.runtime.tasks.metrics import worst_snr_db

Codes = Mapping[str, npt.NDArray[np.int64]]
KNOWN = ("nsfcodec", "wavtokenizer", "fusecodec", "freecodec")


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far a stream is from the whole.

    Attributes:
        seconds: Length of the sound.
        equal_percent: Stream -> share of codes that are the offline network's.
        snr_db: Of the decoded sound, from the offline network's codes on both sides.
        mel_db: Mean absolute difference of mel bands in decibels.
    """

    seconds: float
    equal_percent: Mapping[str, float]
    snr_db: float
    mel_db: float

    def to_text(self) -> str:
        """Return one line."""
        codes = ", ".join(f"{name} {share:.2f} %" for name, share in self.equal_percent.items())
        return (
            f"{self.seconds:.1f} s as a stream against the whole: codes equal: {codes}; "
            f"sound {self.snr_db:.1f} dB SNR, {self.mel_db:.2f} dB mel"
        )


class OfflineEncoder(nn.Module):
    """A published network: (1, T) sound -> what `OfflineDecoder` takes.

    Args:
        network: As `prunus.export.codec.graphs.find_network` returns it.
        model: One of `KNOWN`.
    """

    def __init__(self, network: Any, model: str) -> None:
        super().__init__()
        self.network, self.model = network, model

    def forward(self, sound: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return codes, and the voice of codecs that have one."""
        if self.model == "wavtokenizer":
            return (self.network.encode(sound)[1],)
        if self.model == "fusecodec":
            return (self.network.encode(sound.unsqueeze(1)),)
        if self.model == "nsfcodec":
            return cast(tuple[torch.Tensor, ...], self.network.encode(sound))
        return (*self.network.encode(sound), self.network.speaker(sound))


class OfflineDecoder(nn.Module):
    """A published network: codes -> sound.

    Args:
        network: As `prunus.export.codec.graphs.find_network` returns it.
        model: One of `KNOWN`.
    """

    def __init__(self, network: Any, model: str) -> None:
        super().__init__()
        self.network, self.model = network, model

    def forward(self, *codes: torch.Tensor) -> torch.Tensor:
        """Return (1, T) or (1, 1, T) sound."""
        if self.model == "wavtokenizer":
            out = self.network.decode(self.network.codes_to_features(codes[0]))
        else:
            out = self.network.decode(*codes)
        return cast(torch.Tensor, out)


def stream_deviation(
    codec: SpeechCodec, sound: npt.NDArray[np.float32], checkpoint: str | Path | None = None
) -> Deviation:
    """Run a sound through the graphs and through the offline network.

    Args:
        codec: With its encoder and decoder.
        sound: (T,) float32 at the codec's rate; cut to whole frames.
        checkpoint: Weights that the files were exported from, None for random ones.

    Raises:
        UsageError: a codec whose offline form is not known here, or too short a sound.
        ArtifactError: the weights are others.
    """
    card: ModelCard = codec.sessions["encoder"].card
    form = codec.format
    if card.model not in KNOWN:
        raise UsageError(
            f"Got the codec {card.model}, whose offline form is not known here; "
            f"expected one of {', '.join(KNOWN)}.",
            "Teach it to OfflineEncoder and OfflineDecoder; `prunus check` judges its graphs.",
        )
    sound = sound[: len(sound) // (form.hop * form.stride) * form.hop * form.stride]
    if not len(sound):
        raise UsageError("The sound is shorter than a frame.", "Give a longer one.")
    find: Any = nsfcodec if card.model == "nsfcodec" else codec_graphs
    network: Any = find.network_of(card, checkpoint)
    encoder, decoder = (c(network, card.model).eval() for c in (OfflineEncoder, OfflineDecoder))
    with torch.inference_mode():
        offline = encoder(torch.from_numpy(sound)[None])
        expected = decoder(*offline).reshape(-1).clamp(-1.0, 1.0).numpy()[: len(sound)]
    codes = {s.name: _rows(v, s.codebooks) for s, v in zip(form.streams, offline, strict=False)}
    got = codec.encode(sound).codes
    equal = {name: 100.0 * float((got[name] == c).mean()) for name, c in codes.items()}
    stream = codec.decoder(offline[-1].numpy().reshape(-1) if form.voice else None)
    decoded = np.concatenate((stream.push(codes), stream.flush()))[: len(sound)]
    mel = mel_distance_db(expected, decoded, form.sample_rate_hz)
    seconds = len(sound) / form.sample_rate_hz
    return Deviation(seconds, equal, worst_snr_db(expected[None], decoded[None]), mel)


def _rows(codes: torch.Tensor, codebooks: int) -> npt.NDArray[np.int64]:
    """Return (codebooks, n); some networks have the codebooks as last axis, batch is 1."""
    values: npt.NDArray[np.int64] = codes.numpy()
    last = codes.dim() == 3 and codes.shape[0] == 1 and codes.shape[2] == codebooks
    return values[0].T if last else values.reshape(codebooks, -1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the deviation of one codec; return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "name", nargs="?", help="NAME of NAME-encoder.onnx and NAME-decoder.onnx; default: shipped"
    )
    parser.add_argument("--sound", help="a recording; default: voice-like sound")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--checkpoint", help="imported weights that it was exported from")
    parser.add_argument("--backend", default="onnxruntime")
    options = parser.parse_args(arguments)
    try:
        name = options.name or model_path(nsfcodec.SHIPPED[0])
        with SpeechCodec.open(name, options.backend) as codec:
            rate = codec.format.sample_rate_hz
            sound = find_sound(options.sound, rate, options.seconds)[0]
            sound = sound[: round(options.seconds * rate)]
            found = stream_deviation(codec, sound, options.checkpoint)
            print(f"{codec.format.name}: {found.to_text()}")
    except PrunusError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
