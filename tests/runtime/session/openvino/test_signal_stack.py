"""Ctrl-C must find a stack to run on, whatever libraries did with it."""

import ctypes
from pathlib import Path

import pytest

import prunus.models
import prunus.runtime as runtime
from prunus.runtime import host
from prunus.runtime.session.openvino.signal_stack import (
    SignalStack,
    kept_signal_stack,
    signal_stack,
)

SELFIE = Path(prunus.models.__path__[0]) / "weights" / "selfie.onnx"
pytestmark = pytest.mark.skipif(signal_stack() is None, reason="not Linux")


def _facts() -> tuple[int | None, int, int]:
    stack = signal_stack()
    return stack.base, stack.flags, stack.size


def test_the_stack_is_put_back_even_after_an_error():
    before, room = _facts(), ctypes.create_string_buffer(1 << 16)
    with pytest.raises(ValueError, match="inside"), kept_signal_stack():
        other = SignalStack(ctypes.cast(room, ctypes.c_void_p), 0, len(room))
        ctypes.CDLL(None).sigaltstack(ctypes.byref(other), None)
        assert _facts() == (ctypes.addressof(room), 0, len(room))
        raise ValueError("inside")
    assert _facts() == before


@pytest.mark.skipif(not host.installed("openvino"), reason="no openvino")
def test_openvino_models_that_end_in_the_order_they_came_leave_it_alone():
    before = _facts()
    first = runtime.open(SELFIE, "openvino", threads=1)
    second = runtime.open(SELFIE, "openvino", threads=1)
    assert _facts() == before
    first.close()
    second.close()
    assert _facts() == before
