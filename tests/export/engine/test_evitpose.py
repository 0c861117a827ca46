"""EViTPose, pruned, as real TensorRT-RTX engines in every number format (no GPU needed)."""

import importlib.util

import numpy as np
import pytest

from prunus.export.engine.build import MIN_HALF_SHARE, build_engine
from prunus.export.evitpose import export_evitpose
from prunus.export.precision.calibration import crop_samples
from prunus.runtime.card.artifact import read_card, sha256_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.trt,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx") is None,
        reason="tensorrt_rtx is not installed (extra trt-rtx)",
    ),
]


@pytest.mark.parametrize(
    ("precision", "level", "batch"), [("fp32", "L1", 1), ("fp16", "L3", 4), ("int8", "L1", 1)]
)
def test_evitpose_builds(tmp_path, precision, level, batch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 256, 192, 3), dtype=np.uint8)
    onnx = export_evitpose(
        "tiny", level=level, precision=precision, batch=batch, checkpoint="random",
        calibration=crop_samples(noise, "noise"), output=tmp_path / "m.onnx",
    )  # fmt: skip
    sidecar = build_engine(onnx, flavour="tensorrt_rtx")
    assert sidecar.card == read_card(onnx)
    # int8 leaves what comes before the first cut, 3.5 of 12 blocks, in float32.
    least = MIN_HALF_SHARE[precision] * (8 / 12 if precision == "int8" else 1)
    assert sidecar.half_layer_share >= least
    assert (sidecar.half_layer_share == 0.0) == (precision == "fp32")
    assert sidecar.engine_sha256 == sha256_of(tmp_path / "m.engine")
