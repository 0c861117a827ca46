"""ONNX artifact -> TensorRT engine: a pure plan file and a sidecar that says what it is.

Two flavours share this code. ``tensorrt`` (10 and 11) tunes for the GPU of this machine and needs
it. ``tensorrt_rtx`` builds a portable engine with no GPU and no driver; it runs on Ampere or later.
Either way precision is a property of the ONNX graph: the network is strongly typed.

The work happens in a child process (`engine_child`), so a builder that crashes is one clear error.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import tempfile
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from prunus.export.engine.attention import AttentionNodes, check_attention, drop_bodies
from prunus.export.engine.child import run_child
from prunus.export.engine.choice import time_engines
from prunus.export.engine.elu import respell_elu
from prunus.export.engine.worker import BuildJob
from prunus.export.precision.fp16 import lies_within
from prunus.runtime.card.artifact import EngineSidecar, atomic_path, read_card, sha256_of
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.matching import check_graph
from prunus.runtime.card.precision import Precision
from prunus.runtime.card.reading import RE_EXPORT
from prunus.runtime.errors import (
    ArtifactError,
    CheckFailedError,
    HostError,
    MissingDependencyError,
    UsageError,
    nearest,
)
from prunus.runtime.plugins.library import BUILD_COMMAND, PluginLibrary, find_library
from prunus.runtime.progress import Progress, Silent
from prunus.runtime.session.base import Session
from prunus.runtime.session.tensorrt import cuda
from prunus.runtime.session.tensorrt.match import EXTRAS, PORTABLE
from prunus.runtime.tasks.codec.card import CodecPostprocess

Flavour = Literal["tensorrt", "tensorrt_rtx"]
PluginChoice = Literal["auto", "on", "off"]

# Smallest share of compute layers in half precision or on quantised operands. The rest of an fp16
# artifact is the ranking branch; an int8 one also leaves attention products in float.
MIN_HALF_SHARE: dict[Precision, float] = {"fp32": 0.0, "fp16": 0.8, "int8": 0.5}
_PRODUCTS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "Einsum"})


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
    plugin: str = "auto",
    plugin_library: str | Path | None = None,
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
            the card's precision and the modules that it keeps higher, see `MIN_HALF_SHARE`.
        tf32: Let float32 products be rounded to 10 bits of mantissa (faster, less exact).
        plugin: Who executes local-global attention nodes: ``on``: the plugin library; ``off``:
            TensorRT, by the standard operators of the node's function; ``auto``: the library where
            one is found, and on a machine with a GPU whichever is faster there.
        plugin_library: The library; None: see `plugins.library.find_library`.
        progress: Told how far the builder is.

    Returns:
        The sidecar as written.

    Raises:
        UsageError: unknown flavour or plugin choice, or no such file.
        ArtifactError: the file is no artifact, the graph cannot become an engine, an attention
            node's table is wrong, or the plugin library is missing or of another version.
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
    _check_described(onnx_path, card)
    attention = check_attention(onnx_path)
    library = choose_library(plugin, plugin_library, attention, onnx_path)
    if attention.bare and library is None:
        raise ArtifactError(
            f"{onnx_path}: node '{attention.bare}' has no function, and no plugin executes it.",
            "Export it again, give it one (export.functions.add_functions), or use --plugin on.",
        )
    request = _Request(
        onnx=onnx_path,
        target=target,
        card=card,
        flavour=chosen,
        attention_nodes=attention.count,
        timing_cache=str(timing_cache or ""),
        workspace_mib=workspace_mib,
        timeout=timeout,
        tf32=tf32,
        min_half_share=(
            _expected_half(card, onnx_path) if min_half_share is None else min_half_share
        ),
    )
    report = progress or Silent()
    with atomic_path(target) as plan:
        if library is not None and plugin == "auto" and not cuda.why_unusable():
            sidecar = _build_faster(request, plan, library, report)
        else:
            sidecar = _build_one(request, plan, library, report)
        # First the sidecar: should the machine stop in between, the hash tells that they differ.
        sidecar.write(target)
    return sidecar


@dataclass(frozen=True, slots=True)
class _Request:
    """What was asked for, apart from the plugin."""

    onnx: Path
    target: Path
    card: ModelCard
    flavour: Flavour
    attention_nodes: int
    timing_cache: str
    workspace_mib: int
    timeout: float
    tf32: bool
    min_half_share: float


def _build_one(
    request: _Request, plan: Path, library: PluginLibrary | None, progress: Progress
) -> EngineSidecar:
    """Build a plan with or without the library; returns its sidecar, which is not written yet."""
    from prunus.export.graph.compact import expand_weights

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "graph.onnx"
        if changed := library is not None:
            drop_bodies(request.onnx, graph)
        changed |= respell_elu(graph if changed else request.onnx, graph)
        changed |= expand_weights(graph if changed else request.onnx, graph)
        job = BuildJob(
            onnx=str(request.onnx),
            plan=str(plan),
            flavour=request.flavour,
            pipe=-1,
            timing_cache=request.timing_cache,
            workspace_mib=request.workspace_mib,
            tf32=request.tf32,
            plugin="" if library is None else str(library.path.absolute()),
            attention_nodes=request.attention_nodes,
            graph=str(graph) if changed else "",
        )
        built: dict[str, Any] = run_child(job, request.timeout, progress, request.target)
    _check_share(built["half_layer_share"], request.min_half_share, request.onnx)
    return EngineSidecar(
        card=request.card,
        onnx_sha256=sha256_of(request.onnx),
        engine_sha256=sha256_of(plan),
        flavour=request.flavour,
        version=built["version"],
        compute_capability=_built_for(request.flavour),
        plugin="" if library is None else library.stamp,
        flags=tuple(built["flags"]),
        build_seconds=round(time.monotonic() - started, 3),
        half_layer_share=round(built["half_layer_share"], 4),
    )


def _build_faster(
    request: _Request, plan: Path, library: PluginLibrary, progress: Progress
) -> EngineSidecar:
    """Build both ways, run both, and move the faster engine to `plan`."""
    started = time.monotonic()
    ways = {"plugin": library, "standard": None}
    with tempfile.TemporaryDirectory(dir=plan.parent, prefix=".both-") as folder:
        plans = {name: Path(folder) / f"{name}.engine" for name in ways}
        sidecars = {}
        for name, chosen in ways.items():
            sidecars[name] = _build_one(request, plans[name], chosen, progress)
            sidecars[name].write(plans[name])
        times = time_engines(plans, lambda path: _open(path, library))
        best = min(times, key=lambda name: times[name])
        plans[best].replace(plan)
    measured = ", ".join(f"{name} {ms:.3f} ms" for name, ms in times.items())
    return dataclasses.replace(
        sidecars[best],
        flags=(*sidecars[best].flags, f"plugin_auto={best} ({measured})"),
        build_seconds=round(time.monotonic() - started, 3),
    )


def _open(path: Path, library: PluginLibrary) -> Session:
    from prunus.runtime.session.tensorrt.session import open_session

    return open_session(path, plugin=library)


def choose_library(
    plugin: str,
    chosen: str | Path | None,
    attention: AttentionNodes,
    onnx_path: Path,
) -> PluginLibrary | None:
    """Resolve who executes the attention nodes: a library, or None for TensorRT itself.

    Raises:
        UsageError: unknown choice, a library with ``off``, or ``on`` without any node.
        ArtifactError: no library is found although one is asked for, it is of another version or
            machine, or it cannot execute one of the nodes.
    """
    known = list(get_args(PluginChoice))
    if plugin not in known:
        raise UsageError(
            f"Unknown plugin choice '{plugin}'{nearest(plugin, known)}.",
            f"Use one of: {', '.join(known)}",
        )
    if plugin == "off":
        if chosen is not None:
            raise UsageError(
                f"The plugin library {chosen} was given, but the plugin is off.",
                "Leave --plugin-library out, or use: --plugin on",
            )
        return None
    demanded = plugin == "on" or chosen is not None
    if not attention.count:
        if demanded:
            raise UsageError(
                f"{onnx_path} has no local-global attention node for a plugin to execute.",
                "Build it without --plugin and --plugin-library.",
            )
        return None
    library = find_library(chosen)
    if library is None and demanded:
        raise ArtifactError(
            "No plugin library is found, and --plugin on asks for one.",
            f"Build it with: {BUILD_COMMAND} (or name it with --plugin-library FILE).",
        )
    if library is not None and attention.refusal:
        if demanded:
            raise ArtifactError(f"{attention.refusal}.", "Build the engine with --plugin off.")
        return None
    return library


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


def _check_described(path: Path, card: ModelCard) -> None:
    """Refuse a graph whose inputs and outputs are not those of its card, or whose weights are away.

    Raises:
        ArtifactError: names what differs, or the missing file.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx.external_data_helper import ExternalDataInfo, _get_all_tensors, uses_external_data

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}.", RE_EXPORT) from None
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    check_graph(path, card, _declared(path, inputs), _declared(path, model.graph.output))
    for tensor in filter(uses_external_data, _get_all_tensors(model)):
        name = ExternalDataInfo(tensor).location
        if not (path.parent / name).is_file():
            raise ArtifactError(
                f"{path} keeps its weights in {name}, which does not lie beside it.",
                "Copy both files together, or export the model again.",
            )


def _declared(path: Path, values: Iterable[Any]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return numpy dtype and shape by name; raises ArtifactError for a dynamic shape."""
    from onnx import helper

    found = {}
    for value in values:
        kind = value.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
        if -1 in shape:
            raise ArtifactError(
                f"{path}: Tensor '{value.name}' has the dynamic shape {shape}; every shape must "
                "be a constant.",
                "Export with fixed sizes: prunus export ... --batch N",
            )
        try:
            dtype = helper.tensor_dtype_to_np_dtype(kind.elem_type).name
        except (KeyError, ValueError):  # not a tensor, or of no numpy type
            dtype = f"type {kind.elem_type}"
        found[value.name] = (dtype, shape)
    return found


def _built_for(flavour: Flavour) -> str:
    return PORTABLE if flavour == "tensorrt_rtx" else cuda.device_properties().compute_capability


def _expected_half(card: ModelCard, path: Path) -> float:
    """Return the smallest share of half-precision layers that such a file should have."""
    share = MIN_HALF_SHARE[card.precision.precision]
    codes = isinstance(card.postprocess, CodecPostprocess) and card.postprocess.part == "encoder"
    # An encoder's code searches stay in float32, one after the other: a fifth of its layers.
    share = min(share, 0.6) if codes else share
    return share * _free_share(path, card.precision.kept_higher) if share else share


def _free_share(path: Path, kept: Collection[str]) -> float:
    """Return the share of the layers with products that lie in none of the modules kept higher."""
    import onnx

    nodes = onnx.load(str(path), load_external_data=False).graph.node
    products = [node for node in nodes if node.op_type in _PRODUCTS]
    free = [node for node in products if not lies_within(node, kept)]
    return len(free) / len(products) if products else 1.0


def _check_share(share: float, wanted: float, onnx_path: Path) -> None:
    if share < wanted:
        raise CheckFailedError(
            f"{100 * share:.0f} % of the compute layers of {onnx_path.name} are in half precision "
            f"or int8; expected at least {100 * wanted:.0f} %.",
            "Export it again with --precision fp16 or int8, or, where the card keeps many modules "
            f"higher on purpose, allow it with --min-half-share {int(100 * share) / 100:g}.",
        )
