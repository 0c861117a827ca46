"""The table of back ends, what auto takes, and the back ends' own errors."""

import dataclasses
import logging
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import prunus.runtime as runtime
from prunus.runtime import host
from prunus.runtime.card.precision import PrecisionSpec
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import (
    ArtifactError,
    FallbackError,
    HostError,
    MissingDependencyError,
    TensorError,
    UsageError,
)
from prunus.runtime.session import choice, registry
from prunus.runtime.session import onnxruntime as ort_backend
from prunus.runtime.session.base import BackendOptions
from prunus.runtime.session.openvino import session as ov_backend
from prunus.runtime.session.tensorrt import cuda

needs_openvino = pytest.mark.skipif(not host.installed("openvino"), reason="no openvino")


@pytest.fixture
def machine(monkeypatch):
    """Pretend a machine: its installed packages and its bfloat16 flag."""

    def pretend(packages, flag=""):
        monkeypatch.setattr(host, "installed", lambda name: name in packages)
        monkeypatch.setattr(host, "bfloat16_flag", lambda: flag)

    return pretend


def marked(card):
    return dataclasses.replace(card, precision=PrecisionSpec(also_within_budget=("bf16",)))


BOTH = ("onnxruntime", "openvino")


@pytest.mark.parametrize(
    ("packages", "flag", "mark", "arithmetic", "device", "expected", "reason"),
    [
        (BOTH, "avx512_bf16", True, "auto", "cpu", "openvino", "avx512_bf16"),
        (BOTH, "avx512_bf16", False, "auto", "cpu", "onnxruntime", "not measured within"),
        (BOTH, "avx512_bf16", True, "f32", "cpu", "onnxruntime", "float32 was asked for"),
        (BOTH, "", True, "auto", "cpu", "onnxruntime", "no bfloat16 arithmetic"),
        (BOTH, "", False, "bf16", "cpu", "openvino", "bf16 switch"),
        (BOTH, "amx_bf16", True, "auto", "cuda:0", "onnxruntime", "no device 'cuda'"),
        (BOTH, "", False, "auto", "npu", "openvino", "device 'npu'"),
        (("onnxruntime",), "amx_bf16", True, "auto", "cpu", "onnxruntime", "not installed"),
        (("openvino",), "", False, "auto", "cpu", "openvino", "the one that is installed"),
    ],
)
def test_auto(machine, card, packages, flag, mark, arithmetic, device, expected, reason) -> None:
    machine(packages, flag)
    chosen = choice.choose("m.onnx", marked(card) if mark else card, "auto", device, arithmetic)
    assert chosen.backend.name == expected
    assert chosen.reasons[0].startswith(expected)
    assert any(reason in line for line in chosen.reasons), chosen.reasons


@pytest.mark.parametrize(
    ("packages", "path", "backend", "device", "arithmetic", "error", "message"),
    [
        (BOTH, "m.onnx", "onnxruntim", "cpu", "auto", UsageError, "did you mean 'onnxruntime'"),
        ((), "m.onnx", "auto", "cpu", "auto", MissingDependencyError, "'onnxruntime', which"),
        (BOTH, "m.engine", "auto", "cuda", "auto", MissingDependencyError, "'tensorrt'"),
        (("onnxruntime",), "m.onnx", "openvino", "cpu", "auto", MissingDependencyError, "openvino"),
        (("openvino",), "m.onnx", "onnxruntime", "cpu", "auto", MissingDependencyError, "onnxr"),
        (BOTH, "m.engine", "openvino", "cpu", "auto", ArtifactError, "OpenVINO opens .onnx files"),
        (BOTH, "m.onnx", "tensorrt", "cuda", "auto", ArtifactError, ".engine and .plan files"),
        (BOTH, "m.pt", "auto", "cpu", "auto", ArtifactError, "got m.pt"),
        (BOTH, "m.onnx", "onnxruntime", "cudda", "auto", UsageError, "did you mean 'cuda'"),
        (BOTH, "m.onnx", "auto", "tpu", "auto", UsageError, "no device 'tpu'"),
        (BOTH, "m.onnx", "onnxruntime", "cpu", "bf16", UsageError, "no bf16 switch"),
        (("onnxruntime",), "m.onnx", "auto", "cpu", "bf16", MissingDependencyError, "openvino"),
    ],
)
def test_never_a_fallback(
    machine, card, packages, path, backend, device, arithmetic, error, message
) -> None:
    machine(packages)
    with pytest.raises(error) as caught:
        choice.choose(path, card, backend, device, arithmetic)
    assert message in str(caught.value)
    assert caught.value.hint


def test_probe_tells_version_or_command(machine) -> None:
    machine(("onnxruntime",))
    found = {p.name: p for p in registry.probe()}
    assert set(found) == {"onnxruntime", "openvino", "tensorrt"}
    assert found["onnxruntime"].usable
    assert found["onnxruntime"].reason == f"ONNX Runtime {host.version_of('onnxruntime')}"
    assert not found["openvino"].usable
    assert "pip install 'prunus[openvino]'" in found["openvino"].reason


@pytest.mark.parametrize("problem", ["", "no driver"])
def test_probe_asks_for_more_than_a_package_where_a_row_says_so(
    machine, monkeypatch, problem
) -> None:
    machine(("tensorrt_rtx",))
    monkeypatch.setattr(cuda, "why_unusable", lambda: problem)
    found = {p.name: p for p in registry.probe()}["tensorrt"]
    assert found.usable == (not problem)
    assert problem in found.reason and found.reason.startswith("TensorRT")


def test_open_tells_and_logs_its_choice(artifact, caplog) -> None:
    logged = caplog.at_level(logging.INFO, "prunus.runtime.session.base")
    with logged, runtime.open(artifact) as session:
        assert any(line.startswith("openvino: ") for line in session.choice)
        assert session.description in caplog.text
    assert all(line in caplog.text for line in session.choice)


INSTALLED = [b for b in BOTH if host.installed(b)]


@pytest.mark.parametrize("backend", INSTALLED)
def test_description_and_input_checks(artifact, tiny_inputs, backend) -> None:
    options = BackendOptions(check_finite=True)
    with runtime.open(artifact, backend, threads=2, options=options) as session:
        assert "2 threads" in session.description and "\n" not in session.description
        assert session.choice == (f"{backend}: asked for",)
        with pytest.raises(TensorError, match="batch=1!"):
            session.run({**tiny_inputs, "image": tiny_inputs["image"][:1]})
        with pytest.raises(TensorError, match="NaN"):
            session.run({**tiny_inputs, "gain": np.array([np.nan], np.float32)})
        strided = np.repeat(tiny_inputs["image"], 2, axis=1)[:, ::2]
        assert not strided.flags.c_contiguous
        same = session.run({**tiny_inputs, "image": strided})["keypoints"].copy()
        assert np.array_equal(same, session.run(tiny_inputs)["keypoints"])


@pytest.mark.parametrize("backend", INSTALLED)
def test_graph_that_cannot_be_loaded_is_one_line(artifact, card, backend) -> None:
    model = onnx.load(artifact)
    model.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(model, artifact)
    with pytest.raises(ArtifactError, match="cannot load") as caught:
        runtime.open(artifact, backend)
    assert "\n" not in str(caught.value)
    assert "NoSuchOperator" in caught.value.message


@pytest.mark.parametrize("backend", INSTALLED)
def test_card_of_another_graph(write_artifact, card, backend) -> None:
    path = write_artifact(card, batch=3)
    with pytest.raises(ArtifactError, match=r"inputs of .* \[3, 4\].*batch=2"):
        runtime.open(path, backend)


def test_missing_provider_is_an_error(artifact) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(HostError, match="has no CUDAExecutionProvider"):
        runtime.open(artifact, "onnxruntime", device="cuda:0")


class FakeOrt:
    """An ONNX Runtime with CUDA that keeps some nodes, or everything, on the CPU."""

    __version__ = "9.9"

    def __init__(self, drops: bool) -> None:
        import onnxruntime

        self.real, self.drops = onnxruntime, drops
        self.__spec__ = onnxruntime.__spec__
        self.asked: list = []

    def get_available_providers(self):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def SessionOptions(self):  # noqa: N802 - the library's name
        return self.real.SessionOptions()

    def InferenceSession(self, path, settings, providers):  # noqa: N802
        self.asked = providers
        assert settings.get_session_config_entry("session.record_ep_graph_assignment_info") == "1"
        real = self.real.InferenceSession(path, settings, ["CPUExecutionProvider"])
        parts = [
            SimpleNamespace(ep_name="CUDAExecutionProvider", get_nodes=lambda: [1, 2, 3]),
            SimpleNamespace(ep_name="CPUExecutionProvider", get_nodes=lambda: [1]),
            SimpleNamespace(ep_name="CUDAExecutionProvider", get_nodes=lambda: [1]),
        ]
        kept = ["CPUExecutionProvider"] if self.drops else self.get_available_providers()
        return SimpleNamespace(
            get_providers=lambda: kept, get_inputs=real.get_inputs, get_outputs=real.get_outputs,
            io_binding=real.io_binding, get_provider_graph_assignment_info=lambda: parts,
        )  # fmt: skip


def test_nodes_left_on_the_cpu_are_counted(artifact, monkeypatch, caplog) -> None:
    fake = FakeOrt(drops=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    with runtime.open(artifact, "onnxruntime", device="cuda:1") as session:
        assert "CUDAExecutionProvider (1 of 5 nodes on the CPU)" in session.description
        assert session.elsewhere == (1, 5)
    assert "1 of 5 nodes run on the CPU, not on cuda" in caplog.text
    assert fake.asked[0] == ("CUDAExecutionProvider", {"device_id": "1"})


def test_dropped_provider_is_an_error(artifact, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeOrt(drops=True))
    with pytest.raises(FallbackError, match=r"dropped CUDAExecutionProvider"):
        runtime.open(artifact, "onnxruntime", device="cuda")


def test_onnxruntime_gives_the_same_with_and_without_a_memory_plan(artifact, tiny_inputs) -> None:
    answers = []
    for plan in (False, True):
        options = BackendOptions(plan_memory=plan)
        with runtime.open(artifact, "onnxruntime", options=options) as session:
            for _ in range(2):  # the pattern is used from the second run on
                found = session.run(tiny_inputs)
            answers.append({name: array.copy() for name, array in found.items()})
    assert all(np.array_equal(array, answers[1][name]) for name, array in answers[0].items())


@pytest.mark.parametrize(("plan", "record"), [(False, False), (True, False), (False, True)])
def test_onnxruntime_plans_memory_on_request_and_off_the_cpu(plan, record) -> None:
    import onnxruntime

    options = BackendOptions(plan_memory=plan)
    settings = ort_backend._settings(onnxruntime, 1, options, record=record)
    assert settings.enable_mem_reuse == settings.enable_mem_pattern == (plan or record)


def test_real_placement_report_has_the_shape_we_read(artifact) -> None:
    import onnxruntime

    settings = ort_backend._settings(onnxruntime, 1, BackendOptions(), record=True)
    session = onnxruntime.InferenceSession(str(artifact), settings, ["CPUExecutionProvider"])
    if not hasattr(session, "get_provider_graph_assignment_info"):
        pytest.skip("this ONNX Runtime does not tell placements")
    counts = ort_backend.count_nodes(session.get_provider_graph_assignment_info())
    assert set(counts) == {"CPUExecutionProvider"} and counts["CPUExecutionProvider"] >= 2


@pytest.mark.parametrize(
    ("kind", "precision", "mark", "flag", "asked", "expected"),
    [
        ("CPU", "fp32", False, "amx_bf16", "auto", "f32"),
        ("CPU", "fp32", True, "amx_bf16", "auto", "bf16"),
        ("CPU", "fp32", True, "", "auto", "f32"),
        ("CPU", "fp32", True, "amx_bf16", "f32", "f32"),
        ("CPU", "fp32", False, "", "bf16", "bf16"),
        ("GPU.0", "fp32", False, "", "auto", "f32"),
        ("GPU", "fp16", False, "", "auto", ""),
        ("NPU", "fp32", False, "", "auto", ""),
    ],
)
def test_openvino_arithmetic(machine, card, kind, precision, mark, flag, asked, expected) -> None:
    machine(BOTH, flag)
    spec = PrecisionSpec(precision, also_within_budget=("bf16",) if mark else ())
    card = dataclasses.replace(card, precision=spec)
    options = BackendOptions(inference_precision=asked)
    assert ov_backend.arithmetic(card, options, kind) == expected


@needs_openvino
def test_openvino_without_the_device(artifact) -> None:
    with pytest.raises(HostError, match="finds no device 'npu' here"):
        runtime.open(artifact, "openvino", device="npu")


@needs_openvino
def test_openvino_cache_folder_and_arithmetic(artifact, tiny_inputs, tmp_path) -> None:
    cache = tmp_path / "cache"
    options = BackendOptions(inference_precision="f32", cache_dir=str(cache))
    with runtime.open(artifact, "openvino", options=options) as session:
        assert "f32 arithmetic" in session.description
        first = session.run(tiny_inputs)["keypoints"].copy()
    assert list(cache.iterdir())
    with runtime.open(artifact, "openvino", options=options) as session:
        assert np.array_equal(session.run(tiny_inputs)["keypoints"], first)


@needs_openvino
@pytest.mark.skipif(not host.bfloat16_flag(), reason="this CPU computes bf16 as f32")
def test_last_layer_stays_in_float32_under_bf16(tmp_path, card) -> None:
    """What a decoder reads has more than bfloat16's eight bits; the layers before it do not."""
    image = TensorSpec("image", "float32", (1, 64, 64), ("batch", "row", "value"))
    outputs = tuple(
        TensorSpec(name, "float32", (1, 64, 64), ("batch", "row", "value"))
        for name in ("hidden", "keypoints")
    )
    card = dataclasses.replace(card, inputs=(image,), outputs=outputs)
    path, values = tmp_path / "two.onnx", np.random.default_rng(0)
    tensors = [helper.make_tensor_value_info(n, 1, [1, 64, 64]) for n in ("image", "keypoints")]
    weights = [values.normal(size=(64, 64)).astype(np.float32) for _ in range(3)]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["image", "w0"], ["first"]),
            helper.make_node("Relu", ["first"], ["bent"]),
            helper.make_node("MatMul", ["bent", "w1"], ["second"]),
            helper.make_node("Mul", ["second", "second"], ["keypoints"]),
            helper.make_node("MatMul", ["bent", "w2"], ["hidden"]),
        ],
        "two", tensors[:1],
        [helper.make_tensor_value_info("hidden", 1, [1, 64, 64]), tensors[1]],
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {card.KEY: card.to_json()})
    onnx.save(model, path)
    x = values.normal(size=(1, 64, 64)).astype(np.float32)
    with runtime.open(path, "openvino", options=BackendOptions(inference_precision="bf16")) as s:
        assert "bf16 arithmetic (last layers in f32: 2)" in s.description
        found = s.run({"image": x})["keypoints"]
    # A bfloat16 is a float32 whose lower 16 bits are zero.
    first = np.maximum(x.astype(np.float64) @ weights[0], 0)
    exact = (first @ weights[1]) ** 2
    error = np.abs(found - exact).max() / exact.max()
    assert 1e-5 < error < 0.02, "the first layer is bf16"
    assert (found.view(np.uint32) & 0xFFFF != 0).mean() > 0.9
    root = np.sqrt(found.astype(np.float64)).astype(np.float32)
    assert (root.view(np.uint32) & 0xFFFF != 0).mean() > 0.9, "the last layer's result is f32"
