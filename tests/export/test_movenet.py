"""The shipped MoveNet files against outputs of the original TensorFlow.js runtime.

`golden_movenet.npz` holds two small pictures (enlarged here by repeating pixels) and what
@tensorflow/tfjs 4.22.0 returned for them with the package's own models.
"""

from pathlib import Path

import numpy as np
import onnx
import pytest

import prunus.runtime
from prunus.export.common.command import script
from prunus.export.convert.package import compare, convert_source, find_source, verdicts
from prunus.export.convert.tfjs_graph import load_graph
from prunus.export.movenet import SOURCES, movenet_card
from prunus.models import zoo
from prunus.runtime.card.artifact import read_card
from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.tasks.pose.people import decode_multipose

WEIGHTS = Path(prunus.models.__path__[0]) / "weights"
GOLDEN = np.load(Path(__file__).with_name("golden_movenet.npz"))


def _enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    return np.ascontiguousarray(image.repeat(factor, 0).repeat(factor, 1))[None]


def test_lightning_equals_tfjs() -> None:
    with prunus.runtime.open(zoo.model_path("movenet_lightning"), "onnxruntime") as session:
        rows = session.run({"image": _enlarge(GOLDEN["portrait"], 3)})["keypoints"][0, 0]
    np.testing.assert_allclose(rows, GOLDEN["lightning"], atol=1e-5)


def test_multipose_heads_and_decode_equal_the_whole_tfjs_graph() -> None:
    with prunus.runtime.open(zoo.model_path("movenet_multipose"), "onnxruntime") as session:
        heads = session.run({"image": _enlarge(GOLDEN["street"], 4)})
        people = decode_multipose(heads, 4, 6)
    # The street shows two people; the graph fills its six rows with noise, in no set order.
    expected, size = GOLDEN["multipose"][:2], np.array([352, 448])
    assert (expected[:, 55] > 0.05).all()
    joints = expected[:, :51].reshape(2, 17, 3)
    np.testing.assert_allclose(people.keypoints[:2, :, 1::-1] / size, joints[..., :2], atol=1e-5)
    np.testing.assert_allclose(people.keypoints[:2, :, 2], joints[..., 2], atol=5e-5)
    np.testing.assert_allclose(people.scores[:2], expected[:, 55], atol=5e-5)
    boxes = people.boxes[:2, [1, 0, 3, 2]] / np.tile(size, 2)
    np.testing.assert_allclose(boxes, expected[:, 51:55], atol=1e-5)


@pytest.mark.parametrize("variant", ["multipose", "lightning"])
def test_shipped_card_and_graph_agree(variant: str) -> None:
    path = zoo.model_path(f"movenet_{variant}")
    card = read_card(path)
    assert card == movenet_card(SOURCES[variant], SOURCES[variant].size)
    model = onnx.load(path)
    for spec, value in zip(
        (*card.inputs, *card.outputs), (*model.graph.input, *model.graph.output), strict=True
    ):
        shape = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
        assert (spec.name, spec.shape, spec.dtype) == (value.name, shape, dtype)


def test_sizes_and_variants_are_checked_before_any_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="multiples of 32"):
        convert_source(tmp_path, SOURCES["multipose"], (250, 256))
    with pytest.raises(UsageError, match="192x192 only"):
        convert_source(tmp_path, SOURCES["lightning"], (256, 256))
    with pytest.raises(UsageError, match="expected one of"):
        find_source(SOURCES, "lightening")


def test_another_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    with pytest.raises(ArtifactError):
        load_graph(tmp_path / "models" / "movenet-lightning.json")
    json = tmp_path / "models" / "movenet-lightning.json"
    json.write_text('{"modelTopology": {"node": []}, "weightsManifest": []}')
    json.with_suffix(".bin").write_bytes(b"other weights")
    with pytest.raises(ArtifactError, match=r"3\.0\.4"):
        convert_source(tmp_path, SOURCES["lightning"])
    words = ["--package", str(tmp_path), "--variant", "lightning", "-o", str(tmp_path)]
    assert script("movenet", words) == 2
    assert not list(tmp_path.glob("*.onnx"))


def test_comparison_tells_card_from_weights(tmp_path: Path) -> None:
    shipped, other = zoo.model_path("movenet_lightning"), tmp_path / "other.onnx"
    assert compare(shipped, shipped) == "equals the shipped file"
    assert compare(shipped, None) == "not shipped"
    assert verdicts([shipped, other]) == [
        "movenet_lightning.onnx: equals the shipped file", "other.onnx: not shipped"
    ]  # fmt: skip
    model = onnx.load(shipped)
    model.metadata_props[0].value += " "
    onnx.save(model, other)
    assert "another card" in compare(other, shipped)
    weight = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    weight.raw_data = bytes([weight.raw_data[0] ^ 1]) + weight.raw_data[1:]
    onnx.save(model, other)
    assert compare(other, shipped) == "differs from the shipped file"
