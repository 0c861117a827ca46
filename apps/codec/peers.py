"""Other codecs to stand beside: Opus, by ffmpeg or by opus-tools, whichever is installed."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from prunus.runtime.audio.files import SoundReader, write_wav
from prunus.runtime.audio.resample import resample
from prunus.runtime.errors import HostError, UsageError

Audio = npt.NDArray[np.float32]
_LEAST, _MOST = 6.0, 256.0  # kbit/s of one channel
_PAGE_HEAD = 27


def parse_peer(text: str) -> float:
    """Return the kbit/s of ``opus:KBPS``.

    >>> parse_peer("opus:9.5")
    9.5

    Raises:
        UsageError: another peer, or a rate that Opus does not have.
    """
    name, _, rate = text.partition(":")
    try:
        kilobits = float(rate)
    except ValueError:
        kilobits = 0.0
    if name != "opus" or not _LEAST <= kilobits <= _MOST:
        raise UsageError(
            f"Got the peer '{text}'; expected opus:KBPS with {_LEAST:g} to {_MOST:g} kbit/s.",
            "Example: --peer opus:6 --peer opus:9.5",
        )
    return kilobits


def opus(sound: Audio, sample_rate_hz: int, kilobits: float) -> tuple[Audio, float]:
    """Send a sound through Opus in its voice mode, with variable rate.

    Args:
        sound: (T,) float32.
        sample_rate_hz: Of the sound.
        kilobits: Wanted rate.

    Returns:
        The sound at the same rate, and the kbit/s of the packets alone, without the container.

    Raises:
        HostError: neither ffmpeg nor opus-tools is installed, or it failed.
    """
    with tempfile.TemporaryDirectory(prefix="prunus-opus-") as folder:
        before, coded, after = (Path(folder) / n for n in ("in.wav", "coded.opus", "out.wav"))
        write_wav(before, iter([sound]), sample_rate_hz)
        for command in _commands(before, coded, after, kilobits):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise HostError(
                    f"{command[0]} failed: {done.stderr.strip().splitlines()[-1:]}.",
                    "Is it built with Opus?",
                )
        bits = 8 * packet_bytes(coded.read_bytes())
        with SoundReader(after) as reader:
            heard = np.concatenate([*reader.blocks(), np.zeros(0, np.float32)])
            heard = resample(heard, reader.sample_rate_hz, sample_rate_hz)
    count = len(sound)
    heard = np.pad(heard[:count], (0, max(0, count - len(heard))))
    return heard, bits * 1e-3 * sample_rate_hz / count


def packet_bytes(data: bytes) -> int:
    """Return the bytes of an Ogg stream's packets behind its two headers (RFC 3533, RFC 7845)."""
    total, headers, at = 0, 2, 0
    while data[at : at + 4] == b"OggS" and at + _PAGE_HEAD <= len(data):
        lacing = data[at + _PAGE_HEAD : at + _PAGE_HEAD + data[at + 26]]
        for size in lacing:
            if not headers:
                total += size
            elif size < 255:  # the end of a header packet
                headers -= 1
        at += _PAGE_HEAD + len(lacing) + sum(lacing)
    return total


def _commands(before: Path, coded: Path, after: Path, kilobits: float) -> list[list[str]]:
    if shutil.which("opusenc") and shutil.which("opusdec"):
        return [
            ["opusenc", "--quiet", "--speech", "--bitrate", f"{kilobits:g}", "--framesize", "40",
             str(before), str(coded)],
            ["opusdec", "--quiet", "--rate", "48000", str(coded), str(after)],
        ]  # fmt: skip
    if shutil.which("ffmpeg"):
        quiet = ["ffmpeg", "-nostdin", "-v", "error", "-y"]
        return [
            [*quiet, "-i", str(before), "-c:a", "libopus", "-application", "voip",
             "-frame_duration", "40", "-b:a", f"{round(1000 * kilobits)}", str(coded)],
            [*quiet, "-i", str(coded), "-ar", "48000", str(after)],
        ]  # fmt: skip
    raise HostError(
        "The peer Opus needs opus-tools or ffmpeg, and neither is installed.",
        "On Debian: apt-get install opus-tools",
    )
