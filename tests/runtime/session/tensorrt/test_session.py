"""The TensorRT session over a fake driver in C (through the real ctypes calls) and binding."""

import ctypes
import dataclasses
import importlib.util
import inspect
import json
import platform
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from prunus.runtime.card.artifact import EngineSidecar, sha256_of
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import (
    ArtifactError,
    HostError,
    MissingDependencyError,
    PrunusError,
    TensorError,
)
from prunus.runtime.session.base import BackendOptions
from prunus.runtime.session.base import open as open_model
from prunus.runtime.session.tensorrt import cuda
from prunus.runtime.session.tensorrt import match as engine_match
from prunus.runtime.session.tensorrt import session as backend

HERE = Path(__file__).parent
CARD = ModelCard(
    task="pose", model="double", variant="test", paper="none", licence="Apache-2.0",
    exporter="test", weights=Weights("none", "random:0", "Apache-2.0", False),
    inputs=(TensorSpec("x", "uint8", (2, 3), ("batch", "width")),),
    outputs=(TensorSpec("y", "float32", (2, 3), ("batch", "width")),),
)  # fmt: skip


def _load(name: str):
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for the fake driver")
    path = tmp_path_factory.mktemp("driver") / "libfake_cuda.so"
    command = [compiler, "-shared", "-fPIC", "-o", str(path), str(HERE / "fake_cuda.c")]
    subprocess.run(command, check=True)
    return path


@pytest.fixture
def driver(library, monkeypatch):
    """Return the controls of a fresh fake driver that stands in for libcuda."""
    monkeypatch.setattr(cuda, "LIBRARY", str(library))
    controls = ctypes.CDLL(str(library))
    controls.fake_fail.argtypes = (ctypes.c_char_p,)
    controls.fake_reset()
    return controls


@pytest.fixture
def trt(driver, monkeypatch):
    module = _load("fake_tensorrt")
    monkeypatch.setattr(module.IExecutionContext, "_library", driver)
    monkeypatch.setattr(backend, "import_flavour", lambda flavour: module)
    return module


@pytest.fixture
def engine(tmp_path, trt):
    path = tmp_path / "double.engine"
    path.write_bytes(trt.PLAN)
    _sidecar(path, trt).write(path)
    return path


def _sidecar(path: Path, trt, **changes) -> EngineSidecar:
    sidecar = EngineSidecar(
        card=CARD, onnx_sha256="0" * 64, engine_sha256=sha256_of(path), flavour="tensorrt",
        version=trt.__version__, compute_capability="8.6", plugin="", flags=("strongly_typed",),
        build_seconds=1.0, half_layer_share=1.0,
    )  # fmt: skip
    return dataclasses.replace(sidecar, **changes)


@pytest.mark.parametrize("graph", [True, False])
def test_results_and_buffers(engine, driver, graph) -> None:
    with backend.open_session(engine, options=BackendOptions(cuda_graph=graph)) as session:
        assert ("CUDA graph on" in session.description) == graph
        assert "Fake GPU (sm 8.6)" in session.description
        first = np.arange(6, dtype=np.uint8).reshape(2, 3)
        kept = session.run({"x": first})["y"]
        assert np.array_equal(kept, first * 2.0 + 1)
        again = session.run({"x": first + 100})["y"]
        assert np.array_equal(again, (first.astype(np.float32) + 100) * 2 + 1)
        assert np.array_equal(kept, first * 2.0 + 1), "a later call changes no answer"
        assert driver.fake_launches() == (2 if graph else 0)
    assert driver.fake_live() == 0, "closing frees every allocation, stream, graph and context"
    session.close()


def test_the_runtime_opens_engines_here(engine, trt, monkeypatch) -> None:
    """The way of users: `open` knows an engine by its suffix, whatever the device is called."""
    monkeypatch.setitem(sys.modules, "tensorrt", trt)  # so that it counts as installed
    with open_model(engine, options=BackendOptions(cuda_graph=False)) as session:
        assert (session.backend, session.card) == ("tensorrt", CARD)
        assert session.choice and "graph off" in session.description
        assert session.layer_report() == '{"Layers": []}'
        assert session.run({"x": np.zeros((2, 3), np.uint8)})["y"].min() == 1


@pytest.fixture
def plugin_stamp(engine, trt, monkeypatch):
    """Let the engine need a plugin library, which the user trusts by name; returns its path."""
    library = engine.with_name("libprunus_local_global_attention.so")
    facts = {"name": "LocalGlobalAttention", "version": "1", "identity": "1+abc",
             "architectures": [80], "machine": platform.machine()}  # fmt: skip
    library.write_bytes(b"prunus-plugin:" + json.dumps(facts).encode() + b"\0")
    stamp = f"LocalGlobalAttention 1+abc sha256:{sha256_of(library)}"
    _sidecar(engine, trt, plugin=stamp).write(engine)
    monkeypatch.setenv("PRUNUS_PLUGIN_PATH", str(library))
    monkeypatch.setattr(trt.IPluginRegistry, "_loaded", [])
    return library


def test_the_plugin_library_is_loaded_first_and_once(engine, trt, plugin_stamp) -> None:
    for _ in range(2):
        with backend.open_session(engine) as session:
            assert session.run({"x": np.zeros((2, 3), np.uint8)})["y"].max() == 1
    assert trt.IPluginRegistry._loaded == [str(plugin_stamp)]


def test_a_plugin_library_that_does_not_fit(
    engine, trt, driver, plugin_stamp, monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr(trt.IPluginRegistry, "_accepts", False)
    with pytest.raises(HostError, match=r"10.99.0 cannot load the plugin library .*attention.so"):
        backend.open_session(engine)
    text = plugin_stamp.read_text()
    plugin_stamp.write_text(text.replace("[80]", "[75, 90]"))
    with pytest.raises(ArtifactError, match=r"built with another file than .*attention.so"):
        backend.open_session(engine)
    stamp = f"LocalGlobalAttention 1+abc sha256:{sha256_of(plugin_stamp)}"
    _sidecar(engine, trt, plugin=stamp).write(engine)
    with pytest.raises(ArtifactError, match=r"capability 7.5, 9.0; Fake GPU is 8.6.*--arch 86"):
        backend.open_session(engine)
    plugin_stamp.write_text(text.replace("1+abc", "1+xyz"))
    with pytest.raises(ArtifactError, match=r"plugin 1\+abc; .* is 1\+xyz"):
        backend.open_session(engine)
    monkeypatch.delenv("PRUNUS_PLUGIN_PATH")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    with pytest.raises(ArtifactError, match=r"none is found.*If you trust .*attention.so.*build"):
        backend.open_session(engine)
    assert trt.IPluginRegistry._loaded == [] and driver.fake_live() == 0


def test_works_from_another_thread(engine) -> None:
    found = []
    with backend.open_session(engine) as session:
        work = threading.Thread(
            target=lambda: found.append(session.run({"x": np.ones((2, 3), np.uint8)})["y"].copy())
        )
        work.start()
        work.join()
    assert np.array_equal(found[0], np.full((2, 3), 3, np.float32))


@pytest.mark.parametrize("graph", [True, False])
def test_eight_threads_get_the_answers_to_their_own_inputs(engine, hammer, graph) -> None:
    cases = [np.full((2, 3), 10 * k, np.uint8) for k in range(8)]
    with backend.open_session(engine, options=BackendOptions(cuda_graph=graph)) as session:
        answers = hammer(lambda x: session.run({"x": x})["y"], cases, rounds=50)
    for case, got in zip(cases, answers, strict=True):
        assert len(got) == 50
        assert all(np.array_equal(one, case * 2.0 + 1) for one in got)


@pytest.mark.parametrize(("capturable", "told"), [(True, "graph on"), (False, "not possible")])
def test_rtx_is_asked_before_a_capture(engine, trt, monkeypatch, capturable, told) -> None:
    monkeypatch.setattr(trt.IExecutionContext, "_capturable", capturable)
    with backend.open_session(engine) as session:
        assert told in session.description
        assert session.run({"x": np.zeros((2, 3), np.uint8)})["y"].max() == 1


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"z": np.zeros((2, 3), np.uint8)}, ["'z'", "x uint8"]),
        ({"x": np.zeros((2, 4), np.uint8)}, ["width=4!", "width=3"]),
        ({"x": np.zeros((2, 3), np.float32)}, ["float32", "uint8"]),
    ],
)
def test_wrong_inputs(engine, inputs, words) -> None:
    with backend.open_session(engine) as session, pytest.raises(TensorError) as caught:
        session.run(inputs)
    assert all(word in str(caught.value) for word in words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "10.3.0"}, ["built with tensorrt 10.3.0", "installed is 10.99.0"]),
        ({"compute_capability": "9.0"}, ["built for sm 9.0", "Fake GPU is sm 8.6"]),
        ({"engine_sha256": "f" * 64}, ["SHA-256 differs"]),
        (
            {"version": "10.3.0", "compute_capability": "9.0", "engine_sha256": "f" * 64},
            ["built with", "built for", "SHA-256"],
        ),
    ],
)
def test_every_mismatch_in_one_line(engine, trt, driver, changes, words) -> None:
    _sidecar(engine, trt, **changes).write(engine)
    with pytest.raises(ArtifactError) as caught:
        backend.open_session(engine)
    text = str(caught.value)
    assert all(word in text for word in words) and "\n" not in text
    assert f"prunus build {engine.with_suffix('.onnx')} -o {engine} --flavour tensorrt" in text
    assert driver.fake_live() == 0


@pytest.mark.parametrize(("major", "fits"), [(7, False), (8, True), (12, True)])
def test_portable_engines_need_ampere(engine, trt, driver, major, fits) -> None:
    driver.fake_gpu(1, major, 0)
    _sidecar(engine, trt, compute_capability="portable").write(engine)
    if fits:
        backend.open_session(engine).close()
        return
    with pytest.raises(ArtifactError, match=r"needs an Ampere or later GPU, Fake GPU is sm 7\.0"):
        backend.open_session(engine)


def test_tensors_must_be_the_cards(engine, trt, driver) -> None:
    other = dataclasses.replace(CARD, inputs=(TensorSpec("x", "uint8", (1, 3), ("b", "w")),))
    _sidecar(engine, trt, card=other).write(engine)
    with pytest.raises(ArtifactError, match=r"x uint8 \[2, 3\].* card says x uint8 \[b=1, w=3\]"):
        backend.open_session(engine)
    assert driver.fake_live() == 0


def test_damaged_plan(engine, trt, driver) -> None:
    engine.write_bytes(b"something else")
    _sidecar(engine, trt).write(engine)
    with pytest.raises(ArtifactError, match="could not open"):
        backend.open_session(engine)
    assert driver.fake_live() == 0


@pytest.mark.parametrize(
    "function",
    ["cuInit", "cuMemAlloc_v2", "cuMemAllocHost_v2", "cuStreamBeginCapture_v2",
     "cuGraphInstantiateWithFlags", "cuStreamSynchronize", "cuStreamCreate",
     "cuMemcpyHtoDAsync_v2"],
)  # fmt: skip
def test_a_refusing_driver_is_one_clear_error(engine, driver, function) -> None:
    driver.fake_fail(function.encode())
    with pytest.raises(HostError, match=f"CUDA refused {function}: planted failure"):
        backend.open_session(engine)
    driver.fake_fail(b"")
    assert driver.fake_live() == 0, "a failed start leaves nothing behind"


def test_a_launch_that_fails_is_told(engine, driver) -> None:
    with backend.open_session(engine) as session:
        driver.fake_fail(b"cuGraphLaunch")
        with pytest.raises(HostError, match="cuGraphLaunch"):
            session.run({"x": np.zeros((2, 3), np.uint8)})
        driver.fake_fail(b"")


def test_an_engine_that_cannot_be_queued(engine, trt, monkeypatch) -> None:
    monkeypatch.setattr(trt.IExecutionContext, "_accepts", False)
    with pytest.raises(HostError, match="could not queue"):
        backend.open_session(engine)


def test_no_driver_is_found_before_tensorrt_can_crash(engine, trt, monkeypatch) -> None:
    def never(*_):
        raise AssertionError("a runtime was created without a driver")

    monkeypatch.setattr(cuda, "LIBRARY", "libprunus_no_such_driver.so.1")
    monkeypatch.setattr(trt, "Runtime", never)
    with pytest.raises(HostError, match="NVIDIA driver cannot be opened") as caught:
        backend.open_session(engine)
    assert caught.value.exit_code == 3
    assert "libprunus_no_such_driver" in cuda.why_unusable()


def test_no_such_gpu(engine, driver) -> None:
    with pytest.raises(HostError, match="GPU 3 was asked for; the driver shows 1"):
        backend.open_session(engine, device="cuda:3")
    driver.fake_gpu(0, 0, 0)
    assert "the driver shows 0" in cuda.why_unusable()


def test_missing_sidecar_package_and_flavour(engine, trt, monkeypatch) -> None:
    _sidecar(engine, trt, flavour="tensorrt_rtx").write(engine)
    monkeypatch.undo()
    with pytest.raises(ArtifactError, match="unknown flavour 'tensort'"):
        engine_match.import_flavour("tensort")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'prunus\[trt-rtx\]'"):
        backend.open_session(engine)
    EngineSidecar.path_for(engine).unlink()
    with pytest.raises(ArtifactError, match="no sidecar"):
        backend.open_session(engine)


@pytest.mark.trt
def test_the_fake_uses_only_real_names(trt) -> None:
    """Every public name of the fake exists in the bindings, with the same parameter names."""
    name = next((n for n in ("tensorrt", "tensorrt_rtx") if importlib.util.find_spec(n)), None)
    if name is None:
        pytest.skip("neither tensorrt nor tensorrt_rtx is installed (extra trt-rtx)")
    real = importlib.import_module(name)
    compared = 0
    for class_name, fake in inspect.getmembers(trt, inspect.isclass):
        if fake.__module__ != trt.__name__ or issubclass(fake, PrunusError):
            continue
        for member, value in vars(fake).items():
            if member.startswith("_"):
                continue
            assert hasattr(getattr(real, class_name), member), f"{class_name}.{member}"
            if inspect.isfunction(value):
                documentation = getattr(getattr(real, class_name), member).__doc__
                for parameter in list(inspect.signature(value).parameters)[1:]:
                    assert f"{parameter}:" in documentation, f"{class_name}.{member}({parameter})"
                    compared += 1
    assert compared >= 5


def test_importing_the_back_end_loads_no_library() -> None:
    code = (
        "import sys, prunus.runtime.session.tensorrt.session;"
        "sys.exit(any(m.startswith(('tensorrt', 'torch', 'onnx')) for m in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
