"""Let live runs go on for long, at twice the load that they can take, and plant troubles meanwhile.

    python tests/soak/soak.py --seconds 3600 --folder build/soak     # or: make soak SECONDS=3600

Poses of two cameras (MJPEG over loopback; the numbers in the pictures of one are read off the page
again), and, where there is PulseAudio, a codec between two null sinks. Short runs beside them have
troubles of their own. In the end everything that was written is read back. Printed is a table of
trouble, what was expected, what was seen and the verdict; the same is in FOLDER/soak.json. The exit
code is 1 where one of them failed.
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
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from parties import Camera, Program, Viewer, small_disk, until

from prunus.apps.io.sources.registry import open_source
from prunus.runtime.errors import PrunusError
from prunus.runtime.json_text import json_text
from prunus.runtime.pipeline.governor import replay

ROOT = Path(__file__).resolve().parents[2]
LEAST_SECONDS = 60.0
MOST_FPS = 60.0  # of a camera; a machine that is too fast for twice its load is told so
GROWTH_MIB, GROWTH_MIB_PER_HOUR = 24.0, 96.0  # of memory from the middle to the end, the larger
INTERVALS, SPARE_S = 6.0, 0.5  # a picture may be so many frame intervals old, and that
DRIFT_INTERVALS = 2.0  # by which it may be older late in the run
MOST_SOUND_MS = 2_000.0  # that may wait before the microphone's reader
_MODEL = ("--backend", "onnxruntime", "--threads", "1")


@dataclass(frozen=True)
class Verdict:
    """A trouble, or what should hold all the time."""

    trouble: str
    expected: str
    seen: str
    passed: bool


def judge_memory(name, samples):
    """Judge whether memory stays flat: medians of sixths of the second half, (seconds, MiB)."""
    if len(samples) < 24:
        return Verdict(name, "flat", f"{len(samples)} samples only", False)
    parts = np.array_split(np.array(samples[len(samples) // 2 :]), 6)
    seconds, grown = np.median(parts[-1], axis=0) - np.median(parts[0], axis=0)
    allowed = max(GROWTH_MIB, GROWTH_MIB_PER_HOUR * seconds / 3600)
    return Verdict(
        name, f"at most {allowed:.0f} MiB more in {seconds:.0f} s",
        f"{samples[-1][1]:.0f} MiB, {grown:+.1f}", bool(grown <= allowed),
    )  # fmt: skip


def judge_lag(name, seen):
    """Judge whether pictures, (time, age), are as late as what is on its way, and no later."""
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


def judge_drift(early, late):
    """Judge whether pictures get later and later, in intervals: machines have moods."""
    name, expected = "drift of pictures", f"at most {DRIFT_INTERVALS:g} intervals older in the end"
    if min(len(early), len(late)) < 8:
        return Verdict(name, expected, f"{len(early)}, {len(late)} pictures", False)
    first, last = (float(np.median(s[:, 1]) / np.median(np.diff(s[:, 0]))) for s in (early, late))
    seen = f"{first:.1f} intervals early, {last:.1f} late"
    return Verdict(name, expected, seen, last <= first + DRIFT_INTERVALS)


def frames_of(path):
    """Return how many frames of a video can be read, and what is wrong with it."""
    with closing(open_source(str(path))) as source:
        return sum(1 for _ in source), "; ".join(source.warnings)


def whole_video(path):
    """Return what is there; raises ValueError or PrunusError where that is not all."""
    frames, wrong = frames_of(path)
    if wrong or not frames:
        raise ValueError(f"{path.name}: {frames} frames, {wrong}")
    return f"{path.name} {frames} frames"


def whole_lines(path):
    """Return what is there; raises ValueError where a line is cut."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    if not lines:
        raise ValueError(f"{path.name} is empty")
    return f"{path.name} {len(lines)} lines"


def whole_log(path):
    """Return how many decisions of a governor come out the same again; raises ValueError."""
    rows = list(replay(path.read_text().splitlines()))
    if not rows or any(row["rung"] != rung.name for row, rung in rows):
        raise ValueError(f"{path.name} does not replay")
    return f"{path.name} {len(rows)} decisions"


class Soak:
    """All of it; `verdicts` is what came out."""

    def __init__(self, folder, seconds, stack):
        self.folder, self.seconds, self._stack = folder, seconds, stack
        self.verdicts, self.codec = [], None
        self.sound = self._sound_server()
        self.capacity = self._capacity()
        fps = min(max(2 * self.capacity, 2.0), MOST_FPS)
        self.load = fps / self.capacity
        self.cameras = [Camera(fps), Camera(fps)]
        self.names = [f"127.0.0.1-{c.port}-stream" for c in self.cameras]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        words = [w for c in self.cameras for w in ("--source", f"http://127.0.0.1:{c.port}/stream")]
        self.poses = self.start(
            "poses", "pose", *words, *_MODEL, "--sink", f"web:127.0.0.1:{port}", "-o",
            folder / "poses.mp4", "--json-out", folder / "poses.jsonl", "--log",
            folder / "poses-log.jsonl",
        )  # fmt: skip
        self.viewer = Viewer(port, self.cameras[0])
        if self.sound is not None:
            self._speak()

    def start(self, name, *words, **environment):
        """Start a program, which ends with this in any case."""
        program = Program(self.folder, name, *words, **environment)
        self._stack.callback(program.process.kill)
        return program

    def _capacity(self):
        """Return the frames a second that each of two sources gets when nothing holds it back."""
        two = ("--source", "synthetic:320x240@0*40") * 2
        run = self.start("capacity", "pose", *two, *_MODEL, "--sink", "web:0", "--quiet")
        if run.end(0, 300.0):
            raise SystemExit(f"The first run failed:\n{run.said}")
        return run.summary["frames"] / run.summary["seconds"] / 2

    def _sound_server(self):
        """Return the sound server of the tests, None where there is none."""
        spec = importlib.util.spec_from_file_location("parts", ROOT / "tests/apps/conftest.py")
        parts = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(parts)
        place = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-"))
        try:
            server = parts.SoundServer(Path(place))
        except (OSError, AssertionError):
            return None
        self._stack.callback(server.close)
        return server if "pulse" in server.ask(sys.executable, "-m", "sounddevice").stdout else None

    def _speak(self):
        form = ("--format=s16le", "--rate=16000", "--channels=1")
        player = self.sound.start("pacat", "--playback", "-d", "hole", *form,
                                  stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)  # fmt: skip
        self._stack.callback(player.kill)
        t = np.arange(16_000) / 16_000
        tone = 0.1 * np.sin(400 * np.pi * t) * (1 + np.sin(8 * np.pi * t))

        def feed():
            with contextlib.suppress(OSError):
                while True:
                    player.stdin.write((32767 * tone).astype("<i2").tobytes())

        threading.Thread(target=feed, daemon=True).start()
        there = {k: v for k, v in self.sound.environment.items() if k.startswith("PULSE_")}
        self.codec = self.start(
            "codec", "codec", "--source", "mic:pulse", "--sink", "speaker:pulse", "--log",
            self.folder / "codec.jsonl", *_MODEL, **there,
        )  # fmt: skip

    def keep(self, verdict):
        """Keep a verdict, and say it."""
        self.verdicts.append(verdict)
        word = "ok    " if verdict.passed else "FAILED"
        print(f"{word} {verdict.trouble}: {verdict.seen}", file=sys.stderr, flush=True)

    def add(self, trouble, expected, seen, *passed):
        """Keep a verdict: all of `passed` must hold."""
        self.keep(Verdict(trouble, expected, seen, all(map(bool, passed))))

    def run(self):
        """Do everything, in order."""
        if until(lambda: self.lines(0) and self.lines(1), 120.0) is None:
            raise SystemExit(f"The long run did not begin:\n{self.poses.said}")
        until(lambda: self.viewer.choose(self.names[0]), 20.0)
        began = time.monotonic()

        def wait(moment):
            time.sleep(max(moment - time.monotonic(), 0.0))
            return time.monotonic()

        start = wait(began + 0.05 * self.seconds)
        calm = self.viewer.between(start, wait(began + 0.25 * self.seconds))
        self.keep(judge_lag(f"lag at {self.load:.1f} times the load", calm))
        for trouble in (self.pipe_closed, self.disk_full, self.frames_cut, self.unplugged,
                        self.suspended):  # fmt: skip
            trouble()
        late = wait(began + 0.75 * self.seconds)
        last = self.viewer.between(late, wait(late + 0.25 * self.seconds))
        self.keep(judge_lag("lag after all troubles", last))
        self.keep(judge_drift(calm, last))
        self.keep(judge_memory("memory of poses", self.poses.memory))
        if self.codec is not None:
            self.sound_stays()
            self.keep(judge_memory("memory of codec", self.codec.memory))
            self.device_gone()
        else:
            print("no PulseAudio: no sound", file=sys.stderr)
        self.ends_whole()

    def lines(self, camera):
        """Return how many lines were written about a camera so far."""
        return count(self.folder / f"poses-{self.names[camera]}.jsonl")

    def comes_back(self):
        """Return for how long nothing new was on the page, None where nothing came."""
        begin = time.monotonic()
        return until(lambda: self.viewer.sees(begin), 40.0)

    def frames_cut(self):
        """Send halves of pictures for two seconds."""
        self.cameras[0].cut = True
        time.sleep(2.0)
        self.cameras[0].cut = False
        took = self.comes_back()
        self.add(
            "frames cut for 2 s", "skipped; whole ones come", after(took), took, self.poses.runs
        )

    def unplugged(self):
        """Take a camera away for five seconds."""
        before = self.lines(1)
        self.cameras[0].unplug()
        time.sleep(5.0)
        other = self.lines(1) - before
        self.cameras[0].plug()
        took = self.comes_back()
        self.add("camera unplugged for 5 s", "comes back; the other one goes on",
                 f"{after(took)}; {other} lines of the other", took, other)  # fmt: skip

    def suspended(self):
        """Stop the long runs for four seconds."""
        programs = [p for p in (self.poses, self.codec) if p is not None]
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for program in programs:
                program.process.send_signal(number)
            time.sleep(4.0 if number == signal.SIGSTOP else 0.0)
        took = self.comes_back()
        self.add("suspended for 4 s", "goes on with what is newest", after(took), took,
                 *(p.runs for p in programs))  # fmt: skip

    def pipe_closed(self):
        """Close the pipe behind the tenth line."""
        run = subprocess.Popen(
            [sys.executable, "-m", "prunus", "run", "pose", "--source", "synthetic:320x240@5",
             *_MODEL, "--single", "--json-out", "-", "--quiet"],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._stack.callback(run.kill)
        lines = [json.loads(run.stdout.readline()) for _ in range(10)]
        run.stdout.close()
        until(lambda: run.poll() is not None, 60.0)
        said = "still running" if run.poll() is None else run.stderr.read().strip()
        self.add("reader of the pipe gone", "10 whole lines, a silent end, exit code 0",
                 f"{len(lines)} lines, exit code {run.poll()}, {said or 'silent'}",
                 run.poll() == 0, not said)  # fmt: skip

    def disk_full(self):
        """Fill the disk on which a video is being recorded."""
        with small_disk(self.folder / "disk", 32) as fill:
            video, listed = self.folder / "disk" / "full.mp4", self.folder / "full.jsonl"
            run = self.start("full", "pose", "--source", "synthetic:320x240@20", *_MODEL,
                             "--single", "-o", video, "--json-out", listed)  # fmt: skip
            until(lambda: count(listed) > 160, 120.0)
            how, before = fill(run), count(listed)
            # Where files may not grow, the lines cannot go on either, and the run ends.
            went_on = until(lambda: count(listed) > before + 10 or not run.runs, 60.0)
            code, frames = run.end(), 0
            with contextlib.suppress(PrunusError):
                frames, _ = frames_of(video)
            said = [*run.summary.get("warnings", ()), *run.said.splitlines()]
            told = [line for line in said if "full.mp4" in line and "->" not in line]
            self.add(f"disk full ({how})", "the video plays, one message, the rest goes on",
                     f"{frames} frames; {'; '.join(told) or 'silent'}; exit code {code}",
                     frames, len(told) == 1 or how != "file system", went_on, code)  # fmt: skip

    def device_gone(self):
        """Take the loudspeaker and the microphone away."""
        for line in self.sound.ask("pactl", "list", "short", "modules").stdout.splitlines():
            if "module-null-sink" in line:
                self.sound.ask("pactl", "unload-module", line.split("\t")[0])
        took = until(lambda: not self.codec.runs, 30.0)
        code = self.codec.end()
        told = [line for line in self.codec.said.splitlines() if line.startswith("error:")]
        self.add("sound device gone", "one message that names it, exit code above 0",
                 f"{after(took)}; exit code {code}; {'; '.join(told) or 'silent'}",
                 took, code > 0, len(told) == 1, "was lost after" in "".join(told))  # fmt: skip

    def sound_stays(self):
        """Judge the codec: what waits before its microphone stays bounded."""
        rows = [json.loads(line) for line in (self.folder / "codec.jsonl").read_text().splitlines()]
        late = [row["microphone_late_ms"] for row in rows if "microphone_late_ms" in row][-10:]
        end = float(np.median(late or [np.inf]))
        told = ", ".join(f"{name} {rows[-1].get(name, 0):g}" for name in (
            "microphone_dropped_ms", "speaker_silence_ms", "speaker_drift_ppm"))  # fmt: skip
        self.add("lag of sound", f"at most {MOST_SOUND_MS:.0f} ms wait; it goes on",
                 f"{end:.0f} ms at the end; told: {told}",
                 end <= MOST_SOUND_MS, self.codec.runs)  # fmt: skip

    def ends_whole(self):
        """Interrupt the long run, and read back everything that it wrote."""
        code, summary = self.poses.end(), self.poses.summary
        self.add(
            "interrupted", "exit code 130, a summary", f"exit code {code}", code == 130, summary
        )
        told = [w for w in summary.get("warnings", ()) if "was interrupted" in w or "damaged" in w]
        self.add("messages about the camera", "one about its absence, one about cut pictures",
                 "; ".join(told) or "none", len(told) == 2)  # fmt: skip
        checks = [(whole_log, "poses-log.jsonl")]
        checks += [(whole_video, f"poses-{name}.mp4") for name in self.names]
        checks += [(whole_lines, f"poses-{name}.jsonl") for name in self.names]
        checks += [(whole_lines, "codec.jsonl")] if self.codec is not None else []
        for check, name in checks:
            seen, passed = "", False
            try:
                seen, passed = check(self.folder / name), True
            except (ValueError, OSError, PrunusError) as error:
                seen = f"{type(error).__name__}: {error}"
            self.add("what was written", "whole", seen, passed)
        left = [path.name for path in self.folder.glob(".*")]
        self.add("half-written files", "none", ", ".join(left) or "none", not left)


def count(path):
    """Return how many lines a file has so far."""
    return path.read_text().count("\n") if path.is_file() else 0


def after(seconds):
    """Return how long something took, for people."""
    return "never" if seconds is None else f"after {seconds:.1f} s"


def table(verdicts):
    """Return the verdicts as a table."""
    rows = [("", "trouble", "expected", "seen")]
    rows += [("ok" if v.passed else "FAILED", v.trouble, v.expected, v.seen) for v in verdicts]
    widths = [*(max(len(row[k]) for row in rows) for k in range(3)), 0]
    return "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows
    )


def main():
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
        soak.run()
    passed = all(verdict.passed for verdict in soak.verdicts)
    told = {"seconds": options.seconds, "load": soak.load, "capacity_fps": soak.capacity,
            "passed": passed, "verdicts": [asdict(v) for v in soak.verdicts]}  # fmt: skip
    (options.folder / "soak.json").write_text(json_text(told, indent=1))
    print(table(soak.verdicts))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
