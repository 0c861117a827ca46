"""Keep OpenVINO from merging attention layers whose mask it would misread in bfloat16.

OpenVINO 2026.4 merges product, added mask, softmax and product into one layer. In bfloat16 that
layer misreads a mask of one row for all batches, heads and queries, (1, 1, 1, keys), constant or
computed: the answer is NaN, 1e37, or merely some pixels off. In float32 it is right, and so are
masks with one row per query, head or batch. Scores with more than four axes are not merged, so one
more axis is put before a sum of that kind and taken away behind it.

What else was tried: the mark that keeps a layer in float32 (see `tail`) does not reach the merged
layer, and a computed row that is repeated for every query is merged as if it were not.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

_SUMS = frozenset({"Add", "Subtract"})
_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Convert"})
_MERGED_AXES = 4  # scores with more axes are not merged


def keep_masks_apart(model: Any) -> tuple[str, ...]:
    """Give, in place, one more axis to sums of scores and one row that lead to a softmax.

    Args:
        model: `openvino.Model`, not compiled yet.

    Returns:
        Names of the sums, sorted.
    """
    sums = [node for node in _sums_before_softmax(model) if _adds_one_row(node)]
    for node in sums:
        _deepen(node)
    if sums:
        model.validate_nodes_and_infer_types()
    return tuple(sorted(node.get_friendly_name() for node in sums))


def _sums_before_softmax(model: Any) -> list[Any]:
    found: dict[str, Any] = {}
    ahead = [node.input_value(0) for node in model.get_ops() if node.get_type_name() == "Softmax"]
    while ahead:
        node = ahead.pop().get_node()
        kind = node.get_type_name()
        if kind in _VIEWS:
            ahead.append(node.input_value(0))
        elif kind in _SUMS and node.get_name() not in found:
            found[node.get_name()] = node
            ahead.extend(node.input_values())
    return list(found.values())


def _adds_one_row(node: Any) -> bool:
    shape = _static(node.output(0))
    if not 1 < len(shape) <= _MERGED_AXES or shape[-1] == 1:
        return False
    sides = [_static(value) for value in node.input_values()]
    return all(sides) and any(side[-1] == shape[-1] == math.prod(side) for side in sides)


def _deepen(node: Any) -> None:
    import openvino.opset13 as ops

    shape, readers = _static(node.output(0)), list(node.output(0).get_target_inputs())
    side = _static(node.input_value(0))
    deeper = np.array((1,) * (_MERGED_AXES + 1 - len(side)) + side)
    node.input(0).replace_source_output(ops.reshape(node.input_value(0), deeper, False).output(0))
    node.validate_and_infer_types()
    level = ops.reshape(node, np.array(shape), False).output(0)
    for reader in readers:
        reader.replace_source_output(level)


def _static(value: Any) -> tuple[int, ...]:
    shape = value.get_partial_shape()
    return tuple(shape.to_shape()) if shape.is_static else ()
