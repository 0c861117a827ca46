"""The `config.pbtxt` of a model: what Triton must know about it, as protobuf text.

A message is a mapping by field name, a repeated field a list, a member of an enumeration a `Word`.
The fields are those of ``inference.ModelConfig`` (Triton's ``model_config.proto``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError

TEXT = "string"  # dtype of a tensor of bytes, beside numpy's names
ANY = -1  # an axis of any length


class Word(str):
    """A value that is written without quotes."""

    __slots__ = ()


TYPES = {
    "bool": Word("TYPE_BOOL"), "float16": Word("TYPE_FP16"), "float32": Word("TYPE_FP32"),
    "float64": Word("TYPE_FP64"), "int8": Word("TYPE_INT8"), "int16": Word("TYPE_INT16"),
    "int32": Word("TYPE_INT32"), "int64": Word("TYPE_INT64"), "uint8": Word("TYPE_UINT8"),
    "uint16": Word("TYPE_UINT16"), "uint32": Word("TYPE_UINT32"), "uint64": Word("TYPE_UINT64"),
    TEXT: Word("TYPE_STRING"),
}  # fmt: skip


def text_of(message: Mapping[str, Any], indent: str = "") -> str:
    """Return a message as protobuf text, a field a line, in the order of the mapping."""
    lines = []
    for name, value in message.items():
        for one in value if isinstance(value, list) else (value,):
            if isinstance(one, Mapping):
                lines.append(f"{indent}{name} {{\n{text_of(one, indent + '  ')}{indent}}}\n")
            else:
                lines.append(f"{indent}{name}: {_scalar(one)}\n")
    return "".join(lines)


def _scalar(value: str | bool | int | tuple[int, ...]) -> str:
    if isinstance(value, Word):
        return value
    if isinstance(value, str):
        told = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'"{told}"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):  # a list of numbers, in one line
        return f"[{', '.join(map(str, value))}]"
    return str(value)


def tensor(name: str, dtype: str, shape: Sequence[int]) -> dict[str, Any]:
    """Return an input or output; `shape` may hold `ANY` and has no batch axis that Triton adds."""
    return {"name": name, "data_type": TYPES[dtype], "dims": tuple(shape)}


def tensors(specs: Iterable[TensorSpec], skip: int = 0) -> list[dict[str, Any]]:
    """Return the tensors of a card without their first `skip` axes.

    Raises:
        ArtifactError: one has no axis left, of which Triton knows no tensor.
    """
    specs = tuple(specs)
    for spec in specs:
        if len(spec.shape) <= skip:
            raise ArtifactError(
                f"The tensor {spec.describe()} has no axis of its own; Triton serves none such.",
                "Give it one in the graph, for example by Reshape to 1 value.",
            )
    return [tensor(spec.name, spec.dtype, spec.shape[skip:]) for spec in specs]


def warm_up(inputs: Iterable[Mapping[str, Any]], files: Mapping[str, str]) -> dict[str, Any]:
    """Return one request before the first: what a file of `files` holds by input name, or zeros.

    Args:
        inputs: Fixed shapes alone; a text is in a file.
        files: Input name -> file in the folder ``warmup`` beside the configuration.
    """
    values = []
    for one in inputs:
        name = one["name"]
        data = {"input_data_file": files[name]} if name in files else {"zero_data": True}
        value = {"data_type": one["data_type"], "dims": one["dims"], **data}
        values.append({"key": name, "value": value})
    return {"name": "warm-up", "batch_size": 1, "inputs": values}


def parameters(values: Mapping[str, object]) -> list[dict[str, Any]]:
    """Return settings that a back end or a Python model reads, all of them texts."""
    return [{"key": key, "value": {"string_value": str(v)}} for key, v in values.items()]
