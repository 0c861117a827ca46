"""What an ONNX file says about its own tensors and operators, read without the onnx package.

Field numbers are those of onnx.proto3 (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from prunus.runtime.card.wire import CutOffError, Message, WireError, opened, signed
from prunus.runtime.errors import ArtifactError
from prunus.runtime.limits import CARD_BYTES, GRAPH_ITEMS, GRAPH_NAME_BYTES, ONNX_BYTES

# Numbers of fields, by message.
_GRAPH, _OPSETS, _METADATA, _FUNCTIONS = 7, 8, 14, 25
_NODES, _WEIGHTS, _INPUTS, _OUTPUTS, _SPARSE = 1, 5, 11, 12, 15
_FUNCTION_NODES = 7
_DEEPEST = 32  # graphs inside graphs

# TensorProto.DataType -> numpy's name, or the name in ONNX where numpy has no such type.
TYPES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    8: "string", 9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
    14: "complex64", 15: "complex128", 16: "bfloat16", 17: "float8e4m3fn", 18: "float8e4m3fnuz",
    19: "float8e5m2", 20: "float8e5m2fnuz", 21: "uint4", 22: "int4", 23: "float4e2m1",
}  # fmt: skip
_KINDS = {1: "tensor", 4: "sequence", 5: "map", 8: "sparse tensor", 9: "optional value"}


# What people rename or download by mistake: first bytes -> what it is, and what to do.
_EXPORT = "Export the network as ONNX: torch.onnx.export, or prunus export."
_MAGIC = (
    (0, b"PK\x03\x04", "a zip archive, such as a PyTorch checkpoint", _EXPORT),
    (0, b"\x80\x02", "a pickle, such as an old PyTorch checkpoint", _EXPORT),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the model", "Fetch it: git lfs pull"),
    (0, b"\x89HDF", "an HDF5 file, such as a Keras model", _EXPORT),
    (4, b"TFL3", "a TensorFlow Lite model", "Convert it to ONNX first (tf2onnx)."),
    (4, b"ORTM", "in ONNX Runtime's own format (.ort)", "Give the .onnx file it was made from."),
    (0, b"\x1f\x8b", "a gzip archive", "Unpack it first: gunzip"),
    (0, b"<", "a web page or XML", "Download the file itself, not the page about it."),
    (0, b"{", "a text in JSON", "Give the .onnx file."),
    (8, b'{"', "a safetensors file", _EXPORT),
)


@dataclass(frozen=True, slots=True)
class Value:
    """An input or an output as the file declares it.

    Attributes:
        name: Its name.
        dtype: numpy's name of the type of its elements, ONNX's name where numpy has none; empty
            where the file does not tell.
        shape: Sizes; a text for an axis that is named and not fixed, None for one without a name.
            None as a whole where the file does not tell how many axes there are.
        kind: ``tensor``, or what it is instead.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None
    kind: str = "tensor"


@dataclass(frozen=True, slots=True)
class Node:
    """One operator of the graph, or of a graph inside it.

    Attributes:
        name: Its name; operator and place where it has none.
        operator: Its type.
        domain: Who defines it; empty for ONNX itself.
        inner: Whether it stands in a function, or in a graph inside the graph.
        inputs: Names of what it reads, empty for one that is left out.
        outputs: Names of what it computes, likewise.
    """

    name: str
    operator: str
    domain: str
    inner: bool
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Type with its domain, e.g. ``com.microsoft::Gelu``."""
        return f"{self.domain}::{self.operator}" if self.domain else self.operator


@dataclass(frozen=True, slots=True)
class Graph:
    """What a file says about itself, apart from its nodes.

    Attributes:
        inputs: What has to be fed; initialisers that older files list as inputs are left out.
        outputs: What comes out.
        producer: Name and version of the program that wrote the file.
        opsets: Domain -> version of its operators.
        weights: Type -> number of weights stored in it.
        data_files: Names of files beside it that hold weights.
    """

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    producer: str
    opsets: dict[str, int]
    weights: dict[str, int]
    data_files: tuple[str, ...]


def read_metadata(path: str | Path) -> dict[str, str]:
    """Return `metadata_props` of an ONNX file without loading the graph.

    Raises:
        ArtifactError: the file is missing, empty, truncated, or not an ONNX model.
    """
    found = {}
    with _reading(Path(path)) as model:
        for number, value in model.fields():
            if number == _METADATA:
                CARD_BYTES.check(len(_message(value)), str(path), ArtifactError)
                entry = {n: _message(v).text() for n, v in _message(value).fields()}
                found[entry.get(1, "")] = entry.get(2, "")
    return found


def read_graph(path: str | Path, data: bytes | None = None) -> Graph:
    """Return what a file says about itself, its nodes left out.

    Args:
        path: ONNX file.
        data: Bytes that onnx made and that stand for the file's.

    Raises:
        ArtifactError: the file is missing, empty, damaged, too large, or not an ONNX model; names
            what it is instead where that is known.
    """
    path = Path(path)
    values: dict[int, list[Value]] = {_INPUTS: [], _OUTPUTS: []}
    producer = {2: "", 3: ""}
    opsets: dict[str, int] = {}
    weights, graphs = _Weights(Counter(), {}, {}), 0
    with _reading(path, data) as model:
        ONNX_BYTES.check(len(model), str(path), ArtifactError)
        for number, value in model.fields():
            if number in producer:
                producer[number] = _text(value)
            elif number == _OPSETS:
                entry = dict(_message(value).fields())
                opsets[_text(entry[1]) if 1 in entry else ""] = _number(entry.get(2, 0))
            elif number == _GRAPH:
                graphs += 1
                _read_graph(path, _message(value), values, weights)
    if not graphs:
        raise ArtifactError(f"{path} holds no graph.", "Give an ONNX model.")
    return Graph(
        tuple(v for v in values[_INPUTS] if v.name not in weights.names),
        tuple(values[_OUTPUTS]),
        " ".join(filter(None, producer.values())),
        opsets,
        dict(weights.counts),
        tuple(weights.files),
    )


def read_nodes(path: str | Path) -> tuple[list[Node], set[tuple[str, str]]]:
    """Return all nodes, those of inner graphs included, and (domain, name) of the file's functions.

    Raises:
        ArtifactError: as `read_graph`.
    """
    nodes: list[Node] = []
    functions: set[tuple[str, str]] = set()
    path = Path(path)
    with _reading(path) as model:
        for number, value in model.fields():
            if number == _GRAPH:
                _walk(path, _message(value), _NODES, nodes, 0)
            elif number == _FUNCTIONS:
                texts = {n: _text(v) for n, v in _message(value).fields() if n in (1, 10)}
                functions.add((texts.get(10, ""), texts.get(1, "")))
                _walk(path, _message(value), _FUNCTION_NODES, nodes, 0)
    return nodes, functions


@dataclass(frozen=True, slots=True)
class _Weights:
    """What was seen of the weights: type -> count, and names of tensors and files, as sets."""

    counts: Counter[str]
    names: dict[str, None]
    files: dict[str, None]


@contextmanager
def _reading(path: Path, data: bytes | None = None) -> Iterator[Message]:
    """Yield a model as a message; whatever is wrong with its bytes becomes one error."""
    if data is not None:
        yield Message(data, 0, len(data))
        return
    if not path.is_file():
        raise ArtifactError(f"Model file not found: {path}.", "List the models with: prunus models")
    size = path.stat().st_size
    if size == 0:
        raise ArtifactError(f"{path} is empty.", "Copy or export the file again.")
    try:
        with opened(path) as message:
            _refuse_others(path, message)
            yield message
    except OSError as error:
        raise ArtifactError(f"Cannot read {path}: {error.strerror}.", "Check its rights.") from None
    except CutOffError:
        raise ArtifactError(
            f"{path} is truncated: it ends inside a field ({size} bytes).",
            "Copy or export the file again.",
        ) from None
    except WireError as error:
        raise ArtifactError(f"{path} is not an ONNX model ({error}).", _EXPORT) from None


def _refuse_others(path: Path, message: Message) -> None:
    head = Message(message.data, 0, min(32, message.end)).raw()
    for at, magic, kind, fix in _MAGIC:
        if head[at:].startswith(magic):
            raise ArtifactError(f"{path} is {kind}; expected an ONNX model.", fix)


def _read_graph(
    path: Path, graph: Message, values: dict[int, list[Value]], weights: _Weights
) -> None:
    count = 0
    for number, value in graph.fields():
        count += 1
        GRAPH_ITEMS.check(count, str(path), ArtifactError)
        if number in values:
            values[number].append(_value(_message(value)))
        elif number == _WEIGHTS:
            _weight(_message(value), weights)
        elif number == _SPARSE:
            for inner, part in _message(value).fields():
                if inner == 1:
                    _weight(_message(part), weights)


def _weight(tensor: Message, weights: _Weights) -> None:
    size, dtype = 1, ""
    for number, value in tensor.fields():
        if number == 1:  # dims, one by one or packed
            for n in _numbers(value):
                size *= max(signed(n), 0)
        elif number == 2:
            dtype = TYPES.get(_number(value), f"type {value}")
        elif number == 8:
            weights.names[_text(value)] = None
        elif number == 13:
            entry = {n: _text(v) for n, v in _message(value).fields()}
            if entry.get(1) == "location":
                weights.files[entry.get(2, "")] = None
    weights.counts[dtype] += min(size, 1 << 62)


def _value(value: Message) -> Value:
    fields = dict(value.fields())
    name = _text(fields[1]) if 1 in fields else ""
    for number, part in _message(fields[2]).fields() if 2 in fields else ():
        if number == 1:
            return Value(name, *_tensor_type(_message(part)))
        if number in _KINDS:
            return Value(name, "", None, _KINDS[number])
    return Value(name, "", None)


def _tensor_type(tensor: Message) -> tuple[str, tuple[int | str | None, ...] | None]:
    dtype, shape = "", None
    for number, value in tensor.fields():
        if number == 1:
            dtype = TYPES.get(_number(value), f"type {value}")
        elif number == 2:
            shape = tuple(_axis(_message(v)) for n, v in _message(value).fields() if n == 1)
    return dtype, shape


def _axis(dimension: Message) -> int | str | None:
    found: int | str | None = None
    for number, value in dimension.fields():
        if number == 1:
            size = signed(_number(value))
            found = size if size >= 0 else None  # -1 stands for "any" in some exporters' files
        elif number == 2:
            found = _text(value) or None
    return found


def _walk(path: Path, graph: Message, number: int, nodes: list[Node], depth: int) -> None:
    if depth > _DEEPEST:
        raise ArtifactError(f"{path} has graphs inside graphs, more than {_DEEPEST} deep.")
    for found, value in graph.fields():
        if found != number:
            continue
        GRAPH_ITEMS.check(len(nodes) + 1, str(path), ArtifactError)
        texts = {3: "", 4: "", 7: ""}
        values: dict[int, list[str]] = {1: [], 2: []}
        inner = []
        for n, v in _message(value).fields():
            if n in texts:
                texts[n] = _text(v)
            elif n in values:
                values[n].append(_text(v))
            elif n == 5:
                inner += [m for k, m in _message(v).fields() if k in (6, 11)]
        name = texts[3] or f"{texts[4]}#{len(nodes)}"
        domain = "" if texts[7] == "ai.onnx" else texts[7]
        inside = depth > 0 or number == _FUNCTION_NODES
        nodes.append(Node(name, texts[4], domain, inside, *map(tuple, values.values())))
        for graph_inside in inner:
            _walk(path, _message(graph_inside), _NODES, nodes, depth + 1)


def _message(value: int | Message) -> Message:
    if isinstance(value, int):
        raise WireError(f"the number {value} where a message belongs")
    return value


def _number(value: int | Message) -> int:
    if not isinstance(value, int):
        raise WireError("bytes where a number belongs")
    return value


def _numbers(value: int | Message) -> list[int]:
    """Return the numbers of a repeated field: one, or several packed into bytes."""
    if isinstance(value, int):
        return [value]
    return list(value.numbers())


def _text(value: int | Message) -> str:
    message = _message(value)
    GRAPH_NAME_BYTES.check(len(message), "A name in the graph", ArtifactError)
    return message.text()
