"""Precision of a network before it is built, and of an engine once a GPU can open it.

In a strongly typed network the builder may not change a type, so the tensor types of the parsed
network *are* the precisions of the engine; reading them needs neither a GPU nor a driver.
`inspected_share` reads the same figure from TensorRT's engine inspector, which does need a GPU;
the GPU suite compares the two.
"""

from __future__ import annotations

import json
from typing import Any

# Layers that hold the multiply-accumulates; names of TensorRT's LayerType.
PLUGIN_LAYER = "PLUGIN_V3"  # ours alone: local-global attention
COMPUTE_LAYERS = frozenset(
    {"CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY", "EINSUM", PLUGIN_LAYER}
)
HALF_TYPES = frozenset({"HALF", "BF16"})
QUANTISED_TYPES = frozenset({"INT8", "FP8", "INT4", "FP4"})
# Layers that move or re-type values without computing: a quantised operand stays one behind them.
_TRANSPARENT = frozenset({"SHUFFLE", "IDENTITY", "CAST", "SQUEEZE", "UNSQUEEZE"})


def half_layer_share(network: Any) -> float:
    """Return the share of compute layers that work in half precision or on quantised operands.

    Args:
        network: A parsed, strongly typed ``INetworkDefinition``.

    Returns:
        Layers of `COMPUTE_LAYERS` whose output is half or bfloat16, or whose operands all come from
        a dequantiser of int8 or narrower, divided by all of them; 0.0 when there are none.
    """
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    producers = {
        layer.get_output(k).name: layer
        for layer in layers
        for k in range(layer.num_outputs)
        if layer.get_output(k) is not None
    }
    compute = [layer for layer in layers if layer.type.name in COMPUTE_LAYERS]
    low = sum(_is_low(layer, producers) for layer in compute)
    return low / len(compute) if compute else 0.0


def _is_low(layer: Any, producers: dict[str, Any]) -> bool:
    if layer.get_output(0).dtype.name in HALF_TYPES | QUANTISED_TYPES:
        return True
    # Inputs 0 and 1 are the operands (of a convolution: data and kernel); others are biases.
    operands = [layer.get_input(i) for i in range(min(layer.num_inputs, 2))]
    return all(tensor is not None and _is_dequantised(tensor, producers) for tensor in operands)


def _is_dequantised(tensor: Any, producers: dict[str, Any]) -> bool:
    layer = producers.get(tensor.name)
    while layer is not None and layer.type.name in _TRANSPARENT:
        layer = producers.get(layer.get_input(0).name)
    if layer is None or layer.type.name != "DEQUANTIZE":
        return False
    return layer.get_input(0).dtype.name in QUANTISED_TYPES


def inspected_share(inspector_json: str) -> float:
    """Return the share of an engine's layers whose first output is half or narrower.

    Args:
        inspector_json: ``EngineInspector.get_engine_information(LayerInformationFormat.JSON)`` of
            an engine built with detailed profiling verbosity, which is what `build_engine` does.
    """
    layers = json.loads(inspector_json).get("Layers", [])
    types = [_first_type(layer) for layer in layers if isinstance(layer, dict)]
    known = [kind for kind in types if kind]
    low = [k for k in known if any(word in k for word in ("half", "fp16", "bf16", "int8", "fp8"))]
    return len(low) / len(known) if known else 0.0


def _first_type(layer: dict[str, Any]) -> str:
    outputs = layer.get("Outputs") or [{}]
    return str(outputs[0].get("Format/Datatype", outputs[0].get("Datatype", ""))).lower()
