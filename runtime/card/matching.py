"""Compare arrays with the card before they reach a back end, whose own errors name no axes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.reading import RE_EXPORT
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError, TensorError, nearest


def check_inputs(
    card: ModelCard, inputs: Mapping[str, np.ndarray], *, finite: bool = False
) -> tuple[TensorSpec, ...]:
    """Check that `inputs` are exactly what the card asks for.

    Args:
        card: Card of the model.
        inputs: Arrays by input name.
        finite: Also refuse NaN and infinity in floating-point inputs (reads every value).

    Returns:
        The card's inputs.

    Raises:
        TensorError: a name is unknown or missing, or a shape, dtype or value does not fit.
    """
    names = [spec.name for spec in card.inputs]
    for name in inputs:
        if name not in names:
            raise TensorError(
                f"Got an input named '{name}'{nearest(name, names)}.",
                f"{card.name} takes: {_describe(card.inputs)}.",
            )
    for spec in card.inputs:
        if spec.name not in inputs:
            raise TensorError(
                f"The input '{spec.name}' is missing; got {sorted(inputs) or 'none'}.",
                f"{card.name} takes: {_describe(card.inputs)}.",
            )
        check_array(spec, inputs[spec.name], finite=finite)
    return card.inputs


def check_array(spec: TensorSpec, array: np.ndarray, *, finite: bool = False) -> None:
    """Check one array against its spec; raises TensorError."""
    if not isinstance(array, np.ndarray):
        raise TensorError(
            f"Input '{spec.name}' is a {type(array).__name__}; expected a numpy array.",
            f"Expected {spec.describe()}.",
        )
    if array.shape != spec.shape:
        raise TensorError(
            f"Input '{spec.name}' has the shape {_shape(spec, array)}; expected {spec.describe()}.",
            "The graph is static: resize or batch the input, or export with another shape.",
        )
    if array.dtype != np.dtype(spec.dtype):
        raise TensorError(
            f"Input '{spec.name}' has the dtype {array.dtype}; expected {spec.describe()}.",
            f"Convert it with .astype('{spec.dtype}') after checking its range.",
        )
    if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(array.size - np.isfinite(array).sum())
        raise TensorError(
            f"Input '{spec.name}' has {bad} of {array.size} values that are NaN or infinite.",
            "Drop the frame or repair its source.",
        )


def check_outputs(card: ModelCard, outputs: Mapping[str, np.ndarray]) -> None:
    """Refuse what a back end returns in another shape or type than the card promises.

    Raises:
        TensorError: names the output.
    """
    promised = {spec.name: spec for spec in card.outputs}
    for name, array in outputs.items():
        spec = promised[name]
        if array.shape != spec.shape or array.dtype != spec.dtype:
            raise TensorError(
                f"{card.name} returned '{name}' as {array.dtype} {_shape(spec, array)}; "
                f"expected {spec.describe()}.",
                "The file declares what it does not compute: correct its outputs.",
            )


def _shape(spec: TensorSpec, array: np.ndarray) -> str:
    """Return the shape with axis names where the rank fits, wrong axes marked."""
    if array.ndim != len(spec.shape):
        return f"{list(array.shape)} ({array.ndim} axes instead of {len(spec.shape)})"
    pairs = zip(spec.axes, array.shape, spec.shape, strict=True)
    return "[" + ", ".join(f"{a}={got}{'' if got == want else '!'}" for a, got, want in pairs) + "]"


def _describe(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(spec.describe() for spec in specs)


def check_graph(
    path: str | Path,
    card: ModelCard,
    inputs: Mapping[str, tuple[str, tuple[int, ...]]],
    outputs: Mapping[str, tuple[str, tuple[int, ...]]],
) -> None:
    """Check that a loaded graph has the inputs and outputs that its card promises.

    Args:
        path: The file, for the message.
        card: Card of the model.
        inputs: numpy dtype name and static shape by input name, as the back end sees them.
        outputs: The same for outputs.

    Raises:
        ArtifactError: names, dtypes or shapes differ.
    """
    for kind, specs, found in (("input", card.inputs, inputs), ("output", card.outputs, outputs)):
        promised = {spec.name: (spec.dtype, spec.shape) for spec in specs}
        if dict(found) != promised:
            told = ", ".join(f"{n} {dtype} {list(shape)}" for n, (dtype, shape) in found.items())
            raise ArtifactError(
                f"The {kind}s of {path} are {told}; its card says {_describe(specs)}.",
                f"{RE_EXPORT}; of a file without a card, correct the shapes that it declares.",
            )
