"""Arrays that do not fit are refused with names, axes, got and expected."""

import numpy as np
import pytest

from prunus.runtime.card.matching import check_array, check_graph, check_inputs, check_outputs
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError, TensorError


def test_fitting_inputs_pass(card, tiny_inputs) -> None:
    assert check_inputs(card, tiny_inputs, finite=True) == card.inputs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"imge": 1}, r"named 'imge' \(did you mean 'image'\?\)"),
        ({"gain": None}, r"'gain' is missing; got \['image'\]"),
        ({"gain": [0.5]}, "'gain' is a list; expected a numpy array"),
        ({"image": np.zeros((3, 4), np.uint8)}, r"\[batch=3!, pixel=4\].*\[batch=2, pixel=4\]"),
        ({"image": np.zeros(8, np.uint8)}, r"\[8\] \(1 axes instead of 2\)"),
        ({"image": np.zeros((1, 5), np.uint8)}, r"\[batch=1!, pixel=5!\]"),
        ({"image": np.zeros((2, 4, 1), np.uint8)}, r"\[2, 4, 1\] \(3 axes instead of 2\)"),
        ({"image": np.zeros((2, 4), np.float32)}, "dtype float32; expected image uint8"),
    ],
)
def test_misfit_is_named(card, tiny_inputs, change, message) -> None:
    merged = {**tiny_inputs, **change}
    inputs = {name: array for name, array in merged.items() if array is not None}
    with pytest.raises(TensorError, match=message) as caught:
        check_inputs(card, inputs)
    assert caught.value.hint


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_is_refused_on_request(card, tiny_inputs, value) -> None:
    inputs = {**tiny_inputs, "gain": np.array([value], np.float32)}
    check_inputs(card, inputs)
    with pytest.raises(TensorError, match="'gain' has 1 of 1 values that are NaN or infinite"):
        check_inputs(card, inputs, finite=True)


def test_values_that_are_not_finite_are_counted() -> None:
    spec = TensorSpec("sound", "float32", (2, 300), ("batch", "sample"))
    sound = np.zeros((2, 300), np.float32)
    check_array(spec, sound, finite=True)
    sound[0, :3] = np.nan, np.inf, -np.inf
    with pytest.raises(TensorError, match="'sound' has 3 of 600 values that are NaN"):
        check_array(spec, sound, finite=True)
    numbers = TensorSpec("ids", "int64", (2,), ("batch",))
    check_array(numbers, np.array([1, 2]), finite=True)


def test_sizes_beyond_small_numbers_are_compared_by_value() -> None:
    spec = TensorSpec("sound", "float32", (1, 16_000), ("batch", "sample"))
    with pytest.raises(TensorError, match=r"\[batch=3!, sample=16000\]"):
        check_array(spec, np.zeros((3, 16_000), np.float32))


def test_graph_that_breaks_its_cards_promise(card) -> None:
    good = {s.name: (s.dtype, s.shape) for s in card.inputs}
    out = {s.name: (s.dtype, s.shape) for s in card.outputs}
    check_graph("m.onnx", card, good, out)
    with pytest.raises(ArtifactError, match=r"outputs of m.onnx are keypoints float32 \[9, 3\]"):
        check_graph("m.onnx", card, good, {"keypoints": ("float32", (9, 3))})
    with pytest.raises(ArtifactError, match=r"inputs of m.onnx"):
        check_graph("m.onnx", card, {"image": good["image"]}, out)


def test_outputs_that_the_card_does_not_promise_are_refused(card) -> None:
    good = {"keypoints": np.zeros((2, 3), np.float32)}
    check_outputs(card, good)
    for wrong in (np.zeros((2, 4), np.float32), np.zeros((2, 3)), np.zeros(6, np.float32)):
        with pytest.raises(TensorError, match=r"returned 'keypoints' as float.*expected keypoints"):
            check_outputs(card, {"keypoints": wrong})
