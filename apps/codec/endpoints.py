"""Both ends of the live codec: sound or codes, from and to files, devices, pipes and the network.

=====================  ======  ====================================================
``mic:`` ``mic:NAME``  source  microphone
``talk.wav``           either  sound file (source: FLAC and Ogg too); ``-``: a pipe
``synthetic:5``        source  voice-like sound of so many seconds
``speaker:NAME``       sink    speaker
``talk.pcodec``        either  file of codes
``udp:HOST:PORT``      either  codes in packets; a source listens: ``udp:PORT``
``null:``              sink    nowhere
=====================  ======  ====================================================
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from prunus.apps.io.sound.udp import UdpReceiver, UdpSender, packet_key, parse_address
from prunus.apps.live.loop import check_outputs
from prunus.runtime.audio.files import STDIO, SoundReader
from prunus.runtime.audio.packets import Group, Packetizer, Receiver
from prunus.runtime.audio.pcodec import PcodecReader, PcodecWriter
from prunus.runtime.card.artifact import atomic_path
from prunus.runtime.errors import SourceError, UsageError, nearest
from prunus.runtime.tasks.codec.codec import CodecFormat

if TYPE_CHECKING:
    from prunus.apps.codec.options import CodecOptions

Audio = npt.NDArray[np.float32]
Voice = npt.NDArray[np.float32] | None
_SOURCES = ("mic", "synthetic", "udp")
_SINKS = ("speaker", "udp", "null")
_CODED = ".pcodec"


class SoundSource(Protocol):
    """Gives sound, block by block; `live` ones do not wait for whoever reads."""

    sample_rate_hz: int
    channels: int
    samples: int
    live: bool

    @property
    def disguised(self) -> str:
        """Name of the true format of a file whose ending is wrong, else empty."""

    @property
    def ends_early(self) -> str:
        """What a file that was cut off promises and holds, else empty; true at its end."""

    @property
    def unmeasured(self) -> str:
        """Name of the format of a file that does not tell whether it is whole, else empty."""

    @property
    def cancels(self) -> bool:
        """Whether the channels read so far are each other's negative."""

    def blocks(self, size: int) -> Iterator[Audio]:
        """Yield mono float32 blocks of at most `size` samples."""

    def close(self) -> None:
        """Release it; safe to call twice."""


class CodeSource(Protocol):
    """Gives codes and gaps, in order; `delay` is in samples."""

    title: str
    live: bool
    delay: int

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


def gives_codes(source: str) -> bool:
    """Tell whether a source gives codes, not sound."""
    return source.startswith("udp:") or source.endswith(_CODED)


def takes_codes(sink: str) -> bool:
    """Tell whether a sink takes codes, not sound."""
    return sink.startswith("udp:") or sink.endswith(_CODED)


def check_uris(source: str, sinks: Sequence[str]) -> None:
    """Refuse what no end understands.

    Raises:
        UsageError: an unknown kind, or a sink that would replace the source.
    """
    _known(source, _SOURCES, "source", "mic:, a sound file, synthetic:5, udp:PORT or -")
    if not sinks:
        raise UsageError("There is no sink.", "Give --sink speaker: or --sink out.wav")
    for sink in sinks:
        _known(sink, _SINKS, "sink", "speaker:, out.wav, out.pcodec, udp:HOST:PORT, null: or -")
        if ":" not in sink and sink != STDIO and Path(sink).suffix.lower() not in (".wav", _CODED):
            raise UsageError(
                f"Cannot tell what to write to {sink}.", "Use .wav for sound, .pcodec for codes."
            )
        if gives_codes(source) and takes_codes(sink):
            raise UsageError(f"{source} and {sink} are both codes.", "Copy them, or decode.")
    if list(sinks).count(STDIO) > 1:
        raise UsageError("Standard output can take one sink.", "Give - once.")
    check_outputs(source, [s for s in sinks if ":" not in s and s != STDIO])


def _known(uri: str, schemes: Sequence[str], what: str, hint: str) -> None:
    scheme, separator, _ = uri.partition(":")
    if separator and len(scheme) > 1 and "/" not in scheme and scheme not in schemes:
        raise UsageError(
            f"Unknown kind of {what} '{scheme}:'{nearest(scheme, list(schemes))}.", f"Give {hint}."
        )


def open_sound_source(uri: str, wanted_hz: int, block_seconds: float) -> SoundSource:
    """Open ``mic:``, ``synthetic:SECONDS``, a sound file or ``-``.

    Raises:
        PrunusError: no such file or device, or a package is missing.
    """
    scheme, separator, rest = uri.partition(":")
    if separator and scheme == "mic":
        from prunus.apps.io.sound.devices import Microphone

        return Microphone(rest, wanted_hz, block_seconds)
    if separator and scheme == "synthetic":
        return SyntheticVoice(rest, wanted_hz)
    return SoundReader(uri)


class SyntheticVoice:
    """Voice-like sound, made as it is asked for: pitch that moves, three formants, pauses."""

    live, channels, cancels = False, 1, False
    disguised = ends_early = unmeasured = ""

    def __init__(self, seconds: str, sample_rate_hz: int) -> None:
        try:
            length = float(seconds or 5.0)
        except ValueError:
            length = 0.0
        if not 0.0 < length < 1e6:
            raise UsageError(f"Got synthetic:{seconds}; expected seconds.", "Try synthetic:5")
        self.sample_rate_hz = sample_rate_hz
        self.samples = max(1, round(length * sample_rate_hz))

    def blocks(self, size: int) -> Iterator[Audio]:
        """See `SoundSource`."""
        phase, rate = 0.0, self.sample_rate_hz
        for begin in range(0, self.samples, size):
            time = np.arange(begin, min(begin + size, self.samples)) / rate
            pitch = 130.0 + 30.0 * np.sin(2 * np.pi * 0.7 * time)
            angle = phase + 2 * np.pi * np.cumsum(pitch) / rate
            phase = float(angle[-1] % (2 * np.pi))
            sound = np.zeros(len(time))
            for harmonic in range(1, 26):
                hertz = harmonic * pitch
                gain = sum(1.0 / (1.0 + ((hertz - f) / 150.0) ** 2) for f in (500, 1500, 2500))
                sound += np.where(hertz < rate / 2, gain, 0.0) * np.sin(harmonic * angle)
            syllables = np.clip(np.sin(2 * np.pi * 3.5 * time) + 0.3, 0.0, None)
            yield (0.08 * sound * syllables).astype(np.float32)

    def close(self) -> None:
        """See `SoundSource`."""


def open_code_source(uri: str, form: CodecFormat, options: CodecOptions) -> CodeSource:
    """Open ``udp:PORT`` or a ``.pcodec`` file.

    Raises:
        PrunusError: the port is taken, or the file cannot be read or is another codec's.
    """
    if uri.startswith("udp:"):
        return _UdpSource(uri.removeprefix("udp:"), form, options)
    return _FileSource(uri, form)


def open_code_sink(  # noqa: PLR0917
    uri: str,
    form: CodecFormat,
    options: CodecOptions,
    packet_frames: int,
    pace: float,
    stack: ExitStack,
) -> CodeSink:
    """Open ``udp:HOST:PORT`` or a ``.pcodec`` file.

    Raises:
        PrunusError: no such host, a packet would be too large, the folder cannot be written.
    """
    if uri.startswith("udp:"):
        address = parse_address(uri.removeprefix("udp:"), listen=False)
        sink = _UdpSink(address, form, packet_frames, options, pace)
        stack.callback(sink.close)
        return sink
    return _FileSink(stack.enter_context(atomic_path(uri)), form, stack)


class _UdpSource:
    live = True

    def __init__(self, address: str, form: CodecFormat, options: CodecOptions) -> None:
        place = parse_address(address, listen=True)
        self._receiver = Receiver(form, options.jitter, packet_key(options.key, place[0]))
        self._udp = UdpReceiver(
            place, self._receiver, loss=options.loss / 100.0, seed=options.seed,
            idle_seconds=options.idle, wait_seconds=options.wait,
        )  # fmt: skip
        self._form, self._packet = form, 0
        self.title, self.delay = self._udp.title, 0

    @property
    def voice(self) -> Voice:
        return self._receiver.voice

    @property
    def samples(self) -> int | None:
        whole, frames = self._receiver.samples, self._receiver.earlier - self._receiver.begin
        return None if whole is None else whole + frames * self._form.hop

    @property
    def damage(self) -> str:
        return "the sender fell silent without an end" if self._udp.silent else ""

    def groups(self) -> Iterator[Group]:
        for group in self._udp.groups():
            self._packet = self._packet or group.frames
            self.delay = self._receiver.depth * self._packet * self._form.hop
            yield group

    def statistics(self, seconds: float) -> dict[str, float]:
        seen = self._receiver.seen
        return {
            "received": seen.received, "lost": seen.lost, "lost_percent": seen.loss_percent,
            "dropped_on_purpose": self._udp.dropped, "late": seen.late, "doubled": seen.doubled,
            "reordered": seen.reordered, "refused": seen.refused,
            "frames_recovered": seen.recovered, "frames_concealed": seen.concealed,
        }  # fmt: skip

    def close(self) -> None:
        self._udp.close()


class _UdpSink:
    def __init__(self, address: tuple[str, int], form: CodecFormat, frames: int,
                 options: CodecOptions, pace: float) -> None:  # fmt: skip
        key = packet_key(options.key, address[0])
        self._make = lambda voice: UdpSender(
            address,
            Packetizer(
                form,
                frames=frames,
                redundancy=options.redundancy,
                stream=secrets.randbits(32),
                voice=voice,
                key=key,
            ),
            pace,
        )
        self._sender: UdpSender | None = None
        if not form.voice:
            self.begin(None)  # a wrong address is told before anything is recorded

    def begin(self, voice: Voice) -> None:
        self._sender = self._sender or self._make(voice)

    def write(self, group: Group) -> None:
        if self._sender is not None:
            self._sender.write(group)

    def finish(self, samples: int) -> None:
        if self._sender is not None:
            self._sender.finish(samples)

    def statistics(self, seconds: float) -> dict[str, float]:
        if self._sender is None:
            return {}
        rate = 8e-3 * self._sender.bytes / max(seconds, 1e-9)
        return {"sent": self._sender.packets, "kbit/s with headers": round(rate, 2)}

    def close(self) -> None:
        if self._sender is not None:
            self._sender.close()


class _FileSource:
    live, delay = False, 0

    def __init__(self, path: str, form: CodecFormat) -> None:
        self.title = path
        try:
            self._file: IO[bytes] = Path(path).open("rb")
        except OSError as error:
            raise SourceError(
                f"Cannot read {path}: {error.strerror}.", "Give a .pcodec file."
            ) from None
        try:
            self._reader = PcodecReader(self._file)
            self._reader.header.require(form)
        except BaseException:
            self._file.close()
            raise
        self._names = tuple(s.name for s in form.streams)
        self._form = form

    @property
    def voice(self) -> Voice:
        return self._reader.header.voice

    @property
    def samples(self) -> int | None:
        return self._reader.samples

    @property
    def damage(self) -> str:
        return self._reader.damage

    def groups(self) -> Iterator[Group]:
        for codes in self._reader.blocks(self._names):
            stream = self._form.streams[0]
            frames = codes[stream.name].shape[1] * stream.stride
            yield Group(self._reader.frames - frames, frames, codes)

    def statistics(self, seconds: float) -> dict[str, float]:
        return {}

    def close(self) -> None:
        self._file.close()


class _FileSink:
    def __init__(self, path: Path, form: CodecFormat, stack: ExitStack) -> None:
        self._file = stack.enter_context(path.open("wb"))
        self._form = form
        self._writer: PcodecWriter | None = None

    def begin(self, voice: Voice) -> None:
        self._writer = self._writer or PcodecWriter(self._file, self._form, voice=voice)

    def write(self, group: Group) -> None:
        if self._writer is not None and group.codes is not None:
            self._writer.add(group.codes)

    def finish(self, samples: int) -> None:
        if self._writer is not None:
            self._writer.finish(samples)

    def statistics(self, seconds: float) -> dict[str, float]:
        return {}
