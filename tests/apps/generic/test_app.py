"""`prunus run tensors`, and every other verb, on a file without a card."""

import json

import numpy as np
import onnx
import pytest

from prunus.apps.generic.app import describe
from prunus.export.graph import shapes as shapes_module
from prunus.runtime import host


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep fixed copies out of the user's cache."""
    monkeypatch.setattr(host, "user_cache", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def linear(onnx_file):
    """y = x @ w with 3 classes, for any batch."""
    weight = np.arange(12, dtype=np.float32).reshape(4, 3) / 7
    return onnx_file(
        "linear",
        [("MatMul", "x w", "y")],
        {"x": ("float32", ["batch", 4])},
        {"y": ("float32", ["batch", 3])},
        {"w": weight},
    )


def test_a_run_tells_what_comes_out(prunus, linear, tmp_path) -> None:
    out = tmp_path / "out.npz"
    ran = prunus(
        "run", "tensors", linear, "--shape", "x:1x4", "--input", "x=[1,0,0,0]", "--json", "-o", out
    )
    assert ran.code == 0 and "fixed x:1x4 in a copy" in ran.err
    body = json.loads(ran.out)
    np.testing.assert_allclose(body["tensors"]["y"]["values"], [0, 1 / 7, 2 / 7], rtol=1e-6)
    assert body["tensors"]["y"]["shape"] == [1, 3] and body["outputs"] == [str(out)]
    with np.load(out) as stored:
        np.testing.assert_allclose(stored["y"], [[0, 1 / 7, 2 / 7]], rtol=1e-6)
    ran = prunus("run", "tensors", linear, "--shape", "x:1x4", "--noise")
    assert ran.code == 0 and "x: uniform noise" in ran.out and "y float32 [1, 3]" in ran.out


def test_open_sizes_are_refused_with_the_option(prunus, linear) -> None:
    for words in (
        ("run", "tensors", linear, "--noise"),
        ("bench", linear),
        ("build", linear),
        ("check", linear, "--against", linear),
    ):
        ran = prunus(*words)
        assert ran.code == 2 and "x [batch, 4]" in ran.err and "--shape x:1x4" in ran.err
        assert len([s for s in ran.err.splitlines() if s.startswith(("error", "hint"))]) == 2


def test_numbers_that_are_none_are_told(prunus, onnx_file, tmp_path) -> None:
    path = onnx_file("nan", [("Log", "x", "y")], {"x": ("float32", [3])}, {"y": ("float32", [3])})
    ran = prunus("run", "tensors", path, "--input", "x=[-1,0,1]", "--json")
    assert ran.code == 1
    body = json.loads(ran.out)
    assert body["tensors"]["y"]["values"] == [None, None, 0.0]
    assert "1 NaN and 1 Inf" in body["warnings"][0]


def test_an_output_may_be_called_file(prunus, onnx_file, tmp_path) -> None:
    path = onnx_file(
        "f", [("Relu", "x", "file")], {"x": ("float32", [2])}, {"file": ("float32", [2])}
    )
    out = tmp_path / "o.npz"
    assert prunus("run", "tensors", path, "--input", "x=2", "-o", out).code == 0
    with np.load(out) as stored:
        assert stored["file"].tolist() == [2, 2]


def test_descriptions() -> None:
    row = np.arange(20, dtype=np.float32)[None] % 7
    told = describe(row)
    assert told["largest"][0][0] == [6, 6.0] and len(told["largest"][0]) == 5
    assert (told["minimum"], told["maximum"]) == (0, 6)
    told = describe(np.array([[np.nan] * 17 + [1, 2, 3]], np.float32))
    assert told["largest"][0][:3] == [[19, 3.0], [18, 2.0], [17, 1.0]] and told["mean"] == 2
    assert describe(np.array(True))["values"] == [True]
    assert "minimum" not in describe(np.full(40, np.nan))


def test_inspect_names_open_axes_and_other_operators(prunus, linear, onnx_file) -> None:
    ran = prunus("inspect", linear)
    assert ran.code == 0 and "input      x float32 [batch, 4]" in ran.out
    assert "does not run as it is" in ran.out and "--shape x:1x4" in ran.out
    assert "1 nodes: MatMul 1" in ran.out
    body = json.loads(prunus("inspect", linear, "--json").out)
    assert body["card"] is None and "--shape x:1x4" in body["problem"]["hint"]
    assert body["graph"]["opsets"] == {"": 20}
    ran = prunus("inspect", linear, "--shape", "x:2x4")
    assert "x float32 [axis0=2, axis1=4]" in ran.out and "no prunus card" in ran.out
    spec = {"x": ("float32", [1])}
    path = onnx_file("own", [("a.b::Foo", "x", "y")], spec, {"y": ("float32", [1])})
    assert "a.b::Foo (node 'n0') is not ONNX's own" in prunus("inspect", path).out


def test_weights_beside_the_file(prunus, onnx_file, tmp_path, monkeypatch) -> None:
    path = onnx_file(
        "m",
        [("MatMul", "x w", "y")],
        {"x": ("float32", [1, 64])},
        {"y": ("float32", [1, 64])},
        {"w": np.ones((64, 64), np.float32)},
    )
    beside = tmp_path / "out.onnx"
    onnx.save_model(
        onnx.load(path), beside, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    assert "weights in w.bin (0.02 MB)" in prunus("inspect", beside).out
    assert prunus("run", "tensors", beside, "--noise", "--shape", "x:1x64").code == 0
    monkeypatch.setattr(shapes_module, "MOST_BYTES", 1000)
    ran = prunus("run", "tensors", beside, "--noise", "--shape", "x:1x64")
    assert ran.code == 2 and "too large for one file" in ran.err and "prunus card add" in ran.err
    (tmp_path / "w.bin").unlink()
    ran = prunus("inspect", beside)
    assert "w.bin, which does not lie beside it" in ran.out and "w.bin (missing)" in ran.out


def test_bench_measures_on_noise_and_says_so(prunus, linear) -> None:
    ran = prunus("bench", linear, "--shape", "x:1x4", "--rounds", 1, "--seconds", 0.1, "--quiet")
    assert ran.code == 0 and "inputs: uniform noise" in ran.out
    ran = prunus("bench", linear, "--shape", "x:1x4", "--against", "torch-eager", "--quiet")
    assert ran.code == 2 and "No PyTorch network stands behind" in ran.err


def test_check_needs_another_file_and_judges_by_it(prunus, linear, onnx_file) -> None:
    ran = prunus("check", linear, "--shape", "x:2x4")
    assert ran.code == 2 and "--against REFERENCE.onnx" in ran.err
    ran = prunus("check", linear, "--against", linear, "--shape", "x:2x4", "--json", "--quiet")
    body = json.loads(ran.out)
    assert ran.code == 0 and body["passed"] and body["samples"] == 8
    notes = " ".join(body["comparisons"][0]["notes"])
    assert "No PyTorch network stands behind" in notes and "uniform noise" in notes
    other = onnx_file(
        "other",
        [("MatMul", "x w", "y")],
        {"x": ("float32", [2, 4])},
        {"y": ("float32", [2, 3])},
        {"w": np.eye(4, 3, dtype=np.float32)},
    )
    ran = prunus("check", other, "--against", linear, "--shape", "x:2x4", "--input", "x=1")
    assert ran.code == 1 and "left its fp32 budget" in ran.err and "Inputs: x: 1." in ran.out
    wide = onnx_file(
        "wide", [("Relu", "x", "y")], {"x": ("float32", [2, 3])}, {"y": ("float32", [2, 3])}
    )
    ran = prunus("check", other, "--against", wide)
    assert ran.code == 2 and "The inputs of the reference" in ran.err


def test_inputs_without_a_batch_axis_are_compared(prunus, onnx_file) -> None:
    spec = {"h": ("float32", [2, 1, 4]), "sr": ("int64", [])}
    outputs = {"y": ("float32", [2, 1, 4]), "n": ("int64", [])}
    path = onnx_file("state", [("Relu", "h", "y"), ("Identity", "sr", "n")], spec, outputs)
    ran = prunus(
        "check",
        path,
        "--against",
        path,
        "--input",
        "h=1",
        "--input",
        "sr=16000",
        "--json",
        "--quiet",
    )
    bench = prunus("bench", path, "--rounds", 1, "--seconds", 0.1, "--quiet")
    assert bench.code == 0, bench.err
    body = json.loads(ran.out)
    assert ran.code == 0 and {"cosine", "values_equal"} <= set(body["comparisons"][0]["effect"])


def test_saved_runs_keep_their_notes(prunus, linear, tmp_path) -> None:
    runs = tmp_path / "runs.npz"
    words = ("--against", linear, "--shape", "x:1x4", "--save", runs, "--quiet")
    assert prunus("check", linear, *words).code == 0
    assert "Inputs: uniform noise." in prunus("check", runs).out


def test_a_fixed_copy_is_made_once_and_beside_nothing(prunus, linear, cache) -> None:
    for _ in range(2):
        assert prunus("inspect", linear, "--shape", "x:3x4").code == 0
    (copy,) = cache.rglob("*.onnx")
    assert copy.name == "linear.onnx"
    assert [p.name for p in linear.parent.glob("*.onnx")] == ["linear.onnx"]
    ran = prunus("inspect", "movenet_lightning", "--shape", "image:2x192x192x3")
    assert ran.code == 2 and "fixes axis 0 at 1" in ran.err


@pytest.mark.skipif(not host.installed("tensorrt_rtx"), reason="could not import 'tensorrt_rtx'")
def test_build_makes_an_engine_with_a_sidecar(prunus, linear, onnx_file, tmp_path) -> None:
    engine = tmp_path / "linear.engine"
    words = ("--flavour", "tensorrt_rtx", "--quiet")
    ran = prunus("build", linear, "--shape", "x:1x4", "-o", engine, *words)
    assert ran.code == 0 and engine.is_file()
    body = json.loads(prunus("inspect", engine, "--json").out)
    assert body["card"]["task"] == "generic" and body["card"]["variant"] == "foreign"
    spec = {"x": ("float32", [1])}
    path = onnx_file("own", [("a.b::Foo", "x", "y")], spec, {"y": ("float32", [1])})
    ran = prunus("build", path, "-o", tmp_path / "own.engine", *words)
    assert ran.code == 2 and "n0" in ran.err and "Foo" in ran.err
    assert not (tmp_path / "own.engine").exists()


def test_other_tasks_say_that_the_file_is_not_theirs(prunus, onnx_file, portrait) -> None:
    spec = ("float32", [1, 3, 8, 8])
    path = onnx_file("net", [("Relu", "x", "y")], {"x": spec}, {"y": spec})
    ran = prunus("run", "segmentation", "--model", path, "--source", portrait, "--sink", "null:")
    assert ran.code == 2 and "is made for generic; expected segmentation" in ran.err
