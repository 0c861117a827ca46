"""Graphs that are not files yet, run through the sessions that users run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import onnx

from prunus.export.common.samples import full_batches
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import PrunusError

if TYPE_CHECKING:
    from prunus.export.common.samples import Samples
    from prunus.runtime.session.base import Session

Array = npt.NDArray[Any]


def graph_card(model: onnx.ModelProto, card: ModelCard | None = None) -> ModelCard:
    """Return a card whose inputs and outputs are those of a graph.

    Args:
        model: A static graph.
        card: The rest of the card, and the tensors that it knows; None: a card that says nothing
            else.

    Raises:
        PrunusError: an input or output has no type or no static shape.
    """
    weights = Weights("unknown", "", "", False)
    # Nothing reads the task of a card that only a session sees.
    blank = ModelCard(cast(Any, "generic"), "graph", model.graph.name, "", "", "", weights, (), ())
    base = card or blank
    known = {spec.name: spec for spec in (*base.inputs, *base.outputs)}
    sized: dict[str, onnx.ValueInfoProto] = {}
    if not all(_sized(value) for value in model.graph.output):
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
        # An inner tensor that was made an output is sized as one of the two only.
        sized = {v.name: v for v in (*graph.value_info, *graph.output) if _sized(v)}

    def specs(values: Any) -> tuple[TensorSpec, ...]:
        return tuple(known.get(v.name) or _spec(sized.get(v.name, v)) for v in values)

    weighted = {tensor.name for tensor in model.graph.initializer}
    fed = [value for value in model.graph.input if value.name not in weighted]
    return replace(base, inputs=specs(fed), outputs=specs(model.graph.output))


def _sized(value: onnx.ValueInfoProto) -> bool:
    kind = value.type.tensor_type
    return bool(
        kind.elem_type
        and kind.HasField("shape")
        and all(d.HasField("dim_value") for d in kind.shape.dim)
    )


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    if not _sized(value):
        raise PrunusError(
            f"The tensor '{value.name}' has no static shape.", "Export with fixed sizes."
        )
    kind = value.type.tensor_type
    shape = tuple(int(d.dim_value) for d in kind.shape.dim)
    dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    return TensorSpec(value.name, dtype, shape, tuple(f"axis{k}" for k in range(len(shape))))


def run_samples(session: Session, samples: Samples) -> Mapping[str, Array]:
    """Return what a session computes, samples stacked along axis 0."""
    batches = full_batches(samples.arrays, session.card.inputs[0].shape[0])
    runs = [session.run(feed) for feed in batches]
    return {name: np.concatenate([r[name] for r in runs])[: len(samples)] for name in runs[0]}
