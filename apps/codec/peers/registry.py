"""The peers, a row each: ``opus:9.5`` is Opus at 9.5 kbit/s, ``lpcnet`` has one rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from prunus.apps.codec.peers import opus as libopus
from prunus.apps.codec.peers import vocoders
from prunus.runtime.audio.quality import aligned
from prunus.runtime.audio.resample import resample
from prunus.runtime.errors import UsageError, nearest

Audio = npt.NDArray[np.float32]
_MOST_LAG_SECONDS = 0.15
_FINE = 0.001  # seconds, the grid on which a vocoder's delay is looked for


@dataclass(frozen=True, slots=True)
class Peer:
    """One codec at one rate.

    Attributes:
        name: Of its row.
        rate_hz: Sound that it takes.
        code: (T,) float32 -> what comes out, maybe late, and the kbit/s.
        vocoder: Its waveform matches that of the original nowhere.
        frame_ms: Length of its frames.
    """

    name: str
    rate_hz: int
    code: Callable[[Audio], tuple[Audio, float]]
    vocoder: bool
    frame_ms: float

    def pass_through(self, sound: Audio, rate_hz: int) -> tuple[Audio, Audio, float]:
        """Send a sound through.

        Args:
            sound: (T,) float32.
            rate_hz: Its sample rate.

        Returns:
            The original and what came out, at the same rate, cut to where they fit, and the kbit/s.

        Raises:
            HostError: what the peer needs is not installed.
        """
        heard, kilobits = self.code(resample(sound, rate_hz, self.rate_hz))
        heard, most = resample(heard, self.rate_hz, rate_hz), round(_MOST_LAG_SECONDS * rate_hz)
        if not self.vocoder:
            return *aligned(sound, heard, most), kilobits
        late = lateness(sound, heard, rate_hz)
        cut = heard[late : late + len(sound)]
        return sound, np.pad(cut, (0, len(sound) - len(cut))), kilobits


def lateness(sound: Audio, heard: Audio, rate_hz: int) -> int:
    """Return by how many samples the loudness of (T,) `heard` follows that of `sound`."""
    fine = round(_FINE * rate_hz)

    def loudness(x: Audio) -> npt.NDArray[np.float64]:
        power = (x[: len(x) // fine * fine].reshape(-1, fine).astype(np.float64) ** 2).mean(axis=1)
        level: npt.NDArray[np.float64] = np.log(np.convolve(power, np.hanning(17), "same") + 1e-6)
        level -= level.mean()
        return level

    one, other = loudness(sound), loudness(heard)
    scores = [-np.inf]
    for lag in range(round(_MOST_LAG_SECONDS / _FINE)):
        count = min(len(one), len(other) - lag)
        if count > 0:
            scores.append(float((one[:count] * other[lag : lag + count]).mean()))
    return max(0, int(np.argmax(scores)) - 1) * fine


def _opus(text: str, decoder: libopus.Decoder, rate: float) -> Peer:
    code = partial(libopus.opus, kilobits=rate, wide="wide" in text, decoder=decoder)
    return Peer(f"{text} {rate:g}", libopus.RATE_HZ, code, False, 20.0)


def _lpcnet(rate: float) -> Peer:
    return Peer("LPCNet", vocoders.LPCNET_HZ, vocoders.lpcnet, True, 30.0)


def _codec2(rate: float) -> Peer:
    code = partial(vocoders.codec2, bits_per_second=round(rate))
    return Peer(f"Codec2 {rate:g}", vocoders.CODEC2_HZ, code, True, 20.0 if rate > 2000 else 40.0)


_KBPS = f"KBPS from {libopus.LEAST:g} to {libopus.MOST:g}"
_BPS = f"BPS of {', '.join(map(str, vocoders.MODES))}"


@dataclass(frozen=True, slots=True)
class Kind:
    """A codec at any of its rates.

    Attributes:
        make: Rate -> the peer at it; 0 where none is told.
        form: What stands behind the colon, empty where there is one rate.
        knows: Whether a rate is one.
    """

    make: Callable[[float], Peer]
    form: str
    knows: Callable[[float], bool]


def _opus_kind(text: str, decoder: libopus.Decoder) -> Kind:
    def knows(rate: float) -> bool:
        return libopus.LEAST <= rate <= libopus.MOST

    return Kind(partial(_opus, text, decoder), _KBPS, knows)


PEERS: Mapping[str, Kind] = {
    "opus": _opus_kind("Opus", "plain"),
    "opus-wide": _opus_kind("Opus wide", "plain"),
    "opus-lace": _opus_kind("Opus wide + LACE", "lace"),
    "opus-nolace": _opus_kind("Opus wide + NoLACE", "nolace"),
    "lpcnet": Kind(_lpcnet, "", lambda rate: rate == 0.0),
    "codec2": Kind(_codec2, _BPS, vocoders.MODES.__contains__),
}


def parse_peer(text: str) -> Peer:
    """Return the peer that ``opus:9.5``, ``opus-lace:6``, ``codec2:1300`` or ``lpcnet`` names.

    >>> parse_peer("opus-lace:6").name
    'Opus wide + LACE 6'

    Raises:
        UsageError: another peer, or a rate that it does not have.
    """
    name, _, told = text.partition(":")
    if name not in PEERS:
        raise UsageError(
            f"Unknown peer '{name}'{nearest(name, list(PEERS))}.", f"Known: {', '.join(PEERS)}."
        )
    kind = PEERS[name]
    try:
        rate = float(told or 0.0)
    except ValueError:
        rate = -1.0
    if not kind.knows(rate):
        wanted = f"{name}:{kind.form}" if kind.form else f"'{name}' alone"
        raise UsageError(f"Got the peer '{text}'; expected {wanted}.", "Example: --peer opus:9.5")
    return kind.make(rate)

