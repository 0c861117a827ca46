"""A live codec between two null sinks of a sound server, whose monitors are recorded."""

from __future__ import annotations

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
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prunus.apps.bench.clicks import LONGEST, clicks, delays
from prunus.apps.bench.loopback import Track
from prunus.runtime.audio.files import write_wav
from prunus.runtime.errors import HostError

if TYPE_CHECKING:
    from prunus.apps.common.options import BackendChoice

_SERVER_HZ = 48_000
_PATIENCE_SECONDS = 60.0  # for an app to begin, and to end


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


def run_between(
    model: str, compute: BackendChoice, seconds: float, through: str
) -> tuple[Track, Track, dict[str, Any]]:
    """Play clicks to one sink, let a codec play what it records there to the other.

    Args:
        model: Name or files of a codec.
        compute: Where it runs.
        seconds: Length of the sound.
        through: The sinks, ``HOLE:VOICE``.

    Returns:
        What was said and what was heard, on one clock, and the codec's summary.

    Raises:
        HostError: there is no sound server, or no such sinks; or the codec failed.
        CheckFailedError: the first monitor did not give what was played.
    """
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
        time.sleep(LONGEST / 2)
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
