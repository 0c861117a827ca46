"""Sound files, block by block: WAV, FLAC, Ogg and what else libsndfile reads; WAV is written.

Everything above this file sees mono float32 blocks. Reading needs the package ``soundfile``, which
is imported when a file is opened.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import MissingDependencyError, SourceError

Audio = npt.NDArray[np.float32]
BLOCK = 1 << 15  # samples per block: memory does not grow with the file
STDIO = "-"
_MP3 = (b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2")
_UNKNOWN = 0x7FFFF000  # from here on a WAV's size means that its writer did not know it


class SoundReader(AbstractContextManager["SoundReader"]):
    """An open sound file.

    Attributes:
        sample_rate_hz: Of the file.
        channels: Of the file; blocks are their mean.
        samples: Length per channel; of a pipe what its header says, or -1.
        piped: Whether it is standard input.
        live: False: it waits for whoever reads.

    Args:
        path: A file, or ``-`` for standard input (WAV or raw formats with a header).

    Raises:
        SourceError: there is no such file, or it holds no sound.
        MissingDependencyError: soundfile is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        library = _soundfile()
        self.piped = str(path) == STDIO
        self.title = "standard input" if self.piped else str(path)
        try:
            source: Any = str(path)
            if self.piped:
                source = sys.stdin.fileno()  # read as it comes: a pipe need not end
            elif not Path(path).is_file():
                raise SourceError(f"Sound file not found: {path}.", "Give a WAV or FLAC file.")
            self._file = library.SoundFile(source, closefd=not self.piped)
        except library.LibsndfileError as error:
            raise SourceError(
                f"{self.title} holds no sound that can be read: {_reason(error)}.{_disguise(path)}",
                "Give a WAV, FLAC or Ogg file.",
            ) from None
        self.sample_rate_hz = int(self._file.samplerate)
        self.channels = int(self._file.channels)
        self.samples = int(self._file.frames)
        self.format = str(self._file.format)
        self.live = False

    def blocks(self, size: int = BLOCK) -> Iterator[Audio]:
        """Yield mono float32 blocks of at most `size` samples until the end.

        Raises:
            SourceError: the file breaks off inside its sound in a way the library cannot read.
        """
        library = _soundfile()
        while True:
            try:
                block = self._file.read(size, dtype="float32", always_2d=True)
            except library.LibsndfileError as error:
                raise SourceError(
                    f"{self.title} is damaged: {_reason(error)}.", "Copy the file again."
                ) from None
            if not len(block):
                return
            yield block[:, 0] if self.channels == 1 else block.mean(axis=1, dtype=np.float32)

    @property
    def disguised(self) -> str:
        """Name of the true format where the file's ending says ``.wav`` wrongly, else empty."""
        wav = self.title.lower().endswith(".wav")
        return self.format if wav and self.format not in ("WAV", "WAVEX", "RF64", "W64") else ""

    @property
    def ends_early(self) -> str:
        """What a WAV file that was cut off promises and holds, empty for whole files and pipes."""
        if self.piped or self.format not in ("WAV", "WAVEX"):
            return ""
        promised, there = _data_bytes(Path(self.title))
        if not there < promised < _UNKNOWN:
            return ""
        seconds = self.samples / self.sample_rate_hz
        whole = f"{seconds * promised / there:.2f} s" if there else "sound"
        return f"its header promises {whole}, {seconds:.2f} s are there"

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._file.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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


def open_wav(target: str | Path | IO[bytes], sample_rate_hz: int) -> Any:
    """Open a mono 16-bit WAV file for writing: `write` takes (T,) float32 within [-1, 1].

    Raises:
        MissingDependencyError: soundfile is not installed.
    """
    place: Any = str(target) if isinstance(target, str | Path) else target
    return _soundfile().SoundFile(
        place, "w", sample_rate_hz, channels=1, format="WAV", subtype="PCM_16"
    )


def write_wav(target: str | Path | IO[bytes], blocks: Iterator[Audio], sample_rate_hz: int) -> int:
    """Write mono blocks as 16-bit WAV, limited to [-1, 1]; return the number of samples.

    Args:
        target: A path or an open binary file that can seek.
        blocks: (T,) float32.
        sample_rate_hz: Samples per second.
    """
    total = 0
    with open_wav(target, sample_rate_hz) as file:
        for block in blocks:
            file.write(np.clip(block, -1.0, 1.0))
            total += len(block)
    return total


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: the package is there, its library is not
        raise MissingDependencyError("soundfile", "audio", "Reading and writing sound") from None
    return soundfile


def _data_bytes(path: Path) -> tuple[int, int]:
    """Return the bytes of sound that a WAV's header promises, and those that follow it."""
    with path.open("rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"data":
                return size, path.stat().st_size - file.tell()
            file.seek(size + size % 2, 1)
    return 0, 0


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
