"""Choose the back end that opens a file: the one that is named, or the one that `auto` takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prunus.runtime import host
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import ArtifactError, MissingDependencyError, UsageError, nearest
from prunus.runtime.session import registry
from prunus.runtime.session.registry import BackendInfo, find


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
    if request.suffix in find("tensorrt").suffixes:
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
        fits = [other.name for other in registry.BACKENDS if request.suffix in other.suffixes]
        raise ArtifactError(
            f"{info.label} opens {' and '.join(info.suffixes)} files; got {request.path}.",
            f"Use --backend {fits[0]}." if fits else "Give a .onnx or .engine file.",
        )
    if request.kind not in info.devices:
        raise UsageError(
            f"{info.label} has no device '{request.kind}'{nearest(request.kind, [*info.devices])}.",
            f"Choose one of: {', '.join(info.devices)}.",
        )
    if request.arithmetic not in ("auto", *(a.name for a in info.arithmetics)):
        raise UsageError(
            f"{info.label} computes in the number formats of the graph; it has no "
            f"{request.arithmetic} switch.",
            "Use --backend openvino, or leave the arithmetic to the back end.",
        )
    if not info.installed:
        raise MissingDependencyError(
            info.packages[0].module, info.extra, f"The back end '{info.name}'"
        )
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
