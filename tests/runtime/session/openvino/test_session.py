"""What OpenVINO computes in is what was asked for, or an error."""

import pytest

from prunus.runtime import host
from prunus.runtime.errors import HostError
from prunus.runtime.session.base import BackendOptions
from prunus.runtime.session.base import open as open_session

pytest.importorskip("openvino", reason="openvino is not installed")


def test_bfloat16_that_this_cpu_lacks_is_refused_or_used(onnx_file) -> None:
    """On such a CPU OpenVINO takes the hint and computes in float32: answers without a word."""
    path = onnx_file(
        "same", [("Relu", "x", "y")], {"x": ("float32", [1, 3])}, {"y": ("float32", [1, 3])}
    )
    options = BackendOptions(inference_precision="bf16")
    if host.bfloat16_flag():
        with open_session(path, "openvino", options=options) as session:
            assert "bf16 arithmetic" in session.description
        return
    with pytest.raises(HostError, match="computes in f32 on this CPU; bf16 was asked for"):
        open_session(path, "openvino", options=options)


def test_float32_is_always_at_hand(onnx_file) -> None:
    path = onnx_file(
        "same", [("Relu", "x", "y")], {"x": ("float32", [1, 3])}, {"y": ("float32", [1, 3])}
    )
    options = BackendOptions(inference_precision="f32")
    with open_session(path, "openvino", options=options) as session:
        assert "f32 arithmetic" in session.description
