"""Both graphs of Dolphin nano as real TensorRT-RTX engines (no GPU needed to build them)."""

import importlib.util

import pytest

from prunus.export.dolphin import export_dolphin
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


def test_lips_and_voice_build(tmp_path) -> None:
    paths = export_dolphin("nano", seconds=1.0, precision="fp16", output=tmp_path / "nano")
    # The search for codes and what normalises and squeezes before it stays float32 on purpose.
    for path, share in zip(paths, (0.45, 0.95), strict=True):
        sidecar = build_engine(path, flavour="tensorrt_rtx", min_half_share=share)
        assert sidecar.card == read_card(path)
        assert sidecar.engine_sha256 == sha256_of(path.with_suffix(".engine"))
