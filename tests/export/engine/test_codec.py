"""Every graph of every codec as a real TensorRT-RTX engine (no GPU needed).

The codecs are small; their operators, states and strides are those of the published sizes.
"""

import importlib.util

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from prunus.export.engine.build import build_engine
from prunus.export.engine.elu import respell_elu
from prunus.runtime.card.artifact import read_card, sha256_of
from prunus.runtime.tasks.codec.codec import find_parts

needs_builder = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="tensorrt_rtx is not installed (extra trt-rtx)",
)


@pytest.mark.parametrize("alpha", [1.0, 0.25])
def test_elu_is_respelled_without_a_change(tmp_path, alpha) -> None:
    ort = pytest.importorskip("onnxruntime")
    node = helper.make_node("Elu", ["x"], ["y"], "elu", alpha=alpha)
    value = helper.make_tensor_value_info
    graph = helper.make_graph([node], "g", [value("x", TensorProto.FLOAT, [9])],
                              [value("y", TensorProto.FLOAT, [9])])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "a.onnx")
    assert respell_elu(tmp_path / "a.onnx", tmp_path / "b.onnx")
    x = np.linspace(-8, 2, 9).astype(np.float32)
    one, other = (
        ort.InferenceSession(tmp_path / n, providers=["CPUExecutionProvider"]).run(None, {"x": x})
        for n in ("a.onnx", "b.onnx")
    )
    np.testing.assert_allclose(one[0], other[0], atol=1e-6)
    np.testing.assert_allclose(one[0], np.where(x > 0, x, alpha * np.expm1(x)), atol=1e-6)
    assert not respell_elu(tmp_path / "b.onnx", tmp_path / "c.onnx")
    assert not (tmp_path / "c.onnx").exists()


@pytest.mark.slow
@pytest.mark.trt
@needs_builder
@pytest.mark.parametrize("model", ["wavtokenizer", "fusecodec", "freecodec"])
def test_every_graph_builds(tiny_codec, tmp_path, model) -> None:
    parts = find_parts(tiny_codec(model))
    assert len(parts) == (3 if model == "freecodec" else 2)
    for part, path in parts.items():
        engine = tmp_path / f"{part}.engine"
        sidecar = build_engine(path, engine, flavour="tensorrt_rtx")
        assert sidecar.card == read_card(path)
        assert sidecar.engine_sha256 == sha256_of(engine)


@pytest.mark.slow
@pytest.mark.trt
@needs_builder
def test_half_precision_builds(small_codecs, tmp_path) -> None:
    from prunus.export.wavtokenizer import export_wavtokenizer

    paths = export_wavtokenizer(
        step=6, window=48, left=18, right=14, precision="fp16", output=tmp_path / "w"
    )
    for path in paths:
        sidecar = build_engine(path, flavour="tensorrt_rtx")
        assert sidecar.engine_sha256 == sha256_of(path.with_suffix(".engine"))
