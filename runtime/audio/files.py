"""Sound files, block by block: what libsndfile or PyAV reads (WAV, FLAC, Ogg, MP4); WAV is written.

Everything above this file sees mono float32 blocks. Reading needs the package ``soundfile``, and
``av`` for sound in containers of films, which are imported when a file is opened.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.audio.container import SLACK_SECONDS, ContainerSound
from prunus.runtime.audio.header import (
    MendedWav,
    mp3_tells_length,
    ogg_lacks_end,
    open_pipe,
    promised_bytes,
    sizeless,
)
from prunus.runtime.audio.resample import check_rate
from prunus.runtime.errors import MissingDependencyError, SourceError, UsageError

Audio = npt.NDArray[np.float32]
BLOCK = 1 << 15  # samples per block: memory does not grow with the file
STDIO = "-"
_MP3 = (b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")
_LIBSNDFILE = (*_MP3, b"RIFF", b"RIFX", b"RF64", b"FORM", b".snd", b"riff", b"fLaC", b"OggS")
# Of the formats that libsndfile opens, those whose cut files are told from whole ones.
_MEASURED = (
    "WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "SVX", "CAF", "NIST", "FLAC", "OGG", "MP3", "MPEG",
)  # fmt: skip
_OPTIONAL = ("CAF", "NIST")  # their headers may leave the length out
_CANCELLED = 1e-4  # -40 dB: what is left of channels that are each other's negative


class SoundReader(AbstractContextManager["SoundReader"]):
    """An open sound file.

    Attributes:
        sample_rate_hz: Of the file.
        channels: Of the file; blocks are their mean.
        samples: Length per channel as the header has it; of a pipe often wrong, or -1.
        piped: Whether it is standard input.
        live: False: it waits for whoever reads.
        unmeasured: Name of a format of which a cut file looks like a whole one, since this one
            does not say its length or nobody reads where it does; empty for the others.

    Args:
        path: A file, or ``-`` for standard input (any format; WAV is read as it comes).

    Raises:
        SourceError: there is no such file, or it holds no sound.
        UsageError: its sample rate lies outside 1 kHz to 768 kHz.
        MissingDependencyError: soundfile is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        library = _soundfile()
        self.piped = str(path) == STDIO
        self.title = "standard input" if self.piped else str(path)
        self._owned: Any = None  # what the library reads from and does not close
        self._sizeless = False
        self._slack = 0.0  # seconds by which its own length may be wrong
        try:
            self._file = library.SoundFile(self._opened(Path(path)))
        except library.LibsndfileError as error:
            self._release()
            self._file = self._contained(Path(path), _reason(error))
            self._slack = SLACK_SECONDS
        self.sample_rate_hz = int(self._file.samplerate)
        self.channels = int(self._file.channels)
        self.samples = int(self._file.frames)
        self.format = str(self._file.format)
        told = isinstance(self._file, ContainerSound) or self.format in _MEASURED
        if told and not self.piped and self.format in _OPTIONAL:
            told = promised_bytes(Path(path))[0] > 0
        self.unmeasured = "" if told else self.format
        self.live = False
        self._read, self._ended = 0, ""
        self._power = np.zeros(2)  # of the channels' mean, and mean of the channels'
        try:
            check_rate(self.sample_rate_hz, self.title)
        except UsageError:
            self.close()
            raise

    def _contained(self, path: Path, reason: str) -> Any:
        """Open what libsndfile does not know; what it knows and refuses is damaged."""
        hint = "Give a WAV, FLAC or Ogg file."
        if not self.piped:
            with path.open("rb") as file:
                head = file.read(12)
            if head and (head[8:12] == b"AVI " or not head.startswith(_LIBSNDFILE)):
                try:
                    return ContainerSound(path)
                except SourceError as error:
                    reason = error.message.removeprefix(f"{path} ").rstrip(".")
                except MissingDependencyError as error:
                    hint = error.hint
        raise SourceError(
            f"{self.title} holds no sound that can be read: {reason}.{_disguise(path)}", hint
        )

    def _opened(self, path: Path) -> Any:
        if self.piped:
            pipe = open_pipe(sys.stdin.fileno())
            self._owned = None if isinstance(pipe, int) else pipe
            return pipe
        if not path.is_file():
            raise SourceError(f"Sound file not found: {path}.", "Give a WAV or FLAC file.")
        self._sizeless = sizeless(path)
        if self._sizeless:
            self._owned = MendedWav(path)
            return self._owned
        return str(path)

    def blocks(self, size: int = BLOCK) -> Iterator[Audio]:
        """Yield mono float32 blocks of at most `size` samples until the end.

        A file that breaks off gives what is there; `ends_early` tells.

        Raises:
            SourceError: nothing at all can be decoded.
        """
        library = _soundfile()
        while not self._ended:
            block = np.full((size, self.channels), np.nan, np.float32)
            try:
                block = self._file.read(out=block)
            except library.LibsndfileError as error:
                # Decoders fill what they had before they failed.
                there = np.append(np.isfinite(block).all(axis=1), False)
                block = block[: int(there.argmin())]
                self._ended = _reason(error)
                if not self._read and not len(block):
                    raise SourceError(
                        f"{self.title} is damaged: {self._ended}.", "Copy the file again."
                    ) from None
            if not len(block):
                self._ended = self._ended or getattr(self._file, "broken", "") or "end"
                if not self._read and self._ended != "end":
                    raise SourceError(
                        f"{self.title} is damaged: {self._ended}.", "Copy the file again."
                    )
                return
            self._read += len(block)
            yield self._mono(block)

    def _mono(self, block: Audio) -> Audio:
        if self.channels == 1:
            return block[:, 0].copy()
        mean: Audio = block.mean(axis=1, dtype=np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            power = np.array([np.square(mean).sum(), np.square(block).mean(axis=1).sum()])
        self._power += np.where(np.isfinite(power).all(), power, 0.0)
        return mean

    @property
    def disguised(self) -> str:
        """Name of the true format where the file's ending says ``.wav`` wrongly, else empty."""
        wav = self.title.lower().endswith(".wav")
        return self.format if wav and self.format not in ("WAV", "WAVEX", "RF64", "W64") else ""

    @property
    def ends_early(self) -> str:
        """What a file that was cut off promises and holds, empty for whole files.

        WAV, RF64, W64, AIFF, AU, CAF, NIST SPHERE and Ogg tell it when they are opened; FLAC and
        MP3, and those that come through pipes, when they have been read.
        """
        rate = self.sample_rate_hz
        if self._ended:
            # Pipes that were not kept seldom know their length, nor do MP3s without a table.
            short = self._owned is not None or not self.piped
            if short and self.format in ("MP3", "MPEG") and not self.piped:
                short = mp3_tells_length(Path(self.title))
            least = self.samples - self._slack * rate
            if self._ended != "end" or (short and self._read < least):
                return (f"its header promises {self.samples / rate:.2f} s, "
                        f"{self._read / rate:.2f} s are there")  # fmt: skip
        if self.piped:
            return ""
        seconds = self.samples / rate
        if self._sizeless:
            return f"its header promises no sound, {seconds:.2f} s are there"
        if self.format == "OGG":
            lacks = ogg_lacks_end(Path(self.title))
            return f"its last page is missing, {seconds:.2f} s are there" if lacks else ""
        promised, there = promised_bytes(Path(self.title))
        if there >= promised:
            return ""
        whole = f"{seconds * promised / there:.2f} s" if there else "sound"
        return f"its header promises {whole}, {seconds:.2f} s are there"

    @property
    def cancels(self) -> bool:
        """Whether the channels read so far are each other's negative: their mean is silent."""
        mean, whole = self._power
        return bool(whole > 0.0 and mean < _CANCELLED * whole)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._file.close()
        self._release()

    def _release(self) -> None:
        if self._owned is not None:
            self._owned.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def write_wav_stream(file: IO[bytes], blocks: Iterator[Audio], sample_rate_hz: int) -> int:
    """Write mono blocks as 16-bit WAV to something that cannot seek; return the samples.

    The sizes in the header are the largest ones, as other programs write them into pipes.
    """
    file.write(wav_stream_header(sample_rate_hz))
    total = 0
    for block in blocks:
        file.write(pcm16(block))
        total += len(block)
    file.flush()
    return total


def wav_stream_header(sample_rate_hz: int) -> bytes:
    """Return the header of a mono 16-bit WAV whose length nobody knows yet."""
    most = 0xFFFFFFFF
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", most, b"WAVE", b"fmt ", 16, 1, 1,
                       sample_rate_hz, 2 * sample_rate_hz, 2, 16, b"data", most)  # fmt: skip


def pcm16(sound: Audio) -> bytes:
    """Return (T,) float32 as 16-bit little-endian samples, limited to [-1, 1]."""
    scaled: npt.NDArray[np.int16] = np.rint(np.clip(sound, -1.0, 1.0) * 32767.0).astype("<i2")
    return scaled.tobytes()


class WavWriter(AbstractContextManager["WavWriter"]):
    """A mono 16-bit WAV file; its header is true from `close` on.

    Args:
        target: A path or an open binary file that can seek.
        sample_rate_hz: Samples per second.
    """

    def __init__(self, target: str | Path | IO[bytes], sample_rate_hz: int) -> None:
        self._owned = isinstance(target, str | Path)
        self._file: IO[bytes] = open(target, "wb") if isinstance(target, str | Path) else target
        self._begin = self._file.tell()
        self._bytes = 0
        self._file.write(wav_stream_header(sample_rate_hz))

    def write(self, sound: Audio) -> None:
        """Append (T,) float32, limited to [-1, 1].

        Raises:
            OSError: the disk is full.
        """
        data = pcm16(sound)
        self._file.write(data)
        self._bytes += len(data)

    def close(self) -> None:
        """Write the length; a file above 4 GiB keeps the largest one. Safe to call twice."""
        if self._file.closed:
            return
        try:
            most = 0xFFFFFFFF
            for place, size in ((4, self._bytes + 36), (40, self._bytes)):
                self._file.seek(self._begin + place)
                self._file.write(struct.pack("<I", min(size, most)))
            self._file.seek(0, 2)
            self._file.flush()
        finally:
            if self._owned:
                self._file.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def write_wav(target: str | Path | IO[bytes], blocks: Iterator[Audio], sample_rate_hz: int) -> int:
    """Write mono blocks as 16-bit WAV, limited to [-1, 1]; return the number of samples.

    Args:
        target: A path or an open binary file that can seek.
        blocks: (T,) float32.
        sample_rate_hz: Samples per second.
    """
    total = 0
    with WavWriter(target, sample_rate_hz) as file:
        for block in blocks:
            file.write(block)
            total += len(block)
    return total


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: the package is there, its library is not
        raise MissingDependencyError("soundfile", "audio", "Reading sound") from None
    return soundfile


def _reason(error: Exception) -> str:
    return str(error).partition(": ")[2].rstrip(".") or type(error).__name__


def _disguise(path: str | Path) -> str:
    """Name a file that is not what its name says."""
    if str(path) == STDIO:
        return ""
    with Path(path).open("rb") as file:
        head = file.read(12)
    if not head:
        return " It is empty."
    if head.startswith(_MP3):
        return " It is an MP3 stream."
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return " Its WAV header is damaged."
    return ""
