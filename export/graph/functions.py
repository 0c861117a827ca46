"""Local-global attention in a graph: one node, and the function that computes it anywhere.

An exported graph holds `prunus::LocalGlobalAttention` nodes and a model-local function of that
name. ONNX Runtime inlines the function; TensorRT looks for a plugin first, by the node's name and
its `plugin_version` and `plugin_namespace`, and inlines the function when it finds none.

The four combinations need different bodies. ONNX has *overloads* for that, but TensorRT finds
functions by name alone and would take one body for all. So a model that mixes combinations gives
one of them the plain name and the others a suffix; the attribute `combine` decides what a kernel
computes, whatever the name. A model with one combination has the plain name only.

OpenVINO reads no model-local functions: `prunus.runtime` teaches it these nodes, and `inlined`
writes a graph without them for any other reader.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from prunus.export.graph.attention.body import (
    BODY_ATTRIBUTES,
    DOMAIN,
    INPUTS,
    MASKED_BELOW,
    Body,
)
from prunus.runtime.errors import PrunusError

NAME = "LocalGlobalAttention"
VERSION = 1
# In this order: the first one that a model uses carries the plain name.
COMBINATIONS = ("joint", "sum", "local", "global")
NAMES = (NAME, *(f"{NAME}{combine.title()}" for combine in COMBINATIONS[1:]))
PLUGIN_ATTRIBUTES = {"plugin_version": "1", "plugin_namespace": DOMAIN}
_BIAS_L, _BIAS_G = INPUTS.index("bias_l"), INPUTS.index("bias_g")

Array = npt.NDArray[Any]


def translation() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return what the exporter needs to turn the PyTorch operator into the node."""
    import torch
    from onnxscript.values import Op, Opset

    from prunus.models.layers.local_global import op as attention_op  # noqa: F401 - registers the operator

    make: Any = Op(Opset(DOMAIN, VERSION), NAME, _schema())

    def node(*inputs: Any, num_heads: int, scale: float, combine: str) -> Any:
        return make(*inputs, num_heads=num_heads, scale=scale, combine=combine, **PLUGIN_ATTRIBUTES)

    return {torch.ops.prunus.local_global_attention.default: node}


def _schema() -> onnx.defs.OpSchema:
    """Return the node's signature for the exporter, which looks types up in it."""
    schema = onnx.defs.OpSchema
    tensors = {name: "I" if name.endswith("_index") else "T" for name in INPUTS}
    kinds = {
        "num_heads": schema.AttrType.INT,
        "scale": schema.AttrType.FLOAT,
        "combine": schema.AttrType.STRING,
        **dict.fromkeys(PLUGIN_ATTRIBUTES, schema.AttrType.STRING),
    }
    return schema(
        NAME,
        DOMAIN,
        VERSION,
        inputs=[schema.FormalParameter(name, kind) for name, kind in tensors.items()],
        outputs=[schema.FormalParameter("Y", "T")],
        type_constraints=[
            ("T", ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"], "activations"),
            ("I", ["tensor(int64)", "tensor(int32)"], "positions"),
        ],
        attributes=[schema.Attribute(name, kind) for name, kind in kinds.items()],
    )


def attention_nodes(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the graph's local-global attention nodes, in order."""
    return [n for n in model.graph.node if n.domain == DOMAIN and n.op_type in NAMES]


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes as numbers, strings and lists."""
    values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in values.items()}


def describe_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Write the attributes that bodies need into every node; edits in place.

    Must run while the shapes of the nodes' inputs are known. Nothing changes them afterwards:
    the lists hold sizes of a static graph.

    Raises:
        PrunusError: the shape of an input is unknown; the message names the node.
    """
    nodes = attention_nodes(model)
    if not nodes:
        return model
    shapes = known_shapes(model)
    for node in nodes:
        missing = [
            name
            for name, value in zip(INPUTS, node.input, strict=False)
            if not shapes.get(value) or any(size < 1 for size in shapes[value])
        ]
        if missing or len(node.input) != len(INPUTS):
            raise PrunusError(
                f"{node.name or node.op_type}: the shape of {', '.join(missing) or 'its inputs'} "
                "is not constant; expected static shapes of all its inputs.",
                "Trace the network with fixed input sizes.",
            )
        written = _body_attributes(
            {name: shapes[value] for name, value in zip(INPUTS, node.input, strict=True)},
            attributes_of(node),
        )
        _set_attributes(node, {**PLUGIN_ATTRIBUTES, **written})
    return model


def known_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes written in a model; 0 stands for a size that is not constant."""
    graph = model.graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    shapes |= {name: tensor.shape for name, tensor in constant_inputs(model).items()}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            shapes[value.name] = tuple(d.dim_value for d in dims)
    return shapes


def _body_attributes(
    shapes: Mapping[str, tuple[int, ...]], attributes: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the lists that the body of this node reads; see `attention_body`."""
    heads, combine = attributes["num_heads"], attributes["combine"]
    channels = shapes["Q"][2]
    windows, rows = shapes["q_index"]
    width = channels // max(heads, 1)
    found: dict[str, Any] = {
        "heads": list(range(heads)),
        "head_rows": [0, -1, width],
        "tokens": [0, -1, channels],
        "window_rows": rows,
        "window_step": (heads - 1) * rows,
        "row_starts": [head * rows for head in range(heads)],
    }
    if combine in ("sum", "global"):
        found["global_heads"] = [0, 0, 0, heads, width]
    if combine == "joint":
        sets, count = shapes["Kg"][1:3]
        first = shapes["K"][1] + (np.arange(windows) % sets)[:, None] * count
        found["global_index"] = (first + np.arange(count)).reshape(-1).tolist()
        found["global_shape"] = [windows, count]
        near, far = ((1,) * (5 - len(shapes[b])) + shapes[b] for b in ("bias_l", "bias_g"))
        lead = [max(a, b) for a, b in zip(near[:4], far[:4], strict=True)]
        found["bias_l_shape"] = [*lead, shapes["kv_index"][1]]
        found["bias_g_shape"] = [*lead, count]
    return found


def _set_attributes(node: onnx.NodeProto, values: Mapping[str, Any]) -> None:
    kept = [a for a in node.attribute if a.name not in (*BODY_ATTRIBUTES, *values)]
    made = [helper.make_attribute(name, value) for name, value in values.items()]
    ordered = sorted((*kept, *made), key=lambda a: a.name)
    copies = [onnx.AttributeProto() for _ in ordered]
    for copy, attribute in zip(copies, ordered, strict=True):
        copy.CopyFrom(attribute)
    del node.attribute[:]
    node.attribute.extend(copies)


def add_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """Name the nodes and give the model exactly the functions that they need; edits in place.

    Repeatable: run it again after biases became constants, and the bodies get simpler.

    Raises:
        PrunusError: a node lacks its combination or the attributes of `describe_shapes`.
    """
    nodes = attention_nodes(model)
    others = [f for f in model.functions if f.domain != DOMAIN or f.name not in NAMES]
    del model.functions[:]
    model.functions.extend(others)
    if not nodes:
        _set_domain(model, any(n.domain == DOMAIN for n in model.graph.node))
        return model
    _set_domain(model, True)
    model.ir_version = max(model.ir_version, 8)
    opset = next(o.version for o in model.opset_import if o.domain == "")
    constants = constant_inputs(model)
    for (name, combine), members in _named(nodes).items():
        biases = [b for node in members for b in _biases(node, constants)]
        guarded = any(b is None or _dead_rows(b) for b in biases)
        biased = guarded or any(b is None or bool(np.any(b)) for b in biases)
        model.functions.append(Body(combine, biased, guarded).function(name, opset))
    return model


def _set_domain(model: onnx.ModelProto, used: bool) -> None:
    kept = [o for o in model.opset_import if o.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    if used:
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))


def _named(nodes: list[onnx.NodeProto]) -> dict[tuple[str, str], list[onnx.NodeProto]]:
    """Group nodes by combination and give each group its name."""
    groups: dict[str, list[onnx.NodeProto]] = {}
    for node in nodes:
        attributes = attributes_of(node)
        combine = attributes.get("combine")
        if combine not in COMBINATIONS or "head_rows" not in attributes:
            raise PrunusError(
                f"{node.name or node.op_type}: got combine={combine!r}; expected one of "
                f"{', '.join(COMBINATIONS)}, and the attributes that its body reads.",
                "Run describe_shapes on the model first.",
            )
        groups.setdefault(combine, []).append(node)
    named: dict[tuple[str, str], list[onnx.NodeProto]] = {}
    for combine in [c for c in COMBINATIONS if c in groups]:
        name = NAMES[COMBINATIONS.index(combine)] if named else NAME
        named[name, combine] = groups[combine]
        for node in groups[combine]:
            node.op_type = name
    return named


def _biases(node: onnx.NodeProto, constants: Mapping[str, Array]) -> Iterator[Array | None]:
    """Yield the biases that a node reads; None for one that is computed."""
    combine = attributes_of(node)["combine"]
    if combine != "global":
        yield constants.get(node.input[_BIAS_L])
    if combine != "local":
        yield constants.get(node.input[_BIAS_G])


def _dead_rows(bias: Array) -> bool:
    """Tell whether some row of a bias masks every key, or says so by an infinity."""
    return bool((bias.max(axis=-1) < MASKED_BELOW).any()) or bool(np.isinf(bias).any())


def constant_inputs(model: onnx.ModelProto) -> dict[str, Array]:
    """Return the constants that attention nodes read, by name."""
    wanted = {name for node in attention_nodes(model) for name in node.input}
    found = {t.name: t for t in model.graph.initializer if t.name in wanted}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] in wanted and node.attribute:
            if node.attribute[0].HasField("t"):
                found[node.output[0]] = node.attribute[0].t
    return {name: numpy_helper.to_array(tensor) for name, tensor in found.items()}


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with every function call replaced by the function's nodes."""
    if not model.functions:
        return model
    from onnx import inliner

    result: onnx.ModelProto = inliner.inline_local_functions(model)
    _set_domain(result, False)
    return result
