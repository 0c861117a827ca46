"""float32 graph -> int8 by explicit Quantize/Dequantize pairs, calibrated on real inputs.

Only layers with weights are quantised, and only their inputs: their sums stay float32, so one
rounding per layer is all that is lost. Weights are per output channel and symmetric, activations
per tensor and symmetric int8, which is the one scheme that TensorRT takes; on CPUs with VNNI it was
as fast as unsigned activations (MLAS shifts them while packing).

ONNX Runtime fuses ``MatMul + Add(bias)`` into a float Gemm *before* it looks for quantised layers,
and would then dequantise everything. A bias of shape (1, 1, n) is not matched by that fusion and
adds the same numbers, so each layer becomes one MatMulIntegerToFloat.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import numpy_helper

from prunus.export.common.samples import full_batches
from prunus.export.graph.simplify import canonicalise
from prunus.export.precision.fp16 import deciding_modules, lies_within
from prunus.runtime.errors import MissingDependencyError, PrunusError, UsageError

if TYPE_CHECKING:
    from prunus.export.common.samples import Samples

Activations = Literal["int8", "uint8"]
QUANTISER = "onnxruntime static QDQ, per channel int8 weights, {activations} activations, min-max"
KEPT_HIGHER = (
    "first layer",
    "last layer",
    "attention products",
    "softmax",
    "layer norm",
    "token ranking",
    "transposed convolutions",
    "decode",
)
# ConvTranspose has no int8 kernel in ONNX Runtime.
_QUANTISED = ("MatMul", "Gemm", "Conv")


def to_int8(
    model: onnx.ModelProto,
    calibration: Samples,
    *,
    keep_higher: Collection[str] | None = None,
    activations: Activations = "int8",
) -> onnx.ModelProto:
    """Return the model with int8 layers.

    Args:
        model: A float32 model with canonical names.
        calibration: Real inputs, e.g. crops of people.
        keep_higher: Names of layers to leave in float32; by default `sensitive_layers(model)`.
        activations: ``int8`` (every back end) or ``uint8`` with a zero point (CPU only).

    Returns:
        A new, canonical model; inputs and outputs keep their types.

    Raises:
        PrunusError: no layer is left to quantise, or the quantiser fails.
        UsageError: the calibration data do not fit the input.
    """
    kept = set(sensitive_layers(model) if keep_higher is None else keep_higher)
    chosen = [node for node in weighted_layers(model) if node.name not in kept]
    if not chosen:
        raise PrunusError("No layer of this graph can be quantised: none has constant weights.")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    lift_biases(copy, {node.name for node in chosen})
    try:
        with tempfile.TemporaryDirectory(prefix="prunus-int8-") as folder, _quiet():
            target = Path(folder) / "int8.onnx"
            layers = {n.name: n.op_type for n in chosen}
            _quantise(copy, target, calibration, layers, activations)
            quantised = onnx.load(target)
    except (UsageError, MissingDependencyError):
        raise
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise PrunusError(f"Cannot quantise the graph: {reason[:200]}.") from error
    del quantised.opset_import[:]
    quantised.opset_import.extend(model.opset_import)
    return canonicalise(quantised)


def weighted_layers(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return MatMul, Gemm and Conv nodes whose weights are constants, in order.

    A MatMul by a stack of matrices, as of one per head, is an attention product with its projection
    folded in, and ONNX Runtime has no integer kernel for it: it is none of them.
    """
    axes = {t.name: len(t.dims) for t in model.graph.initializer}

    def weighted(node: onnx.NodeProto) -> bool:
        rank = axes.get(node.input[1], 0)
        return rank > 1 if node.op_type == "Conv" else rank == 2

    return [n for n in model.graph.node if n.op_type in _QUANTISED and weighted(n)]


def sensitive_layers(model: onnx.ModelProto) -> list[str]:
    """Return the layers that int8 hurts most: the first, the last ones, and those that rank.

    A layer ranks when it lies in the module of a TopK or ArgMax. A module that holds the first
    layer as well is the network itself, most of whose layers rank nothing.
    """
    layers = weighted_layers(model)
    rankers = {s for s in deciding_modules(model) if layers and not lies_within(layers[0], [s])}
    ranking = [n.name for n in layers if lies_within(n, rankers)]
    heavy = {n.name for n in layers}
    heavy |= {n.name for n in model.graph.node if n.op_type == "ConvTranspose"}
    before: set[str] = set()
    last = set()
    for node in reversed(model.graph.node):
        leads = any(value in before for value in node.output)
        if node.name in heavy and not leads:
            last.add(node.name)
        if node.name in heavy or leads:
            before.update(node.input)
    first = [layers[0].name] if layers else []
    rest = sorted(last.difference(first, ranking))
    return [*first, *rest, *ranking]


def lift_biases(model: onnx.ModelProto, layers: Collection[str]) -> None:
    """Reshape biases (n,) added to these MatMuls to (1, 1, n); edits in place."""
    graph = model.graph
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    products = {n.output[0] for n in graph.node if n.name in layers and n.op_type == "MatMul"}
    readers = [name for node in graph.node for name in node.input]
    for node in graph.node:
        if node.op_type != "Add" or not products & set(node.input):
            continue
        for k, name in enumerate(node.input):
            if name not in tensors or len(tensors[name].dims) != 1:
                continue
            array = numpy_helper.to_array(tensors[name]).reshape(1, 1, -1)
            lifted = numpy_helper.from_array(np.ascontiguousarray(array), name)
            if readers.count(name) == 1:
                tensors[name].CopyFrom(lifted)
            else:
                lifted.name = f"{name}.lifted"
                node.input[k] = lifted.name
                if lifted.name not in tensors:
                    graph.initializer.append(lifted)
                    tensors[lifted.name] = graph.initializer[-1]
    # A shared bias may have lost its last reader; ONNX Runtime would complain about it.
    read = {name for node in graph.node for name in node.input}
    read |= {output.name for output in graph.output}  # a state that never changes is a constant
    alive = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(alive)


def _quantise(
    model: onnx.ModelProto,
    target: Path,
    calibration: Samples,
    layers: dict[str, str],
    activations: Activations,
) -> None:
    """Quantise `layers` (name -> operator) and write the result to `target`."""
    try:
        from onnxruntime import quantization as tool
    except ImportError:
        raise MissingDependencyError("onnxruntime", "export", "Quantising") from None

    operators = sorted(set(layers.values()))
    # Sums of a MatMul stay float32; a Conv has a fast kernel only with an int8 result.
    open_ended = [name for name in operators if name != "Conv"]
    tool.quantize_static(
        model,
        str(target),
        _Reader(model, calibration),
        quant_format=tool.QuantFormat.QDQ,
        op_types_to_quantize=operators,
        nodes_to_quantize=list(layers),
        per_channel=True,
        activation_type=tool.QuantType.QInt8 if activations == "int8" else tool.QuantType.QUInt8,
        weight_type=tool.QuantType.QInt8,
        calibrate_method=tool.CalibrationMethod.MinMax,
        extra_options={
            "ActivationSymmetric": activations == "int8",
            "WeightSymmetric": True,
            "OpTypesToExcludeOutputQuantization": open_ended,
            # TensorRT has no int32 DequantizeLinear; ONNX Runtime quantises biases by itself.
            "QuantizeBias": False,
        },
    )


class _Reader:
    """Feeds samples in the graph's batch size; the last batch is filled by repeating."""

    def __init__(self, model: onnx.ModelProto, calibration: Samples) -> None:
        shapes = {
            value.name: tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
            for value in model.graph.input
        }
        for name, shape in shapes.items():
            found = calibration.arrays.get(name)
            got = "missing" if found is None else list(found.shape)
            if found is None or found.shape[1:] != shape[1:] or not len(found):
                raise UsageError(
                    f"The calibration data of '{name}' are {got}; expected n of {list(shape[1:])}.",
                    "Give real inputs of the network's own size.",
                )
        batch = next(iter(shapes.values()))[0]
        feeds = full_batches({name: calibration[name] for name in shapes}, batch)
        self._feeds: Iterator[dict[str, Any]] = iter(feeds)

    def get_next(self) -> dict[str, Any] | None:
        """Return the next feed, None at the end (the quantiser's protocol)."""
        return next(self._feeds, None)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._feeds

    def __next__(self) -> dict[str, Any]:
        return next(self._feeds)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the quantiser, which logs advice that does not apply to a simplified graph."""
    root = logging.getLogger()
    level = root.level
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        root.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            root.setLevel(level)
