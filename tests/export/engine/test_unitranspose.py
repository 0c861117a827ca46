"""UniTransPose as an engine: its attention runs by the plugin, or by standard operators."""

import importlib.util

import pytest

from prunus.export.engine.build import MIN_HALF_SHARE, build_engine
from prunus.runtime.card.graph import read_metadata

pytestmark = [
    pytest.mark.trt,
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorrt_rtx") is None,
        reason="tensorrt_rtx is not installed (extra trt-rtx)",
    ),
]


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_every_attention_node_becomes_a_plugin_layer(tmp_path, plugin_library, precision) -> None:
    import onnx

    from prunus.export.graph.functions import attention_nodes
    from prunus.export.unitranspose import export_unitranspose

    path = export_unitranspose("tiny", precision=precision, output=tmp_path / "m.onnx")
    assert read_metadata(path)
    nodes = len(attention_nodes(onnx.load(path)))
    assert nodes > 10
    body = build_engine(path, tmp_path / "body.engine", "tensorrt_rtx", plugin="off")
    fused = build_engine(
        path, tmp_path / "fused.engine", "tensorrt_rtx", plugin_library=plugin_library.path
    )
    assert f"plugin_layers={nodes}" in fused.flags and fused.plugin == plugin_library.stamp
    assert body.plugin == "" and not any(flag.startswith("plugin") for flag in body.flags)
    for sidecar in (body, fused):
        assert sidecar.half_layer_share >= MIN_HALF_SHARE[precision]
        assert (sidecar.half_layer_share > 0) == (precision == "fp16")
    # Without the attention's intermediates there is less for TensorRT to compile.
    assert (tmp_path / "fused.engine").stat().st_size < (tmp_path / "body.engine").stat().st_size
