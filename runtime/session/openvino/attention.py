"""Teach OpenVINO the `prunus::LocalGlobalAttention` nodes of an artifact.

OpenVINO reads no model-local functions, so the body that an artifact brings along does not help it.
Its ONNX reader takes conversions from Python instead; here each node becomes OpenVINO operators
that compute the same: rows of (token, head) are gathered by constant tables, global tokens are put
behind the keys of a joint softmax, and rows without any key give zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import ArtifactError

NAMES = tuple(f"LocalGlobalAttention{suffix}" for suffix in ("", "Sum", "Local", "Global"))
DOMAIN = "prunus"
_INPUTS = (
    "q", "k", "v", "q_index", "kv_index", "bias_l", "kg", "vg", "bias_g", "gate", "o_index",
)  # fmt: skip
_MASK_VALUE, _MASKED_BELOW = -30000.0, -10000.0
_AXES = 5


def add_attention(core: Any) -> None:
    """Let `core` (an `openvino.Core`) read local-global attention nodes."""
    from openvino.frontend.onnx import ConversionExtension

    for name in NAMES:
        core.add_extension(ConversionExtension(name, DOMAIN, _convert))


def _convert(node: Any) -> list[Any]:
    inputs = {name: node.get_input(k) for k, name in enumerate(_INPUTS)}
    attributes = {name: node.get_attribute(name) for name in ("num_heads", "scale", "combine")}
    outputs: list[Any] = _Lowering.of(inputs, **attributes).output().outputs()
    return outputs


@dataclass(frozen=True, slots=True)
class _Lowering:
    """One node on its way into OpenVINO operators.

    Attributes:
        inputs: OpenVINO outputs by the definition's names.
        ops: OpenVINO's operator set.
        heads: Attention heads h.
        scale: Factor of the scores.
        combine: What is computed.
        q_index: (W, Lq) positions of the queries.
    """

    inputs: dict[str, Any]
    ops: Any
    heads: int
    scale: float
    combine: str
    q_index: npt.NDArray[np.int64]

    @staticmethod
    def of(inputs: dict[str, Any], num_heads: int, scale: float, combine: str) -> _Lowering:
        import openvino.opset13 as ops

        return _Lowering(inputs, ops, num_heads, scale, combine, _table(inputs, "q_index"))

    def output(self) -> Any:
        """Return the operator whose output is Y (B, Nq, C)."""
        query = self._gather(self.inputs["q"], self.q_index)
        query = self.ops.multiply(query, self._number(self.scale))
        if self.combine == "joint":
            mixed = self._joint(query)
        elif self.combine == "global":
            mixed = self._far(query)
        else:
            mixed = self._near(query)
        if self.combine == "sum":
            mixed = self.ops.add(mixed, self.ops.multiply(self._far(query), self.inputs["gate"]))
        return self._restore(mixed)

    def _near(self, query: Any) -> Any:
        index = _table(self.inputs, "kv_index")
        keys, values = (self._gather(self.inputs[name], index) for name in ("k", "v"))
        return self._attend(query, keys, values, {"bias_l": index.shape[1]})

    def _far(self, query: Any) -> Any:
        _, sets, count, channels = _shape(self.inputs["kg"])
        shape = np.array([-1, sets, count, self.heads, channels // self.heads])
        keys, values = (
            self.ops.transpose(
                self.ops.reshape(self.inputs[name], shape, False), np.array([0, 1, 3, 2, 4])
            )
            for name in ("kg", "vg")
        )
        return self._attend(query, keys, values, {"bias_g": count})

    def _joint(self, query: Any) -> Any:
        near = _table(self.inputs, "kv_index")
        _, sets, count, channels = _shape(self.inputs["kg"])
        first = _shape(self.inputs["k"])[1] + (np.arange(len(near)) % sets)[:, None] * count
        index = np.concatenate((near, first + np.arange(count)), axis=1)
        line = np.array([-1, sets * count, channels])
        keys, values = (
            self._gather(
                self.ops.concat([self.inputs[a], self.ops.reshape(self.inputs[b], line, False)], 1),
                index,
            )
            for a, b in (("k", "kg"), ("v", "vg"))
        )
        return self._attend(query, keys, values, {"bias_l": near.shape[1], "bias_g": count})

    def _attend(self, query: Any, keys: Any, values: Any, biases: dict[str, int]) -> Any:
        """Return softmax(query keys^T + biases) values, (B, W, h, Lq, d).

        Args:
            query: (B, W, h, Lq, d), scaled.
            keys: (B, W or 1, h, M, d).
            values: (B, W or 1, h, M, d).
            biases: Names of the biases that stand side by side over the M keys, and how many keys
                each of them covers.
        """
        ops = self.ops
        scores = ops.matmul(query, keys, False, True)
        bias = self._bias(biases)
        known = bias.get_node().get_data() if _is_constant(bias) else None
        if known is None or known.any():
            scores = ops.add(scores, ops.maximum(bias, self._number(_MASK_VALUE)))
        mixed = ops.matmul(ops.softmax(scores, -1), values, False, False)
        if known is not None and (known.max(axis=-1) >= _MASKED_BELOW).all():
            return mixed  # no row is masked as a whole
        best = ops.reduce_max(bias, np.array([-1]), True)
        alive = ops.greater_equal(best, self._number(_MASKED_BELOW))
        return ops.select(alive, mixed, self._number(0.0))

    def _bias(self, lengths: dict[str, int]) -> Any:
        """Return the named biases side by side as (B, W, h, Lq, M) or what broadcasts to it."""
        parts = [self.inputs[name] for name in lengths]
        if len(parts) == 1:
            return parts[0]
        padded = [(1,) * (_AXES - len(_shape(part))) + _shape(part) for part in parts]
        lead = [max(sizes) for sizes in zip(*(shape[:-1] for shape in padded), strict=True)]
        targets = [np.array([*lead, length]) for length in lengths.values()]
        if all(_is_constant(part) for part in parts):
            arrays = [part.get_node().get_data() for part in parts]
            spread = [np.broadcast_to(a, t) for a, t in zip(arrays, targets, strict=True)]
            return self.ops.constant(np.concatenate(spread, axis=-1)).output(0)
        wide = [self.ops.broadcast(a, t) for a, t in zip(parts, targets, strict=True)]
        return self.ops.concat(wide, -1).output(0)

    def _gather(self, tokens: Any, index: npt.NDArray[np.int64]) -> Any:
        """Pick tokens (B, N, C) by index (W, L) as heads (B, W, h, L, d)."""
        _, count, channels = _shape(tokens)
        line = np.array([-1, count * self.heads, channels // self.heads])
        rows = index[:, None, :] * self.heads + np.arange(self.heads)[None, :, None]
        return self.ops.gather(self.ops.reshape(tokens, line, False), rows, np.int64(1))

    def _restore(self, mixed: Any) -> Any:
        windows, rows = self.q_index.shape
        _, count, channels = _shape(self.inputs["q"])
        order = _table(self.inputs, "o_index")
        first = order + order // rows * (self.heads - 1) * rows
        index = first[:, None] + np.arange(self.heads)[None, :] * rows
        line = np.array([-1, windows * self.heads * rows, channels // self.heads])
        picked = self.ops.gather(self.ops.reshape(mixed, line, False), index, np.int64(1))
        return self.ops.reshape(picked, np.array([-1, count, channels]), False)

    def _number(self, value: float) -> Any:
        return self.ops.convert_like(self.ops.constant(np.float32(value)), self.inputs["q"])


def _shape(value: Any) -> tuple[int, ...]:
    port = value if hasattr(value, "get_partial_shape") else value.output(0)
    return tuple(port.get_partial_shape().to_shape())


def _table(inputs: dict[str, Any], name: str) -> npt.NDArray[np.int64]:
    if not _is_constant(inputs[name]):
        raise ArtifactError(
            f"The table {name} of a local-global attention node is computed in the graph; "
            "expected a constant.",
            "Export the file again.",
        )
    return np.asarray(inputs[name].get_node().get_data()).astype(np.int64)


def _is_constant(value: Any) -> bool:
    return bool(value.get_node().get_type_name() == "Constant")
