"""The live voice picker: camera and microphone, or a clip, to the one voice of a chosen face.

Faces are found, followed and numbered; the chosen one's mouth and the sound go through the
separator; the voice goes to a loudspeaker, a sound file, or back into a clip. Each part runs in a
thread of its own. Sound is never dropped for a newer piece: a machine that cannot keep up is told
by how much, and still separates clips.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prunus.apps.io.frames import (
    AVFrame,
    Frame,
    Image,
    Sink,
    SoundFormat,
    SoundSink,
    Source,
    SourceInfo,
)
from prunus.apps.io.sinks.clip import ClipWriter
from prunus.apps.io.sinks.outlets import Outlets
from prunus.apps.io.sinks.registry import Stop, open_sink, resolve
from prunus.apps.io.sinks.window import WindowSink
from prunus.apps.io.sources.av_frames import LiveAVFrames, open_av_frames
from prunus.apps.live.controls import Controls
from prunus.apps.live.loop import Counts, Loop, Panel, announce, check_outputs
from prunus.apps.live.pages import Pages, card_facts
from prunus.apps.live.sound_watch import SoundWatch
from prunus.apps.live.stage_clocks import StageClocks
from prunus.apps.pose.overlay import draw_panel
from prunus.apps.separation.face_overlay import draw_faces, draw_meters, face_shapes, level_db
from prunus.apps.separation.models import Models, open_models
from prunus.apps.separation.options import SeparationOptions
from prunus.apps.separation.summary import SeparationSummary
from prunus.apps.separation.voices import CONFIRM_FRAMES, open_picker, shows_mouth
from prunus.runtime.errors import CheckFailedError, UsageError

if TYPE_CHECKING:
    from prunus.runtime.tasks.faces.finder import Face

Audio = npt.NDArray[np.float32]
_BEHIND = 1.0  # seconds of waiting sound from which a live run is called too slow
_LEVELS = 0.8  # share of the old value in a falling meter


@dataclass(slots=True)
class _Work:
    """One AV frame on its way through the stages."""

    frame: AVFrame
    faces: list[Face] = field(default_factory=list)
    voice: Audio = field(default_factory=lambda: np.zeros(0, np.float32))
    stage_ms: dict[str, float] = field(default_factory=dict)


def run_separation(
    options: SeparationOptions, *, quiet: bool = False, models: Models | None = None
) -> SeparationSummary:
    """Run until the source ends, the user stops, or `seconds` are done.

    Args:
        options: What to run.
        quiet: No progress and no notes.
        models: What is open already; it stays open.

    Raises:
        PrunusError: source, sink, model or options cannot be used; or the chosen face was never
            seen. Nothing is written then.
    """
    started = time.perf_counter()
    if options.face < 1:
        raise UsageError(f"Got --face {options.face}; faces are numbered from 1.")
    check_outputs((options.source,), options.sinks)
    with ExitStack() as stack:
        models = models or open_models(options, options.compute.keywords(), stack)
        separator = models.separator
        rate, fps = separator.sample_rate_hz, separator.mouth.frame_rate_hz
        av_frames = stack.enter_context(
            closing(open_av_frames(options.source, fps, rate, reconnect=options.reconnect))
        )
        run = _Run(options, av_frames, models, stack)
        if not quiet:
            random = "the weights are random: the voice shows speed, not separation"
            reasons = () if separator.trained else (random,)
            names = run.named() or ["null:"]
            announce(separator.voice, [av_frames.info], names, options.compute, reasons)
        counts = run.loop(started, quiet)
        run.finish(counts)
    return run.summary(counts)


class _Run:
    """The loop of one run, its outputs, and what it counts."""

    def __init__(
        self,
        options: SeparationOptions,
        av_frames: Source[AVFrame],
        models: Models,
        stack: ExitStack,
    ) -> None:
        from prunus.runtime.tasks.faces.finder import FaceOptions, FaceTracker

        separator = models.separator
        self.options, self.av_frames, self.separator = options, av_frames, separator
        self._finder, self._mesh = models.finder, models.mesh
        self._told: list[str] = []  # what the run itself has to say
        self._failures: list[str] = []  # of sinks
        self.rate = separator.sample_rate_hz
        self.step = self.rate // separator.mouth.frame_rate_hz
        self.live = isinstance(av_frames, LiveAVFrames)
        self._tracker = FaceTracker(
            FaceOptions(every=options.detect_every, confirm_frames=CONFIRM_FRAMES)
        )
        plan = separator.stream(hop_s=options.hop).plan  # raises before any file is opened
        self._hop = plan.hop_s  # the voice comes in such pieces
        self.picker = open_picker(separator, options, options.face, live=self.live)
        self.delay_seconds = (plan.delay + self.picker.look_ahead * self.step) / self.rate
        self._last: list[Face] = []
        # Sound that is not heard is lost, so only a clip can stand still.
        self._controls = Controls(options, {"face": "Face"}, pause=not self.live)
        self.seen: dict[int, int] = {}
        self._inside = 0
        self._came = 0  # samples of true sound
        self._voiced = 0  # samples of the voice that were written
        self._pending: deque[_Work] = deque()
        self._voice: deque[Audio] = deque()
        self._levels = {"mix": -60.0, "voice": -60.0}
        self._panel = Panel(separator.voice.card, av_frames.info)
        self._draw_ms = 0.0
        self._warned = False
        self._busy_ms = {"faces": 0.0, "separate": 0.0}
        self._clocks = StageClocks()
        self.pictures: Outlets[Sink[Frame]] = Outlets(stack)
        self.sounds: Outlets[SoundSink] = Outlets(stack)
        self.clips: Outlets[ClipWriter] = Outlets(stack)
        self.outputs: list[str] = []
        self._named: dict[str, str] = {}
        self._open_sinks()
        self.watch = SoundWatch(options.log, {"model": separator.voice.card.name,
                                              "source": options.source}, stack)  # fmt: skip
        recorder = av_frames.recorder if isinstance(av_frames, LiveAVFrames) else None
        self.watch.ends = [recorder, *self.sounds.sinks]
        self._pages = Pages(
            self.pictures.sinks, self._controls, separator.voice.card.name, options.source,
            {"choose": "face"},
        )  # fmt: skip

    def _open_sinks(self) -> None:
        uris = self.options.sinks or (_default_sink(self.options.source, self.live),)
        info = self.av_frames.info
        sound = SoundFormat(self.rate, self._hop, keep=self.rate, live=self.live)
        for uri in uris:
            row = resolve(uri, "av", "frames", "sound")
            if row.items == "av":
                self.clips.add(uri, partial(row.load(), uri, info, sound))
            elif row.items == "sound":
                self.sounds.add(uri, partial(row.load(), uri, sound))
            else:
                self.pictures.add(uri, partial(_open_pictures, uri, info))
                self._named[uri] = self.pictures.sinks[-1].name  # a page's address has its token
            if uri != "null:":
                self.outputs.append(uri)
        for sink in self.pictures.sinks:
            if isinstance(sink, WindowSink):  # its keys and clicks choose the voice
                sink.on_key, sink.on_click = self._key, self._click

    def named(self) -> list[str]:
        """Return how the outputs are told to people."""
        return [self._named.get(uri, uri) for uri in self.outputs]

    def _key(self, code: int) -> None:
        if ord("1") <= code <= ord("9"):
            self._controls.set({"face": code - ord("0")})

    def _click(self, x: int, y: int) -> None:
        for face in self._last:
            x0, y0, x1, y1 = face.box
            if x0 <= x <= x1 and y0 <= y <= y1:
                self._controls.set({"face": face.face_id})

    def loop(self, started: float, quiet: bool) -> Counts:
        """Run the pipeline to its end and count."""
        from prunus.runtime.pipeline.pipeline import Stage

        limit, clocked = self.options.seconds, self._clocks.clocked
        stages = [
            Stage("faces", clocked("faces", self._faces)),
            Stage("separate", clocked("separate", self._separate)),
        ]
        write = clocked("write", self._write)
        return Loop(
            title="separation",
            items=map(_Work, self.av_frames),
            live=self.av_frames.info.live,
            stages=stages,
            write=lambda work, stage_ms: write((work, stage_ms)),
            note=lambda work, rate: (
                f"{rate:.1f} frames/s, {len(work.faces)} faces, voice of {self.picker.chosen}"
            ),
            controls=self._controls,
            expected=self.av_frames.info.frames,
            limit=None if limit is None else max(1, round(limit * self.rate / self.step)),
            quiet=quiet,
            started=started,
        ).run()

    def _faces(self, work: _Work) -> _Work:
        if work.frame.fresh:
            frame = work.frame
            self._last = self._tracker.update(frame.image, self._finder, self._mesh, frame.seconds)
        work.faces = self._last
        return work

    def _separate(self, work: _Work) -> _Work:
        self.picker.choose(self._controls["face"])
        # Drawing comes later and into a copy: the cropper still needs the clean picture.
        work.voice = self.picker.push(work.frame.image, work.faces, work.frame.sound)
        return work

    def _write(self, came: tuple[_Work, Mapping[str, float]]) -> None:
        work, stage_ms = came
        for name in self._busy_ms:
            work.stage_ms[name] = stage_ms[name]
            self._busy_ms[name] += stage_ms[name]
        self._came += work.frame.samples
        for face in work.faces:
            self.seen[face.face_id] = self.seen.get(face.face_id, 0) + 1
            self._inside += face.face_id == self.picker.chosen and shows_mouth(face)
        self._hear(work.voice)
        self.watch.tell(self._came / self.rate)
        self._pending.append(work)
        while self._pending and (self.live or self._covered(self._pending[0])):
            self._show(self._pending.popleft())
        if self.live and not self._warned:
            self._warn_when_late()
        if self.outputs and set(self.outputs) <= set(self._lost()):
            raise Stop  # nobody is left to write for

    def _lost(self) -> tuple[str, ...]:
        return (*self.sounds.lost, *self.clips.lost, *self.pictures.lost)

    def _covered(self, work: _Work) -> bool:
        given: int = self.picker.given
        return given >= (work.frame.index + 1) * self.step

    def _hear(self, voice: Audio) -> None:
        if not len(voice):
            return
        self._voice.append(voice)
        true = voice[: max(0, self._came - self._voiced)]
        self._voiced += len(true)
        self.sounds.each(lambda sink: sink.write(true))
        self.clips.each(lambda clip: clip.sound(voice))

    def _show(self, work: _Work) -> None:
        begun = time.perf_counter()
        voice = self._voice_of(work)
        if not (self.pictures.uris or self.clips.uris):
            return
        for name, sound in (("mix", work.frame.sound), ("voice", voice)):
            now, old = level_db(sound), self._levels[name]
            self._levels[name] = max(now, _LEVELS * old + (1 - _LEVELS) * now)
        drawn = clean = work.frame.image
        if self.options.overlay:
            drawn = self._drawn(work, drawn.copy())
        seconds = work.frame.seconds
        frame = Frame(work.frame.index, drawn, "", work.frame.captured_ns, seconds=seconds)
        self._tell(work, clean if self.options.overlay else None)
        self.pictures.each(lambda sink: sink.write(frame, drawn))
        self.clips.each(lambda clip: clip.picture(drawn, seconds))
        self._draw_ms = (time.perf_counter() - begun) * 1000

    def _voice_of(self, work: _Work) -> Audio:
        """Return the voice of an AV frame in clips; live, what came last."""
        joined = np.concatenate(self._voice) if self._voice else np.zeros(0, np.float32)
        self._voice.clear()
        if self.live:
            return joined
        if len(joined) > self.step:
            self._voice.append(joined[self.step :])
        return joined[: self.step]

    def _drawn(self, work: _Work, scene: Image) -> Image:
        draw_faces(scene, work.faces, self.picker.chosen)
        draw_meters(scene, list(self._levels.items()))
        times = {**work.stage_ms, "draw": self._draw_ms}
        lines = self._panel.lines(times, 0)
        lines[-1] = f"real-time factor {self.factor():.2f}"
        return draw_panel(scene, lines)

    def _tell(self, work: _Work, clean: Image | None) -> None:
        chosen = self.picker.chosen
        facts: dict[str, object] = {**card_facts(self.separator.voice.card)}
        facts |= {"Voice of face": chosen, "Faces": len(work.faces)}
        facts |= {f"Level of {name}": f"{db:.0f} dB" for name, db in self._levels.items()}
        facts["Real-time factor"] = f"{self.factor():.2f}"
        stages = {**work.stage_ms, "draw": self._draw_ms}
        self._pages.tell(clean, facts, stages, lambda: face_shapes(work.faces, chosen))

    def factor(self) -> float:
        """Return the share of the sound's time in which the slowest stage was busy."""
        busy: float = max(self._busy_ms.values())
        return busy / max(1000 * self._came / self.rate, 1.0)

    def _warn_when_late(self) -> None:
        recorder = self.av_frames.recorder if isinstance(self.av_frames, LiveAVFrames) else None
        if recorder is None or recorder.waiting < _BEHIND * self.rate:
            return
        self._warned = True
        self._told.append(
            f"this machine is {self.factor():.2f} times too slow to separate live with this "
            "model: sound was dropped. Take a smaller model, or record a clip and separate that"
        )

    def finish(self, counts: Counts) -> None:
        """Write what waits; refuse a run in which the chosen face was never seen.

        Raises:
            CheckFailedError: it was not seen.
        """
        if self.picker.chosen not in self.seen and not self.live:
            others = ", ".join(f"{k} ({v / self.av_frames.info.fps:.1f} s)"
                               for k, v in sorted(self.seen.items()))  # fmt: skip
            found = f"faces seen: {others}" if others else "no face was seen at all"
            raise CheckFailedError(
                f"Face {self.picker.chosen} was not seen in {self.options.source}; {found}.",
                "Choose another with --face, or film faces larger and from the front.",
            )
        self._hear(self.picker.flush())
        while self._pending:
            self._show(self._pending.popleft())
        self._counts = self.watch.counts()  # what the end of a sound brings is no fault
        self.watch.tell(self._came / self.rate, last=True)
        self.sounds.finish(lambda sink: sink.finish(self._came))
        self.clips.finish(lambda clip: None)
        self.pictures.finish(lambda sink: None)
        for outlets in (self.sounds, self.clips, self.pictures):
            self._failures += outlets.failures(self.outputs)
        logs, lost_logs = self.watch.finish()
        self._failures += lost_logs
        lost = self._lost()
        self.outputs = [*(uri for uri in self.outputs if uri not in lost), *logs]

    def summary(self, counts: Counts) -> SeparationSummary:
        """Return what the run did."""
        seconds = self._came / self.rate
        notes = [*self.av_frames.warnings, *self._told]
        share = self._inside / max(counts.frames, 1)
        if share < 0.95:
            notes.append(
                f"the mouth of face {self.picker.chosen} was in the picture for "
                f"{100 * share:.0f} % of the time; elsewhere its last crop was repeated"
            )
        late = self.av_frames.recorder.late if isinstance(self.av_frames, LiveAVFrames) else 0
        taken = counts.seconds / seconds if seconds else 0.0
        fps = self.av_frames.info.fps
        return SeparationSummary(
            model=self.separator.voice.card.name,
            backend=self.separator.voice.description,
            faces={k: round(v / fps, 2) for k, v in sorted(self.seen.items())},
            chosen=self.picker.chosen,
            seconds=seconds,
            delay_seconds=round(self.delay_seconds, 3),
            declared_ms=self.watch.declared_ms(self.delay_seconds),
            devices=self._counts,
            real_time_factor=self.factor() if self.live else taken,
            dropped_seconds=late / self.rate,
            first_ms=counts.first_ms,
            stages=counts.stages,
            cpu_seconds=self._clocks.found(),
            outputs=tuple(self.named()),
            notes=tuple(dict.fromkeys(notes)),
            warnings=tuple(self._failures),
            interrupted=counts.interrupted,
        )


def _default_sink(source: str, live: bool) -> str:
    return "web:8080" if live else f"{Path(source.partition('+')[0]).stem}-voice.mp4"


def _open_pictures(uri: str, info: SourceInfo, owned: ExitStack) -> Sink[Frame]:
    return owned.enter_context(closing(open_sink(uri, info)))

