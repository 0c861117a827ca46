"""From a PyTorch module to a finished artifact: one road for every model.

trace -> simplify -> audit -> number format -> audit -> judge in ONNX Runtime -> card -> file. The
file takes its name only after the graph that will be in it has been compared with PyTorch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
import torch

from prunus.export.common.samples import Samples, full_batches
from prunus.export.common.sessions import graph_card, run_samples
from prunus.export.graph.audit import require_clean
from prunus.export.graph.naming import scope_of
from prunus.export.graph.npu import require_constant_choice
from prunus.export.graph.simplify import simplify
from prunus.export.graph.trace import trace
from prunus.export.precision.bfloat16 import require_bfloat16, run_bfloat16
from prunus.export.precision.fp16 import sensitive_nodes, to_fp16
from prunus.export.precision.int8 import (
    KEPT_HIGHER,
    QUANTISER,
    Activations,
    sensitive_layers,
    to_int8,
)
from prunus.runtime.card.artifact import atomic_path, write_error
from prunus.runtime.card.card import CARD_KEY, ModelCard
from prunus.runtime.card.precision import Precision, PrecisionSpec
from prunus.runtime.errors import (
    CheckFailedError,
    PrunusError,
    SourceError,
    UsageError,
)
from prunus.runtime.progress import Progress, Silent
from prunus.runtime.session.base import open as open_session
from prunus.runtime.session.registry import find
from prunus.runtime.tasks.metrics import metric_for, non_finite

Array = npt.NDArray[Any]
_STEPS = ("trace", "simplify", "audit", "number format", "compare with PyTorch", "write")
MAX_BYTES = 2**31 - 1  # protobuf's limit; larger models would need external data files


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What may vary between exports of one network.

    Attributes:
        precision: Number format of the layers.
        activations: Integer type of quantised activations: ``int8`` for every back end.
        extra_outputs: Outputs of the module that only the comparison needs; not in the file.
        threads: Threads of the comparison.
        bf16: Let OpenVINO compute in bfloat16 what stays float32: ``measure`` it here, ``known``
            when these very weights were measured before, ``no``.
        keep_fp32: Modules that stay float32 as a whole in lower precisions, besides those that
            decide (`sensitive_nodes`).
        exact: Computes the same as the module in float64, for the comparison; None: the module.
        npu: Refuse a graph in which anything is chosen by the data.
    """

    precision: Precision = "fp32"
    activations: Activations = "int8"
    extra_outputs: tuple[str, ...] = ()
    threads: int = 2
    bf16: Literal["measure", "known", "no"] = "no"
    keep_fp32: tuple[str, ...] = ()
    exact: torch.nn.Module | None = None
    npu: bool = False


def exporter_name() -> str:
    """Return name and version for the card, e.g. ``prunus 0.1.0``."""
    try:
        return f"prunus {metadata.version('prunus')}"
    except metadata.PackageNotFoundError:
        return "prunus"


def export_artifact(
    network: torch.nn.Module,
    card: ModelCard,
    samples: Samples,
    path: str | Path,
    *,
    options: ExportOptions | None = None,
    progress: Progress | None = None,
) -> Path:
    """Export a module as one self-describing ONNX file.

    Args:
        network: Takes `card.inputs` and returns `card.outputs`, then `options.extra_outputs`.
        card: What the file will say about itself; `precision` is filled in here.
        samples: Real inputs on which the result is compared with PyTorch before it is written. Of
            int8, half of them calibrate and the other half judges, see `Samples.halves`.
        path: Where the file goes.
        options: Number format and outputs.
        progress: Told about each step.

    Returns:
        The path.

    Raises:
        PrunusError: the module cannot be exported as a static graph.
        CheckFailedError: the graph does not compute what the module computes.
        TensorError: the samples do not fit, or are too few for int8.
        SourceError: the folder cannot be written.
        HostError: the disk is full, or a package is missing.
    """
    options = options or ExportOptions()
    steps = progress or Silent()
    path = Path(path)
    require_writable(path)
    if options.bf16 == "measure":
        require_bfloat16(card)
    names = [o.name for o in card.outputs] + list(options.extra_outputs)
    steps.update(0, len(_STEPS), _STEPS[0])
    samples.require(card.inputs)
    data = samples
    if options.precision == "int8":
        data, samples = samples.halves()
    batch = card.inputs[0].shape[0]
    first = full_batches(samples.arrays, batch)[0]
    example = [torch.from_numpy(first[spec.name]) for spec in card.inputs]
    traced = trace(network, example, [i.name for i in card.inputs], names)
    steps.update(1, len(_STEPS), _STEPS[1])
    master = simplify(traced)
    steps.update(2, len(_STEPS), _STEPS[2])
    require_clean(master)
    if options.npu:
        require_constant_choice(without_outputs(master, options.extra_outputs))
    require_card(master, card)
    steps.update(3, len(_STEPS), _STEPS[3])
    model = _in_precision(master, options, data)
    if model is not master:
        require_clean(model)
    card = replace(card, precision=_precision_spec(master, options, data))
    steps.update(4, len(_STEPS), _STEPS[4])
    expected = run_torch(options.exact or network, card, samples, names)
    for graph, precision in _judged(master, model, options):
        got = run_onnx(graph, samples, options.threads)
        _judge(expected, got, card, samples, precision)
    model = without_outputs(model, options.extra_outputs)
    if options.bf16 == "measure":
        lower = run_bfloat16(serialise(model, card), card, samples, options.threads)
        budget = find("openvino").budget("bf16", options.precision)
        _judge(expected, lower, card, samples, budget, shown="bfloat16")
    if options.bf16 != "no":
        card = replace(card, precision=replace(card.precision, also_within_budget=("bf16",)))
    steps.update(5, len(_STEPS), _STEPS[5])
    write_model(model, card, path)
    steps.update(len(_STEPS), len(_STEPS), "done")
    return path


def _in_precision(
    master: onnx.ModelProto, options: ExportOptions, data: Samples
) -> onnx.ModelProto:
    kept = _named(master, options.keep_fp32)
    if options.precision == "fp16":
        return to_fp16(master, [*sensitive_nodes(master), *kept] if kept else None)
    if options.precision == "int8":
        higher = [*sensitive_layers(master), *kept] if kept else None
        return to_int8(master, data, keep_higher=higher, activations=options.activations)
    return master


def _named(model: onnx.ModelProto, modules: Sequence[str]) -> list[str]:
    """Return the nodes of these modules and of what is inside them."""
    return [
        node.name
        for node in model.graph.node
        if any(f"{scope_of(node.name)}.".startswith(f"{module}.") for module in modules)
    ]


def _judged(
    master: onnx.ModelProto, model: onnx.ModelProto, options: ExportOptions
) -> list[tuple[onnx.ModelProto, Precision]]:
    """Return what is compared: the float32 graph first, so that a tracing fault is named as one."""
    first: tuple[onnx.ModelProto, Precision] = (master, "fp32")
    return [first] if model is master else [first, (model, options.precision)]


def _precision_spec(
    master: onnx.ModelProto, options: ExportOptions, data: Samples
) -> PrecisionSpec:
    if options.precision == "fp16":
        scopes = {scope_of(name) or "normalisation" for name in sensitive_nodes(master)}
        return PrecisionSpec("fp16", tuple(sorted(scopes | set(options.keep_fp32))))
    if options.precision == "int8":
        quantiser = QUANTISER.format(activations=options.activations)
        kept = (*KEPT_HIGHER, *options.keep_fp32)
        return PrecisionSpec("int8", kept, quantiser, data.sha256, len(data))
    return PrecisionSpec()


def require_writable(path: Path) -> None:
    """Refuse a target that cannot be written, before minutes of work.

    Raises:
        UsageError: not an ``.onnx`` path, or a folder.
        SourceError: the folder is missing or read-only.
    """
    if path.suffix != ".onnx":
        raise UsageError(f"Got the output '{path}'; expected a name ending in .onnx.")
    if path.is_dir():
        raise UsageError(f"{path} is a folder; expected a file name.")
    if not path.absolute().parent.is_dir():
        raise SourceError(
            f"The folder {path.absolute().parent} does not exist.",
            "Create it, or choose another path with -o.",
        )
    if not os.access(path.absolute().parent, os.W_OK):
        raise SourceError(
            f"Cannot write {path}: the folder is read-only.", "Choose a writable path with -o."
        )


def require_card(model: onnx.ModelProto, card: ModelCard) -> None:
    """Refuse a card whose inputs and outputs are not the graph's.

    Raises:
        PrunusError: naming the first tensor that differs.
    """
    for specs, values in ((card.inputs, model.graph.input), (card.outputs, model.graph.output)):
        for spec, value in zip(specs, values, strict=False):
            tensor = value.type.tensor_type
            shape = tuple(d.dim_value for d in tensor.shape.dim)
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
            if (value.name, shape, dtype) != (spec.name, spec.shape, spec.dtype):
                raise PrunusError(
                    f"The graph has {value.name} {dtype} {list(shape)}; its card says "
                    f"{spec.describe()}."
                )


def run_torch(
    network: torch.nn.Module, card: ModelCard, samples: Samples, names: Sequence[str]
) -> dict[str, Array]:
    """Return what the module computes, samples stacked along axis 0."""
    network.eval()
    found: dict[str, list[Array]] = {name: [] for name in names}
    with torch.no_grad():
        for feed in full_batches(samples.arrays, card.inputs[0].shape[0]):
            result = network(*(torch.from_numpy(feed[spec.name]) for spec in card.inputs))
            results = result if isinstance(result, tuple | list) else (result,)
            for name, value in zip(names, results, strict=True):
                found[name].append(value.numpy())
    return {name: np.concatenate(parts)[: len(samples)] for name, parts in found.items()}


def run_onnx(model: onnx.ModelProto, samples: Samples, threads: int = 2) -> Mapping[str, Array]:
    """Return what the graph computes in ONNX Runtime on the CPU, stacked along axis 0.

    Raises:
        ArtifactError: ONNX Runtime refuses the graph.
        MissingDependencyError: it is not installed.
    """
    data, card = model.SerializeToString(), graph_card(model)
    with open_session(data, "onnxruntime", threads=threads, card=card) as session:
        return run_samples(session, samples)


_WAY_OUT = {
    "fp32": "Nothing was written. Judge other inputs with --calibration.",
    "fp16": "Nothing was written. Export with --precision fp32.",
    "int8": "Nothing was written. Calibrate on other inputs, or export with --precision fp16.",
    "bf16": "Nothing was written. Leave out --bf16.",
}


def _judge(
    expected: Mapping[str, Array],
    got: Mapping[str, Array],
    card: ModelCard,
    samples: Samples,
    precision: Precision,
    *,
    shown: str = "",
) -> None:
    """Hold what the graph computed against PyTorch, with the budgets of `check`."""
    title = f"The exported {shown or precision} graph of {card.model} {card.variant}"
    poisoned = non_finite(got, title)
    if poisoned:
        raise CheckFailedError(poisoned[0], "Nothing was written.")
    metric = metric_for(card)
    measured = metric.measure(expected, got, card)
    for limit in metric.limits(card, precision):
        value = measured.values.get(limit.quantity, float("nan"))
        if not limit.holds(value):
            raise CheckFailedError(
                f"{title} differs from PyTorch: {limit.quantity} is {value:.4g}, expected "
                f"{limit.describe()} on {len(samples)} {samples.noun} ({samples.source}).",
                _WAY_OUT["bf16" if shown else precision],
            )


def without_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return the model without these outputs; their makers stay if anything else reads them."""
    if not names:
        return model
    from prunus.export.graph.simplify import canonicalise

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    kept = [value for value in copy.graph.output if value.name not in names]
    del copy.graph.output[:]
    copy.graph.output.extend(kept)
    needed = {value.name for value in kept}
    nodes = []
    for node in reversed(copy.graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            nodes.append(node)
    alive = list(reversed(nodes))
    del copy.graph.node[:]
    copy.graph.node.extend(alive)
    return canonicalise(copy)


def write_model(model: onnx.ModelProto, card: ModelCard, path: Path) -> None:
    """Embed the card, run the full checker, and write the file atomically.

    Raises:
        PrunusError: the model is invalid or too large for one file.
    """
    data = serialise(model, card)
    with atomic_path(path) as temporary:
        try:
            temporary.write_bytes(data)
        except OSError as error:
            raise write_error(error, path) from None


def serialise(model: onnx.ModelProto, card: ModelCard) -> bytes:
    """Return the artifact's bytes: the checked graph with its card.

    Raises:
        PrunusError: the model is invalid or too large for one file.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    entry = copy.metadata_props.add()
    entry.key, entry.value = CARD_KEY, card.to_json()
    if copy.ByteSize() > MAX_BYTES:
        raise PrunusError(
            f"The model is {copy.ByteSize() / 2**30:.1f} GiB; one file holds at most 2 GiB.",
            "Export with --precision fp16.",
        )
    try:
        onnx.checker.check_model(copy, full_check=True)
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PrunusError(f"The exported model is not valid ONNX: {reason[:300]}.") from error
    data: bytes = copy.SerializeToString(deterministic=True)
    return data
