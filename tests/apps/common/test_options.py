"""Options that several verbs share."""

import pytest

from prunus.apps.common.options import BackendChoice, with_arithmetic
from prunus.runtime.errors import UsageError


def test_a_choice_is_how_a_task_is_opened():
    choice = BackendChoice("openvino", "gpu", 2, "f32", cuda_graph=False)
    words = choice.keywords()
    switches = words.pop("options")
    assert words == {"backend": "openvino", "device": "gpu", "threads": 2}
    assert (switches.inference_precision, switches.cuda_graph) == ("f32", False)


@pytest.mark.parametrize(
    ("backends", "arithmetic", "plain", "names"),
    [
        (("onnxruntime", "openvino"), "auto", "", ("onnxruntime", "openvino")),
        (("onnxruntime", "openvino"), "f32", "", ("onnxruntime", "openvino-f32")),
        (("openvino",), "f32", "f32", ("openvino",)),
        (("openvino", "openvino-f32"), "bf16", "f32", ("openvino-bf16", "openvino-f32")),
        (("auto",), "bf16", "", ("auto-bf16",)),
    ],
)
def test_arithmetic_in_names(backends, arithmetic, plain, names):
    assert with_arithmetic(backends, arithmetic, plain) == names


@pytest.mark.parametrize("backend", ["onnxruntime", "tensorrt"])
def test_back_ends_without_the_switch_are_refused(backend):
    with pytest.raises(UsageError, match="no bf16 switch"):
        with_arithmetic((backend,), "bf16")


@pytest.mark.parametrize("verb", ["bench", "check"])
def test_bench_and_check_know_the_flag(prunus, verb):
    words = ("--backend", "onnxruntime", "--arithmetic", "bf16")
    ran = prunus(verb, "movenet_lightning", *words)
    assert ran.code == 2
    assert "no bf16 switch" in ran.err


def test_whole_pipelines_are_measured_on_the_cpu(prunus):
    words = ("--boundary", "pipeline", "--device", "cuda:0")
    ran = prunus("bench", "movenet_lightning", *words)
    assert ran.code == 2
    assert "--boundary engine" in ran.err
