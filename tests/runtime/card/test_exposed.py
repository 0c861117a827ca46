import numpy as np
import onnx
import pytest

from prunus.runtime.card.exposed import with_outputs
from prunus.runtime.card.graph import read_graph, read_nodes
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError

SHAPE = ("float32", [2, 300])


@pytest.fixture
def chain(onnx_file):
    """Return y = relu(x - 1) * 3 with two inner tensors."""
    nodes = [("Sub", "x one", "moved"), ("Relu", "moved", "kept"), ("Mul", "kept three", "y")]
    return onnx_file("chain", nodes, {"x": SHAPE}, {"y": SHAPE},
                     {"one": np.float32(1), "three": np.float32(3)})  # fmt: skip


@pytest.mark.parametrize("typed", [True, False])
def test_inner_tensors_come_out_behind_the_graphs_own(chain, typed) -> None:
    import onnxruntime

    names = ["moved", "kept"]
    axes = ("a", "b")
    asked = [TensorSpec(n, "float32", (2, 300), axes) if typed else n for n in names]
    data = with_outputs(chain, asked)
    model = onnx.load_from_string(data)
    assert [v.name for v in model.graph.output] == ["y", *names]
    if typed:
        onnx.checker.check_model(model, full_check=True)
        told = [(v.name, v.dtype, v.shape) for v in read_graph(chain, data).outputs]
        assert told == [(n, "float32", (2, 300)) for n in ("y", *names)]
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    x = np.linspace(-3, 3, 600, dtype=np.float32).reshape(2, 300)
    y, moved, kept = session.run(None, {"x": x})
    assert np.array_equal(moved, x - 1) and np.array_equal(kept, np.maximum(moved, 0))
    assert np.array_equal(y, kept * 3)


def test_nodes_tell_what_they_read_and_compute(chain) -> None:
    nodes, _ = read_nodes(chain)
    told = [(n.operator, n.inputs, n.outputs) for n in nodes]
    assert told == [("Sub", ("x", "one"), ("moved",)), ("Relu", ("moved",), ("kept",)),
                    ("Mul", ("kept", "three"), ("y",))]  # fmt: skip


def test_nothing_added_changes_nothing(chain) -> None:
    assert onnx.load_from_string(with_outputs(chain, [])) == onnx.load(chain)


def test_a_missing_file_is_one_error(tmp_path) -> None:
    with pytest.raises(ArtifactError, match="Cannot read"):
        with_outputs(tmp_path / "none.onnx", ["x"])
