"""Run `engine_worker` in a child process; whatever happens to it becomes one clear error."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from prunus.export.engine.worker import BuildJob
from prunus.runtime.card.artifact import write_error
from prunus.runtime.errors import ArtifactError, HostError, PrunusError
from prunus.runtime.plugins.local_global_attention import NAME
from prunus.runtime.progress import Progress

# What TensorRT-RTX opens by this very name when it meets a plugin, and what its package ships.
_RTX_WANTED, _RTX_SHIPPED = "libtensorrt_rtx.so", "libtensorrt_rtx.so.1"
_RTX_PACKAGE = "tensorrt_rtx_libs"


@dataclass(slots=True)
class Report:
    """What the child has said so far."""

    progress: Progress
    final: dict[str, Any] | None = None
    log: deque[str] = field(default_factory=lambda: deque(maxlen=6))

    def read(self, line: bytes) -> None:
        """Take in one line of the pipe."""
        message: dict[str, Any] = json.loads(line)
        kind = message["kind"]
        if kind == "progress":
            self.progress.update(message["permille"], 1000, message["phase"])
        elif kind == "log":
            self.log.append(f"{message['level']}: {message['text']}")
        else:
            self.final = message


def run_child(job: BuildJob, timeout: float, progress: Progress, target: Path) -> dict[str, Any]:
    """Run the child and return its ``built`` message, or raise what went wrong.

    Args:
        job: What to build; its `pipe` is filled in here.
        timeout: Seconds after which the child is ended.
        progress: Told how far the builder is, in thousandths.
        target: Path that the user has asked for, for messages.

    Raises:
        ArtifactError: the graph cannot become an engine.
        HostError: the machine lacks something, time is up, or the child crashed.
    """
    report = Report(progress)
    with tempfile.TemporaryFile() as output, _environment(job) as environment:
        status = _supervise(job, timeout, report, output, environment)
        output.seek(0)
        spoken = output.read().decode(errors="replace").splitlines()
    if report.final is None:
        raise crash(job, status, [*report.log, *(s for s in spoken if s.strip())])
    if report.final["kind"] == "error":
        raise refusal(report, target)
    progress.update(1000, 1000, "done")
    return report.final


@contextlib.contextmanager
def _environment(job: BuildJob) -> Iterator[dict[str, str]]:
    """Yield the child's variables; with a plugin, TensorRT-RTX must find its library by one name.

    Its package ships the library under another name, and the process is ended when it is missing.
    """
    variables = dict(os.environ)
    spec = importlib.util.find_spec(_RTX_PACKAGE) if job.flavour == "tensorrt_rtx" else None
    places = [Path(p) for p in (spec.submodule_search_locations or ())] if spec else []
    shipped = next((p / _RTX_SHIPPED for p in places if (p / _RTX_SHIPPED).is_file()), None)
    if not job.plugin or shipped is None:
        yield variables
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / _RTX_WANTED).symlink_to(shipped)
        paths = filter(None, (folder, variables.get("LD_LIBRARY_PATH")))
        yield {**variables, "LD_LIBRARY_PATH": os.pathsep.join(paths)}


def _supervise(
    job: BuildJob, timeout: float, report: Report, output: IO[bytes], environment: dict[str, str]
) -> int:
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "prunus.export.engine.worker"]
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=(writing,),
            env=environment,
        )
    finally:
        os.close(writing)
    try:
        with open(reading, "rb", buffering=0) as pipe, _ended(child):
            if child.stdin is not None:
                with contextlib.suppress(BrokenPipeError), child.stdin:
                    child.stdin.write(json.dumps(asdict(job) | {"pipe": writing}).encode())
            for line in _lines(pipe, time.monotonic() + timeout):
                report.read(line)
            return child.wait(timeout=10)
    except TimeoutError:
        raise HostError(
            f"The engine was not built within {timeout:.0f} s and the build was ended.",
            "Allow more time with --timeout SECONDS.",
        ) from None


@contextlib.contextmanager
def _ended(child: subprocess.Popen[bytes]) -> Iterator[None]:
    """Leave no builder behind, whatever happens here (a time limit, Ctrl-C)."""
    try:
        yield
    finally:
        if child.poll() is None:
            child.kill()
        child.wait()


def _lines(pipe: IO[bytes], deadline: float) -> Iterator[bytes]:
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if not selector.select(max(deadline - time.monotonic(), 0)):
                raise TimeoutError
            data = os.read(pipe.fileno(), 65536)
            if not data:
                return
            *complete, rest = (rest + data).split(b"\n")
            yield from complete


def crash(job: BuildJob, status: int, log: list[str]) -> HostError:
    """Return the error for a child that ended without a report."""
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    words = " | ".join(log[-4:]) or "nothing"
    hint = "See: prunus doctor"
    if status == -signal.SIGKILL:
        hint = "It may have run out of memory: lower --workspace."
    elif status == -signal.SIGABRT and job.plugin and job.flavour == "tensorrt_rtx":
        hint = (
            f"TensorRT-RTX ends so when it cannot open {_RTX_WANTED} for a plugin: put a link of "
            "that name into a folder of LD_LIBRARY_PATH, or build with --plugin off."
        )
    return HostError(f"The engine builder ended with {how}. Its last words: {words}.", hint)


def refusal(report: Report, target: Path) -> PrunusError:
    """Return the error that the child has reported, with the last error of its log."""
    final = report.final or {}
    cause, text = final["cause"], str(final["message"])
    if cause == "os":
        return write_error(OSError(final["errno"], text), target)
    news = [line for line in report.log if line.startswith(("error", "internal_error"))]
    # What our plugin says is the reason; what TensorRT adds is that the plugin has failed.
    news = [line for line in news if NAME in line] or news
    because = f": {news[-1].partition(': ')[2]}" if news and cause != "parse" else ""
    kind = HostError if cause == "host" else ArtifactError
    return kind(f"{text}{because}".rstrip(".") + ".", final["hint"])
