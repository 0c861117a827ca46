"""Copies of fixed sizes: one for each graph that comes out, whatever it is called."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from prunus.apps.common.fixed import fixed
from prunus.runtime import host
from prunus.runtime.card.graph import read_graph

LONG = "serving_default_" + "input_of_the_first_stage_" * 3


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep the copies out of the user's cache."""
    monkeypatch.setattr(host, "user_cache", lambda: tmp_path / "cache")
    return tmp_path / "cache"


def _shapes(path):
    return {value.name: value.shape for value in read_graph(path).inputs}


@pytest.mark.parametrize("name", ["x", LONG])
def test_two_shapes_of_one_file_are_two_copies(onnx_file, name) -> None:
    spec = ("float32", ["batch", "length"])
    path = onnx_file("net", [("Relu", name, "y")], {name: spec}, {"y": spec})
    first, second = fixed(path, [f"{name}:1x4"]), fixed(path, [f"{name}:2x4"])
    assert (_shapes(first), _shapes(second)) == ({name: (1, 4)}, {name: (2, 4)})
    assert fixed(path, [f"{name}:1x4"]) == first


def test_the_order_and_spelling_of_shapes_make_no_second_copy(onnx_file, cache) -> None:
    inputs = {"a.b": ("float32", ["n"]), "a_b": ("float32", ["m"])}
    nodes = [("Relu", "a.b", "y"), ("Relu", "a_b", "z")]
    path = onnx_file("net", nodes, inputs, {"y": ("float32", ["n"]), "z": ("float32", ["m"])})
    one = fixed(path, ["a.b:3", "a_b:4"])
    assert fixed(path, ["a_b:4", "a.b:3"]) == fixed(path, ["a.b:03", "a_b:4"]) == one
    other = fixed(path, ["a.b:4", "a_b:3"])
    assert _shapes(one) == {"a.b": (3,), "a_b": (4,)}
    assert _shapes(other) == {"a.b": (4,), "a_b": (3,)}
    assert len(list(cache.rglob("*.onnx"))) == 2


def test_other_weights_beside_the_same_file_make_another_copy(onnx_file, tmp_path) -> None:
    def written(value):
        plain = onnx_file(
            "plain", [("MatMul", "x w", "y")], {"x": ("float32", ["n", 64])},
            {"y": ("float32", ["n", 64])}, {"w": np.full((64, 64), value, np.float32)},
        )  # fmt: skip
        path = tmp_path / "net.onnx"
        (tmp_path / "w.bin").unlink(missing_ok=True)
        onnx.save_model(
            onnx.load(plain), path, save_as_external_data=True, location="w.bin", size_threshold=0
        )
        return path

    path = written(1)
    bytes_before, before = path.read_bytes(), fixed(path, ["x:1x64"])
    assert written(2).read_bytes() == bytes_before  # only the file beside it differs
    after = fixed(path, ["x:1x64"])
    values = [
        numpy_helper.to_array(onnx.load(p).graph.initializer[0])[0, 0] for p in (before, after)
    ]
    assert values == [1, 2]


def test_a_damaged_copy_is_written_again(onnx_file) -> None:
    path = onnx_file(
        "net", [("Relu", "x", "y")], {"x": ("float32", ["n"])}, {"y": ("float32", ["n"])}
    )
    copy = fixed(path, ["x:3"])
    whole = copy.read_bytes()
    copy.write_bytes(whole[:-5])
    assert fixed(path, ["x:3"]).read_bytes() == whole
