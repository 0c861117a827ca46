"""The back ends as data, which of them this machine can use, and which one `auto` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunus.runtime import host
from prunus.runtime.card import ModelCard
from prunus.runtime.errors import ArtifactError, MissingDependencyError, UsageError, nearest

ENGINE_SUFFIXES = (".engine", ".plan")


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """One back end.

    Attributes:
        name: What users type.
        module: Module with `open_session(path, card, threads, device, options)`.
        packages: Import names, any of which is enough.
        distributions: Names under which they are installed, for version reports.
        extra: Extra of prunus that installs it.
        label: Name for people.
        suffixes: Files that it opens.
        devices: Device names that it knows, without an index.
    """

    name: str
    module: str
    packages: tuple[str, ...]
    distributions: tuple[str, ...]
    extra: str
    label: str
    suffixes: tuple[str, ...]
    devices: tuple[str, ...]

    @property
    def installed(self) -> bool:
        """Tell whether one of its packages can be imported."""
        return any(host.installed(package) for package in self.packages)


BACKENDS = (
    BackendInfo(
        "onnxruntime", "prunus.runtime.backends.onnxruntime", ("onnxruntime",),
        ("onnxruntime", "onnxruntime-gpu"), "ort", "ONNX Runtime", (".onnx",),
        ("cpu", "cuda", "tensorrt"),
    ),
    BackendInfo(
        "openvino", "prunus.runtime.backends.openvino", ("openvino",), ("openvino",),
        "openvino", "OpenVINO", (".onnx",), ("cpu", "gpu", "npu"),
    ),
    BackendInfo(
        "tensorrt", "prunus.runtime.backends.tensorrt", ("tensorrt", "tensorrt_rtx"),
        ("tensorrt", "tensorrt-rtx-cu13", "tensorrt-rtx"), "trt", "TensorRT", ENGINE_SUFFIXES,
        ("cuda", "gpu", "cpu"),  # "cpu" is the default of `open`; an engine only runs on a GPU
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Probe:
    """Whether a back end can be used here, and why (not)."""

    name: str
    usable: bool
    reason: str


def find(name: str) -> BackendInfo:
    """Return a back end by name; raises UsageError with the nearest name."""
    for info in BACKENDS:
        if info.name == name:
            return info
    known = [info.name for info in BACKENDS]
    raise UsageError(
        f"Unknown back end '{name}'{nearest(name, known)}.",
        f"Choose one of: auto, {', '.join(known)}.",
    )


def probe() -> tuple[Probe, ...]:
    """Say for each back end whether its package is installed, without importing it."""
    found = []
    for info in BACKENDS:
        version = host.version_of(*info.distributions)
        missing = f"not installed: pip install 'prunus[{info.extra}]'"
        reason = f"{info.label} {version}".strip() if info.installed else missing
        found.append(Probe(info.name, info.installed, reason))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Choice:
    """The back end to open, and a line for every back end saying why or why not."""

    backend: BackendInfo
    reasons: tuple[str, ...]


def choose(path: str | Path, card: ModelCard, backend: str, device: str) -> Choice:
    """Choose the back end that opens `path`.

    A name is taken at its word: when that back end is missing, or cannot open such a file, the
    result is an error and never another back end.

    Raises:
        UsageError: no such back end or device.
        ArtifactError: the back end does not open this kind of file.
        MissingDependencyError: its package is not installed.
    """
    suffix, kind = Path(path).suffix, device.partition(":")[0]
    if backend != "auto":
        info = find(backend)
        _refuse_misfit(info, suffix, kind, path)
        return Choice(info, (f"{info.name}: asked for",))
    if suffix in ENGINE_SUFFIXES:
        info = find("tensorrt")
        _refuse_misfit(info, suffix, kind, path)
        return Choice(info, ("tensorrt: engines run there alone",))
    return _choose_for_onnx(card, suffix, kind, path)


def _refuse_misfit(info: BackendInfo, suffix: str, kind: str, path: str | Path) -> None:
    if suffix not in info.suffixes:
        fits = [other.name for other in BACKENDS if suffix in other.suffixes]
        raise ArtifactError(
            f"{info.label} opens {' and '.join(info.suffixes)} files; got {path}.",
            f"Use --backend {fits[0]}." if fits else "Give a .onnx or .engine file.",
        )
    if kind not in info.devices:
        raise UsageError(
            f"{info.label} has no device '{kind}'{nearest(kind, list(info.devices))}.",
            f"Choose one of: {', '.join(info.devices)}.",
        )
    if not info.installed:
        raise MissingDependencyError(info.packages[0], info.extra, f"The back end '{info.name}'")


def _choose_for_onnx(card: ModelCard, suffix: str, kind: str, path: str | Path) -> Choice:
    default, fast = find("onnxruntime"), find("openvino")
    if kind not in default.devices and kind in fast.devices:
        _refuse_misfit(fast, suffix, kind, path)
        return Choice(fast, (f"openvino: the one with the device '{kind}'",))
    prefer, reason = prefer_openvino(card, kind)
    if prefer or (not default.installed and fast.installed and kind in fast.devices):
        _refuse_misfit(fast, suffix, kind, path)
        other = "not needed" if default.installed else "not installed"
        return Choice(fast, (f"openvino: {reason}", f"onnxruntime: {other}"))
    _refuse_misfit(default, suffix, kind, path)
    return Choice(default, ("onnxruntime: the default", f"openvino: {reason}"))


def prefer_openvino(card: ModelCard, kind: str) -> tuple[bool, str]:
    """Tell whether OpenVINO should run this model on this CPU, and why (not)."""
    flag = host.bfloat16_flag()
    if not find("openvino").installed:
        return False, "not installed: pip install 'prunus[openvino]'"
    if kind != "cpu":
        return False, f"has no device '{kind}'"
    if not flag:
        return False, "this CPU has no bfloat16 arithmetic, where it would be faster"
    return True, f"this CPU has bfloat16 arithmetic ({flag})"
