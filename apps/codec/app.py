"""`prunus encode` and `prunus decode`: sound files and pipes through a speech codec.

Memory does not grow with the length of the file: sound goes through in blocks.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prunus.apps.common.model_files import codec_name
from prunus.apps.io.sinks.sound import Trimmer
from prunus.runtime.audio.files import STDIO, SoundReader, write_wav, write_wav_stream
from prunus.runtime.audio.pcodec import PcodecReader, PcodecWriter
from prunus.runtime.audio.resample import Formula, Resampler
from prunus.runtime.card.artifact import atomic_path
from prunus.runtime.errors import SourceError, UsageError
from prunus.runtime.progress import Progress, Silent
from prunus.runtime.tasks.codec.codec import CodecFormat, SpeechCodec, decode_blocks

if TYPE_CHECKING:
    from prunus.apps.codec.endpoints import SoundSource
    from prunus.runtime.tasks.codec.card import Part

Audio = npt.NDArray[np.float32]
_FULL_SCALE = 0.9999  # what a converter that was driven too hard gives, rounding included
_ABOVE = 1.0001  # float files go further: what lies above was not clipped
_CLIPPED_RUN = 3  # so many such samples in a row are clipping, not a peak


@dataclass(frozen=True, slots=True)
class CodecSummary:
    """What one run did.

    Attributes:
        source: What was read.
        target: What was written.
        seconds: Length of the sound.
        bytes: Size of the coded file.
        kilobits_per_second: Size over length, headers and checksums included.
        real_time_factor: Time taken over length, below 1 is faster than real time.
        notes: What was changed on the way, and what was wrong with the input.
        damage: Why decoding stopped early, empty when it did not.
    """

    source: str
    target: str
    seconds: float
    bytes: int
    kilobits_per_second: float
    real_time_factor: float
    notes: tuple[str, ...]
    damage: str = ""

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return asdict(self)

    def to_text(self) -> str:
        """Return one line, and one per note."""
        line = (
            f"wrote {self.target}: {self.seconds:.2f} s, {self.bytes} bytes, "
            f"{self.kilobits_per_second:.2f} kbit/s, real-time factor {self.real_time_factor:.3f}"
        )
        return "\n".join((line, *(f"note: {note}" for note in self.notes)))


class Listener:
    """Brings sound to a codec's rate and remembers what was done to it.

    Args:
        source: What comes in.
        to_hz: Rate of the codec.
        strict: Refuse what would otherwise be changed with a notice.
        formula: Of the resampler.

    Raises:
        UsageError: the source is not what the codec takes, and `strict` is set.
    """

    def __init__(
        self, source: SoundSource, to_hz: int, *, strict: bool, formula: Formula = "soxr"
    ) -> None:
        self.strict = strict
        self._notes: list[str] = []
        self._bad = self._clipped = self._run = 0
        self._peak, self._cut = 0.0, False
        from_hz = self._from_hz = source.sample_rate_hz
        if from_hz != to_hz:
            self.note(f"resampled from {from_hz} to {to_hz} Hz")
        if source.channels > 1:
            self.note(f"averaged over {source.channels} channels")
        if source.disguised:
            self.note(f"read as {source.disguised}, which it is, not WAV")
        self._source = source
        self._note_end()
        self._resampler = Resampler(from_hz, to_hz, formula)

    def note(self, text: str) -> None:
        """Remember a change; with `strict`, refuse it."""
        if self.strict:
            raise UsageError(
                f"The sound would have to be {text}.", "Leave out --strict, or convert it first."
            )
        self._notes.append(text)

    @property
    def delay(self) -> float:
        """Seconds of sound that the resampler holds back."""
        return self._resampler.delay / self._from_hz

    def take(self, block: Audio) -> Audio:
        """Return the block as the codec takes it; raises UsageError for NaN under `strict`."""
        finite = np.isfinite(block)
        if not finite.all():
            if self.strict:
                raise UsageError("The sound holds NaN or infinity.", "Leave out --strict.")
            self._bad += int((~finite).sum())
            block = np.where(finite, block, np.float32(0.0))
        self._judge_peaks(np.abs(block))
        return self._resampler.push(block)

    def rest(self) -> Audio:
        """Return what the resampler still holds; raises UsageError for a cut end under `strict`."""
        self._note_end()
        if self._source.cancels:
            self.note("averaged to silence: each channel is the other one negated")
        return self._resampler.flush()

    def notes(self) -> tuple[str, ...]:
        """Return all notices."""
        found = list(self._notes)
        if self._bad:
            found.append(f"replaced {self._bad} samples that were not finite by silence")
        if self._peak > _ABOVE:
            decibels = 20.0 * math.log10(self._peak)
            found.append(
                f"peaks are up to {decibels:.1f} dB above full scale, not clipped; coded as is"
            )
        if self._clipped:
            found.append(f"{self._clipped} samples are clipped at full scale; coded as they are")
        return tuple(found)

    def _note_end(self) -> None:
        """Say once that the end is missing: many formats show it at the end only."""
        if self._source.ends_early and not self._cut:
            self._cut = True
            self.note(f"taken without its end: {self._source.ends_early}")

    def _judge_peaks(self, level: Audio) -> None:
        self._peak = max(self._peak, float(level.max(initial=0.0)))
        full = (level >= _FULL_SCALE) & (level <= _ABOVE)
        if not full.any():
            self._run = 0
            return
        edges = np.flatnonzero(np.diff(np.concatenate(([False], full, [False])).astype(np.int8)))
        for first, last in edges.reshape(-1, 2):
            length = int(last - first) + (self._run if first == 0 else 0)
            if length >= _CLIPPED_RUN:
                self._clipped += int(last - first)
            self._run = length if last == len(full) else 0


def encode_file(
    codec: SpeechCodec,
    source: str,
    target: str,
    *,
    strict: bool = False,
    progress: Progress | None = None,
) -> CodecSummary:
    """Encode a sound file, or standard input, to a ``.pcodec`` file, or standard output.

    Args:
        codec: With its encoder, and its speaker encoder where it has one.
        source: A file or ``-``.
        target: A ``.pcodec`` file or ``-``.
        strict: Refuse what would be changed with a notice: rate, channels, NaN, a wrong ending,
            a missing end.
        progress: Told how far it is.

    Raises:
        SourceError: no sound can be read, or the target cannot be written.
        UsageError: the target has another ending, or `strict`, and the sound would have to be
            changed.
    """
    check_target(target, ".pcodec", "encode talk.wav talk.pcodec")
    started, steps = time.perf_counter(), progress or Silent()
    with ExitStack() as stack:
        reader = stack.enter_context(SoundReader(source))
        rate = codec.format.sample_rate_hz
        listener = Listener(reader, rate, strict=strict, formula=codec.format.resampler)
        done = _Counter(reader, steps)
        blocks = _prepared(done.blocks(), listener)
        beginning, voice = _voice(codec, blocks)
        file = _binary_target(target, stack)
        writer = PcodecWriter(file, codec.format, voice=voice)
        stream = codec.encoder()
        for block in _chain(beginning, blocks):
            writer.add(stream.push(block))
        if not stream.samples:
            raise SourceError(f"{source} holds no samples.", "Give a recording.")
        writer.add(stream.finish())
        writer.finish(stream.samples)
        file.flush()
    notes = (*listener.notes(), *untrained_note(codec.format))
    seconds = stream.samples / rate
    taken = time.perf_counter() - started
    size = writer.bytes
    return CodecSummary(source, target, seconds, size, _rate(size, seconds), taken / seconds, notes)


def decode_file(
    codec_of: Callable[[], SpeechCodec],
    source: str,
    target: str,
    *,
    progress: Progress | None = None,
) -> CodecSummary:
    """Decode a ``.pcodec`` file, or standard input, to 16-bit WAV, or to standard output.

    A damaged file is decoded up to the damage; `CodecSummary.damage` tells.

    Args:
        codec_of: Opens the codec with its decoder; called once the file's header is good.
        source: A file or ``-``.
        target: A ``.wav`` file or ``-``.
        progress: Told how far it is.

    Raises:
        SourceError: the beginning of the file is damaged, or the target cannot be written.
        ArtifactError: another codec made the file.
        UsageError: the target has another ending.
    """
    check_target(target, ".wav", "decode talk.pcodec again.wav")
    steps = progress or Silent()
    with ExitStack() as stack:
        file = _binary_source(source, stack)
        reader = PcodecReader(file)
        codec = stack.enter_context(codec_of())
        reader.header.require(codec.format)
        started = time.perf_counter()  # opening the model is no part of the real-time factor
        names = tuple(stream.name for stream in codec.format.streams)
        decoder = codec.decoder(reader.header.voice)
        whole = Path(source).stat().st_size if Path(source).is_file() else 0
        counted = _counted(reader, names, lambda: (reader.bytes, whole), steps)
        blocks = _trimmed(reader, decode_blocks(decoder, counted), codec)
        rate = codec.format.sample_rate_hz
        if target == STDIO:
            samples = write_wav_stream(sys.stdout.buffer, blocks, rate)
        else:
            samples = write_wav(stack.enter_context(atomic_path(target)), blocks, rate)
        if not samples:
            raise SourceError(
                f"{source} holds no sound: {reader.damage or 'it has no codes'}.", "Copy it again."
            )
    size, taken = reader.bytes, time.perf_counter() - started
    notes = list(untrained_note(codec.format))
    if reader.damage:
        notes.append(f"{source}: {reader.damage}; what came before is decoded")
    seconds = samples / rate
    return CodecSummary(
        source, target, seconds, size, _rate(size, seconds), taken / seconds, tuple(notes),
        reader.damage,
    )  # fmt: skip


def open_codec(
    model: str, parts: tuple[Part, ...], backend: str = "auto", threads: int | None = None
) -> SpeechCodec:
    """Open the files of a codec, or of one that ships, see `SpeechCodec.open`."""
    return SpeechCodec.open(codec_name(model), backend, parts=parts, threads=threads)


def check_target(target: str, ending: str, example: str) -> None:
    """Refuse to write over sound with codes, and codes or MP3 by their name with sound.

    Raises:
        UsageError: the target's ending is not `ending`.
    """
    if target != STDIO and Path(target).suffix.lower() != ending:
        raise UsageError(
            f"Got the target {target}; expected a name that ends in {ending}, or - for a pipe.",
            f"Example: prunus {example}",
        )


def _rate(size: int, seconds: float) -> float:
    return 8e-3 * size / seconds if seconds else 0.0


def untrained_note(form: CodecFormat) -> tuple[str, ...]:
    """Return a warning for codecs of random weights, nothing for others."""
    if form.trained:
        return ()
    return ("the codec is UNTRAINED: what it decodes is noise, only timing and sizes mean much",)


def _prepared(blocks: Iterator[Audio], listener: Listener) -> Iterator[Audio]:
    for block in blocks:
        yield listener.take(block)
    yield listener.rest()


def _voice(
    codec: SpeechCodec, blocks: Iterator[Audio]
) -> tuple[list[Audio], npt.NDArray[np.float32] | None]:
    """Take as much of the beginning as the voice needs; return it for encoding, and the voice."""
    if not codec.format.voice:
        return [], None
    if "speaker" not in codec.sessions:
        raise UsageError(
            f"{codec.format.name} needs its speaker encoder.", "Keep its files together."
        )
    wanted = codec.sessions["speaker"].card.inputs[0].shape[1]
    taken: list[Audio] = []
    have = 0
    for block in blocks:
        taken.append(block)
        have += len(block)
        if have >= wanted:
            break
    beginning = np.concatenate(taken) if taken else np.zeros(0, np.float32)
    return [beginning], codec.voice_of(beginning[:wanted])


def _chain(beginning: list[Audio], blocks: Iterator[Audio]) -> Iterator[Audio]:
    yield from beginning
    yield from blocks


class _Counter:
    """Passes blocks on and reports how far the file is read."""

    def __init__(self, reader: SoundReader, progress: Progress) -> None:
        self.reader, self.progress = reader, progress

    def blocks(self) -> Iterator[Audio]:
        # What a pipe's header says of its length is seldom true.
        done, total = 0, 0 if self.reader.piped else max(self.reader.samples, 0)
        for block in self.reader.blocks():
            yield block
            done += len(block)
            note = f"{done / self.reader.sample_rate_hz:.1f} s"
            self.progress.update(min(done, total) if total else done, total, note)


def _counted(
    reader: PcodecReader,
    names: tuple[str, ...],
    place: Callable[[], tuple[int, int]],
    progress: Progress,
) -> Iterator[dict[str, npt.NDArray[np.int64]]]:
    """Pass codes on; report the place in the file, or in a pipe the frames."""
    for codes in reader.blocks(names):
        yield dict(codes)
        done, total = place()
        progress.update(done if total else reader.frames, total, f"{reader.frames} frames")


def _trimmed(reader: PcodecReader, blocks: Iterator[Audio], codec: SpeechCodec) -> Iterator[Audio]:
    """Cut the completed last frame: its length is known at the end only, so it is held back."""
    trimmer = Trimmer(codec.format.hop * codec.format.stride)
    for block in blocks:
        ready = trimmer.push(block)
        if len(ready):
            yield ready
    yield trimmer.finish(reader.samples)


def _binary_source(source: str, stack: ExitStack) -> IO[bytes]:
    if source == STDIO:
        return sys.stdin.buffer
    try:
        return stack.enter_context(Path(source).open("rb"))
    except OSError as error:
        raise SourceError(
            f"Cannot read {source}: {error.strerror}.", "Give a .pcodec file."
        ) from None


def _binary_target(target: str, stack: ExitStack) -> IO[bytes]:
    if target == STDIO:
        return sys.stdout.buffer
    temporary = stack.enter_context(atomic_path(target))
    return stack.enter_context(temporary.open("wb"))
