"""What OpenVINO's compiler for NPUs is asked for, without one."""

import builtins

import numpy as np
import pytest

from prunus.models import zoo
from prunus.runtime import host
from prunus.runtime.errors import ArtifactError, MissingDependencyError
from prunus.runtime.session.openvino.npu import OPERATORS, REWRITTEN, npu_operators

needs_openvino = pytest.mark.skipif(not host.installed("openvino"), reason="no openvino")


def test_the_list_is_of_names():
    assert len(OPERATORS) > 150 and {"MatMul", "MVN", "Softmax", "TopK"} <= OPERATORS
    assert all(name.isalnum() and name[0].isupper() for name in OPERATORS)
    assert not OPERATORS & REWRITTEN


@needs_openvino
def test_every_operator_of_the_list_is_one_of_openvino():
    """A misspelt name would never be found in a model."""
    import openvino as ov

    known = {name for k in range(1, 18) if (ops := getattr(ov, f"opset{k}", None))
             for name in dir(ops)}  # fmt: skip
    known = {name.replace("_", "").lower() for name in known}
    # Those without a function of that name in Python.
    own = {"ExperimentalDetectronROIFeatureExtractor", "If", "RMS", "Reverse", "RoPE"}
    assert {name for name in OPERATORS if name.lower() not in known} == own


@needs_openvino
def test_a_shipped_graph_is_read_and_counted():
    found = npu_operators(zoo.model_path("selfie"))
    assert found.counts["Convolution"] > 20 and found.unknown == ()
    assert list(found.counts.values()) == sorted(found.counts.values(), reverse=True)
    assert not {"Constant", "Parameter", "Result"} & set(found.counts)
    assert "npu_compiler" in found.source


@needs_openvino
def test_an_operator_that_is_not_in_the_list_is_named(tmp_path):
    onnx = pytest.importorskip("onnx")
    make = onnx.helper
    shape = [("x", [3, 3]), ("y", [1])]
    x, y = (make.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s) for n, s in shape)
    graph = make.make_graph([make.make_node("Det", ["x"], ["d"]),
                             make.make_node("Reshape", ["d", "one"], ["y"])], "g", [x], [y],
                            [onnx.numpy_helper.from_array(np.array([1]), "one")])  # fmt: skip
    nodes = make.make_graph(
        [make.make_node("Unique", ["x"], ["y"])], "g", [x],
        [make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )  # fmt: skip
    path, more = tmp_path / "a.onnx", {"opset_imports": [make.make_opsetid("", 20)]}
    onnx.save(make.make_model(nodes, ir_version=10, **more), path)
    assert npu_operators(path).unknown == ("Unique",)
    onnx.save(make.make_model(graph, ir_version=10, **more), path)
    with pytest.raises(ArtifactError, match="OpenVINO cannot read"):
        npu_operators(path)


def test_without_openvino_the_extra_is_named(monkeypatch):
    load = builtins.__import__

    def refuse(name, *rest, **more):
        if name == "openvino":
            raise ImportError(name)
        return load(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError, match=r"prunus\[openvino\]"):
        npu_operators("any.onnx")
