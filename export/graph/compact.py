"""Make a float32 file small without changing a number: constants are stored as their makers.

Weights that lie on an 8-bit grid (`models.codec.nsf_weights`) become int8 with a scale per channel,
constants that float16 holds exactly become float16, and windowed Fourier matrices become the few
nodes that compute them. All of it is constant folding to a runtime: after loading, the graph is the
one that was exported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from prunus.export.common.pipeline import write_model
from prunus.runtime.card.artifact import read_card
from prunus.runtime.card.card import CARD_KEY

Array = npt.NDArray[Any]
_SMALLEST = 1024  # elements below which nothing is gained
_LEVELS = 127


@dataclass(frozen=True, slots=True)
class FourierMatrix:
    """A constant that `models.codec.layers.istft` makes.

    Attributes:
        size: FFT and window length in samples.
        inverse: Rows of the inverse transform instead of the forward one.
        gain: Factor of the whole.
    """

    size: int
    inverse: bool = False
    gain: float = 1.0


def compact(
    model: onnx.ModelProto, matrices: Mapping[str, FourierMatrix] | None = None
) -> onnx.ModelProto:
    """Return the model with small constants.

    Args:
        model: float32 graph.
        matrices: Constant name -> what it is.
    """
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph, nodes = made.graph, []
    for tensor in list(graph.initializer):
        name = tensor.name
        if matrices and name in matrices:
            kept, found = _fourier(name, matrices[name])
        else:
            values = numpy_helper.to_array(tensor)
            if values.dtype != np.float32 or values.size < _SMALLEST:
                continue
            kept, found = _small(name, values)
        if found:
            graph.initializer.remove(tensor)
            graph.initializer.extend(kept)
            nodes.extend(found)
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *rest])
    return made


def compact_file(path: Path, matrices: Mapping[str, FourierMatrix] | None = None) -> None:
    """Rewrite an artifact with compact constants, see `compact`; its card stays."""
    card, model = read_card(path), onnx.load(str(path))
    kept = [p for p in model.metadata_props if p.key != CARD_KEY]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    write_model(compact(model, matrices), card, path)


def stored(model: onnx.ModelProto, name: str) -> Array | None:
    """Return a constant of a compact or plain model as float32, None when there is none.

    Fourier matrices are not weights and are not returned.
    """
    constants = {t.name: t for t in model.graph.initializer}
    if name in constants:
        return np.asarray(numpy_helper.to_array(constants[name]))
    makers = {output: node for node in model.graph.node for output in node.output}
    node = makers.get(name)
    if node is None:
        return None
    if node.op_type == "Cast" and node.input[0] in constants:
        narrow = numpy_helper.to_array(constants[node.input[0]])
        return np.asarray(narrow.astype(np.float32))
    if node.op_type == "Mul" and node.input[1] in constants:
        first = stored(model, node.input[0])
        scale = np.asarray(numpy_helper.to_array(constants[node.input[1]]))
        return None if first is None else np.asarray(first * scale)
    return None


def expand_weights(path: str | Path, target: str | Path) -> bool:
    """Write the graph with its 8-bit weights as float32: TensorRT takes int8 for quantised layers.

    Args:
        path: ONNX file.
        target: File to write; may be `path`.

    Returns:
        Whether there was one; otherwise nothing is written.
    """
    model = onnx.load(str(path))
    integers = {t.name for t in model.graph.initializer if t.data_type == TensorProto.INT8}
    casts = [n for n in model.graph.node if n.op_type == "Cast" and n.input[0] in integers]
    wide = {cast.output[0] for cast in casts}
    products = [n for n in model.graph.node if n.op_type == "Mul" and n.input[0] in wide]
    values = {node.output[0]: stored(model, node.output[0]) for node in products}
    made = {name: array for name, array in values.items() if array is not None}
    if not made:
        return False
    gone = {node.name for node in (*casts, *products) if node.output[0] in {*wide, *made}}
    kept = [node for node in model.graph.node if node.name not in gone]
    unused = {cast.input[0] for cast in casts}
    tensors = [t for t in model.graph.initializer if t.name not in unused]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend([*tensors, *(_tensor(n, a) for n, a in made.items())])
    onnx.save(model, str(target))
    return True


def _small(name: str, values: Array) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    half = values.astype(np.float16)
    if np.array_equal(half.astype(np.float32), values):
        stem = f"{name}.float16"
        return [_tensor(stem, half)], [_cast(stem, name)]
    for axis in (None, 0, values.ndim - 1):
        others = tuple(k for k in range(values.ndim) if k != axis)
        largest = np.abs(values).max(axis=others, keepdims=True)
        scale = np.where(largest > 0, largest / _LEVELS, 1.0).astype(np.float32)
        steps = np.clip(np.rint(values / scale), -_LEVELS, _LEVELS).astype(np.int8)
        if np.array_equal(steps.astype(np.float32) * scale, values):
            kept = [_tensor(f"{name}.int8", steps), _tensor(f"{name}.scale", scale)]
            wide = f"{name}.steps"
            product = helper.make_node(
                "Mul", [wide, f"{name}.scale"], [name], name=f"{name}.scaled"
            )
            return kept, [_cast(f"{name}.int8", wide), product]
    return [], []


def _fourier(
    name: str, matrix: FourierMatrix
) -> tuple[list[onnx.TensorProto], list[onnx.NodeProto]]:
    size, bins = matrix.size, matrix.size // 2 + 1
    window = 0.5 - 0.5 * np.cos(2.0 * math.pi / size * np.arange(size))
    rows = np.ones((2 * bins, 1))
    if matrix.inverse:
        rows[:] = 2.0 / size
        rows[[0, bins - 1, bins, 2 * bins - 1]] = 1.0 / size
        rows[[bins, 2 * bins - 1]] = 0.0
    constants = {
        "bins": np.arange(bins)[:, None],
        "samples": np.arange(size)[None],
        "size": np.array(float(size)),
        "turn": np.array(2.0 * math.pi / size),
        "window": window[None],
        "rows": matrix.gain * rows,
    }
    kept = [_tensor(f"{name}.{k}", v.astype(np.float32)) for k, v in constants.items()]
    kept.append(_tensor(f"{name}.axis", np.array([1], np.int64)))
    # The angle is taken modulo the period first: large ones would lose digits.
    steps: list[tuple[str, list[str], str]] = [
        ("Mul", ["bins", "samples"], "product"),
        ("Div", ["product", "size"], "turns"),
        ("Floor", ["turns"], "whole"),
        ("Mul", ["whole", "size"], "wholes"),
        ("Sub", ["product", "wholes"], "rest"),
        ("Mul", ["rest", "turn"], "angle"),
        ("Cos", ["angle"], "cosines"),
        ("Sin", ["angle"], "sines"),
        ("Neg", ["sines"], "negative"),
        ("Concat", ["cosines", "negative"], "both"),
        ("Mul", ["both", "window"], "windowed"),
        ("Mul", ["windowed", "rows"], "weighted"),
        ("Unsqueeze", ["weighted", "axis"], ""),
    ]
    nodes = []
    for kind, inputs, output in steps:
        extra = {"axis": 0} if kind == "Concat" else {}
        nodes.append(
            helper.make_node(
                kind,
                [f"{name}.{i}" for i in inputs],
                [f"{name}.{output}" if output else name],
                name=f"{name}.{output or 'matrix'}.node",
                **extra,
            )
        )
    return kept, nodes


def _cast(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node(
        "Cast", [source], [target], name=f"{target}.widened", to=TensorProto.FLOAT
    )


def _tensor(name: str, values: Array) -> onnx.TensorProto:
    return numpy_helper.from_array(np.ascontiguousarray(values), name)
