"""Every graph of every codec as a real TensorRT-RTX engine (no GPU needed).

The codecs are small; their operators, states and strides are those of the published sizes.
"""

import importlib.util

import pytest

from prunus.export.engine import build_engine
from prunus.runtime.artifact import read_card, sha256_of
from prunus.runtime.tasks.codec import find_parts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.trt,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx") is None,
        reason="tensorrt_rtx is not installed (extra trt-rtx)",
    ),
]


@pytest.mark.parametrize("model", ["wavtokenizer", "fusecodec", "freecodec"])
def test_every_graph_builds(tiny_codec, tmp_path, model) -> None:
    parts = find_parts(tiny_codec(model))
    assert len(parts) == (3 if model == "freecodec" else 2)
    for part, onnx in parts.items():
        engine = tmp_path / f"{part}.engine"
        sidecar = build_engine(onnx, engine, flavour="tensorrt_rtx")
        assert sidecar.card == read_card(onnx)
        assert sidecar.engine_sha256 == sha256_of(engine)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_lower_precisions_build(small_codecs, tmp_path, precision) -> None:
    from prunus.export.wavtokenizer import export_wavtokenizer

    paths = export_wavtokenizer(
        step=6, window=48, left=18, right=14, precision=precision, output=tmp_path / "w"
    )
    for onnx in paths:
        sidecar = build_engine(onnx, flavour="tensorrt_rtx")
        assert sidecar.engine_sha256 == sha256_of(onnx.with_suffix(".engine"))
