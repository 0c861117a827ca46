"""The shipped face files against outputs of the original TensorFlow.js runtime.

`golden_faces.npz` holds two small pictures (enlarged here by repeating pixels) and what
@tensorflow/tfjs 4.22.0 returned for them with the package's own models.
"""

from pathlib import Path

import numpy as np
import onnx
import pytest

import prunus.models
import prunus.runtime
from prunus.apps.cli import main as cli
from prunus.export.common.command import script
from prunus.export.convert.package import find_source
from prunus.export.faces import SOURCES
from prunus.models import zoo
from prunus.runtime.card.artifact import read_card
from prunus.runtime.errors import UsageError

WEIGHTS = Path(prunus.models.__path__[0]) / "weights"
GOLDEN = np.load(Path(__file__).with_name("golden_faces.npz"))


def _enlarge(image: np.ndarray, factor: int) -> np.ndarray:
    return np.ascontiguousarray(image.repeat(factor, 0).repeat(factor, 1))[None]


def test_detector_equals_tfjs() -> None:
    with prunus.runtime.open(WEIGHTS / "blazeface_full.onnx", "onnxruntime") as session:
        heads = session.run({"image": _enlarge(GOLDEN["portrait"], 4)})
        for name in ("scores_16", "scores_32"):  # logits reach 441
            np.testing.assert_allclose(heads[name].ravel(), GOLDEN[name], rtol=1e-5, atol=1e-3)
        rows = heads["rows_16"][0][GOLDEN["best"]]
        np.testing.assert_allclose(rows, GOLDEN["rows_16"], atol=1e-3)
        np.testing.assert_allclose(heads["rows_32"][0][:64], GOLDEN["rows_32"], atol=1e-3)


def test_mesh_equals_tfjs() -> None:
    with prunus.runtime.open(zoo.model_path("facemesh"), "onnxruntime") as session:
        found = session.run({"image": _enlarge(GOLDEN["face"], 3)})
    np.testing.assert_allclose(found["points"][0], GOLDEN["points"], atol=1e-3)  # of 192 pixels
    np.testing.assert_allclose(found["face"][0], GOLDEN["flag"], atol=1e-5)


@pytest.mark.parametrize("name", list(SOURCES))
def test_shipped_card_graph_and_table_agree(name: str) -> None:
    path = zoo.model_path(name)
    card = read_card(path)
    assert card == SOURCES[name].card(SOURCES[name], SOURCES[name].size)
    model = onnx.load(path)
    values = (*model.graph.input, *model.graph.output)
    for spec, value in zip((*card.inputs, *card.outputs), values, strict=True):
        shape = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
        assert (spec.name, spec.shape, spec.dtype) == (value.name, shape, dtype)


def test_the_verb_refuses_a_folder_that_is_no_package(tmp_path: Path, capsys) -> None:
    code = cli.main(["export", "faces", str(tmp_path), "--network", "blazeface_full"])
    assert code == 2 and "Cannot read" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_another_package_and_other_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected one of"):
        find_source(SOURCES, "facemash")
    (tmp_path / "models").mkdir()
    json = tmp_path / "models" / "blazeface.json"
    json.write_text('{"modelTopology": {"node": []}, "weightsManifest": []}')
    json.with_suffix(".bin").write_bytes(b"other weights")
    words = ["--package", str(tmp_path), "--variant", "all", "-o", str(tmp_path)]
    assert script("faces", words) == 2
    assert not list(tmp_path.glob("*.onnx"))
