"""How late sound comes out of a live codec: clicks go in at the microphone, and are found again.

Between two ends in memory, or on a sound server between the monitors of two null sinks: clicks are
played to the one that the app records, and the app plays to the other. What counts is when a click
was in the first and in the second, on one clock, with all that lies between: devices, program,
rings. A click is a short burst of a voice-like tone, since codecs of speech drop anything else.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunus.apps.bench.loopback import Loopback, Track
from prunus.apps.io.frames import Audio
from prunus.runtime.audio.files import write_wav
from prunus.runtime.errors import CheckFailedError, HostError

if TYPE_CHECKING:
    from prunus.apps.common.options import BackendChoice

Floats = npt.NDArray[np.float64]
_STEP = 0.001  # seconds between values of the loudness over time
_SMOOTH = 0.008  # over so many seconds
_CLICK, _LEAST, _MOST = 0.1, 0.35, 0.65  # length of a click, and from one to the next
_PITCH, _FORMANTS = 150.0, (500.0, 1500.0, 2500.0)
_LONGEST = 4.0  # seconds of delay that are looked for
_NEAR = 0.25  # by which one click may differ from all
_APART = 0.06  # by which most of them may
_BEFORE, _BEHIND = 40, 120  # steps around the beginning of a click that are compared
_ALIKE = 0.6  # correlation from which a click was heard
_SERVER_HZ = 48_000
_FIRST = 0.8  # seconds without clicks: models warm up
_HINT = "Give a trained codec, and a machine that keeps up; prunus run codec counts what is lost."
_PATIENCE_SECONDS = 60.0  # for an app to begin, and to end


@dataclass(frozen=True, slots=True)
class SoundDelay:
    """What one run of an app has measured.

    Attributes:
        model: What ran.
        through: Where the sound went: ``memory``, or the null sinks.
        clicks: How many were said.
        missed: How many of them were not heard again.
        p50_ms: Median from microphone to loudspeaker.
        p99_ms: 99th percentile.
        declared_ms: What the app says of itself.
        devices: What it counted.
        delays_ms: Of each click that was heard.
    """

    model: str
    through: str
    clicks: int
    missed: int
    p50_ms: float
    p99_ms: float
    declared_ms: float
    devices: dict[str, float]
    delays_ms: tuple[float, ...] = field(repr=False)

    def to_dict(self) -> dict[str, object]:
        """Return plain values."""
        return dataclasses.asdict(self)

    def to_text(self) -> str:
        """Return two lines."""
        counts = ", ".join(f"{name} {value:g}" for name, value in self.devices.items())
        return (
            f"{self.model}, {self.through}: microphone to loudspeaker p50/p99 "
            f"{self.p50_ms:.0f}/{self.p99_ms:.0f} ms; declared {self.declared_ms:.0f} ms, median "
            f"{self.p50_ms - self.declared_ms:+.0f} ms; {self.clicks - self.missed} of "
            f"{self.clicks} clicks heard\n  {counts}"
        )


def clicks(seconds: float, sample_rate_hz: int, seed: int = 0) -> tuple[Audio, Floats]:
    """Return (T,) float32 sound, and the seconds at which its clicks begin.

    The time between two is uneven, so that no other shift of the sound looks like the right one.
    """
    rng, places, at = np.random.default_rng(seed), [], _FIRST
    while at + _CLICK < seconds - 0.1:
        places.append(at)
        at += rng.uniform(_LEAST, _MOST)
    tick = np.arange(round(_CLICK * sample_rate_hz)) / sample_rate_hz
    tone = np.zeros(len(tick))
    for hertz in _PITCH * np.arange(1, 26):
        gain = sum(1.0 / (1.0 + ((hertz - f) / 150.0) ** 2) for f in _FORMANTS)
        tone += gain * np.sin(2 * np.pi * hertz * tick)
    burst = (0.12 * tone * np.exp(-tick / (_CLICK / 2))).astype(np.float32)
    sound = np.zeros(round(seconds * sample_rate_hz), np.float32)
    for place in places:
        first = round(place * sample_rate_hz)
        sound[first : first + len(burst)] += burst
    return sound, np.array(places)


def delays(said: Track, heard: Track, places: Floats) -> Floats:
    """Return the delay of each click in seconds, NaN where it was not heard.

    Args:
        said: What went in; its clock and that of `heard` are the same.
        heard: What came out.
        places: Seconds from the first sample of `said` to each click.

    Raises:
        CheckFailedError: nothing like it was heard.
    """
    one, other = _loudness(said), _loudness(heard)
    shift = round((said.begun - heard.begun) / _STEP)  # from a place in `said` to that in `heard`
    alike = np.array([_alike(one, other, round(p / _STEP), shift) for p in places])
    # One delay for all, give or take a little, that most of them are found at.
    span = round(_APART / _STEP)
    near = np.lib.stride_tricks.sliding_window_view(alike, 2 * span + 1, axis=1).max(axis=2)
    scores = near.mean(axis=0)
    if not len(scores) or scores.max() < _ALIKE:
        raise CheckFailedError("Nothing like what was said was heard.", _HINT)
    middle = int(scores.argmax()) + span
    first = max(0, middle - round(_NEAR / _STEP))
    found = alike[:, first : middle + round(_NEAR / _STEP)]
    lags = (found.argmax(axis=1) + first - span) * _STEP
    return np.where(found.max(axis=1) > _ALIKE, lags, np.nan)


def _alike(one: Floats, other: Floats, place: int, shift: int) -> Floats:
    """Return the correlation of a click with what was heard, by how many steps later it is.

    It begins with -`_APART` seconds, so that a delay of none lies inside.
    """
    piece = one[place - _BEFORE : place + _BEHIND]
    begin = place - _BEFORE + shift - round(_APART / _STEP)
    end = begin + round((_LONGEST + 2 * _APART) / _STEP) + len(piece) - 1
    floor = float(other.min(initial=0.0))
    padded = np.concatenate((
        np.full(max(0, -begin), floor), other[max(0, begin) : max(0, end)],
        np.full(max(0, end - max(len(other), begin)), floor),
    ))  # fmt: skip
    windows = np.lib.stride_tricks.sliding_window_view(padded[: end - begin], len(piece))
    centred = piece - piece.mean()
    power = windows.var(axis=1) * len(piece) * (centred @ centred)
    inner: Floats = windows @ centred
    found: Floats = np.divide(inner, np.sqrt(power), out=np.zeros_like(inner), where=power > 1e-6)
    return found


def _loudness(track: Track) -> Floats:
    """Return the logarithm of the power of a sound, every millisecond."""
    power = np.square(track.sound, dtype=np.float64)
    total = np.concatenate(([0.0], np.cumsum(power)))
    count = int(len(power) / track.sample_rate_hz / _STEP)
    middle = np.arange(count) * _STEP * track.sample_rate_hz
    half = _SMOOTH / 2 * track.sample_rate_hz
    low, high = (np.clip(middle + s * half, 0, len(power)).astype(int) for s in (-1, 1))
    mean = (total[high] - total[low]) / np.maximum(high - low, 1)
    level: Floats = np.log10(np.maximum(mean, max(mean.max(initial=0.0), 1e-9) * 1e-3))
    return level  # what is 30 dB below the loudest is no click


def measure_delay(
    model: str, compute: BackendChoice, seconds: float, through: str = ""
) -> SoundDelay:
    """Run a codec live between two ends, and measure.

    Args:
        model: Name or files of a codec.
        compute: Where it runs.
        seconds: Length of the sound.
        through: Two null sinks of a sound server, ``HOLE:VOICE``; empty: ends in memory.

    Raises:
        CheckFailedError: too little was heard.
        HostError: there is no sound server, or no such sinks.
    """
    places = clicks(seconds, _SERVER_HZ)[1]
    if through:
        said, heard, told = _on_a_server(model, compute, seconds, through)
    else:
        said, heard, told = _in_memory(model, compute, seconds)
    found = delays(said, heard, places)
    good = found[np.isfinite(found)] * 1000.0
    if len(good) < max(3, len(places) // 2):
        raise CheckFailedError(
            f"{len(good)} of {len(places)} clicks were heard: too few to measure.", _HINT
        )
    return SoundDelay(
        model=told["model"], through=through or "memory", clicks=len(places),
        missed=len(places) - len(good), p50_ms=float(np.median(good)),
        p99_ms=float(np.percentile(good, 99)), declared_ms=told["declared_ms"],
        devices=told["devices"], delays_ms=tuple(round(float(d), 1) for d in good),
    )  # fmt: skip


def _in_memory(
    model: str, compute: BackendChoice, seconds: float
) -> tuple[Track, Track, dict[str, Any]]:
    from prunus.apps.codec.live import run_codec
    from prunus.apps.codec.options import CodecOptions

    with closing(Loopback(lambda rate: clicks(seconds, rate)[0])) as loop:
        options = CodecOptions(loop.uri, (loop.uri,), model, compute=compute)
        run = run_codec(options, quiet=True)
    told = {"model": run.model, "declared_ms": run.declared_ms, "devices": run.devices}
    return loop.said, loop.heard, told


class _Monitor:
    """Records what a null sink plays."""

    def __init__(self, sink: str, stack: ExitStack) -> None:
        self.track = Track(_SERVER_HZ, np.inf)
        self._process = subprocess.Popen(
            ["parec", "-d", f"{sink}.monitor", "--format=float32le", "--channels=1",
             f"--rate={_SERVER_HZ}", "--latency-msec=10"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        stack.callback(self.close)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        taken, pipe = 0, self._process.stdout
        assert pipe is not None
        while data := os.read(pipe.fileno(), 1 << 14):
            block = np.frombuffer(data[: len(data) // 4 * 4], "<f4")
            taken += len(block)
            # The block that came soonest after it was played tells the clock.
            begun = time.perf_counter() - taken / _SERVER_HZ
            self.track.begun = min(self.track.begun, begun)
            self.track.blocks.append(block)

    def close(self) -> None:
        """Stop recording; safe to call twice."""
        self._process.terminate()
        self._process.wait()
        self._thread.join()


def _on_a_server(
    model: str, compute: BackendChoice, seconds: float, through: str
) -> tuple[Track, Track, dict[str, Any]]:
    hole, _, voice = through.partition(":")
    _require_sinks(hole, voice)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        feed, log = folder / "clicks.wav", folder / "log.jsonl"
        made, clicks_at = clicks(seconds, _SERVER_HZ)
        write_wav(feed, iter([made]), _SERVER_HZ)
        said, heard = _Monitor(hole, stack), _Monitor(voice, stack)
        told = stack.enter_context((folder / "told").open("w+"))
        app = subprocess.Popen(
            [sys.executable, "-m", "prunus", "run", "codec", "--model", model, "--source",
             "mic:pulse", "--sink", "speaker:pulse", "--json", "--quiet", "--log", str(log),
             *_words(compute)],
            env={**os.environ, "PULSE_SOURCE": f"{hole}.monitor", "PULSE_SINK": voice},
            stdout=told, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        stack.callback(app.kill)
        _wait_for(app, lambda: log.is_file() and log.read_text().count("\n") > 2)
        begun = time.perf_counter()
        played = subprocess.run(["paplay", "-d", hole, str(feed)], check=False)
        time.sleep(_LONGEST / 2)
        app.send_signal(signal.SIGINT)
        error = app.communicate(timeout=_PATIENCE_SECONDS)[1]
        told.seek(0)
        text = told.read()
        if played.returncode or not text:
            raise HostError(f"The run between {hole} and {voice} failed.", error.strip())
        run = json.loads(text)
        for monitor in (said, heard):
            monitor.close()
    wanted = {name: run[name] for name in ("model", "declared_ms", "devices")}
    # As it was made, from when it was played; the monitor of the first sink says when that was.
    into = delays(Track(_SERVER_HZ, begun, [made]), said.track, clicks_at)
    begun += float(np.nanmedian(into))
    return Track(_SERVER_HZ, begun, [made]), heard.track, wanted


def _words(compute: BackendChoice) -> list[str]:
    words = ["--backend", compute.backend, "--device", compute.device]
    words += ["--arithmetic", compute.arithmetic]
    return words + (["--threads", str(compute.threads)] if compute.threads else [])


def _wait_for(app: subprocess.Popen[str], ready: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while not ready():
        if app.poll() is not None or time.monotonic() > until:
            app.kill()
            raise HostError("The codec did not begin.", app.communicate()[1].strip())
        time.sleep(0.05)


def _require_sinks(*sinks: str) -> None:
    """Refuse what cannot work, before anything runs."""
    if shutil.which("parec") is None or shutil.which("paplay") is None:
        raise HostError(
            "Measuring through a sound server needs parec and paplay, which are not installed.",
            "Install them, on Debian with: apt-get install pulseaudio-utils",
        )
    listed = subprocess.run(
        ["pactl", "list", "short", "sinks"], capture_output=True, text=True, check=False
    )
    known = [line.split("\t")[1] for line in listed.stdout.splitlines() if "\t" in line]
    for sink in sinks:
        if sink not in known:
            raise HostError(
                f"The sound server has no sink '{sink}'; it has {', '.join(known) or 'none'}.",
                "Make two: pactl load-module module-null-sink sink_name=hole (and voice), "
                "then --through hole:voice",
            )
