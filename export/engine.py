"""ONNX artifact -> TensorRT engine: a pure plan file and a sidecar that says what it is.

Two flavours share this code. ``tensorrt`` (10 and 11) tunes for the GPU of this machine and needs
it. ``tensorrt_rtx`` builds a portable engine with no GPU and no driver; it runs on Ampere or later.
Either way precision is a property of the ONNX graph: the network is strongly typed.

The work happens in a child process (`engine_worker`), so a builder that crashes is one clear error.
"""

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
from typing import IO, Any, Literal

from prunus.export.engine_worker import BuildJob
from prunus.runtime.artifact import EngineSidecar, atomic_path, read_card, sha256_of, write_error
from prunus.runtime.backends import cuda
from prunus.runtime.backends.engine_match import EXTRAS, PORTABLE
from prunus.runtime.card import ModelCard, Precision
from prunus.runtime.errors import (
    ArtifactError,
    CheckFailedError,
    HostError,
    MissingDependencyError,
    PrunusError,
    UsageError,
    nearest,
)
from prunus.runtime.progress import Progress, Silent

Flavour = Literal["tensorrt", "tensorrt_rtx"]

# Smallest share of compute layers in half precision or on quantised operands. The rest of an fp16
# artifact is the ranking branch; an int8 one also leaves attention products in float.
MIN_HALF_SHARE: dict[Precision, float] = {"fp32": 0.0, "fp16": 0.8, "int8": 0.5}


def build_engine(
    onnx_path: str | Path,
    engine_path: str | Path | None = None,
    flavour: str = "auto",
    *,
    timing_cache: str | Path | None = None,
    workspace_mib: int = 0,
    timeout: float = 1800.0,
    min_half_share: float | None = None,
    tf32: bool = False,
    progress: Progress | None = None,
) -> EngineSidecar:
    """Build the engine of an ONNX artifact; plan and sidecar appear only when all is well.

    Args:
        onnx_path: An artifact made by prunus (it carries a card).
        engine_path: Plan file; None: beside the artifact, with the suffix ``.engine``.
        flavour: ``tensorrt``, ``tensorrt_rtx``, or ``auto``: the first where a GPU and the package
            are at hand, else the second.
        timing_cache: Measured kernel times to start from and to add to (``tensorrt`` only; the
            portable engines of ``tensorrt_rtx`` are not timed, so the flavour has no use for it).
        workspace_mib: Limit of the scratch memory in MiB, 0 for the builder's own.
        timeout: Seconds after which the build is given up.
        min_half_share: Smallest share of compute layers in half precision or int8, 0..1; None: by
            the card's precision, see `MIN_HALF_SHARE`.
        tf32: Let float32 products be rounded to 10 bits of mantissa (faster, less exact).
        progress: Told how far the builder is.

    Returns:
        The sidecar as written.

    Raises:
        UsageError: unknown flavour, or no such file.
        ArtifactError: the file is no artifact, or the graph cannot become an engine.
        CheckFailedError: fewer half-precision layers than asked for.
        MissingDependencyError: the TensorRT package is not installed.
        HostError: no GPU, no memory, no disk space, time is up, or the builder crashed.

    Example:
        >>> build_engine("evitpose_tiny_fp16.onnx", flavour="tensorrt_rtx").half_layer_share
        0.95
    """
    onnx_path = Path(onnx_path)
    card = _card_of(onnx_path)
    chosen = choose_flavour(flavour)
    if timing_cache is not None and chosen != "tensorrt":
        raise UsageError(
            f"A timing cache was given, but {chosen} builds portable engines and times nothing.",
            "Leave the timing cache out, or build with: --flavour tensorrt",
        )
    target = Path(engine_path) if engine_path is not None else onnx_path.with_suffix(".engine")
    if target.absolute() == onnx_path.absolute():
        raise UsageError(
            f"The engine would replace its own ONNX file {onnx_path}.", "Choose another -o."
        )
    wanted = MIN_HALF_SHARE[card.precision.precision] if min_half_share is None else min_half_share
    started = time.monotonic()
    with atomic_path(target) as plan:
        job = BuildJob(
            onnx=str(onnx_path),
            plan=str(plan),
            flavour=chosen,
            pipe=-1,
            timing_cache=str(timing_cache or ""),
            workspace_mib=workspace_mib,
            tf32=tf32,
        )
        built = _run(job, timeout, progress or Silent(), target)
        _check_share(built["half_layer_share"], wanted, onnx_path)
        sidecar = EngineSidecar(
            card=card,
            onnx_sha256=sha256_of(onnx_path),
            engine_sha256=sha256_of(plan),
            flavour=chosen,
            version=built["version"],
            compute_capability=_built_for(chosen),
            plugin="",
            flags=tuple(built["flags"]),
            build_seconds=round(time.monotonic() - started, 3),
            half_layer_share=round(built["half_layer_share"], 4),
        )
        # First the sidecar: should the machine stop in between, the hash tells that they differ.
        sidecar.write(target)
    return sidecar


def choose_flavour(flavour: str) -> Flavour:
    """Resolve ``auto`` and prove that the package (and for ``tensorrt`` the GPU) is there.

    Raises:
        UsageError: unknown flavour.
        MissingDependencyError: its package is not installed.
        HostError: ``tensorrt`` without a usable GPU.
    """
    known = ["auto", *EXTRAS]
    if flavour not in known:
        raise UsageError(
            f"Unknown flavour '{flavour}'{nearest(flavour, known)}.",
            f"Use one of: {', '.join(known)}",
        )
    installed = {name: importlib.util.find_spec(name) is not None for name in EXTRAS}
    problem = cuda.why_unusable()
    if flavour == "auto":
        if not any(installed.values()):
            raise HostError(
                "Building an engine needs 'tensorrt' or 'tensorrt_rtx'; neither is installed.",
                "Install one with: pip install 'prunus[trt-rtx]' (no GPU needed) or 'prunus[trt]'",
            )
        flavour = "tensorrt" if installed["tensorrt"] and not problem else "tensorrt_rtx"
    if not installed[flavour]:
        raise MissingDependencyError(flavour, EXTRAS[flavour], f"Building a {flavour} engine")
    if flavour == "tensorrt":
        if problem:
            raise HostError(
                f"Building a tensorrt engine needs an NVIDIA GPU: {problem}.",
                "Build on the machine that will run it, or use: --flavour tensorrt_rtx",
            )
        return "tensorrt"
    return "tensorrt_rtx"


def _card_of(path: Path) -> ModelCard:
    if path.suffix in (".engine", ".plan"):
        raise UsageError(
            f"{path} already is an engine.", "Give the .onnx file made by: prunus export"
        )
    return read_card(path)


def _built_for(flavour: Flavour) -> str:
    return PORTABLE if flavour == "tensorrt_rtx" else cuda.device_properties().compute_capability


def _check_share(share: float, wanted: float, onnx_path: Path) -> None:
    if share < wanted:
        raise CheckFailedError(
            f"{100 * share:.0f} % of the compute layers of {onnx_path.name} are in half precision "
            f"or int8; expected at least {100 * wanted:.0f} %.",
            "Export it again with --precision fp16 or int8: an engine is what its graph says.",
        )


@dataclass(slots=True)
class _Report:
    """What the child has said so far."""

    progress: Progress
    final: dict[str, Any] | None = None
    log: deque[str] = field(default_factory=lambda: deque(maxlen=6))

    def read(self, line: bytes) -> None:
        message: dict[str, Any] = json.loads(line)
        kind = message["kind"]
        if kind == "progress":
            self.progress.update(message["permille"], 1000, message["phase"])
        elif kind == "log":
            self.log.append(f"{message['level']}: {message['text']}")
        else:
            self.final = message


def _run(job: BuildJob, timeout: float, progress: Progress, target: Path) -> dict[str, Any]:
    """Run the child and return its ``built`` message, or raise what went wrong."""
    report = _Report(progress)
    with tempfile.TemporaryFile() as output:
        status = _supervise(job, timeout, report, output)
        output.seek(0)
        spoken = output.read().decode(errors="replace").splitlines()
    if report.final is None:
        raise _crash(status, [*report.log, *(s for s in spoken if s.strip())])
    if report.final["kind"] == "error":
        raise _refusal(report, target)
    progress.update(1000, 1000, "done")
    return report.final


def _supervise(job: BuildJob, timeout: float, report: _Report, output: IO[bytes]) -> int:
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "prunus.export.engine_worker"]
    try:
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=output, stderr=output, pass_fds=(writing,)
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


def _crash(status: int, log: list[str]) -> HostError:
    how = f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    words = " | ".join(log[-4:]) or "nothing"
    memory = status == -signal.SIGKILL
    hint = "It may have run out of memory: lower --workspace." if memory else "See: prunus doctor"
    return HostError(f"The engine builder ended with {how}. Its last words: {words}.", hint)


def _refusal(report: _Report, target: Path) -> PrunusError:
    final = report.final or {}
    cause, text = final["cause"], str(final["message"])
    if cause == "os":
        return write_error(OSError(final["errno"], text), target)
    news = [line for line in report.log if line.startswith(("error", "internal_error"))]
    because = f": {news[-1].partition(': ')[2]}" if news and cause != "parse" else ""
    kind = HostError if cause == "host" else ArtifactError
    return kind(f"{text}{because}".rstrip(".") + ".", final["hint"])
