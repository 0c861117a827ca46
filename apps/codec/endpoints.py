"""Ends for codes: files and the network. Their rows are in the registries of sources and sinks."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from prunus.apps.io.rows import by_suffix, named
from prunus.apps.io.sinks import registry as sinks
from prunus.apps.io.sound.udp import UdpReceiver, UdpSender, packet_key, parse_address
from prunus.apps.io.sources import registry as sources
from prunus.apps.live.loop import check_outputs
from prunus.runtime.audio.files import STDIO
from prunus.runtime.audio.packets import Group, Packetizer, Receiver
from prunus.runtime.audio.pcodec import PcodecReader, PcodecWriter
from prunus.runtime.card.artifact import atomic_path
from prunus.runtime.errors import SourceError, UsageError
from prunus.runtime.tasks.codec.codec import CodecFormat

if TYPE_CHECKING:
    from prunus.apps.codec.options import CodecOptions

Voice = npt.NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class CodesFormat:
    """What an end for codes must know.

    Attributes:
        codec: What both ends agree on.
        options: Of the run.
        packet_frames: Frames of a packet.
        pace: See `UdpSender`.
    """

    codec: CodecFormat
    options: CodecOptions
    packet_frames: int = 1
    pace: float = 0.0


class CodeSource(Protocol):
    """Gives codes and gaps, in order.

    Attributes:
        title: For messages.
    """

    title: str

    @property
    def live(self) -> bool:
        """Whether it does not wait for whoever reads."""
        return False

    @property
    def latency(self) -> int:
        """Samples by which it lags behind its sender."""
        return 0

    @property
    def voice(self) -> Voice:
        """Voice vector, None before it came and for codecs without one."""

    @property
    def samples(self) -> int | None:
        """Length of the sound, None while it is unknown."""

    @property
    def damage(self) -> str:
        """Why it ended early, empty when it did not."""

    def groups(self) -> Iterator[Group]:
        """Yield codes and gaps until the end."""

    def statistics(self, seconds: float) -> dict[str, float]:
        """Return what a network did."""
        return {}

    def close(self) -> None:
        """Release it; safe to call twice."""


class CodeSink(Protocol):
    """Takes codes in order."""

    def begin(self, voice: Voice) -> None:
        """Tell the voice, before the first codes; later calls change nothing."""

    def write(self, group: Group) -> None:
        """Take codes, or a gap."""

    def finish(self, samples: int) -> None:
        """End the codes; `samples` is the length of the sound."""

    def statistics(self, seconds: float) -> dict[str, float]:
        """Return what a network did."""
        return {}


def gives_codes(source: str) -> bool:
    """Tell whether a source gives codes, not sound."""
    rows, ending = sources.SOURCES, Path(source).suffix
    return (named(rows, source, "codes") or by_suffix(rows, ending, "codes")) is not None


def takes_codes(sink: str) -> bool:
    """Tell whether a sink takes codes, not sound."""
    rows, ending = sinks.SINKS, Path(sink).suffix
    return (named(rows, sink, "codes") or by_suffix(rows, ending, "codes")) is not None


def check_ends(source: str, targets: Sequence[str]) -> None:
    """Refuse what no end understands.

    Raises:
        UsageError: codes on both sides, a pipe twice, or a sink that would replace the source.
        SourceError: an unknown kind, or no such file.
    """
    for sink in targets:
        sinks.resolve(sink, "codes", "sound")
        if gives_codes(source) and takes_codes(sink):
            raise UsageError(f"{source} and {sink} are both codes.", "Copy them, or decode.")
    sources.resolve(source, "codes", "sound")
    if list(targets).count(STDIO) > 1:
        raise UsageError("Standard output can take one sink.", "Give - once.")
    check_outputs((source,), [s for s in targets if not named(sinks.SINKS, s, "codes", "sound")])


class UdpSource(CodeSource):
    """``udp:PORT`` or ``udp:HOST:PORT``, where it listens.

    Raises:
        HostError: the port is taken.
        UsageError: no address, or a key is missing.
    """

    live = True

    def __init__(self, uri: str, form: CodesFormat) -> None:
        options, place = form.options, parse_address(uri.partition(":")[2], listen=True)
        self._receiver = Receiver(form.codec, options.jitter, packet_key(options.key, place[0]))
        self._udp = UdpReceiver(
            place, self._receiver, loss=options.loss / 100.0, seed=options.seed,
            idle_seconds=options.idle, wait_seconds=options.wait,
        )  # fmt: skip
        self.title, self._hop = self._udp.title, form.codec.hop

    @property
    def latency(self) -> int:
        """See `CodeSource`."""
        return self._receiver.latency

    @property
    def voice(self) -> Voice:
        """See `CodeSource`."""
        return self._receiver.voice

    @property
    def samples(self) -> int | None:
        """See `CodeSource`."""
        whole, frames = self._receiver.samples, self._receiver.earlier - self._receiver.begin
        return None if whole is None else whole + frames * self._hop

    @property
    def damage(self) -> str:
        """See `CodeSource`."""
        return "the sender fell silent without an end" if self._udp.silent else ""

    def groups(self) -> Iterator[Group]:
        """See `CodeSource`."""
        return self._udp.groups()

    def statistics(self, seconds: float) -> dict[str, float]:
        """See `CodeSource`."""
        seen = self._receiver.seen
        return {
            "received": seen.received, "lost": seen.lost, "lost_percent": seen.loss_percent,
            "dropped_on_purpose": self._udp.dropped, "late": seen.late, "doubled": seen.doubled,
            "reordered": seen.reordered, "refused": seen.refused,
            "frames_recovered": seen.recovered, "frames_concealed": seen.concealed,
        }  # fmt: skip

    def close(self) -> None:
        """See `CodeSource`."""
        self._udp.close()


class UdpSink(CodeSink):
    """``udp:HOST:PORT``.

    Raises:
        SourceError: there is no such host.
        UsageError: no address, a key is missing, or a packet would be too large.
    """

    def __init__(self, uri: str, form: CodesFormat, stack: ExitStack) -> None:
        self._address = parse_address(uri.partition(":")[2], listen=False)
        self._form, self._key = form, packet_key(form.options.key, self._address[0])
        self._sender: UdpSender | None = None
        if not form.codec.voice:
            self.begin(None)  # a wrong address is told before anything is recorded
        stack.callback(self.close)

    def begin(self, voice: Voice) -> None:
        """See `CodeSink`."""
        form = self._form
        if self._sender is None:
            packetizer = Packetizer(
                form.codec, frames=form.packet_frames, redundancy=form.options.redundancy,
                stream=secrets.randbits(32), voice=voice, key=self._key,
            )  # fmt: skip
            self._sender = UdpSender(self._address, packetizer, form.pace)

    def write(self, group: Group) -> None:
        """See `CodeSink`."""
        if self._sender is not None:
            self._sender.write(group)

    def finish(self, samples: int) -> None:
        """See `CodeSink`."""
        if self._sender is not None:
            self._sender.finish(samples)

    def statistics(self, seconds: float) -> dict[str, float]:
        """See `CodeSink`."""
        if self._sender is None:
            return {}
        rate = 8e-3 * self._sender.bytes / max(seconds, 1e-9)
        return {"sent": self._sender.packets, "kbit/s with headers": round(rate, 2)}

    def close(self) -> None:
        """Close the socket; safe to call twice."""
        if self._sender is not None:
            self._sender.close()


class FileSource(CodeSource):
    """A ``.pcodec`` file.

    Raises:
        SourceError: it cannot be read.
        ArtifactError: it is another codec's.
    """

    def __init__(self, uri: str, form: CodesFormat) -> None:
        self.title = uri
        try:
            self._file: IO[bytes] = Path(uri).open("rb")
        except OSError as error:
            raise SourceError(
                f"Cannot read {uri}: {error.strerror}.", "Give a .pcodec file."
            ) from None
        try:
            self._reader = PcodecReader(self._file)
            self._reader.header.require(form.codec)
        except BaseException:
            self._file.close()
            raise
        self._streams = form.codec.streams

    @property
    def voice(self) -> Voice:
        """See `CodeSource`."""
        return self._reader.header.voice

    @property
    def samples(self) -> int | None:
        """See `CodeSource`."""
        return self._reader.samples

    @property
    def damage(self) -> str:
        """See `CodeSource`."""
        return self._reader.damage

    def groups(self) -> Iterator[Group]:
        """See `CodeSource`."""
        first = self._streams[0]
        for codes in self._reader.blocks(tuple(s.name for s in self._streams)):
            frames = codes[first.name].shape[1] * first.stride
            yield Group(self._reader.frames - frames, frames, codes)

    def close(self) -> None:
        """See `CodeSource`."""
        self._file.close()


class FileSink(CodeSink):
    """A ``.pcodec`` file; it takes its name when the stack closes without an exception.

    Raises:
        SourceError: the folder cannot be written.
    """

    def __init__(self, uri: str, form: CodesFormat, stack: ExitStack) -> None:
        self._file = stack.enter_context(stack.enter_context(atomic_path(uri)).open("wb"))
        self._codec = form.codec
        self._writer: PcodecWriter | None = None

    def begin(self, voice: Voice) -> None:
        """See `CodeSink`."""
        self._writer = self._writer or PcodecWriter(self._file, self._codec, voice=voice)

    def write(self, group: Group) -> None:
        """See `CodeSink`."""
        if self._writer is not None and group.codes is not None:
            self._writer.add(group.codes)

    def finish(self, samples: int) -> None:
        """See `CodeSink`."""
        if self._writer is not None:
            self._writer.finish(samples)
