"""Packets of codes for networks that lose, repeat and reorder them.

One packet holds the codes of a few frames, and again those of the packets before it
(`redundancy`): at these rates the headers of UDP cost more than the second copy, and a single loss
then costs nothing at all. All numbers little-endian::

    "PU" u8 version  u8 kind  u32 stream  8 B identity  u32 sequence  payload  seal

    codes (1)  u32 first frame  u8 groups, then per group, newest first: u16 frames, packed codes
    voice (2)  float32 x width, sent now and then by codecs that have a voice
    end   (3)  u32 frames  u64 samples

The seal is the CRC-32 of what stands before it or, with a key, the first 80 bits of its HMAC-SHA256
(RFC 2104; as many as SRTP sends, RFC 3711): nobody without the key ends, starves or feeds a
receiver. `identity` is the beginning of the codec's hash: codes of other weights are refused, not
decoded. Sequence numbers count packets of codes; the first frame is that of the newest group.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from prunus.runtime.audio.pcodec import pack, payload_size, unpack
from prunus.runtime.errors import SourceError, TensorError, UsageError
from prunus.runtime.protocols import Stream
from prunus.runtime.tasks.codec.card import CodeStream
from prunus.runtime.tasks.codec.codec import CodeBlocks, CodecFormat, Codes

MAGIC, VERSION = b"PU", 1
CODES, VOICE, END = 1, 2, 3
MOST_BYTES = 1200  # what passes through any path in one piece
_HEAD = struct.Struct("<2sBBI8sI")
_CRC, _FIRST, _FRAMES, _LAST = (struct.Struct(f"<{f}") for f in ("I", "IB", "H", "IQ"))
_TAG_BYTES = 10
_MASK = 0xFFFFFFFF
VOICE_EVERY = 10  # packets of codes between two of the voice
BEGINNING = 8  # packets: whoever hears none of the first ones has joined late
FOREIGN = 8  # packets of another codec, and none of ours: the sender is mistaken, not a stranger
MOST_MISSING = 500  # packets or frames: a longer gap is not filled, the stream goes on behind it


@dataclass(frozen=True, slots=True)
class Group:
    """Codes of successive frames.

    Attributes:
        first: Number of the first frame.
        frames: How many.
        codes: Stream name -> int64 (codebooks, codes); None where nothing came through.
    """

    first: int
    frames: int
    codes: Codes | None


class Packetizer(Stream[Codes, list[bytes]]):
    """Cut a stream of codes into packets.

    Args:
        codec: Format of the codec.
        frames: Frames per packet; rounded up to whole strides of the codec.
        redundancy: How many earlier groups each packet repeats.
        stream: Number of the stream: packets of another sender are told apart.
        voice: Voice vector of codecs that have one.
        key: Secret of both ends, None for a mere checksum.

    Raises:
        UsageError: a packet would not pass through networks in one piece.
    """

    def __init__(
        self,
        codec: CodecFormat,
        *,
        frames: int,
        redundancy: int = 0,
        stream: int = 0,
        voice: npt.NDArray[np.float32] | None = None,
        key: bytes | None = None,
    ) -> None:
        if frames < 1 or redundancy < 0:
            raise UsageError(
                f"Got {frames} frames per packet and redundancy {redundancy}; expected 1 or more, "
                "and 0 or more."
            )
        self.codec, self.sample_rate_hz = codec, codec.sample_rate_hz
        self.frames = -(-frames // codec.stride) * codec.stride
        size = _HEAD.size + _FIRST.size + len(_seal(b"", key))
        size += (1 + redundancy) * (_FRAMES.size + payload_size(codec.streams, self.frames))
        if size > MOST_BYTES:
            raise UsageError(
                f"A packet would take {size} bytes; expected at most {MOST_BYTES}.",
                "Use fewer --packet-frames or less --redundancy.",
            )
        self._stream, self._voice, self._key = stream & _MASK, voice, key
        self._before: deque[bytes] = deque(maxlen=redundancy)
        self._begin()

    def _begin(self) -> None:
        self._held = CodeBlocks(self.codec.streams)
        self._before.clear()
        self._sequence = self._first = 0

    def reset(self) -> None:
        """See `Stream`; it gets the next number, so that receivers tell it from the one before."""
        self._stream = (self._stream + 1) & _MASK
        self._begin()

    @property
    def latency(self) -> int:
        """Samples of a packet."""
        return self.frames * self.codec.hop

    def push(self, codes: Codes) -> list[bytes]:
        """Take new codes of every stream; return the packets that are full by now."""
        self._held.push(codes)
        packets = []
        while self._held.frames >= self.frames:
            packets += self._packet(self.frames)
        return packets

    def flush(self, samples: int | None = None) -> list[bytes]:
        """Return the rest and the end, the latter three times: nothing else would repeat it.

        Args:
            samples: Length of the sound; None: whole frames.
        """
        packets = self._packet(self._held.frames) if self._held.frames else []
        samples = self._first * self.codec.hop if samples is None else samples
        end = self._sealed(END, _LAST.pack(self._first & _MASK, samples))
        return [*packets, end, end, end]

    def _packet(self, frames: int) -> list[bytes]:
        group = _FRAMES.pack(frames) + pack(self._held.cut(frames), self.codec.streams)
        groups = [group, *reversed(self._before)]
        body = _FIRST.pack(self._first & _MASK, len(groups)) + b"".join(groups)
        packets = [self._sealed(CODES, body)]
        if self._voice is not None and self._sequence % VOICE_EVERY == 0:
            packets.insert(0, self._sealed(VOICE, self._voice.astype("<f4").tobytes()))
        self._before.append(group)
        self._sequence, self._first = self._sequence + 1, self._first + frames
        return packets

    def _sealed(self, kind: int, body: bytes) -> bytes:
        identity = bytes.fromhex(self.codec.identity)[:8]
        head = _HEAD.pack(MAGIC, VERSION, kind, self._stream, identity, self._sequence & _MASK)
        return head + body + _seal(head + body, self._key)


@dataclass(slots=True)
class Reception:
    """What a receiver has seen.

    Attributes:
        received: Packets of codes that were used or whose copies were.
        lost: Packets of codes that never came.
        late: That came after their turn.
        doubled: That came more than once.
        reordered: That came after a younger one, in time.
        refused: That were damaged or none of ours.
        recovered: Frames that only a later packet's copy brought.
        concealed: Frames that nothing brought.
        bytes: Of all packets, without the headers of UDP.
    """

    received: int = 0
    lost: int = 0
    late: int = 0
    doubled: int = 0
    reordered: int = 0
    refused: int = 0
    recovered: int = 0
    concealed: int = 0
    bytes: int = 0

    @property
    def loss_percent(self) -> float:
        """Share of packets that never came, or came too late."""
        total = self.received + self.lost
        return 100.0 * self.lost / total if total else 0.0


@dataclass(slots=True)
class _Arrived:
    first: int
    groups: list[tuple[int, Codes]] = field(default_factory=list)  # newest first


class Receiver(Stream[bytes, list[Group]]):
    """Put packets into order, and say which frames are missing.

    Whatever arrives is judged before it counts: damaged, unkeyed, foreign and impossible packets
    change nothing, a stream begins with codes or a voice, never with an end, and a leap is believed
    once a second packet confirms it (RFC 3550, appendix A.1).

    Order is judged by sequence numbers alone, so that the same packets always give the same result:
    a packet is given up once one that is more than `depth` younger has come.

    Attributes:
        seen: Statistics.
        voice: Voice vector, None until it came.
        ended: Whether the end came.
        samples: Length of the sound, None until the end came.
        begin: First frame that was given: not 0 for whoever joins late.
        earlier: Frames of streams before this one, whose senders were started again.
        accepted: Packets that brought something new.

    Args:
        codec: Format of the codec.
        depth: Packets to wait for a late one: 0 plays at once, each one adds a packet of delay.
        key: Secret of both ends, None for a mere checksum.
    """

    def __init__(self, codec: CodecFormat, depth: int = 2, key: bytes | None = None) -> None:
        if depth < 0:
            raise UsageError(f"Got a jitter buffer of {depth} packets; expected 0 or more.")
        self.codec, self.depth, self.sample_rate_hz = codec, depth, codec.sample_rate_hz
        self._key = key
        self._identity = bytes.fromhex(codec.identity)[:8]
        self.reset()

    def reset(self) -> None:
        """See `Stream`."""
        self.seen = Reception()
        self.voice: npt.NDArray[np.float32] | None = None
        self.samples: int | None = None
        self.earlier = self.accepted = 0
        self.ended = False
        self._total: int | None = None
        self._foreign = self._packet = 0
        self._listen_to(None)

    @property
    def latency(self) -> int:
        """Samples of the packets that a late one is waited for; 0 until one came."""
        return self.depth * self._packet * self.codec.hop

    def _listen_to(self, stream: int | None) -> None:
        self._stream = stream
        self.begin = 0
        self._waiting: dict[int, _Arrived] = {}
        self._next: int | None = None  # sequence number whose turn it is
        self._leap: tuple[int, _Arrived] | None = None  # too far ahead to be believed alone
        self._newest = -1
        self._frame = 0  # first frame that has not been given

    def push(self, packet: bytes, *, quiet: bool = False) -> list[Group]:
        """Take one packet; return the groups whose turn has come.

        Args:
            packet: As it came.
            quiet: Nothing new has come for a while: another stream may take over.

        Raises:
            SourceError: the sender uses another codec; nothing it sends can be decoded.
        """
        opened = self._open(packet)
        if opened is None:
            self.seen.refused += 1
            return []
        kind, stream, sequence, body = opened
        arrived = self._read(body) if kind == CODES else None
        impossible = arrived is None if kind == CODES else not self._fits(kind, body)
        begins = stream != self._stream
        if impossible or (begins and (kind == END or not (quiet or self._stream is None))):
            self.seen.refused += 1
            return []
        given = []
        if begins:
            given = self.flush()
            self.earlier += self._frame - self.begin
            self._listen_to(stream)
        self.seen.bytes += len(packet)
        if kind == VOICE:
            self.voice = np.frombuffer(body, "<f4").astype(np.float32)
        elif arrived is None:
            self._total, self.samples = _LAST.unpack(body)
            self.ended = True
        else:
            self.accepted += self._store(sequence, arrived)
            given += self._due(self._newest - self.depth - 1)
        if given and not self._packet:
            self._packet = given[0].frames
        return given

    def flush(self) -> list[Group]:
        """Return what still waits, gaps included: the sender has ended or fallen silent."""
        groups = list(self._due(self._newest))
        if self._total is not None and self._frame < self._total:
            groups += self._gap(self._total)
        return groups

    def _fits(self, kind: int, body: bytes) -> bool:
        """Tell whether a voice is one of this codec, or an end is possible."""
        if kind == VOICE:
            whole = len(body) == 4 * self.codec.voice > 0
            return whole and bool(np.isfinite(np.frombuffer(body, "<f4")).all())
        if kind != END or len(body) != _LAST.size:
            return False
        frames, samples = _LAST.unpack(body)
        return bool(frames >= self._frame and samples <= frames * self.codec.hop)

    def _store(self, sequence: int, arrived: _Arrived) -> bool:
        """Keep a packet until its turn; tell whether it is new."""
        if self._next is None:
            # Whoever joins late begins here; a little late is loss at the beginning.
            joined = sequence > max(BEGINNING, self.depth)
            self._next, self._frame = (sequence, arrived.first) if joined else (0, 0)
            self.begin = self._frame
        if sequence - self._next > MOST_MISSING:
            before, self._leap = self._leap, (sequence, arrived)
            if before is None or not 0 < sequence - before[0] <= BEGINNING:
                return False
            self.seen.lost += before[0] - self._next - len(self._waiting)
            self._next, self._frame = before[0], before[1].first
            self._waiting = {before[0]: before[1]}
        self._leap = None
        if sequence < self._next:
            self.seen.late += 1
            return False
        if sequence in self._waiting:
            self.seen.doubled += 1
            return False
        if sequence < self._newest:
            self.seen.reordered += 1
        self._newest = max(self._newest, sequence)
        self._waiting[sequence] = arrived
        return True

    def _due(self, until: int) -> Iterator[Group]:
        """Yield everything up to this sequence number, and what follows it without a gap."""
        while self._next is not None and (self._next <= until or self._next in self._waiting):
            arrived = self._waiting.pop(self._next, None)
            self._next += 1
            if arrived is None:
                self.seen.lost += 1
                continue
            self.seen.received += 1
            yield from self._given(arrived)

    def _given(self, arrived: _Arrived) -> Iterator[Group]:
        """Yield the frames of one packet that have not come yet, older copies first."""
        begin, spans = arrived.first + arrived.groups[0][0], []
        for frames, codes in arrived.groups:
            begin -= frames
            spans.append((begin, frames, codes))
        for first, frames, codes in reversed(spans):
            if first < self._frame:
                continue
            if first > self._frame:
                yield from self._gap(first)
            if first != arrived.first:
                self.seen.recovered += frames
            self._frame = first + frames
            yield Group(first, frames, codes)

    def _gap(self, until: int) -> list[Group]:
        missing = Group(self._frame, until - self._frame, None)
        self._frame = until
        if missing.frames > MOST_MISSING:
            return []
        self.seen.concealed += missing.frames
        return [missing]

    def _open(self, packet: bytes) -> tuple[int, int, int, bytes] | None:
        """Return kind, stream, sequence number and body of a packet for us, else None."""
        size = len(_seal(b"", self._key))
        if len(packet) < _HEAD.size + size:
            return None
        content, seal = packet[:-size], packet[-size:]
        if not hmac.compare_digest(_seal(content, self._key), seal):
            return None
        magic, version, kind, stream, identity, sequence = _HEAD.unpack_from(content)
        if (magic, version) != (MAGIC, VERSION):
            return None
        if identity != self._identity:
            self._foreign += 1
            if self._foreign >= FOREIGN and not self.accepted:
                raise SourceError(
                    f"The sender encodes with the codec {identity.hex()[:12]}..., and "
                    f"{self.codec.name} is {self.codec.identity[:12]}...: it would play noise.",
                    "Give both ends the same --model.",
                )
            return None
        return kind, stream, sequence, content[_HEAD.size :]

    def _read(self, body: bytes) -> _Arrived | None:
        """Return the groups of a packet of codes; None when its sizes or codes are impossible."""
        if len(body) < _FIRST.size:
            return None
        first, count = _FIRST.unpack_from(body)
        at, arrived = _FIRST.size, _Arrived(first)
        streams: tuple[CodeStream, ...] = self.codec.streams
        for _ in range(count):
            if at + _FRAMES.size > len(body):
                return None
            (frames,) = _FRAMES.unpack_from(body, at)
            at += _FRAMES.size
            size = payload_size(streams, frames)
            if not frames or frames % self.codec.stride or at + size > len(body):
                return None
            try:
                arrived.groups.append((frames, unpack(body[at : at + size], streams, frames)))
            except TensorError:
                return None
            at += size
        return arrived if arrived.groups and at == len(body) else None


def _seal(content: bytes, key: bytes | None) -> bytes:
    if key is None:
        return _CRC.pack(zlib.crc32(content))
    return hmac.new(key, content, hashlib.sha256).digest()[:_TAG_BYTES]
