"""Exports of codecs: in every number format, and all files or none."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunus.apps.cli.main import main
from prunus.export.codec import graphs as codec_graphs
from prunus.export.freecodec import export_freecodec
from prunus.export.fusecodec import export_fusecodec
from prunus.export.precision.int8 import lift_biases
from prunus.export.wavtokenizer import export_wavtokenizer
from prunus.runtime.card.artifact import read_card
from prunus.runtime.errors import CheckFailedError

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

EXPORTS = {
    "wavtokenizer": lambda **o: export_wavtokenizer(step=6, window=48, left=18, right=14, **o),
    "fusecodec": lambda **o: export_fusecodec(step=6, window=32, left=10, right=10, **o),
    "freecodec": lambda **o: export_freecodec(window=32, left=8, right=8, **o),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "precision"),
    [("wavtokenizer", "fp16"), ("fusecodec", "int8"), ("freecodec", "fp16"), ("freecodec", "int8")],
)
def test_lower_precisions_stay_within_their_budgets(small_codecs, tmp_path, model, precision):
    """Exporting judges every graph by itself; the check repeats it on other samples."""
    paths = EXPORTS[model](precision=precision, output=tmp_path / "c")
    for path in paths:
        card = read_card(path)
        lower = precision == "fp16" or "decoder" in path.name
        assert card.precision.precision == (precision if lower else "fp32")
        assert main(["check", str(path), "--samples", "8", "--quiet"]) == 0


def test_a_codec_appears_as_a_whole_or_not_at_all(small_codecs, tmp_path, monkeypatch):
    """The decoder is refused: the encoder beside it must be the old one, and nothing is left."""
    (tmp_path / "c-encoder.onnx").write_bytes(b"old")
    asked = []

    def refuse(module, card, samples, path, *, options):
        asked.append(card.postprocess.part)
        if card.postprocess.part == "decoder":
            raise CheckFailedError("too far off")
        path.write_bytes(b"new")

    monkeypatch.setattr(codec_graphs, "export_artifact", refuse)
    with pytest.raises(CheckFailedError):
        EXPORTS["wavtokenizer"](output=tmp_path / "c")
    assert asked == ["encoder", "decoder"]
    assert [p.name for p in tmp_path.iterdir()] == ["c-encoder.onnx"]
    assert (tmp_path / "c-encoder.onnx").read_bytes() == b"old"


def test_constants_that_are_outputs_survive_quantisation():
    """The flag of a step graph that says that it has begun is one for ever."""
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "weight")
    bias = numpy_helper.from_array(np.ones(4, np.float32), "bias")
    flag = numpy_helper.from_array(np.ones(1, np.float32), "started_next")
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["product"], "product"),
        helper.make_node("Add", ["product", "bias"], ["y"], "sum"),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4]),
         helper.make_tensor_value_info("started_next", TensorProto.FLOAT, [1])],
        [weight, bias, flag],
    )  # fmt: skip
    model = helper.make_model(graph)
    lift_biases(model, {"product"})
    kept = {t.name: list(t.dims) for t in model.graph.initializer}
    assert kept["started_next"] == [1] and kept["bias"] == [1, 1, 4]
    onnx.checker.check_model(model)
