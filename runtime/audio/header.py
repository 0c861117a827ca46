"""What the header of a sound file promises, what is there, and pipes that cannot be sought.

Recorders write a file's length at its end. One that was killed, or a copy that broke off, leaves a
header that says more than there is, or nothing at all. libsndfile hides the first and believes the
second; here both are found.
"""

from __future__ import annotations

import math
import os
import re
import struct
import tempfile
import threading
from pathlib import Path
from typing import IO, BinaryIO

UNKNOWN = 0x7FFFF000  # from here on a WAV's size means that its writer did not know it
_PART = 1 << 16
_STREAMED = (b"RIFF", b"RIFX", b"RF64", b"FORM", b".snd", b"riff")  # libsndfile reads without seeks
_MOST_HEADER = 1 << 20  # bytes before the sound of a WAV: cover pictures and texts


def promised_bytes(path: Path) -> tuple[int, int]:
    """Return the bytes that a file's header promises, and those that are there.

    WAV (RIFX too), RF64, W64, AIFF, AU, CAF and NIST SPHERE say it; others, and writers that did
    not know it, give (0, 0).
    """
    with path.open("rb") as file:
        head = file.read(32)
        there = path.stat().st_size
        kind, promised = head[:4], 0
        if len(head) < 32:
            return 0, 0
        if kind in (b"RIFF", b"RIFX"):
            data = _data_chunk(file, "<" if kind == b"RIFF" else ">")
            promised, there = (data[1], there - data[0]) if data else (0, there)
            promised = 0 if promised >= UNKNOWN else promised
        elif kind == b"caff":
            data = _chunk(file, b"data", 8, ">4sq", 1)
            promised, there = (data[1], there - data[0]) if data and data[1] >= 0 else (0, there)
        elif kind == b"NIST":
            begin, promised = _nist_sound(file)
            there -= begin
        elif kind == b"RF64":
            promised = int.from_bytes(head[20:28], "little") + 8
        elif kind == b"riff":  # the only one whose size counts its own name and itself
            promised = int.from_bytes(head[16:24], "little")
        elif kind == b"FORM":
            name = b"SSND" if head[8:11] == b"AIF" else b"BODY"
            # Up to the sound alone: names and notes may follow it, and miss nobody.
            begin, size = _chunk(file, name, 12, ">4sI", 2) or (8, int.from_bytes(head[4:8], "big"))
            promised = begin + size
        elif kind == b".snd":
            begin, size = struct.unpack(">II", head[4:12])
            promised = 0 if size >= UNKNOWN else begin + size
    return (promised, there) if promised < 1 << 62 else (0, 0)


def sizeless(path: Path) -> bool:
    """Tell a WAV whose recorder died before it wrote any size, though sound follows its header."""
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            return False
        data = _data_chunk(file)
        if data is None or data[1]:
            return False
        # A file that knows its own length and has an empty chunk of sound holds none.
        said = int.from_bytes(head[4:8], "little") + 8
        return said <= data[0] < path.stat().st_size


def ogg_lacks_end(path: Path) -> bool:
    """Tell an Ogg file whose last page is cut, or is not marked as the last one."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 2 * _PART))  # a page has at most 65,307 bytes
        tail = file.read()
    at = tail.rfind(b"OggS")
    page = tail[at:]
    if at < 0 or len(page) < 27 or not page[5] & 4:
        return True
    segments = page[27 : 27 + page[26]]
    return len(segments) < page[26] or len(page) < 27 + page[26] + sum(segments)


def mp3_tells_length(path: Path) -> bool:
    """Tell an MP3 that knows its length; of others it is guessed from the first frame."""
    with path.open("rb") as file:
        head = file.read(10)
        tags = 0
        if head[:3] == b"ID3" and len(head) == 10:
            for byte in head[6:]:  # seven bits each
                tags = tags << 7 | byte & 0x7F
            tags += 10
        file.seek(tags)
        frame = file.read(512)
    return any(mark in frame for mark in (b"Xing", b"Info", b"VBRI"))


class MendedWav:
    """A WAV without sizes, read as if its header had those of the file.

    Args:
        path: For which `sizeless` holds.
    """

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        self._file.seek(12)
        begin = (_data_chunk(self._file) or (0, 0))[0]
        size = path.stat().st_size
        most = 0xFFFFFFFF
        self._mended = ((4, struct.pack("<I", min(size - 8, most))),
                        (begin - 4, struct.pack("<I", min(size - begin, most))))  # fmt: skip
        self._file.seek(0)

    def read(self, count: int = -1) -> bytes:
        """Return the next bytes."""
        at = self._file.tell()
        found = bytearray(self._file.read(count))
        for place, value in self._mended:
            for k, byte in enumerate(value):
                if at <= place + k < at + len(found):
                    found[place + k - at] = byte
        return bytes(found)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move as files do."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell()

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._file.close()


def open_pipe(source: int) -> int | IO[bytes]:
    """Make a pipe readable for libsndfile.

    Args:
        source: Descriptor of the pipe.

    Returns:
        A descriptor that gives the same bytes as they come, for formats that need no seeking, WAV
        with its size mended; for others, FLAC and Ogg among them, all of it as an unnamed file.
    """
    head = _exactly(source, 12)
    if head[:4] not in _STREAMED:
        spooled = tempfile.TemporaryFile()
        spooled.write(head)
        while part := os.read(source, _PART):
            spooled.write(part)
        spooled.seek(0)
        return spooled
    if head[:4] == b"RIFF":
        head += _mended_head(source)
    there, ours = os.pipe()
    threading.Thread(target=_pump, args=(source, ours, head), name="pipe", daemon=True).start()
    return there


def _pump(source: int, target: int, head: bytes) -> None:
    with os.fdopen(target, "wb", buffering=0) as file:
        part = head
        try:
            while part:
                rest = memoryview(part)
                while rest:
                    rest = rest[file.write(rest) :]
                part = os.read(source, _PART)
        except OSError:  # nobody reads any more
            return


def _mended_head(source: int) -> bytes:
    """Read up to the first sample; a size of 0 becomes the one that means unknown."""
    head = b""
    while len(head) < _MOST_HEADER:
        chunk = _exactly(source, 8)
        name, size = chunk[:4], int.from_bytes(chunk[4:], "little")
        if name == b"data" and not size:
            return head + name + b"\xff" * 4
        head += chunk
        if len(chunk) < 8 or name == b"data" or size > _MOST_HEADER:
            break
        head += _exactly(source, size + size % 2)
    return head


def _exactly(source: int, count: int) -> bytes:
    found = b""
    while len(found) < count and (part := os.read(source, count - len(found))):
        found += part
    return found


def _data_chunk(file: IO[bytes], order: str = "<") -> tuple[int, int] | None:
    """Return where the sound of a WAV begins and its size as the header says it."""
    return _chunk(file, b"data", 12, f"{order}4sI", 2)


def _chunk(
    file: IO[bytes], wanted: bytes, begin: int, form: str, even: int
) -> tuple[int, int] | None:
    """Return where the chunk `wanted` begins, and its size; chunks are filled up to `even`."""
    end = file.seek(0, os.SEEK_END)
    file.seek(begin)
    while len(head := file.read(struct.calcsize(form))) == struct.calcsize(form):
        name, size = struct.unpack(form, head)
        if name == wanted:
            return file.tell(), size
        if not 0 <= size < end:  # of a damaged file: not all numbers are places
            break
        file.seek(size + size % even, 1)
    return None


def _nist_sound(file: IO[bytes]) -> tuple[int, int]:
    """Return where the sound of a NIST SPHERE file begins and its size, 0 where it is not told."""
    file.seek(0)
    text = file.read(1024).decode("ascii", "replace")
    if re.search(r"sample_coding -s\d+ \S*(?:shorten|wavpack)", text):
        return 0, 0
    found = [
        # libsndfile writes the bytes of a u-law sample as text.
        re.search(rf"{name} -(?:i|s\d+) (\d+)", text)
        for name in ("sample_count", "channel_count", "sample_n_bytes")
    ]
    begin = re.match(r"NIST_1A\n\s*(\d+)\n", text)
    if begin is None or None in found:
        return 0, 0
    return int(begin[1]), math.prod(int(one[1]) for one in found if one)
