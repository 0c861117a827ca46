"""Child process of `engine_child`: parse an ONNX file, build a plan, report over a pipe.

It is a process of its own because the builder can take the whole process down with it: a missing
library, a plugin or running out of memory ends it with a signal, which a parent can still explain.

Input: one JSON object (`BuildJob`) on stdin. Output: one JSON object per line on the pipe
``job.pipe``, each with a ``kind``: ``progress``, ``log``, ``error`` or ``built``.

Runs as ``python -m prunus.export.engine.worker``; not meant to be called by hand.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunus.export.engine.report import PLUGIN_LAYER, half_layer_share
from prunus.runtime.errors import PrunusError
from prunus.runtime.plugins.library import describe, register

Send = Callable[..., None]
SEVERITIES = ("internal_error", "error", "warning", "info", "verbose")


@dataclass(frozen=True, slots=True)
class BuildJob:
    """What the parent asks for.

    Attributes:
        onnx: Path of the ONNX file, as messages name it.
        plan: Path that the plan is written to.
        flavour: Import name, ``tensorrt`` or ``tensorrt_rtx``.
        pipe: File descriptor of the report.
        timing_cache: Path of the timing cache, empty for none; created when missing.
        workspace_mib: Limit of the builder's scratch memory in MiB, 0 for the builder's own limit.
        tf32: Whether float32 products may be rounded to 10 bits of mantissa.
        plugin: Path of the plugin library that executes the attention nodes, empty for none.
        attention_nodes: How many nodes must become plugin layers.
        graph: Path of the file to parse where it is another: the same, spelled for the builder.
    """

    onnx: str
    plan: str
    flavour: str
    pipe: int
    timing_cache: str = ""
    workspace_mib: int = 0
    tf32: bool = False
    plugin: str = ""
    attention_nodes: int = 0
    graph: str = ""


class BuildRefused(Exception):  # noqa: N818 - a message to the parent, never shown to users
    """Carries the kind of refusal, the message and the hint to the parent."""

    def __init__(self, cause: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.report = {"cause": cause, "message": message, "hint": hint}


class PhaseTree:
    """Turn nested build phases into one fraction that never runs backwards.

    Each phase divides its current step among its children, e.g. half-way through the only child of
    step 2 of 4 is (2 + 0.5) / 4. Thread-safe, as the builder calls from several threads.
    """

    def __init__(self, report: Callable[[int, str], None]) -> None:
        self._report = report
        self._lock = threading.Lock()
        self._phases: dict[str, tuple[str | None, int, int]] = {}
        self._permille = -1

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Enter a phase of `steps` steps below `parent` (None or unknown: a root)."""
        with self._lock:
            self._phases[name] = (parent, 0, max(steps, 1))
            self._publish(name)

    def step(self, name: str, index: int) -> None:
        """Note that step `index` (from 0) of a phase is done."""
        with self._lock:
            if name in self._phases:
                parent, _, total = self._phases[name]
                self._phases[name] = (parent, min(index + 1, total), total)
                self._publish(name)

    def finish(self, name: str) -> None:
        """Leave a phase."""
        with self._lock:
            self._phases.pop(name, None)

    def _publish(self, name: str) -> None:
        fraction, at, seen = 0.0, name, set()
        while at in self._phases and at not in seen:
            seen.add(at)
            parent, done, total = self._phases[at]
            fraction = min((done + fraction) / total, 1.0)
            at = parent or ""
        permille = int(1000 * fraction)
        if permille > self._permille:
            self._permille = permille
            self._report(permille, name)


def build(job: BuildJob, trt: Any, send: Send) -> dict[str, Any]:
    """Parse and build `job` with the module `trt`; returns the fields of the ``built`` message.

    Raises:
        BuildRefused: the graph or the machine does not allow it.
    """
    logger = _logger(trt, send)
    builder = _builder(trt, logger)
    network = builder.create_network(_network_flags(trt))
    if job.plugin:
        register(trt, describe(job.plugin))
    _parse(trt, job, network, logger)
    _refuse_dynamic(network)
    plugins = _count_plugins(job, network)
    share = half_layer_share(network)
    config, flags = _configure(trt, job, builder)
    cache = _timing_cache(job, config)
    config.progress_monitor = _monitor(trt, send)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildRefused("build", f"{trt.__name__} {trt.__version__} could not build {job.onnx}")
    Path(job.plan).write_bytes(plan)
    if cache is not None:
        _store(Path(job.timing_cache), bytes(config.get_timing_cache().serialize()))
    if plugins:
        flags.append(f"plugin_layers={plugins}")
    return {"version": str(trt.__version__), "flags": flags, "half_layer_share": share}


def _count_plugins(job: BuildJob, network: Any) -> int:
    """Return how many layers are plugins; with a library, every attention node must be one."""
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    found = len([layer for layer in layers if layer.type.name == PLUGIN_LAYER])
    wanted = job.attention_nodes
    if job.plugin and found != wanted:
        raise BuildRefused(
            "build",
            f"{found} of {wanted} attention nodes of {job.onnx} became plugin layers",
            "Build the engine with --plugin off.",
        )
    return found


def _builder(trt: Any, logger: Any) -> Any:
    try:
        return trt.Builder(logger)
    except TypeError:  # the factory returned null: no usable driver, or a broken installation
        raise BuildRefused(
            "host",
            f"{trt.__name__} {trt.__version__} cannot create a builder on this machine",
            "Check the driver with nvidia-smi, or build without a GPU: --flavour tensorrt_rtx",
        ) from None


def _network_flags(trt: Any) -> int:
    """Ask for strong typing: the graph alone says which precision each layer has."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _parse(trt: Any, job: BuildJob, network: Any, logger: Any) -> None:
    parser = trt.OnnxParser(network, logger)
    if parser.parse_from_file(job.graph or job.onnx):
        return
    errors = [parser.get_error(i) for i in range(parser.num_errors)]
    told = [f"{_where(e)}{str(e.desc()).strip()}" for e in errors] or ["no reason given"]
    raise BuildRefused(
        "parse",
        f"{trt.__name__} {trt.__version__} cannot read {job.onnx}: " + "; ".join(told[:3]),
        "Replace that operator in the network, or leave it out of the exported graph.",
    )


def _where(error: Any) -> str:
    node, operator = error.node_name(), error.node_operator()
    named = f"node '{node}' " if node else ""
    return f"{named}({operator}): " if operator else named


def _refuse_dynamic(network: Any) -> None:
    tensors = [network.get_input(i) for i in range(network.num_inputs)]
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        tensors += [layer.get_output(k) for k in range(layer.num_outputs)]
    for tensor in tensors:
        # An output that its layer leaves unused has no tensor.
        if tensor is not None and any(n < 0 for n in tensor.shape):
            raise BuildRefused(
                "dynamic",
                f"Tensor '{tensor.name}' has the dynamic shape {tuple(tensor.shape)}; "
                "every shape must be a constant",
                "Export with fixed sizes: prunus export ... --batch N",
            )


def _configure(trt: Any, job: BuildJob, builder: Any) -> tuple[Any, list[str]]:
    config = builder.create_builder_config()
    flags = ["strongly_typed"]
    if job.workspace_mib:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job.workspace_mib << 20)
        flags.append(f"workspace_mib={job.workspace_mib}")
    # On by default in the builder; float32 parts are float32 for a reason (ranking, decoding).
    if job.tf32:
        config.set_flag(trt.BuilderFlag.TF32)
        flags.append("tf32")
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    return config, flags


def _timing_cache(job: BuildJob, config: Any) -> Any:
    if not job.timing_cache:
        return None
    path = Path(job.timing_cache)
    cache = config.create_timing_cache(path.read_bytes() if path.is_file() else b"")
    # False: a cache of another version or GPU is refused, and simply starts anew.
    if not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, False)
    return cache


def _store(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _logger(trt: Any, send: Send) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            level = min(int(severity), len(SEVERITIES) - 1)
            if SEVERITIES[level] != "verbose":
                send("log", level=SEVERITIES[level], text=text)

    return Logger()


def _monitor(trt: Any, send: Send) -> Any:
    tree = PhaseTree(lambda permille, phase: send("progress", permille=permille, phase=phase))

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            tree.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            tree.step(phase_name, step)
            return True

        def phase_finish(self, phase_name: str) -> None:
            tree.finish(phase_name)

    return Monitor()


def main() -> int:
    """Read the job, build, report; the exit status only says whether a report was given."""
    job = BuildJob(**json.loads(sys.stdin.read()))
    lock = threading.Lock()
    with os.fdopen(job.pipe, "w", buffering=1) as pipe:

        def send(kind: str, **fields: Any) -> None:
            with lock:
                pipe.write(json.dumps({"kind": kind, **fields}) + "\n")

        try:
            send("built", **build(job, importlib.import_module(job.flavour), send))
        except BuildRefused as refusal:
            send("error", **refusal.report)
        except PrunusError as error:  # of the plugin library
            send("error", cause="host", message=error.message.rstrip("."), hint=error.hint)
        except ImportError as error:
            send(
                "error", cause="host", message=f"{job.flavour} cannot be imported: {error}", hint=""
            )
        except OSError as error:
            send("error", cause="os", message=str(error), hint="", errno=error.errno)
        except MemoryError:
            send("error", cause="host", message="The builder ran out of memory", hint="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
