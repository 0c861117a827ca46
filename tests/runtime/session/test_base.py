"""Opening files and checking inputs, over every back end that is installed."""

import numpy as np
import pytest

import prunus.runtime as runtime
from prunus.runtime.errors import UsageError
from prunus.runtime.session.registry import BACKENDS

ONNX_BACKENDS = [b.name for b in BACKENDS if ".onnx" in b.suffixes and b.installed]


def expected(inputs):
    weight = np.arange(12, dtype=np.float32).reshape(4, 3) / 7
    return inputs["image"].astype(np.float32) @ weight * inputs["gain"]


@pytest.mark.parametrize("backend", [*ONNX_BACKENDS, "auto"])
def test_run_matches_numpy_and_reuses_its_buffers(artifact, tiny_inputs, card, backend) -> None:
    with runtime.open(artifact, backend, threads=1) as session:
        assert session.card == card
        assert backend in ("auto", session.backend)
        first = session.run(tiny_inputs)["keypoints"]
        np.testing.assert_allclose(first, expected(tiny_inputs), rtol=1e-6)
        kept = first.copy()
        doubled = {**tiny_inputs, "gain": tiny_inputs["gain"] * 2}
        second = session.run(doubled)["keypoints"]
        np.testing.assert_allclose(second, kept * 2, rtol=1e-6)
        assert second.ctypes.data == first.ctypes.data
    session.close()


def test_threads_below_one_are_refused(artifact) -> None:
    with pytest.raises(UsageError, match="0 threads"):
        runtime.open(artifact, threads=0)
