"""The back ends as data, which of them this machine can use, and which one `auto` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunus.runtime import host
from prunus.runtime.card.card import ModelCard
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
        "onnxruntime", "prunus.runtime.session.onnxruntime", ("onnxruntime",),
        ("onnxruntime", "onnxruntime-gpu"), "ort", "ONNX Runtime", (".onnx",),
        ("cpu", "cuda", "tensorrt"),
    ),
    BackendInfo(
        "openvino", "prunus.runtime.session.openvino.session", ("openvino",), ("openvino",),
        "openvino", "OpenVINO", (".onnx",), ("cpu", "gpu", "npu"),
    ),
    BackendInfo(
        "tensorrt", "prunus.runtime.session.tensorrt.session", ("tensorrt", "tensorrt_rtx"),
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


def choose(
    path: str | Path, card: ModelCard, backend: str, device: str, arithmetic: str = "auto"
) -> Choice:
    """Choose the back end that opens `path`.

    A name is taken at its word: when that back end is missing, or cannot open such a file, the
    result is an error and never another back end. `auto` takes ONNX Runtime, and OpenVINO only
    where it was seen faster without leaving the accuracy budget: on CPUs that multiply bfloat16 in
    hardware, for models whose card says that bfloat16 was measured within the budget. In float32
    OpenVINO was seen at 0.9 (EViTPose-Tiny) to 1.2 times (Small) the speed of ONNX Runtime on two
    busy cores, with 0.4 s more to load and 95 MiB more memory: no clear gain.

    Args:
        path: Model file; only its suffix is read.
        card: Its card.
        backend: A name, or ``auto``.
        device: Device name with or without an index.
        arithmetic: ``auto``, or the `BackendOptions.inference_precision` that was asked for.

    Raises:
        UsageError: no such back end or device, or it cannot compute as asked.
        ArtifactError: the back end does not open this kind of file.
        MissingDependencyError: its package is not installed.
    """
    request = _Request(path, Path(path).suffix, device.partition(":")[0], arithmetic)
    if backend != "auto":
        return Choice(_fitting(find(backend), request), (f"{backend}: asked for",))
    if request.suffix in ENGINE_SUFFIXES:
        return Choice(_fitting(find("tensorrt"), request), ("tensorrt: engines run there alone",))
    return _choose_for_onnx(card, request)


@dataclass(frozen=True, slots=True)
class _Request:
    path: str | Path
    suffix: str
    kind: str
    arithmetic: str


def _fitting(info: BackendInfo, request: _Request) -> BackendInfo:
    """Return `info` if it can do what is asked; otherwise raise what says why not."""
    if request.suffix not in info.suffixes:
        fits = [other.name for other in BACKENDS if request.suffix in other.suffixes]
        raise ArtifactError(
            f"{info.label} opens {' and '.join(info.suffixes)} files; got {request.path}.",
            f"Use --backend {fits[0]}." if fits else "Give a .onnx or .engine file.",
        )
    if request.kind not in info.devices:
        raise UsageError(
            f"{info.label} has no device '{request.kind}'{nearest(request.kind, [*info.devices])}.",
            f"Choose one of: {', '.join(info.devices)}.",
        )
    if request.arithmetic == "bf16" and info.name != "openvino":
        raise UsageError(
            f"{info.label} computes in the number formats of the graph; it has no bf16 switch.",
            "Use --backend openvino, or leave the arithmetic to the back end.",
        )
    if not info.installed:
        raise MissingDependencyError(info.packages[0], info.extra, f"The back end '{info.name}'")
    return info


def _choose_for_onnx(card: ModelCard, request: _Request) -> Choice:
    default, other = find("onnxruntime"), find("openvino")
    prefer, reason = _prefer_openvino(card, request)
    if prefer:
        return Choice(_fitting(other, request), (f"openvino: {reason}", "onnxruntime: slower here"))
    if not default.installed and other.installed and request.kind in other.devices:
        reasons = ("openvino: the one that is installed", "onnxruntime: not installed")
        return Choice(_fitting(other, request), reasons)
    return Choice(_fitting(default, request), ("onnxruntime: the default", f"openvino: {reason}"))


def _prefer_openvino(card: ModelCard, request: _Request) -> tuple[bool, str]:
    """Tell whether OpenVINO should run this model, and why (not)."""
    flag, missing = host.bfloat16_flag(), not find("openvino").installed
    measured = "bf16" in card.precision.also_within_budget
    rules = (  # the first one that holds decides
        (request.arithmetic == "bf16", True, "the one with a bf16 switch"),
        (request.kind in ("gpu", "npu"), True, f"the one with the device '{request.kind}'"),
        (missing, False, "not installed: pip install 'prunus[openvino]'"),
        (request.kind != "cpu", False, f"has no device '{request.kind}'"),
        (not flag, False, "this CPU has no bfloat16 arithmetic, where it would be faster"),
        (request.arithmetic == "f32", False, "its gain is in bfloat16; float32 was asked for"),
        (not measured, False, "its gain is in bfloat16, not measured within this model's budget"),
        (True, True, f"bfloat16 ({flag}) is faster, and was measured within this model's budget"),
    )
    return next((verdict, reason) for holds, verdict, reason in rules if holds)
