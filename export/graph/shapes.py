"""Give a graph of open sizes fixed ones: sizes of inputs are set, the rest follows.

Shapes come from onnx's own inference; where sizes are computed inside the graph (Shape, Gather,
Concat, Reshape), onnxsim folds them into constants first.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx

from prunus.runtime.card.foreign import require_data_files
from prunus.runtime.card.graph import read_graph
from prunus.runtime.errors import ArtifactError, MissingDependencyError, UsageError, nearest
from prunus.runtime.limits import TENSOR_VALUES

Shape = tuple[int, ...]
MOST_BYTES = 2**31 - 2**24  # protobuf's limit, less what shapes and a card may take
_FLAG = "--shape"
_EXAMPLE = f"Example: {_FLAG} image:1x3x224x224"


def read_shapes(words: Sequence[str]) -> dict[str, Shape]:
    """Read words of the form ``NAME:1x3x224x224``; a name alone with a colon is a single number.

    Raises:
        UsageError: another form, a size below 1, or a name twice.

    >>> read_shapes(["image:1x3x224x224", "mask:1X224"])
    {'image': (1, 3, 224, 224), 'mask': (1, 224)}
    """
    found: dict[str, Shape] = {}
    for word in words:
        name, colon, sizes = word.rpartition(":")
        parts = [part for part in sizes.lower().split("x") if sizes]
        if not (colon and name and all(part.isdecimal() and int(part) for part in parts)):
            raise UsageError(
                f"Got {_FLAG} {word}; expected NAME:SIZExSIZE... of numbers from 1 up.", _EXAMPLE
            )
        if name in found:
            raise UsageError(f"Got {_FLAG} {name} twice.", "Give one shape for each input.")
        found[name] = tuple(int(part) for part in parts)
        size = 1
        for n in found[name]:
            size *= n
        TENSOR_VALUES.check(size, f"{_FLAG} {word}")
    return found


def fix_shapes(path: str | Path, shapes: Mapping[str, Shape]) -> onnx.ModelProto:
    """Return the model of a file with these shapes of inputs, and all other sizes inferred.

    Args:
        path: ONNX file.
        shapes: Input name -> sizes; inputs that are fixed already may be left out.

    Raises:
        UsageError: no such input, another number of axes, or sizes that contradict those that the
            file fixes or each other.
        ArtifactError: the file is damaged, or its outputs have no constant size even so.
    """
    path = Path(path)
    model, inputs = load_graph(path), {v.name for v in read_graph(path).inputs}
    names = sorted(inputs)
    for name in shapes:
        if name not in inputs:
            raise UsageError(
                f"{path} has no input '{name}'{nearest(name, names)}.",
                f"Its inputs: {', '.join(names)}.",
            )
    symbols: dict[str, tuple[int, str]] = {}
    for value in model.graph.input:
        if value.name in shapes:
            _set(path, value, shapes[value.name], symbols)
    for value in (*model.graph.input, *model.graph.output):
        _put_symbols(value, symbols)
    del model.graph.value_info[:]
    model = _inferred(path, model)
    if any(not is_sized(value) for value in model.graph.output) and not is_split(model):
        model = _folded(path, model)
    return model


def load_graph(path: Path) -> onnx.ModelProto:
    """Return the model of a file.

    Weights that lie in files beside it come along where one file can hold them all (2 GiB).

    Raises:
        ArtifactError: the file is damaged, or weights are missing or lie elsewhere.
    """
    graph = read_graph(path)  # says what a file is that is none, or too large
    require_data_files(path, graph)
    beside = sum((path.parent / name).stat().st_size for name in graph.data_files)
    try:
        return onnx.load(str(path), load_external_data=beside + path.stat().st_size < MOST_BYTES)
    except Exception as error:  # protobuf's own errors differ between its versions
        raise ArtifactError(f"{path} is damaged: {error}.", "Export or copy it again.") from error


def is_split(model: onnx.ModelProto) -> bool:
    """Tell whether weights of a model lie in files beside it."""
    return any(t.data_location == onnx.TensorProto.EXTERNAL for t in model.graph.initializer)


def _set(
    path: Path, value: onnx.ValueInfoProto, shape: Shape, symbols: dict[str, tuple[int, str]]
) -> None:
    """Write sizes into an input, and note what its named axes are from now on."""
    tensor = value.type.tensor_type
    dims = tensor.shape.dim if tensor.HasField("shape") else None
    shown = "x".join(map(str, shape)) or "a single number"
    if dims is not None and len(dims) != len(shape):
        raise UsageError(
            f"Got {_FLAG} {value.name}:{shown} for an input of {len(dims)} axes.",
            f"Give {len(dims)} sizes.",
        )
    for k, size in enumerate(shape):
        dim = dims[k] if dims is not None else tensor.shape.dim.add()
        if dim.HasField("dim_value") and dim.dim_value > 0 and dim.dim_value != size:
            raise UsageError(
                f"Got {_FLAG} {value.name}:{shown}, but {path} fixes axis {k} at {dim.dim_value}.",
                "Keep that size, or export the network again with another one.",
            )
        if symbol := dim.dim_param:
            known, where = symbols.setdefault(symbol, (size, value.name))
            if known != size:
                raise UsageError(
                    f"Got {size} for the axis '{symbol}' of {value.name}, and {known} for the same "
                    f"axis of {where}.",
                    "Give axes of one name one size.",
                )
        dim.dim_value = size
    if not shape:
        tensor.shape.SetInParent()


def _put_symbols(value: onnx.ValueInfoProto, symbols: Mapping[str, tuple[int, str]]) -> None:
    for dim in value.type.tensor_type.shape.dim:
        if dim.dim_param in symbols:
            dim.dim_value = symbols[dim.dim_param][0]


def _inferred(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    for value in model.graph.output:  # what was guessed before gives way to what is inferred
        if not is_sized(value):
            value.type.tensor_type.ClearField("shape")
    try:
        return onnx.shape_inference.infer_shapes(
            model, check_type=True, strict_mode=True, data_prop=True
        )
    except Exception as error:
        reason = next((s for s in str(error).splitlines() if s.strip()), type(error).__name__)
        raise ArtifactError(
            f"The shapes of {path} do not fit together: {reason[:300]}.",
            f"Choose sizes that the network was made for: {_FLAG} NAME:SIZES.",
        ) from error


def _folded(path: Path, model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with sizes that it computes itself as constants."""
    try:
        import onnxsim
    except ImportError:
        raise MissingDependencyError("onnxsim", "export", "Fixing the shapes of a graph") from None
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            simple, _ = onnxsim.simplify(model, check_n=0)
    except Exception as error:
        reason = next((s for s in str(error).splitlines() if s.strip()), type(error).__name__)
        raise ArtifactError(f"Cannot fix the shapes of {path}: {reason[:300]}.") from error
    simple = _inferred(path, simple)
    if loose := [value.name for value in simple.graph.output if not is_sized(value)]:
        makers = {out: node for node in simple.graph.node for out in node.output}
        node = makers.get(loose[0])
        made = f", which {node.op_type} '{node.name}' makes" if node is not None else ""
        raise ArtifactError(
            f"The output '{loose[0]}' of {path}{made}, has no constant size: it depends on the "
            "data.",
            "Cut the graph before the operator whose size varies (onnx.utils.extract_model).",
        )
    return simple


def is_sized(value: onnx.ValueInfoProto) -> bool:
    """Tell whether type and sizes of a value are constants; sequences and maps have none to fix."""
    if not value.type.HasField("tensor_type"):
        return value.type.WhichOneof("value") is not None
    tensor = value.type.tensor_type
    return tensor.HasField("shape") and all(
        d.HasField("dim_value") and d.dim_value >= 0 for d in tensor.shape.dim
    )
