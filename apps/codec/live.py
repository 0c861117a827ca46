"""The live codec: microphone, file or network -> codes -> speaker, file or network.

Capture, encoding and decoding run in threads of their own; sound is written in the caller's. A file
loses nothing; a microphone that is not read in time counts what it lost. Whatever ends the run
(the source, a lost device, Ctrl-C), the streams are finished and the files made complete.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from prunus.apps.codec.app import open_codec, untrained_note
from prunus.apps.codec.encode import Encoding
from prunus.apps.codec.endpoints import (
    CodesFormat,
    CodeSink,
    CodeSource,
    check_ends,
    gives_codes,
    takes_codes,
)
from prunus.apps.codec.options import CodecOptions
from prunus.apps.codec.spectrogram import Spectrogram, draw
from prunus.apps.io.frames import SoundFormat, SoundSink, SoundSource
from prunus.apps.io.sinks import registry as sinks
from prunus.apps.io.sinks.outlets import Outlets
from prunus.apps.io.sinks.registry import Stop
from prunus.apps.io.sources import registry as sources
from prunus.apps.live.loop import Loop
from prunus.apps.live.sound_watch import SoundWatch
from prunus.apps.live.summary import Summary, counts_line
from prunus.runtime.audio.packets import Group
from prunus.runtime.errors import CheckFailedError, PrunusError, SourceError, UsageError
from prunus.runtime.pipeline.pipeline import CAPTURE, Stage
from prunus.runtime.tasks.codec.codec import SpeechCodec
from prunus.runtime.tasks.codec.concealment import LossyDecoder

Audio = npt.NDArray[np.float32]
_NOTHING = np.zeros(0, np.float32)
_PACKET_SECONDS = 0.06


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecRun(Summary):
    """What a run did.

    Attributes:
        source: Where it came from.
        seconds: Length of the sound.
        kilobits_per_second: Rate of the codes alone.
        delay_ms: Algorithmic delay from microphone to speaker: block, look-ahead, both graphs.
        block_ms: Length of a block, or of the usual group of codes.
        step_ms: Median of encoding and decoding a block.
        step_p99_ms: 99th percentile.
        missed: Blocks that took longer than they last; it matters live.
        real_time_factor: Time of encoding and decoding over the length of the sound.
        declared_ms: The same with what waits for the speaker and what devices keep.
        devices: Overflows of the microphone, underflows of the speaker; for sound that comes by
            another clock, milliseconds that wait for the speaker and that the devices keep, those
            that were dropped before it or missing, and by how many millionths clocks are apart.
        network: Packets, loss and rate of UDP ends.
        notes: What was changed on the way.
        damage: Why the source ended early, and which sinks failed; empty when all went well.
    """

    source: str
    seconds: float
    kilobits_per_second: float
    delay_ms: float
    declared_ms: float
    block_ms: float
    step_ms: float
    step_p99_ms: float
    missed: int
    real_time_factor: float
    devices: dict[str, float]
    network: dict[str, float]
    notes: tuple[str, ...]
    damage: str

    def error(self) -> PrunusError | None:
        """Return what the source broke off with."""
        if not self.damage:
            return None
        kept = ""
        if self.outputs:
            kept = f"What came before is complete in {', '.join(self.outputs)}."
        if self.source.endswith(".pcodec"):
            return CheckFailedError(f"{self.source}: {self.damage}.", kept)
        return SourceError(self.damage, kept)

    def lines(self) -> list[str]:
        """Return rate, times, devices and notes."""
        lines = [
            f"{self.source} -> {', '.join(self.outputs)}: {self.seconds:.2f} s at "
            f"{self.kilobits_per_second:.2f} kbit/s, delay {self.delay_ms:.0f} ms by algorithm, "
            f"{self.declared_ms:.0f} ms with devices",
            f"step p50/p99 {self.step_ms:.1f}/{self.step_p99_ms:.1f} ms of {self.block_ms:.0f} ms, "
            + (f"{self.missed} missed, " if self.devices or self.network else "")
            + f"real-time factor {self.real_time_factor:.3f}",
        ]
        lines += counts_line("devices", self.devices) + counts_line("network", self.network)
        return lines + [f"note: {note}" for note in self.notes]


@dataclass(slots=True)
class _Piece:
    """One block on its way."""

    sound: Audio
    groups: list[Group] = field(default_factory=list)
    before: Audio = field(default_factory=lambda: _NOTHING)
    after: Audio = field(default_factory=lambda: _NOTHING)


def run_codec(options: CodecOptions, *, quiet: bool = False) -> CodecRun:
    """Run until the source ends, the user stops, or `seconds` are done.

    Args:
        options: What to run.
        quiet: No progress.

    Raises:
        SourceError: the source broke off; what came before is complete in the sinks.
        PrunusError: source, sink, model or options cannot be used.
    """
    options = dataclasses.replace(options, sinks=options.sinks or ("speaker:",))
    check_ends(options.source, options.sinks)
    with ExitStack() as stack:
        run = _Run(options, stack)
        result = run.loop(quiet)
    if options.plot is not None and run.before and run.after:
        title = f"decoded at {result.kilobits_per_second:.2f} kbit/s"
        draw(options.plot, run.before, run.after, ("original", f"{title} by {result.model}"))
    return result


class _Run:
    """One run: its ends, its streams, and what it counts."""

    def __init__(self, options: CodecOptions, stack: ExitStack) -> None:
        self.options = options
        decodes = options.plot is not None or any(not takes_codes(uri) for uri in options.sinks)
        encodes = not gives_codes(options.source)
        if options.plot is not None and not encodes:
            raise UsageError("--plot shows sound before and after; codes have no before.",
                             "Give it where the sound is encoded.")  # fmt: skip
        parts = (("encoder", "speaker") if encodes else ()) + (("decoder",) if decodes else ())
        self.codec = stack.enter_context(
            open_codec(options.model, cast(Any, parts), options.compute)
        )
        form = self.codec.format
        self.block = _block_frames(self.codec) * form.hop / form.sample_rate_hz
        self.sound_in: SoundSource | None = None
        self.codes_in: CodeSource | None = None
        opener = sources.resolve(options.source, "codes", "sound").load()
        wanted = SoundFormat(form.sample_rate_hz, self.block)
        source = opener(options.source, wanted if encodes else CodesFormat(form, options))
        if encodes:
            self.sound_in = stack.enter_context(closing(source))
        else:
            self.codes_in = stack.enter_context(closing(source))
        self.live = any(end.live for end in (self.sound_in, self.codes_in) if end is not None)
        self.encoding: Encoding | None = None
        if self.sound_in is not None:
            self.encoding = Encoding(self.codec, self.sound_in, strict=options.strict)
        self.lossy = LossyDecoder(self.codec, eager=self.live) if decodes else None
        self.code_sinks: Outlets[CodeSink] = Outlets(stack)
        self.sound_sinks: Outlets[SoundSink] = Outlets(stack)
        self._open_sinks()
        self.watch = SoundWatch(options.log, {"model": form.name, "source": options.source,
                                              "sinks": options.sinks}, stack)  # fmt: skip
        self.watch.ends = [self.sound_in if self.live else None, *self.sound_sinks.sinks]
        drawn = options.plot is not None
        self.before = Spectrogram(form.sample_rate_hz) if drawn else None
        self.after = Spectrogram(form.sample_rate_hz) if drawn else None
        self.steps: list[float] = []
        self.lasts: list[float] = []  # milliseconds of sound per step
        self.frames = 0
        self._blocks = 0
        self._fault: SourceError | None = None

    def loop(self, quiet: bool) -> CodecRun:
        """Run the pipeline to its end, end the streams, and count."""
        interrupted = False
        stages = [Stage("encode", self._encode)] if self.encoding else []
        stages += [Stage("decode", self._decode)] if self.lossy else []
        stages = stages or [Stage("pass", lambda piece: piece)]
        if self.codes_in is not None and self.codes_in.live:
            # Told even with --quiet: whoever sends must know when to begin.
            print(f"listening on {self.codes_in.title}", file=sys.stderr, flush=True)
        loop = Loop(
            title="codec",
            items=self._pieces(),
            live=False,  # sound is never dropped for a newer piece
            stages=stages,
            write=self._step,
            note=self._note,
            expected=self._expected(),
            depth=4,
            quiet=quiet,
        )
        try:
            interrupted = loop.run().interrupted
        except SourceError as error:
            if not self._blocks:
                raise
            self._fault = error
        self._finish()
        uris = self.options.sinks
        self._logs, failures = self.watch.finish()
        failures += self.code_sinks.failures(uris) + self.sound_sinks.failures(uris)
        source = self._fault.message.rstrip(".") if self._fault else self._silent()
        return self._result(interrupted, ". ".join(filter(None, (source, *failures))))

    def _step(self, piece: _Piece, stage_ms: Mapping[str, float]) -> None:
        self.steps.append(sum(v for name, v in stage_ms.items() if name != CAPTURE))
        self.lasts.append(self._lasts(piece))
        self._write(piece)
        if not (self.code_sinks.uris or self.sound_sinks.uris):
            raise Stop

    def _open_sinks(self) -> None:
        form, options = self.codec.format, self.options
        sound = SoundFormat(
            form.sample_rate_hz, self._delivery(), keep=form.hop * form.stride, live=self.live
        )
        pace = 0.0 if self.live else options.speed
        codes = CodesFormat(form, options, self._packet_frames(), pace)
        for uri in options.sinks:
            row = sinks.resolve(uri, "codes", "sound")
            if row.items == "codes":
                self.code_sinks.add(uri, partial(row.load(), uri, codes))
            else:
                self.sound_sinks.add(uri, partial(row.load(), uri, sound))

    def _delivery(self) -> float:
        """Return seconds of sound that come at once: blocks, or packets."""
        return self.block if self.codes_in is None else max(self.block, _PACKET_SECONDS)

    def _packet_frames(self) -> int:
        """Return what was asked for, or whole steps of at least 60 ms: headers cost more."""
        step, form = _block_frames(self.codec), self.codec.format
        wanted = math.ceil(_PACKET_SECONDS * form.sample_rate_hz / form.hop)
        return self.options.packet_frames or -(-max(step, wanted) // step) * step

    def _pieces(self) -> Iterator[_Piece]:
        """Yield blocks of sound, or groups of codes, as they come."""
        if self.codes_in is not None:
            for group in self.codes_in.groups():
                yield _Piece(_NOTHING, [group])
            return
        source = cast(SoundSource, self.sound_in)
        size = max(1, round(self.block * source.sample_rate_hz))
        left = math.inf
        if self.options.seconds is not None:
            left = round(self.options.seconds * source.sample_rate_hz)
        for block in source.blocks(size):
            yield _Piece(block[: int(min(left, len(block)))])
            left -= len(block)
            if left <= 0:
                return

    def _encode(self, piece: _Piece) -> _Piece:
        piece.before, piece.groups = cast(Encoding, self.encoding).push(piece.sound)
        return piece

    def _decode(self, piece: _Piece) -> _Piece:
        lossy = cast(LossyDecoder, self.lossy)
        if lossy.voice is None:
            lossy.voice = self._voice()
        piece.after = np.concatenate([_NOTHING, *map(lossy.push, piece.groups)])
        return piece

    def _voice(self) -> npt.NDArray[np.float32] | None:
        return self.encoding.voice if self.encoding else cast(CodeSource, self.codes_in).voice

    def _write(self, piece: _Piece) -> None:
        for group in piece.groups:
            self.frames += group.frames
            self.code_sinks.each(lambda sink: sink.begin(self._voice()))
            self.code_sinks.each(partial(_write_group, group))
        self.sound_sinks.each(lambda sink: sink.write(piece.after))
        if self.before is not None and self.after is not None:
            self.before.push(piece.before)
            self.after.push(piece.after)
        self._blocks += 1
        self.watch.tell(self.frames * self.codec.format.hop / self.codec.format.sample_rate_hz)

    def _finish(self) -> None:
        """End the streams in order, whatever ended the source."""
        last = _Piece(_NOTHING)
        if self.encoding is not None:
            last.before, last.groups = self.encoding.flush()
        if self.lossy is not None:
            last = self._decode(last)
            last.after = np.concatenate((last.after, self.lossy.flush()))
        if not self.frames and not last.groups:
            raise SourceError(
                f"{self.options.source} holds no sound.", "Give a recording, or wait a moment."
            )
        samples = self._samples()
        self._write(last)
        whole = samples if samples is not None else self.frames * self.codec.format.hop
        self._counts = self.watch.counts()  # what the end of a sound brings is no fault
        self.watch.tell(whole / self.codec.format.sample_rate_hz, last=True)
        self.code_sinks.finish(lambda sink: sink.finish(whole))
        self.sound_sinks.finish(lambda sink: sink.finish(samples))

    def _lasts(self, piece: _Piece) -> float:
        """Return milliseconds: of a block, or of the codes that came at once."""
        if self.codes_in is None:
            return 1000.0 * self.block
        form = self.codec.format
        return 1000.0 * sum(g.frames for g in piece.groups) * form.hop / form.sample_rate_hz

    def _samples(self) -> int | None:
        if self.encoding is not None:
            return self.encoding.samples
        return cast(CodeSource, self.codes_in).samples

    def _silent(self) -> str:
        return self.codes_in.damage if self.codes_in is not None else ""

    def _expected(self) -> int:
        """Return how many blocks a file holds, 0 when that is not known."""
        source = self.sound_in
        if source is None or source.samples <= 0:
            return 0
        return math.ceil(source.samples / source.sample_rate_hz / self.block)

    def _note(self, piece: _Piece, _: float) -> str:
        form = self.codec.format
        note = f"{self.frames * form.hop / form.sample_rate_hz:.1f} s"
        if self.live and len(piece.sound):
            peak = max(float(np.abs(piece.sound).max()), 1e-5)
            note += f", peak {20 * math.log10(peak):.0f} dB"
        if self.codes_in is not None and (lost := self.lossy.lost if self.lossy else 0):
            note += f", {lost} frames concealed"
        return note

    def _result(self, interrupted: bool, damage: str) -> CodecRun:
        form = self.codec.format
        samples = self._samples()
        if samples is None:
            samples = self.frames * form.hop
        seconds = samples / form.sample_rate_hz
        steps, lasts = np.array(self.steps or [0.0]), np.array(self.lasts or [0.0])
        network: dict[str, float] = {}
        for sink in self.code_sinks.sinks:
            network |= sink.statistics(seconds)
        if self.codes_in is not None:
            network |= self.codes_in.statistics(seconds)
        lost = (*self.code_sinks.lost, *self.sound_sinks.lost)
        return CodecRun(
            model=form.name,
            source=self.options.source,
            outputs=(*(uri for uri in self.options.sinks if uri not in lost), *self._logs),
            seconds=seconds,
            kilobits_per_second=form.bits_per_second / 1000.0,
            delay_ms=1000.0 * self._delay(),
            declared_ms=self.watch.declared_ms(self._delay()),
            block_ms=float(np.median(lasts)),
            step_ms=float(np.median(steps)),
            step_p99_ms=float(np.percentile(steps, 99)),
            missed=int((steps > lasts).sum()),
            real_time_factor=float(steps.sum()) / 1000.0 / max(seconds, 1e-9),
            devices=self._counts,
            network=network,
            notes=(*(self.encoding.notes() if self.encoding else ()), *untrained_note(form)),
            damage=damage,
            interrupted=interrupted,
        )

    def _delay(self) -> float:
        """Return seconds from a sample going in to the same sample coming out, computing aside."""
        form = self.codec.format
        frames = self.block * form.sample_rate_hz
        if any(uri.startswith("udp:") for uri in self.options.sinks):
            frames = max(frames, self._packet_frames() * form.hop)
        if self.encoding is not None:
            frames += self.encoding.latency
        if self.lossy is not None:
            frames += self.lossy.latency
        if self.codes_in is not None:
            frames += self.codes_in.latency
        return frames / form.sample_rate_hz


def _write_group(group: Group, sink: CodeSink) -> None:
    sink.write(group)


def _block_frames(codec: SpeechCodec) -> int:
    """Return the frames that a codec handles at once."""
    counts: Sequence[int] = [
        cast(Any, session.card.preprocess).commit
        for part, session in codec.sessions.items()
        if part != "speaker"
    ]
    stride = codec.format.stride
    return -(-min(counts) // stride) * stride
