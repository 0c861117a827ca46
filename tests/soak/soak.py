"""Let live runs go on for long, at twice the load that they can take, and plant troubles meanwhile.

    python tests/soak/soak.py --seconds 3600 --folder build/soak     # or: make soak SECONDS=3600

Poses of two cameras (MJPEG over loopback, one of them with numbers that are read off the page
again), and, where there is PulseAudio, a codec between two null sinks. Half-way through, the
troubles come one after the other; short runs beside them have theirs. In the end the long runs are
interrupted, and everything that was written is read back. Printed is a table of trouble, what was
expected, what was seen and the verdict; the same is in FOLDER/soak.json. The exit code is 1 where
one of them failed.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from parties import SIZE, Camera, Program, Viewer, small_disk, until

from prunus.apps.io.sources.registry import open_source
from prunus.runtime.errors import PrunusError
from prunus.runtime.json_text import json_text
from prunus.runtime.pipeline.governor import replay

ROOT = Path(__file__).resolve().parents[2]
LEAST_SECONDS = 60.0
MOST_FPS = 60.0  # of a camera; a machine that is too fast for twice its load is told so
GROWTH_MIB = 24.0  # of resident memory from the middle of the run to its end
GROWTH_MIB_PER_HOUR = 96.0  # or that, where it is more
INTERVALS, SPARE_S = 6.0, 0.5  # a picture may be so many frame intervals old, and that
MOST_SOUND_MS = 2_000.0  # that may wait before the microphone's reader
_MODEL = ("--backend", "onnxruntime", "--threads", "1")


@dataclass(frozen=True)
class Verdict:
    """A trouble, or what should hold all the time."""

    trouble: str
    expected: str
    seen: str
    passed: bool


def growth(samples: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return growth from the middle to the end, and seconds between: medians of sixths.

    >>> growth([(float(t), 100.0 + t) for t in range(60)])
    (25.0, 25.0)
    """
    rows = np.array(samples[len(samples) // 2 :])
    parts = np.array_split(rows, 6)
    (begin, low), (end, high) = np.median(parts[0], axis=0), np.median(parts[-1], axis=0)
    return float(high - low), float(end - begin)


def judge_memory(name: str, samples: Sequence[tuple[float, float]]) -> Verdict:
    """Judge whether memory stays flat."""
    if len(samples) < 24:
        return Verdict(f"memory of {name}", "flat", f"{len(samples)} samples only", False)
    grown, seconds = growth(samples)
    allowed = max(GROWTH_MIB, GROWTH_MIB_PER_HOUR * seconds / 3600)
    return Verdict(
        f"memory of {name}", f"at most {allowed:.0f} MiB more in {seconds:.0f} s",
        f"{samples[-1][1]:.0f} MiB, {grown:+.1f}", bool(grown <= allowed),
    )  # fmt: skip


def judge_lag(name: str, seen: np.ndarray) -> Verdict:
    """Judge whether pictures are as late as the frames that are on their way, and no later.

    Args:
        name: When.
        seen: (count, 2): when they came, and their ages, in seconds.
    """
    if len(seen) < 8:
        return Verdict(name, "pictures come", f"{len(seen)} pictures", False)
    interval = float(np.median(np.diff(seen[:, 0])))
    p50, p95 = np.percentile(seen[:, 1], (50, 95))
    allowed = INTERVALS * interval + SPARE_S
    return Verdict(
        name, f"p95 at most {INTERVALS:g} intervals + {SPARE_S:g} s = {allowed:.2f} s",
        f"p50/p95 {p50:.2f}/{p95:.2f} s, {1 / max(interval, 1e-3):.1f} pictures/s",
        bool(p95 <= allowed),
    )  # fmt: skip


def judge_drift(early: np.ndarray, late: np.ndarray) -> Verdict:
    """Judge whether pictures get later and later: ages in intervals, early and late in the run."""
    if len(early) < 8 or len(late) < 8:
        return Verdict("drift of pictures", "none", f"{len(early)}, {len(late)} pictures", False)
    first, last = (float(np.median(s[:, 1]) / np.median(np.diff(s[:, 0]))) for s in (early, late))
    return Verdict(
        "drift of pictures", "at most 2 intervals older than early in the run",
        f"{first:.1f} intervals early, {last:.1f} late", bool(last <= first + 2.0),
    )  # fmt: skip


def capacity(folder: Path) -> float:
    """Return frames a second that two sources get when nobody holds them back, of each."""
    source = f"synthetic:{SIZE[0]}x{SIZE[1]}@0*40"
    run = Program(folder, "capacity", "pose", "--source", source, "--source", source, *_MODEL,
                  "--sink", "null:", "--json-out", folder / "capacity.jsonl")  # fmt: skip
    if run.wait(300.0):
        raise SystemExit(f"The first run failed:\n{run.said}")
    return run.summary["frames"] / run.summary["seconds"] / 2


def whole_video(path: Path) -> str:
    """Return how many frames a video has; raises PrunusError or ValueError for one that is cut."""
    with closing(open_source(str(path))) as source:
        frames = sum(1 for _ in source)
    if not frames or source.warnings:
        raise ValueError(f"{path.name}: {frames} frames, {'; '.join(source.warnings)}")
    return f"{path.name} {frames} frames"


def whole_lines(path: Path) -> str:
    """Return how many lines of JSON there are; raises ValueError for one that is cut."""
    lines = path.read_text().splitlines()
    for line in lines:
        json.loads(line)
    if not lines:
        raise ValueError(f"{path.name} is empty")
    return f"{path.name} {len(lines)} lines"


def whole_log(path: Path) -> str:
    """Return how many decisions of a governor are the same again; raises ValueError."""
    rows = list(replay(path.read_text().splitlines()))
    if not rows or any(row["rung"] != rung.name for row, rung in rows):
        raise ValueError(f"{path.name} does not replay")
    return f"{path.name} {len(rows)} decisions"


class Soak:
    """One run of all of it."""

    def __init__(self, folder: Path, seconds: float, stack: ExitStack) -> None:
        self.folder, self.seconds, self.verdicts = folder, seconds, []
        self._stack = stack
        self.sound = self._sound_server()
        self.capacity = capacity(folder)
        self.fps = min(max(2 * self.capacity, 2.0), MOST_FPS)
        self.load = self.fps / self.capacity
        self.cameras = [Camera(self.fps), Camera(self.fps)]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        sources = [f"http://127.0.0.1:{c.port}/stream" for c in self.cameras]
        self.poses = Program(
            folder, "poses", "pose", "--source", sources[0], "--source", sources[1], *_MODEL,
            "--sink", f"web:127.0.0.1:{port}", "-o", folder / "poses.mp4", "--json-out",
            folder / "poses.jsonl", "--log", folder / "poses-log.jsonl",
        )  # fmt: skip
        self.names = [f"127.0.0.1-{c.port}-stream" for c in self.cameras]
        stack.callback(self.poses.process.kill)
        self.viewer = Viewer(port, self.cameras[0])
        self.codec = self._codec()

    def _sound_server(self):
        """Return a sound server without devices, None where there is none."""
        spec = importlib.util.spec_from_file_location("parts", ROOT / "tests/apps/conftest.py")
        parts = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(parts)
        try:
            place = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-")))
            server = parts.SoundServer(place)
        except (OSError, AssertionError):
            return None
        self._stack.callback(server.close)
        heard = server.ask(sys.executable, "-m", "sounddevice").stdout
        return server if "pulse" in heard else None

    def _codec(self) -> Program | None:
        if self.sound is None:
            return None
        player = self.sound.start(
            "pacat", "--playback", "-d", "hole", "--format=s16le", "--rate=16000", "--channels=1",
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._stack.callback(player.kill)

        def feed() -> None:
            with contextlib.suppress(OSError):
                t = np.arange(16_000) / 16_000
                tone = 0.2 * np.sin(2 * np.pi * 200 * t) * (1 + np.sin(2 * np.pi * 4 * t)) / 2
                while True:
                    player.stdin.write((32767 * tone).astype("<i2").tobytes())

        threading.Thread(target=feed, daemon=True).start()
        found = Program(
            self.folder, "codec", "codec", "--source", "mic:pulse", "--sink", "speaker:pulse",
            "--log", self.folder / "codec.jsonl", *_MODEL,
            **{k: v for k, v in self.sound.environment.items() if k.startswith("PULSE_")},
        )  # fmt: skip
        self._stack.callback(found.process.kill)
        return found

    def add(self, trouble: str, expected: str, seen: str, passed: bool) -> None:
        """Keep a verdict, and say it."""
        self.keep(Verdict(trouble, expected, seen, bool(passed)))

    def keep(self, verdict: Verdict) -> None:
        """Keep a verdict, and say it."""
        self.verdicts.append(verdict)
        word = "ok    " if verdict.passed else "FAILED"
        print(f"{word} {verdict.trouble}: {verdict.seen}", file=sys.stderr, flush=True)

    def run(self) -> None:
        """Do everything, in order."""
        ready = until(lambda: len(self.lines(0)) and len(self.lines(1)), 120.0)
        if ready is None:
            raise SystemExit(f"The long run did not begin:\n{self.poses.said}")
        until(lambda: not self._chosen_fails(), 20.0)
        began = time.monotonic()

        def wait(share: float) -> float:
            """Wait for a moment of the run, its length being 1."""
            time.sleep(max(began + share * self.seconds - time.monotonic(), 0.0))
            return time.monotonic()

        start, early = wait(0.05), wait(0.25)
        calm = self.viewer.between(start, early)
        self.keep(judge_lag(f"lag at {self.load:.1f} times the load", calm))
        for trouble in (self.pipe_closed, self.disk_full, self.frames_cut, self.unplugged,
                        self.suspended):  # fmt: skip
            trouble()
        late = wait(0.75)
        end = wait(1.0)
        end = max(end, late + self.seconds * 0.2)
        time.sleep(max(end - time.monotonic(), 0.0))
        last = self.viewer.between(late, end)
        self.keep(judge_lag("lag after all troubles", last))
        self.keep(judge_drift(calm, last))
        self.keep(judge_memory("poses", self.poses.memory))
        if self.codec is not None:
            self.sound_stays(late - began)
            self.keep(judge_memory("codec", self.codec.memory))
            self.device_gone()
        else:
            print("no PulseAudio: no sound", file=sys.stderr)
        self.ends_whole()

    def _chosen_fails(self) -> bool:
        try:
            self.viewer.choose(self.names[0])
        except OSError:
            return True
        return False

    def lines(self, camera: int) -> list[str]:
        """Return what was written about one camera so far."""
        path = self.folder / f"poses-{self.names[camera]}.jsonl"
        return path.read_text().splitlines() if path.is_file() else []

    def seen_since(self, begin: float) -> bool:
        """Tell whether a picture taken after a moment has come."""
        return any(now - age > begin for now, age in tuple(self.viewer.seen)[-200:])

    # Troubles

    def frames_cut(self) -> None:
        """Send halves of pictures for two seconds."""
        self.cameras[0].cut = True
        time.sleep(2.0)
        self.cameras[0].cut, begin = False, time.monotonic()
        took = until(lambda: self.seen_since(begin), 30.0)
        runs = self.poses.process.poll() is None
        self.add("frames cut for 2 s", "skipped; whole ones come again", _took(took), runs and
                 took is not None)  # fmt: skip

    def unplugged(self) -> None:
        """Take a camera away for five seconds."""
        before = len(self.lines(1))
        self.cameras[0].unplug()
        time.sleep(5.0)
        other = len(self.lines(1)) - before
        self.cameras[0].plug()
        begin = time.monotonic()
        took = until(lambda: self.seen_since(begin), 40.0)
        self.add("camera unplugged for 5 s", "comes back; the other one goes on",
                 f"{_took(took)}; {other} lines of the other",
                 took is not None and other > 0)  # fmt: skip

    def suspended(self) -> None:
        """Stop the long runs for four seconds."""
        programs = [p for p in (self.poses, self.codec) if p is not None]
        for program in programs:
            program.send(signal.SIGSTOP)
        time.sleep(4.0)
        for program in programs:
            program.send(signal.SIGCONT)
        begin = time.monotonic()
        took = until(lambda: self.seen_since(begin), 30.0)
        runs = all(p.process.poll() is None for p in programs)
        self.add("suspended for 4 s", "goes on with what is newest", _took(took), runs and
                 took is not None)  # fmt: skip

    def pipe_closed(self) -> None:
        """Close the pipe behind the tenth line."""
        run = subprocess.Popen(
            [sys.executable, "-m", "prunus", "run", "pose", "--source", "synthetic:320x240@5",
             *_MODEL, "--single", "--json-out", "-", "--quiet"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._stack.callback(run.kill)
        lines = [json.loads(run.stdout.readline()) for _ in range(10)]
        run.stdout.close()
        try:
            code, said = run.wait(60.0), run.stderr.read()
        except subprocess.TimeoutExpired:
            code, said = None, "still running"
        self.add("reader of the pipe gone", "10 whole lines, a silent end, exit code 0",
                 f"{len(lines)} lines, exit code {code}, {said.strip() or 'silent'}",
                 code == 0 and not said)  # fmt: skip

    def disk_full(self) -> None:
        """Fill the disk on which a video is being recorded."""
        with small_disk(self.folder / "disk", 32) as fill:
            video = self.folder / "disk" / "full.mp4"
            path = self.folder / "full.jsonl"
            run = Program(
                self.folder, "full", "pose", "--source", "synthetic:320x240@20", *_MODEL,
                "--single", "-o", video, "--json-out", path,
            )  # fmt: skip
            until(lambda: path.is_file() and path.read_text().count("\n") > 160, 120.0)
            how = fill(run)
            lost = until(lambda: run.process.poll() is not None, 20.0)
            before = path.read_text().count("\n")
            time.sleep(2.0)
            more = path.read_text().count("\n") - before
            code = run.end()
            told = [w for w in run.summary.get("warnings", ()) if "full.mp4" in w]
            frames = 0
            with contextlib.suppress(PrunusError), closing(open_source(str(video))) as source:
                frames = sum(1 for _ in source)
            # Where files may not grow, the lines cannot go on either.
            goes_on = more > 0 if "system" in how else lost is not None
            self.add(f"disk full ({how})", "the video plays, one message, the rest goes on",
                     f"{frames} frames; {told or run.said[-200:]}; {more} more lines; exit code "
                     f"{code}", frames > 0 and (len(told) == 1 or lost is not None) and goes_on
                     and code != 0)  # fmt: skip

    def device_gone(self) -> None:
        """Take the loudspeaker and the microphone away."""
        listed = self.sound.ask("pactl", "list", "short", "modules").stdout
        for line in listed.splitlines():
            if "module-null-sink" in line:
                self.sound.ask("pactl", "unload-module", line.split("\t")[0])
        took = until(lambda: self.codec.process.poll() is not None, 30.0)
        code = self.codec.end()
        messages = [line for line in self.codec.said.splitlines() if line.startswith("error:")]
        self.add("sound device gone", "one message that names it, exit code above 0",
                 f"{_took(took)}; exit code {code}; {'; '.join(messages) or 'silent'}",
                 len(messages) == 1 and "was lost after" in messages[0] and took is not None
                 and code not in (0, -9))  # fmt: skip

    # What should hold

    def sound_stays(self, late: float) -> None:
        """Judge the codec: what waits before its microphone stays bounded, also at the end."""
        rows = [json.loads(line) for line in (self.folder / "codec.jsonl").read_text().splitlines()]
        rows = [row for row in rows if "microphone_late_ms" in row]
        worst = max((r["microphone_late_ms"] for r in rows), default=np.inf)
        end = np.median([r["microphone_late_ms"] for r in rows[-10:]]) if rows else np.inf
        lost = rows[-1] if rows else {}
        self.add(
            "lag of sound", f"at most {MOST_SOUND_MS:.0f} ms wait at the end",
            f"{end:.0f} ms at the end, {worst:.0f} at worst; lost and told: "
            f"{lost.get('microphone_dropped_ms', 0):.0f} ms of the microphone, "
            f"{lost.get('speaker_silence_ms', 0):.0f} ms of silence; drift "
            f"{lost.get('speaker_drift_ppm', 0):.0f} ppm",
            end <= MOST_SOUND_MS and self.codec.process.poll() is None,
        )  # fmt: skip

    def ends_whole(self) -> None:
        """Interrupt the long run, and read back everything that it wrote."""
        code = self.poses.end()
        summary = self.poses.summary
        self.add("interrupted", "exit code 130, a summary", f"exit code {code}", code == 130 and
                 bool(summary))  # fmt: skip
        told = [w for w in summary.get("warnings", ()) if "was interrupted" in w]
        cut = [w for w in summary.get("warnings", ()) if "damaged" in w]
        self.add("messages about the camera", "one about its absence, one about cut pictures",
                 "; ".join((*told, *cut)) or "none", len(told) == 1 and len(cut) == 1)  # fmt: skip
        checks: list[tuple[Callable[[Path], str], Path]] = [
            (whole_log, self.folder / "poses-log.jsonl")
        ]
        for name in self.names:
            checks.append((whole_video, self.folder / f"poses-{name}.mp4"))
            checks.append((whole_lines, self.folder / f"poses-{name}.jsonl"))
        if self.codec is not None:
            checks.append((whole_lines, self.folder / "codec.jsonl"))
        for check, path in checks:
            try:
                seen, passed = check(path), True
            except (ValueError, OSError, PrunusError) as error:
                seen, passed = f"{type(error).__name__}: {error}", False
            self.add("what was written", "whole", seen, passed)
        left = [path.name for path in self.folder.glob(".*")]
        self.add("half-written files", "none", ", ".join(left) or "none", not left)


def _took(seconds: float | None) -> str:
    return "never" if seconds is None else f"after {seconds:.1f} s"


def table(verdicts: Sequence[Verdict]) -> str:
    """Return the verdicts as a table."""
    rows = [("", "trouble", "expected", "seen")]
    rows += [("ok" if v.passed else "FAILED", v.trouble, v.expected, v.seen) for v in verdicts]
    widths = [min(max(len(row[k]) for row in rows), 64) for k in range(3)]
    return "\n".join(
        "  ".join((*(c.ljust(w) for c, w in zip(r, widths, strict=False)), r[3])) for r in rows
    )


def main() -> int:
    """Soak, print, and return the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600.0, help=f"{LEAST_SECONDS:g} or more")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "soak")
    options = parser.parse_args()
    if options.seconds < LEAST_SECONDS:
        parser.error(f"got {options.seconds:g} s; expected {LEAST_SECONDS:g} or more")
    # Whatever starts this may ignore Ctrl-C, and then the runs would, too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    options.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=options.folder))
    with ExitStack() as stack:
        soak = Soak(folder, options.seconds, stack)
        print(f"{soak.fps:.1f} frames a second of each camera, {soak.load:.1f} times what two can "
              f"have; files in {folder}", file=sys.stderr)  # fmt: skip
        soak.run()
    passed = all(verdict.passed for verdict in soak.verdicts)
    told = {
        "seconds": options.seconds, "offered_fps": soak.fps, "capacity_fps": soak.capacity,
        "passed": passed, "verdicts": [asdict(v) for v in soak.verdicts],
    }  # fmt: skip
    (options.folder / "soak.json").write_text(json_text(told, indent=1))
    print(table(soak.verdicts))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
