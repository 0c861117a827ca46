"""A graph whose inner tensors are outputs as well, made without the onnx package.

Protobuf joins what is written twice: a second graph that holds nothing but outputs, put behind the
bytes of a model, adds them to the first (https://protobuf.dev/programming-guides/encoding,
"Last One Wins").
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prunus.runtime.card.graph import TYPES
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError
from prunus.runtime.limits import ONNX_BYTES

_GRAPH, _OUTPUT = 7, 12  # ModelProto.graph, GraphProto.output
_NUMBERS = {name: number for number, name in TYPES.items()}


def with_outputs(path: str | Path, values: Iterable[str | TensorSpec]) -> bytes:
    """Return the bytes of a model with more outputs behind its own.

    Args:
        path: ONNX file with its weights inside.
        values: Names of tensors of the graph, none of them an output yet; or what they are, for
            back ends that do not infer it.

    Raises:
        ArtifactError: the file cannot be read, or would be too large.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ArtifactError(f"Cannot read {path}: {error.strerror}.", "Check its rights.") from None
    added = b"".join(_field(_OUTPUT, _value_info(value)) for value in values)
    ONNX_BYTES.check(len(data) + len(added), str(path), ArtifactError)
    return data + _field(_GRAPH, added)


def _value_info(value: str | TensorSpec) -> bytes:
    if isinstance(value, str):
        return _field(1, value.encode())
    shape = b"".join(_field(1, _number(1, size)) for size in value.shape)
    tensor = _number(1, _NUMBERS[value.dtype]) + _field(2, shape)
    return _field(1, value.name.encode()) + _field(2, _field(1, tensor))


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])
