"""The file format ``.pcodec``: packed codes of a speech codec, in blocks that protect themselves.

All numbers little-endian. Header::

    "PCDC"  u8 version  u8 streams  u16 hop  u32 sample rate  u64 samples  u16 voice  32 B identity
    per stream: u8 codebooks, u8 stride, u16 size - 1
    voice x float32
    u32 CRC-32 of everything before

`samples` is all ones when the length was not known at first (a pipe); the end block has it then.
`identity` is the SHA-256 of codec and weights (`CodecFormat.identity`). Then blocks::

    u16 frames  payload  u32 CRC-32 of frames and payload

The payload is each stream's indices, codebook by codebook, as bits, highest first, filled up to a
whole byte at its end. A block of 0 frames ends the file; its payload is the u64 number of samples.
Nothing has to be sought: files pass through pipes. A reader stops at the first damaged block and
says so; what came before is whole.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

import numpy as np
import numpy.typing as npt

from prunus.runtime.audio.resample import HIGHEST_HZ, LOWEST_HZ
from prunus.runtime.errors import ArtifactError, SourceError, TensorError
from prunus.runtime.tasks.codec.card import CodeStream
from prunus.runtime.tasks.codec.codec import CodeBlocks, CodecFormat, Codes, check_codes

MAGIC = b"PCDC"
VERSION = 1
UNKNOWN = 2**64 - 1
BLOCK_FRAMES = 50  # a second or so: what one damaged block costs
_FIXED = struct.Struct("<4sBBHIQH32s")
_STREAM = struct.Struct("<BBH")
_HEAD, _CRC, _LENGTH = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
_MOST_FRAMES = 2**16 - 1
_PART = 1 << 20  # bytes asked for at a time: a header may lie about what follows


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """What the beginning of a file says.

    Attributes:
        sample_rate_hz: Samples per second.
        hop: Samples per frame.
        streams: Codebooks, size and stride of each; the file has no names.
        identity: Hash of codec and weights, hexadecimal.
        samples: Length, None when it stands at the end only.
        voice: float32 (width,), None without one.
    """

    sample_rate_hz: int
    hop: int
    streams: tuple[CodeStream, ...]
    identity: str
    samples: int | None
    voice: npt.NDArray[np.float32] | None

    def require(self, codec: CodecFormat) -> None:
        """Refuse a codec that did not make this file.

        Raises:
            ArtifactError: it has other weights or another layout.
        """
        ours = (self.sample_rate_hz, self.hop, 0 if self.voice is None else len(self.voice),
                *((s.codebooks, s.size, s.stride) for s in self.streams))  # fmt: skip
        theirs = (codec.sample_rate_hz, codec.hop, codec.voice,
                  *((s.codebooks, s.size, s.stride) for s in codec.streams))  # fmt: skip
        if self.identity == codec.identity and ours != theirs:
            raise ArtifactError(
                f"The file's header describes {len(self.streams)} code streams at "
                f"{self.sample_rate_hz} Hz in another layout than {codec.name}, whose hash it has.",
                "The file is damaged or forged: encode it again.",
            )
        if self.identity != codec.identity:
            raise ArtifactError(
                f"The file was encoded by the codec {self.identity[:12]}..., and {codec.name} is "
                f"{codec.identity[:12]}...: other weights would decode noise.",
                "Decode it with the model files that encoded it.",
            )


class PcodecWriter:
    """Write a file or a pipe, block by block; `finish` must be called for it to be whole.

    Args:
        file: Open for binary writing; never sought.
        codec: Format of the codec.
        samples: Length, when it is known.
        voice: Voice vector of codecs that have one.
        block_frames: Frames per block.
    """

    def __init__(
        self,
        file: IO[bytes],
        codec: CodecFormat,
        *,
        samples: int | None = None,
        voice: npt.NDArray[np.float32] | None = None,
        block_frames: int = BLOCK_FRAMES,
    ) -> None:
        if codec.voice != (0 if voice is None else len(voice)):
            raise TensorError(
                f"Got {'no voice' if voice is None else f'a voice of {len(voice)}'}; "
                f"{codec.name} has one of {codec.voice}."
            )
        self._file, self._codec = file, codec
        self._frames = max(1, min(block_frames, _MOST_FRAMES) // codec.stride) * codec.stride
        self._held = CodeBlocks(codec.streams)
        self.bytes = 0
        self._write(_header(codec, samples, voice))

    def add(self, codes: Codes) -> None:
        """Take new codes of every stream."""
        self._held.push(codes)
        while self._held.frames >= self._frames:
            self._block(self._frames)

    def finish(self, samples: int) -> None:
        """Write the codes that are left, and the end with the true length."""
        while self._held.frames:
            self._block(min(self._held.frames, self._frames))
        body = _HEAD.pack(0) + _LENGTH.pack(samples)
        self._write(body + _CRC.pack(zlib.crc32(body)))

    def _block(self, frames: int) -> None:
        body = _HEAD.pack(frames) + pack(self._held.cut(frames), self._codec.streams)
        self._write(body + _CRC.pack(zlib.crc32(body)))

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self.bytes += len(data)


class PcodecReader:
    """Read a file or a pipe, block by block.

    Attributes:
        header: What the beginning says.
        samples: Length, None until the end when the header does not say.
        damage: Why reading stopped early, empty when it did not.
        frames: Frames read so far.

    Args:
        file: Open for binary reading; never sought.

    Raises:
        SourceError: this is no such file, or its beginning is damaged.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = _Tally(file)
        self.header = _read_header(self._file)
        self.samples = self.header.samples
        self.damage = ""
        self.frames = 0

    @property
    def bytes(self) -> int:
        """Bytes read so far, header and checksums included."""
        return self._file.bytes

    def blocks(self, names: tuple[str, ...] | None = None) -> Iterator[Codes]:
        """Yield codes under these stream names until the end or the first damage.

        Raises:
            ArtifactError: the file has another number of streams.
        """
        streams = self.header.streams
        if names is not None and len(names) != len(streams):
            raise ArtifactError(
                f"The file has {len(streams)} code streams; expected {len(names)}: "
                f"{', '.join(names)}.",
                "Decode it with the model files that encoded it.",
            )
        if names is not None:
            streams = tuple(
                CodeStream(n, s.codebooks, s.size, s.stride)
                for n, s in zip(names, streams, strict=True)
            )
        while not self.damage:
            head = _exactly(self._file, _HEAD.size)
            if len(head) < _HEAD.size:
                self._stop("it ends without its end mark: it is truncated")
                return
            (frames,) = _HEAD.unpack(head)
            size = payload_size(streams, frames) if frames else _LENGTH.size
            body = _exactly(self._file, size + _CRC.size)
            if len(body) < size + _CRC.size:
                self._stop("it ends inside a block: it is truncated")
                return
            payload, (crc,) = body[:size], _CRC.unpack(body[size:])
            if zlib.crc32(head + payload) != crc:
                self._stop("a block does not match its checksum: it is damaged")
                return
            if not frames:
                (self.samples,) = _LENGTH.unpack(payload)
                return
            try:
                codes = unpack(payload, streams, frames)
            except TensorError as error:
                self._stop(f"a block holds impossible codes: {error.message.rstrip('.')}")
                return
            self.frames += frames
            yield codes

    def _stop(self, reason: str) -> None:
        seconds = self.frames * self.header.hop / self.header.sample_rate_hz
        self.damage = f"{reason}, after {self.frames} frames ({seconds:.2f} s)"
        self.samples = None


def pack(codes: Codes, streams: tuple[CodeStream, ...]) -> bytes:
    """Return indices as bits: stream by stream, codebook by codebook, highest bit first."""
    parts = []
    for stream in streams:
        shifts = np.arange(stream.bits - 1, -1, -1)
        parts.append(((codes[stream.name][..., None] >> shifts) & 1).astype(np.uint8).reshape(-1))
    return np.packbits(np.concatenate(parts)).tobytes()


def unpack(
    payload: bytes, streams: tuple[CodeStream, ...], frames: int
) -> dict[str, npt.NDArray[np.int64]]:
    """Return the indices of `pack`; raises TensorError when one lies outside its codebook."""
    bits = np.unpackbits(np.frombuffer(payload, np.uint8))
    found, at = {}, 0
    for stream in streams:
        count = stream.codebooks * (frames // stream.stride)
        part = bits[at : at + count * stream.bits].reshape(count, stream.bits).astype(np.int64)
        at += count * stream.bits
        values = part @ (1 << np.arange(stream.bits - 1, -1, -1, dtype=np.int64))
        found[stream.name] = values.reshape(stream.codebooks, -1)
        check_codes(found, stream)
    return found


def payload_size(streams: tuple[CodeStream, ...], frames: int) -> int:
    """Return the bytes of a block's payload."""
    bits = sum(s.codebooks * (frames // s.stride) * s.bits for s in streams)
    return -(-bits // 8)


def _header(
    codec: CodecFormat, samples: int | None, voice: npt.NDArray[np.float32] | None
) -> bytes:
    head = _FIXED.pack(
        MAGIC,
        VERSION,
        len(codec.streams),
        codec.hop,
        codec.sample_rate_hz,
        UNKNOWN if samples is None else samples,
        codec.voice,
        bytes.fromhex(codec.identity),
    )
    for stream in codec.streams:
        head += _STREAM.pack(stream.codebooks, stream.stride, stream.size - 1)
    if voice is not None:
        head += voice.astype("<f4").tobytes()
    return head + _CRC.pack(zlib.crc32(head))


class _Tally:
    """Counts what is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.bytes = file, 0

    def read(self, count: int) -> bytes:
        part = self._file.read(count)
        self.bytes += len(part)
        return part


def _read_header(file: _Tally) -> Header:
    head = _exactly(file, _FIXED.size)
    if head[:4] != MAGIC:
        raise SourceError(
            f"This is no .pcodec file: it begins with {head[:4]!r}, expected {MAGIC!r}.",
            "Make one with: prunus encode in.wav out.pcodec",
        )
    if len(head) < _FIXED.size:
        raise SourceError("The .pcodec file ends inside its header.", "Copy it again.")
    _, version, count, hop, rate, samples, width, identity = _FIXED.unpack(head)
    if version != VERSION:
        raise SourceError(
            f"The .pcodec file has version {version}; this prunus reads {VERSION}.",
            "Upgrade prunus.",
        )
    rest = _exactly(file, count * _STREAM.size + 4 * width + _CRC.size)
    body, crc = rest[: -_CRC.size], rest[-_CRC.size :]
    whole = len(rest) == count * _STREAM.size + 4 * width + _CRC.size
    if not whole or zlib.crc32(head + body) != _CRC.unpack(crc)[0]:
        raise SourceError("The header of the .pcodec file is damaged.", "Copy the file again.")
    table = body[: count * _STREAM.size]
    try:
        streams = tuple(
            CodeStream(str(k), books, last + 1, stride)
            for k, (books, stride, last) in enumerate(_STREAM.iter_unpack(table))
        )
    except ArtifactError as error:
        raise SourceError(f"The .pcodec header is impossible: {error.message}") from None
    if not streams or not hop or not LOWEST_HZ <= rate <= HIGHEST_HZ:
        raise SourceError("The .pcodec header describes no sound.", "Copy the file again.")
    voice = np.frombuffer(body[len(table) :], "<f4").astype(np.float32) if width else None
    length = None if samples == UNKNOWN else int(samples)
    return Header(int(rate), int(hop), streams, identity.hex(), length, voice)


def _exactly(file: _Tally, count: int) -> bytes:
    """Read `count` bytes, fewer only at the end: pipes give what they have."""
    parts, missing = [], count
    while missing:
        part = file.read(min(missing, _PART))
        if not part:
            break
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)
