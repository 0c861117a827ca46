"""The protobuf wire format, read in place: no package, no copy of the weights.

Two rules are enough (https://protobuf.dev/programming-guides/encoding): a field is a varint with
number and wire type, then a varint, or a varint length and so many bytes. Fixed sizes of 4 and 8
bytes occur in attributes and are passed over.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_FIXED = {1: 8, 5: 4}  # wire type -> bytes


class WireError(ValueError):
    """These bytes are no message; the text says what was met, and where."""


class CutOffError(WireError):
    """The bytes end inside a field."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message, or the bytes of a text, somewhere in a file.

    Attributes:
        data: The whole file.
        start: First byte.
        end: One past the last byte.
    """

    data: bytes | mmap.mmap
    start: int
    end: int

    def fields(self) -> Iterator[tuple[int, int | Message]]:
        """Yield number and value of each field: a whole number, or bytes that may be a message.

        Raises:
            CutOffError: the message ends inside a field.
            WireError: a wire type that no ONNX file has.
        """
        at = self.start
        while at < self.end:
            key, after = self._varint(at)
            number, wire = key >> 3, key & 7
            if wire == 0:
                value, at = self._varint(after)
                yield number, value
            elif wire == 2:
                length, begin = self._varint(after)
                at = self._within(begin + length)
                yield number, Message(self.data, begin, at)
            elif wire in _FIXED:
                at = self._within(after + _FIXED[wire])
            else:
                raise WireError(f"wire type {wire} at byte {at}")

    def numbers(self) -> Iterator[int]:
        """Yield the varints that are packed into these bytes; raises WireError as `fields`."""
        at = self.start
        while at < self.end:
            number, at = self._varint(at)
            yield number

    def __len__(self) -> int:
        """Return the length in bytes."""
        return self.end - self.start

    def raw(self) -> bytes:
        """Return the bytes."""
        return bytes(self.data[self.start : self.end])

    def text(self) -> str:
        """Return the bytes as text; raises WireError when they are not UTF-8."""
        try:
            return self.raw().decode()
        except UnicodeDecodeError as error:
            raise WireError(str(error)) from None

    def _within(self, at: int) -> int:
        if at > self.end:
            raise CutOffError(f"a field ends {at - self.end} bytes behind the last one")
        return at

    def _varint(self, at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = self.data[self._within(at + 1) - 1]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
            shift += 7
            if shift > 63:
                raise WireError("a number longer than 64 bits")


def signed(value: int) -> int:
    """Return a varint as the 64-bit number that an int64 field means."""
    return value - (1 << 64) if value >= 1 << 63 else value


@contextmanager
def opened(path: Path) -> Iterator[Message]:
    """Map a file into memory as one message; an empty file is one without fields.

    Raises:
        OSError: it cannot be read.
    """
    if path.stat().st_size == 0:
        yield Message(b"", 0, 0)
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield Message(data, 0, len(data))
