"""The card of an ONNX file that prunus did not write: what its tensors tell, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.graph import Graph, Value, read_graph
from prunus.runtime.card.precision import Precision, PrecisionSpec
from prunus.runtime.card.tensors import DTYPES, TensorSpec
from prunus.runtime.errors import ArtifactError
from prunus.runtime.options import option

UNKNOWN = "unknown"  # origin and hash of weights of which the file tells nothing
VARIANT = "foreign"
ADD = "prunus card add"
_HALF, _WHOLE = ("float16", "bfloat16"), ("int8", "uint8", "int4", "uint4")


def before() -> Any:
    """Return the field of ``--before``, which says what the file of another exporter does not."""
    return option(
        "How pictures become the input: colour=rgb, mean=0,0,0, std=255,255,255, fit=letterbox; "
        "repeatable.", default=(), metavar="KEY=VALUE",
    )  # fmt: skip


def foreign_card(path: str | Path, data: bytes | None = None) -> ModelCard:
    """Return a card of the task ``generic`` from the tensors that a file declares.

    Args:
        path: ONNX file.
        data: See `read_graph`.

    Raises:
        ArtifactError: not a model, an axis that is not fixed, or a tensor of a kind or type that no
            session here takes; names the tensor, the axes and what fixes them.
    """
    path = Path(path)
    graph = read_graph(path, data)
    require_data_files(path, graph)
    require_fixed(path, graph)
    return ModelCard(
        task="generic",
        model=path.stem,
        variant=VARIANT,
        paper="",
        licence=UNKNOWN,
        exporter=graph.producer or UNKNOWN,
        weights=Weights(f"{UNKNOWN}: the file has no prunus card", UNKNOWN, UNKNOWN, True),
        inputs=tuple(_spec(path, "input", value) for value in graph.inputs),
        outputs=tuple(_spec(path, "output", value) for value in graph.outputs),
        precision=PrecisionSpec(_precision(graph)),
    )


def require_data_files(path: Path, graph: Graph) -> None:
    """Refuse weights in files that are missing, or that lie anywhere but beside the model.

    Raises:
        ArtifactError: naming the file.
    """
    for name in graph.data_files:
        place = Path(name)
        if place.is_absolute() or ".." in place.parts or not name:
            raise ArtifactError(
                f"{path} keeps its weights in '{name}'; expected a file beside it.",
                "Save it again with a plain file name: onnx.save_model(..., location=NAME).",
            )
        if not (path.parent / place).is_file():
            raise ArtifactError(
                f"{path} keeps its weights in {name}, which does not lie beside it.",
                "Copy both files together, or export the model again.",
            )


def require_fixed(path: Path, graph: Graph) -> None:
    """Refuse tensors whose sizes are not all constants.

    Raises:
        ArtifactError: naming tensor, axes and the option that fixes them.
    """
    loose = [v for v in graph.inputs if v.kind == "tensor" and not _fixed(v)]
    if loose:
        words = " ".join(f"--shape {v.name}:{_example(v)}" for v in loose)
        raise ArtifactError(
            f"{path} has inputs of no fixed size: {', '.join(_declared(v) for v in loose)}; every "
            "axis must be a constant.",
            f"Fix them here with {words}, or for good with: "
            f"{ADD} {path.name} {words} -o fixed.onnx",
        )
    for value in graph.outputs:
        if value.kind == "tensor" and not _fixed(value):
            raise ArtifactError(
                f"{path} has the output {_declared(value)}, whose size is not a constant although "
                "its inputs' are.",
                f"Let shape inference find it, or name what depends on the data: {ADD} {path.name} "
                "-o fixed.onnx",
            )


def _fixed(value: Value) -> bool:
    return value.shape is not None and all(isinstance(n, int) for n in value.shape)


def _declared(value: Value) -> str:
    """Return e.g. ``image [batch, 3, ?, 224]``."""
    if value.shape is None:
        return f"{value.name} (no shape declared)"
    return f"{value.name} [{', '.join('?' if n is None else str(n) for n in value.shape)}]"


def _example(value: Value) -> str:
    """Return sizes to start from: what is fixed, 1 for a first axis, N for others.

    >>> _example(Value("image", "float32", ("batch", 3, None, 224)))
    '1x3xNx224'
    """
    axes = value.shape or (None,)
    return "x".join(
        str(n) if isinstance(n, int) else "1" if k == 0 else "N" for k, n in enumerate(axes)
    )


def _spec(path: Path, role: str, value: Value) -> TensorSpec:
    where = f"{path}: the {role} '{value.name}'"
    if value.kind != "tensor" or not value.name:
        raise ArtifactError(
            f"{where} is a {value.kind}; expected a named tensor.",
            "Export the model with plain tensors (for scikit-learn: options zipmap=False).",
        )
    if value.dtype not in DTYPES:
        raise ArtifactError(
            f"{where} holds elements of type {value.dtype or UNKNOWN}; expected one of "
            f"{', '.join(DTYPES)}.",
            "Cut the graph behind it (onnx.utils.extract_model) and make that part outside; for "
            "bfloat16, put a Cast from float32 there.",
        )
    shape = tuple(n for n in value.shape or () if isinstance(n, int))
    if 0 in shape:
        raise ArtifactError(
            f"{where} has the shape {list(shape)}, which holds nothing.",
            f"Take it out of the graph, or give it a size: --shape {value.name}:...",
        )
    return TensorSpec(value.name, value.dtype, shape, tuple(f"axis{k}" for k in range(len(shape))))


def _precision(graph: Graph) -> Precision:
    """Return the number format of most weights."""
    total = sum(graph.weights.values())
    for name, types in (("int8", _WHOLE), ("fp16", _HALF)):
        if 2 * sum(graph.weights.get(t, 0) for t in types) > total:
            return name  # type: ignore[return-value]
    return "fp32"
