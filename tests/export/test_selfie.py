"""The shipped selfie segmentation against the output of the original TensorFlow.js runtime.

`golden_selfie.npz` holds every fourth pixel of what @tensorflow/tfjs 4.22.0 returned, with the
package's own model, for the portrait of `golden_movenet.npz` (enlarged by repeating pixels).
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from prunus.export.common.command import script
from prunus.export.convert.package import convert_source
from prunus.export.selfie import NAME, SOURCE, selfie_card
from prunus.models import zoo
from prunus.runtime.card.artifact import read_card
from prunus.runtime.errors import ArtifactError
from prunus.runtime.tasks.segmentation.segmenter import Segmenter

HERE = Path(__file__).parent
PORTRAIT = np.load(HERE / "golden_movenet.npz")["portrait"].repeat(4, 0).repeat(4, 1)
GOLDEN = np.load(HERE / "golden_selfie.npz")["probability"]


def test_equals_tfjs() -> None:
    session = onnxruntime.InferenceSession(zoo.model_path(NAME))
    (mask,) = session.run(None, {"image": np.ascontiguousarray(PORTRAIT)[None]})
    # Half of the probabilities are saturated; 5e-4 of their range is what two runtimes differ by.
    np.testing.assert_allclose(mask[0, 0, ::4, ::4], GOLDEN, atol=5e-4)
    assert GOLDEN.max() > 0.99 and GOLDEN.min() < 0.01


def test_segmenter_gives_classes_and_soft_edges() -> None:
    with Segmenter.open(zoo.model_path(NAME), "onnxruntime", threads=1) as segmenter:
        mask = segmenter(np.ascontiguousarray(PORTRAIT[:, :, ::-1]))
    assert mask.foreground is not None
    np.testing.assert_allclose(mask.foreground[::4, ::4], GOLDEN, atol=5e-4)
    assert np.array_equal(mask.classes, mask.foreground >= 0.5)
    assert segmenter.postprocess.classes == ("background", "person")


def test_shipped_card_graph_and_table_agree() -> None:
    path = zoo.model_path(NAME)
    card = read_card(path)
    assert card == selfie_card(SOURCE, SOURCE.size)
    model = onnx.load(path)
    values = (*model.graph.input, *model.graph.output)
    for spec, value in zip((*card.inputs, *card.outputs), values, strict=True):
        shape = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
        assert (spec.name, spec.shape, spec.dtype) == (value.name, shape, dtype)
    # One transposition, at the input: the rest stays channels-first.
    assert [n.op_type for n in model.graph.node].count("Transpose") == 1


def test_another_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    json = tmp_path / "models" / "selfie.json"
    json.write_text('{"modelTopology": {"node": []}, "weightsManifest": []}')
    json.with_suffix(".bin").write_bytes(b"other weights")
    with pytest.raises(ArtifactError, match=r"3\.0\.4"):
        convert_source(tmp_path, SOURCE)
    assert script(NAME, ["--package", str(tmp_path), "-o", str(tmp_path)]) == 2
    assert not list(tmp_path.glob("*.onnx"))
