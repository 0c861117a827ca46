"""EDAFormer-T at 512x512 as real TensorRT-RTX engines, ISR off and published (no GPU needed)."""

import importlib.util

import pytest

from prunus.apps.common.media import MEDIA
from prunus.export.edaformer import export_edaformer
from prunus.export.engine.build import build_engine
from prunus.runtime.card.artifact import read_card, sha256_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.trt,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx") is None,
        reason="tensorrt_rtx is not installed (extra trt-rtx)",
    ),
]


@pytest.mark.parametrize("isr", ["off", "published"])
def test_edaformer_builds(tmp_path, isr) -> None:
    picture = MEDIA / "portrait.jpg"  # one picture is enough: other tests judge the numbers
    onnx = export_edaformer(
        "t", isr=isr, size="512x512", calibration=picture, output=tmp_path / "t.onnx"
    )
    sidecar = build_engine(onnx, flavour="tensorrt_rtx")
    assert sidecar.card == read_card(onnx)
    assert sidecar.engine_sha256 == sha256_of(tmp_path / "t.engine")
