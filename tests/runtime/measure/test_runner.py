"""What is compared: specs through JSON, samples of the graph's shapes, noise within bounds."""

import json
import types

import numpy as np
import pytest

from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import TensorError, UsageError
from prunus.runtime.measure import runner
from prunus.runtime.measure.runner import (
    RunnerSpec,
    benchmarked,
    example_inputs,
    open_runner,
    samples,
)
from prunus.runtime.session.base import BackendOptions


def _card(*specs):
    return types.SimpleNamespace(inputs=specs)


IMAGE = TensorSpec("image", "uint8", (1, 4, 4, 3), ("batch", "y", "x", "rgb"))
SOUND = TensorSpec("sound", "float32", (8,), ("sample",), minimum=-1.0, maximum=1.0)


def test_a_spec_survives_json():
    spec = RunnerSpec("a", target="m:f", arguments=("x", "y"), threads=2, boundary="pipeline",
                      options=BackendOptions(inference_precision="bf16", spin=True))  # fmt: skip
    assert RunnerSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(("path", "target"), [("", ""), ("m.onnx", "m:f")])
def test_one_thing_is_run(path, target):
    with pytest.raises(UsageError, match="expected exactly one of them"):
        RunnerSpec("a", path=path, target=target)


def test_words_of_back_ends_name_their_arithmetic():
    assert benchmarked("onnxruntime") == ("onnxruntime", BackendOptions(spin=True))
    backend, options = benchmarked("openvino-bf16")
    assert (backend, options.spin) == ("openvino", True) and options.inference_precision
    with pytest.raises(UsageError):
        benchmarked("onnxruntime-bf17")


def test_stacked_samples_are_cut_and_shorter_columns_begin_again():
    images = np.arange(3 * 48, dtype=np.uint8).reshape(3, 1, 4, 4, 3)
    sounds = np.linspace(0, 1, 16, dtype=np.float32).reshape(2, 8)
    cut = samples(_card(IMAGE, SOUND), {"image": images, "sound": sounds})
    assert len(cut) == 3
    for k, one in enumerate(cut):
        np.testing.assert_array_equal(one["image"], images[k])
        np.testing.assert_array_equal(one["sound"], sounds[k % 2])
    turned = np.asfortranarray(images[0])
    (one,) = samples(_card(IMAGE), {"image": turned})
    assert one["image"].flags.c_contiguous
    np.testing.assert_array_equal(one["image"], images[0])


def test_what_fits_no_input_is_refused():
    for shape in ((1, 4, 4, 4), (2, 2, 1, 4, 4, 3), (0, 1, 4, 4, 3)):
        with pytest.raises(TensorError, match="image"):
            samples(_card(IMAGE), {"image": np.zeros(shape, np.uint8)})
    with pytest.raises(TensorError, match="image"):
        samples(_card(IMAGE), {"image": np.zeros((1, 4, 4, 3), np.float32)})


def test_noise_stands_in_and_keeps_the_bounds():
    (one,) = samples(_card(IMAGE, SOUND), {})
    np.testing.assert_array_equal(one["image"], example_inputs(_card(IMAGE, SOUND))["image"])
    large = TensorSpec("image", "uint8", (100, 100), ("y", "x"))
    free = TensorSpec("free", "float32", (100, 100), ("y", "x"))
    wide = TensorSpec("wide", "float32", (100, 100), ("y", "x"), minimum=-3.0, maximum=5.0)
    low = TensorSpec("low", "uint8", (100, 100), ("y", "x"), maximum=9.0)
    made = example_inputs(_card(large, free, wide, low))
    for name, dtype, least, most in (
        ("image", "uint8", 0, 254), ("free", "float32", 0, 1), ("wide", "float32", -3, 5),
        ("low", "uint8", 0, 8),
    ):  # fmt: skip
        values = made[name]
        assert values.dtype == dtype and values.shape == (100, 100)
        assert values.min() == pytest.approx(least, abs=0.01)
        assert values.max() == pytest.approx(most, abs=0.01)
    other = example_inputs(_card(large), seed=1)["image"]
    assert (other != example_inputs(_card(large))["image"]).any()


def test_a_function_is_given_inputs_threads_and_arguments(monkeypatch):
    told = []

    def target(*words):
        told.append(words)
        return lambda: "ran"

    monkeypatch.setattr(runner, "load", lambda word: target)
    opened = open_runner(RunnerSpec("a", target="m:f", arguments=("x",), threads=3), {"i": 1})
    assert (opened.call(), opened.description, dict(opened.settings)) == ("ran", "m:f", {})
    assert told == [({"i": 1}, 3, "x")] and opened.close() is None
    monkeypatch.undo()
    for wrong in ("no_such_module:f", "json:no_such_function", "json"):
        with pytest.raises(UsageError, match="Cannot load") as caught:
            open_runner(RunnerSpec("a", target=wrong), {})
        assert "module:function" in caught.value.hint


def test_a_file_cycles_through_its_samples(monkeypatch):
    told, closed = [], []
    session = types.SimpleNamespace(
        card=_card(SOUND), description="here", settings={"spin": True},
        run=lambda inputs: told.append(float(inputs["sound"][0])), close=lambda: closed.append(1),
    )  # fmt: skip
    monkeypatch.setattr(runner, "open_session", lambda *words, **named: session)
    sounds = np.repeat(np.arange(2, dtype=np.float32)[:, None], 8, axis=1)
    opened = open_runner(RunnerSpec("a", path="m.onnx"), {"sound": sounds})
    for _ in range(3):
        opened.call()
    opened.close()
    assert told == [0.0, 1.0, 0.0] and closed == [1]
    assert (opened.description, opened.settings) == ("here", {"spin": True})
