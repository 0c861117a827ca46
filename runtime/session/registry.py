"""The back ends as data, and which of them this machine can use; the only table of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prunus.runtime import host
from prunus.runtime.card.precision import Precision
from prunus.runtime.errors import UsageError, nearest
from prunus.runtime.references import load

InferencePrecision = Literal["auto", "f32", "bf16"]


@dataclass(frozen=True, slots=True)
class Package:
    """A Python package that runs models of a back end.

    Attributes:
        module: Import name; of an engine also its flavour.
        extra: Extra of prunus that installs it.
        distributions: Names under which it is installed, for version reports.
    """

    module: str
    extra: str
    distributions: tuple[str, ...]

    @property
    def installed(self) -> bool:
        """Tell whether it can be imported."""
        return host.installed(self.module)

    @property
    def version(self) -> str:
        """Installed version, empty for none."""
        return host.version_of(*self.distributions)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """In what a back end may multiply although the graph says float32.

    Attributes:
        name: What users type.
        budget: Row of the budgets of `check` for such results, where the file's own row is not
            looser already; None: the file's own.
    """

    name: InferencePrecision
    budget: Precision | None = None


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """One back end.

    Attributes:
        name: What users type.
        module: Module with `open_session(source, card, threads, device, options)`.
        label: Name for people.
        packages: Any of them is enough.
        suffixes: Files that it opens.
        devices: Device names that it knows, without an index.
        settings: Fields of `BackendOptions` that it reads; reports name these.
        arithmetics: What it can be told to multiply in.
        obstacle: ``module:function`` that says in a few words why an installed package cannot run
            models here, or nothing; empty: only the package is needed.
    """

    name: str
    module: str
    label: str
    packages: tuple[Package, ...]
    suffixes: tuple[str, ...]
    devices: tuple[str, ...]
    settings: tuple[str, ...]
    arithmetics: tuple[Arithmetic, ...] = (Arithmetic("f32"),)
    obstacle: str = ""

    @property
    def installed(self) -> bool:
        """Tell whether one of its packages can be imported."""
        return any(package.installed for package in self.packages)

    @property
    def extra(self) -> str:
        """Extra that installs the usual package."""
        return self.packages[0].extra

    @property
    def version(self) -> str:
        """Version of the first package that is installed, empty for none."""
        return next((package.version for package in self.packages if package.version), "")

    def budget(self, arithmetic: str, precision: Precision) -> Precision:
        """Return the row of the budgets for a file of this precision, computed in `arithmetic`."""
        row = next((a.budget for a in self.arithmetics if a.name == arithmetic), None)
        return precision if row is None or precision == "int8" else row


BACKENDS = (
    BackendInfo(
        name="onnxruntime",
        module="prunus.runtime.session.onnxruntime",
        label="ONNX Runtime",
        packages=(Package("onnxruntime", "ort", ("onnxruntime", "onnxruntime-gpu")),),
        suffixes=(".onnx",),
        devices=("cpu", "cuda", "tensorrt"),
        settings=("spin", "plan_memory", "profile_path", "optimise", "check_finite"),
    ),
    BackendInfo(
        name="openvino",
        module="prunus.runtime.session.openvino.session",
        label="OpenVINO",
        packages=(Package("openvino", "openvino", ("openvino",)),),
        suffixes=(".onnx",),
        devices=("cpu", "gpu", "npu"),
        settings=("inference_precision", "cache_dir", "check_finite"),
        arithmetics=(Arithmetic("f32"), Arithmetic("bf16", budget="fp16")),
    ),
    BackendInfo(
        name="tensorrt",
        module="prunus.runtime.session.tensorrt.session",
        label="TensorRT",
        packages=(
            Package("tensorrt", "trt", ("tensorrt",)),
            Package("tensorrt_rtx", "trt-rtx", ("tensorrt-rtx-cu13", "tensorrt-rtx")),
        ),
        suffixes=(".engine", ".plan"),
        devices=("cuda", "gpu", "cpu"),  # "cpu" is the default of `open`; an engine needs a GPU
        settings=("cuda_graph", "check_finite"),
        obstacle="prunus.runtime.session.tensorrt.cuda:why_unusable",
    ),
)


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


def words() -> tuple[str, ...]:
    """Return the words for one run of an ``.onnx`` file: back ends, and each arithmetic of them."""
    found = []
    for info in BACKENDS:
        if ".onnx" in info.suffixes:
            found.append(info.name)
            if len(info.arithmetics) > 1:
                found += [f"{info.name}-{a.name}" for a in info.arithmetics]
    return tuple(found)


def split_word(word: str) -> tuple[str, InferencePrecision]:
    """Return back end and arithmetic of a word such as ``openvino-bf16``; no arithmetic is auto.

    Raises:
        UsageError: no such back end, or it has no such arithmetic.

    >>> split_word("openvino-bf16"), split_word("auto")
    (('openvino', 'bf16'), ('auto', 'auto'))
    """
    name, dash, arithmetic = word.partition("-")
    if not dash:
        return ("auto" if name == "auto" else find(name).name), "auto"
    for known in find(name).arithmetics:
        if known.name == arithmetic:
            return name, known.name
    raise UsageError(
        f"Unknown back end '{word}'{nearest(word, list(words()))}.",
        f"Choose one of: {', '.join(words())}.",
    )


def package(module: str) -> Package | None:
    """Return the package of this import name, None when no back end needs it."""
    return next((p for info in BACKENDS for p in info.packages if p.module == module), None)


def distributions() -> tuple[str, ...]:
    """Return the names under which the packages of all back ends are installed."""
    return tuple(d for info in BACKENDS for p in info.packages for d in p.distributions)


def probe() -> tuple[Probe, ...]:
    """Say for each back end whether it can run models here, without importing its package."""
    found = []
    for info in BACKENDS:
        usable, reason = info.installed, f"not installed: pip install 'prunus[{info.extra}]'"
        if usable:
            reason = f"{info.label} {info.version}".strip()
            if problem := _obstacle(info):
                usable, reason = False, f"{reason} cannot run models here: {problem}"
        found.append(Probe(info.name, usable, reason))
    return tuple(found)


def _obstacle(info: BackendInfo) -> str:
    if not info.obstacle:
        return ""
    return str(load(info.obstacle)())
