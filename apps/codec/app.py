"""`prunus encode` and `prunus decode`: sound files and pipes through a speech codec.

Memory does not grow with the length of the file: sound goes through in blocks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from prunus.apps.codec.encode import Encoding
from prunus.apps.common.model_files import codec_name
from prunus.apps.common.options import BackendChoice
from prunus.apps.io.sinks.sound import Trimmer
from prunus.runtime.audio.files import STDIO, SoundReader, write_wav, write_wav_stream
from prunus.runtime.audio.packets import Group
from prunus.runtime.audio.pcodec import PcodecReader, PcodecWriter
from prunus.runtime.card.artifact import atomic_path
from prunus.runtime.errors import SourceError, UsageError
from prunus.runtime.progress import Progress, Silent
from prunus.runtime.tasks.codec.codec import CodecFormat, Codes, SpeechCodec, decode_blocks

if TYPE_CHECKING:
    from prunus.runtime.tasks.codec.card import Part

Audio = npt.NDArray[np.float32]


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
        cut: What a recording that was cut off promises and holds, empty for whole ones.
    """

    source: str
    target: str
    seconds: float
    bytes: int
    kilobits_per_second: float
    real_time_factor: float
    notes: tuple[str, ...]
    damage: str = ""
    cut: str = ""

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
        encoding = Encoding(codec, reader, strict=strict)
        file = _binary_target(target, stack)
        writer: PcodecWriter | None = None
        for groups in _groups(encoding, reader, steps):
            # A voice is known once enough of the beginning has come, and stands in the header.
            writer = writer or PcodecWriter(file, codec.format, voice=encoding.voice)
            for group in groups:
                writer.add(cast(Codes, group.codes))
        if writer is None:
            raise SourceError(f"{source} holds no samples.", "Give a recording.")
        writer.finish(encoding.samples)
        file.flush()
        cut = reader.ends_early
    notes = (*encoding.notes(), *untrained_note(codec.format))
    seconds = encoding.samples / codec.format.sample_rate_hz
    taken = time.perf_counter() - started
    size = writer.bytes
    rate, factor = _rate(size, seconds), taken / seconds
    return CodecSummary(source, target, seconds, size, rate, factor, notes, cut=cut)


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
    model: str | None, parts: tuple[Part, ...], compute: BackendChoice | None = None
) -> SpeechCodec:
    """Open the files of a codec, or of one that ships, see `SpeechCodec.open`."""
    compute = compute or BackendChoice()
    return SpeechCodec.open(codec_name(model), parts=parts, **compute.keywords())


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


def _groups(
    encoding: Encoding, reader: SoundReader, progress: Progress
) -> Iterator[list[Group]]:
    """Yield the codes of a file as they come, none for one without samples; report the place."""
    # What a pipe's header says of its length is seldom true.
    done, total = 0, 0 if reader.piped else max(reader.samples, 0)
    for block in reader.blocks():
        _, groups = encoding.push(block)
        if groups:
            yield groups
        done += len(block)
        note = f"{done / reader.sample_rate_hz:.1f} s"
        progress.update(min(done, total) if total else done, total, note)
    if done:
        yield encoding.flush()[1]


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
    yield trimmer.flush(reader.samples)


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
