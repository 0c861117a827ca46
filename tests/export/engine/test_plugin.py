"""Engines of graphs with local-global attention nodes: with the plugin library and without.

The engines are real, built by TensorRT-RTX without a GPU; whether one is faster is decided with
stand-ins for the engines.
"""

import dataclasses
import importlib.util
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from prunus.export.engine import build as engine_module
from prunus.export.engine import child as engine_child
from prunus.export.engine.attention import AttentionNodes, check_attention, drop_bodies
from prunus.export.engine.build import build_engine, choose_library
from prunus.export.engine.choice import example_inputs, time_engines
from prunus.export.engine.worker import BuildJob
from prunus.runtime.card.artifact import EngineSidecar
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError, HostError, UsageError
from prunus.runtime.plugins import library as library_module

needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="tensorrt_rtx is not installed (extra trt-rtx)",
)


def _load(name):
    path = Path(__file__).parents[1] / "graph" / "attention" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


graphs = _load("attention_graph")


@pytest.fixture(autouse=True)
def no_gpu_and_no_library(monkeypatch, tmp_path):
    """The same on every machine."""
    monkeypatch.setattr(engine_module.cuda, "why_unusable", lambda: "no driver in this test")
    monkeypatch.delenv(library_module.VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@needs_rtx
@pytest.mark.trt
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", np.float32), ("fp16", np.float16)])
def test_every_node_becomes_a_plugin_layer_or_its_function(
    tmp_path, plugin_library, monkeypatch, precision, dtype
) -> None:
    model = graphs.attention_model(dtype=dtype)
    path = graphs.save_with_card(tmp_path / "m.onnx", model, precision)
    share = 1.0 if precision == "fp16" else 0.0
    body = build_engine(path, tmp_path / "body.engine", "tensorrt_rtx")
    assert body.plugin == "" and body.half_layer_share == share
    assert body.flags == ("strongly_typed",)
    monkeypatch.setenv(library_module.VARIABLE, str(plugin_library.path))
    engine = tmp_path / "plugin.engine"
    fused = build_engine(path, engine, "tensorrt_rtx")
    assert fused.flags == ("strongly_typed", "plugin_layers=4")
    assert fused.plugin == plugin_library.stamp == EngineSidecar.read(engine).plugin
    assert fused.half_layer_share == share
    # What the plugin stores in the plan: with it, an engine tells which library it needs.
    assert plugin_library.identity.encode() in engine.read_bytes()
    off = build_engine(path, tmp_path / "off.engine", "tensorrt_rtx", plugin="off")
    assert off.plugin == "" and off.flags == body.flags


@needs_rtx
@pytest.mark.trt
def test_a_layer_that_the_plugin_refuses_is_named(tmp_path, plugin_library, monkeypatch) -> None:
    """The plugin's own words come through TensorRT's log, should the first check have missed it."""
    changes = {"bias_l": np.zeros((1, 3, graphs.LQ, graphs.LK), np.float32)}
    model = graphs.attention_model(("local",), changes=changes, described=False)
    path = graphs.save_with_card(tmp_path / "m.onnx", model)
    with pytest.raises(ArtifactError, match=r"node 'block0/attention'.*bias_l"):
        build_engine(path, flavour="tensorrt_rtx", plugin_library=plugin_library.path)
    monkeypatch.setattr(engine_module, "check_attention", lambda path: AttentionNodes(1))
    with pytest.raises(ArtifactError, match=r"could not build .*bias_l has shape \(1, 3") as caught:
        build_engine(path, flavour="tensorrt_rtx", plugin_library=plugin_library.path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx"], caught.value


@needs_rtx
@pytest.mark.trt
def test_a_crash_for_want_of_the_library_says_so(tmp_path, plugin_library, monkeypatch) -> None:
    """TensorRT-RTX ends the process when libtensorrt_rtx.so is not found by that name."""
    monkeypatch.setattr(engine_child, "_RTX_PACKAGE", "no_such_package")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    path = graphs.save_with_card(tmp_path / "m.onnx", graphs.attention_model(("joint",)))
    try:
        build_engine(path, flavour="tensorrt_rtx", plugin_library=plugin_library.path)
    except HostError as error:
        assert "SIGABRT" in error.message
        assert "libtensorrt_rtx.so" in error.hint and "--plugin off" in error.hint
    else:
        pytest.skip("this machine has libtensorrt_rtx.so among the system's libraries")


@needs_rtx
@pytest.mark.trt
def test_a_library_that_cannot_be_loaded(tmp_path, plugin_library) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"\0" * 64 + plugin_library.path.read_bytes()[64:])
    path = graphs.save_with_card(tmp_path / "m.onnx", graphs.attention_model(("joint",)))
    with pytest.raises(HostError, match=r"cannot load the plugin library .*broken.so"):
        build_engine(path, flavour="tensorrt_rtx", plugin_library=broken)


@pytest.mark.parametrize(
    ("changes", "heads", "words"),
    [
        ({"q_index": np.zeros((4, 12), np.int64)}, 2, "q_index|query"),
        ({"kv_index": np.full((4, 16), 40)}, 2, "kv_index|40"),
        ({"o_index": np.arange(48)}, 2, "o_index"),
        ({}, 5, "5"),
        ({"Kg": np.zeros((1, 3, 5, 32), np.float32)}, 2, "Kg"),
    ],
)
def test_wrong_nodes_are_refused_before_any_build(tmp_path, changes, heads, words, monkeypatch):
    monkeypatch.setattr(engine_module, "choose_flavour", lambda flavour: "tensorrt_rtx")
    monkeypatch.setattr(engine_module, "run_child", lambda *_: pytest.fail("a build has begun"))
    model = graphs.attention_model(("joint",), changes=changes, heads=heads, described=False)
    path = graphs.save_with_card(tmp_path / "m.onnx", model)
    with pytest.raises(ArtifactError, match=words) as caught:
        build_engine(path)
    assert "block0/attention" in caught.value.message


def test_what_a_graph_asks_of_the_plugin(tmp_path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(graphs.attention_model(), path)
    assert check_attention(path) == AttentionNodes(4)
    small = {"bias_g": np.zeros((1, 1, 4, 1, 5), np.float32)}
    onnx.save(graphs.attention_model(("global",), changes=small, heads=4), path)
    assert check_attention(path).refusal.endswith(
        "'block0/attention' has a head dimension of 8; the plugin takes 16 to 128"
    )
    nameless = graphs.attention_model(("global",))
    node = next(n for n in nameless.graph.node if n.domain)
    node.attribute.remove(next(a for a in node.attribute if a.name == "plugin_version"))
    onnx.save(nameless, path)
    assert "'block0/attention' has no attribute plugin_version" in check_attention(path).refusal
    bare = graphs.attention_model(("global",))
    del bare.graph.node[2], bare.functions[:]
    onnx.save(bare, path)
    assert check_attention(path) == AttentionNodes(0)
    path.write_bytes(b"\xff" * 100)
    with pytest.raises(ArtifactError, match="cannot be read"):
        check_attention(path)


def test_a_node_without_a_function_needs_the_plugin(tmp_path, plugin_library, monkeypatch) -> None:
    monkeypatch.setattr(engine_module, "choose_flavour", lambda flavour: "tensorrt_rtx")
    monkeypatch.setattr(engine_module, "run_child", lambda *_: pytest.fail("a build has begun"))
    model = graphs.attention_model(("joint",), described=False)
    path = graphs.save_with_card(tmp_path / "m.onnx", model)
    assert check_attention(path) == AttentionNodes(1, bare="block0/attention")
    for plugin in ("auto", "off"):
        with pytest.raises(ArtifactError, match=r"'block0/attention' has no function") as caught:
            build_engine(path, plugin=plugin)
        assert "--plugin on" in caught.value.hint
    with pytest.raises(pytest.fail.Exception, match="a build has begun"):
        build_engine(path, plugin_library=plugin_library.path)


def test_a_library_of_another_version_is_refused_before_any_build(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(engine_module, "choose_flavour", lambda flavour: "tensorrt_rtx")
    monkeypatch.setattr(engine_module, "run_child", lambda *_: pytest.fail("a build has begun"))
    facts = {"name": "LocalGlobalAttention", "version": "2", "identity": "2+abc",
             "architectures": [80], "machine": os.uname().machine}  # fmt: skip
    other = tmp_path / "other.so"
    other.write_bytes(b"\177ELF" + (library_module.MARK + json.dumps(facts)).encode() + b"\0")
    path = graphs.save_with_card(tmp_path / "m.onnx", graphs.attention_model(("joint",)))
    with pytest.raises(ArtifactError, match=r"holds version 2 .* needs version 1"):
        build_engine(path, plugin_library=other)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "other.so"]


def test_what_the_plugin_executes_comes_without_a_body(tmp_path) -> None:
    model = graphs.attention_model()
    other = onnx.helper.make_function(
        "elsewhere", "Other", ["a"], ["b"], [onnx.helper.make_node("Relu", ["a"], ["b"])],
        [onnx.helper.make_opsetid("", 18)],
    )  # fmt: skip
    model.functions.append(other)
    assert len(model.functions) == 5
    onnx.save(model, tmp_path / "m.onnx")
    drop_bodies(tmp_path / "m.onnx", tmp_path / "bare.onnx")
    bare = onnx.load(tmp_path / "bare.onnx")
    assert [f.name for f in bare.functions] == ["Other"]
    assert bare.graph == model.graph


def test_choice_of_a_library(plugin_library, monkeypatch) -> None:
    file, nodes, model = plugin_library.path, AttentionNodes(3), Path("m.onnx")
    refused = AttentionNodes(1, "m.onnx: node 'a' has a head dimension of 8")
    assert choose_library("auto", None, nodes, model) is None, "none is found"
    assert choose_library("auto", file, nodes, model) == plugin_library
    assert choose_library("on", file, nodes, model) == plugin_library
    assert choose_library("off", None, nodes, model) is None
    assert choose_library("auto", None, AttentionNodes(0), model) is None
    for error, words, *arguments in (
        (ArtifactError, "No plugin library is found", "on", None, nodes),
        (ArtifactError, "Cannot read the plugin library", "auto", Path("none.so"), nodes),
        (ArtifactError, "head dimension of 8", "on", file, refused),
        (UsageError, "the plugin is off", "off", file, nodes),
        (UsageError, "no local-global attention node", "on", None, AttentionNodes(0)),
        (UsageError, "did you mean 'auto'", "auti", None, nodes),
    ):
        with pytest.raises(error, match=words):
            choose_library(*arguments, model)
    monkeypatch.setenv(library_module.VARIABLE, str(file.parent))
    assert choose_library("auto", None, nodes, model) == plugin_library
    assert choose_library("auto", None, refused, model) is None, "the function serves it"


class Engine:
    """A session that takes `cost` ticks of the clock per run."""

    def __init__(self, card, cost, clock) -> None:
        self.card, self.cost, self.clock = card, cost, clock

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.clock.order.append("closed")

    def run(self, inputs):
        assert {n: (a.shape, a.dtype.name) for n, a in inputs.items()} == {
            s.name: (s.shape, s.dtype) for s in self.card.inputs
        }
        self.clock.now += self.cost
        self.clock.order.append(self.cost)


class Clock:
    def __init__(self) -> None:
        self.now, self.order = 0, []

    def __call__(self) -> int:
        return self.now


def test_engines_take_turns(tmp_path) -> None:
    card = ModelCard(
        task="pose", model="m", variant="v", paper="none", licence="Apache-2.0", exporter="test",
        weights=Weights("random", "random:0", "Apache-2.0", False),
        inputs=(TensorSpec("image", "uint8", (1, 4), ("batch", "pixel")),
                TensorSpec("sound", "float32", (2,), ("sample",))),
        outputs=(TensorSpec("y", "float32", (1,), ("value",)),),
    )  # fmt: skip
    clock = Clock()
    costs = {"a.engine": 3_000_000, "b.engine": 2_000_000}
    times = time_engines(
        {"plugin": Path("a.engine"), "standard": Path("b.engine")},
        lambda path: Engine(card, costs[path.name], clock),
        clock,
    )
    assert times == {"plugin": 3.0, "standard": 2.0}
    assert clock.order[:20] == [3_000_000] * 10 + [2_000_000] * 10, "windows alternate"
    assert clock.order[-2:] == ["closed"] * 2
    again = example_inputs(card)
    assert again["image"].dtype == np.uint8 and again["image"].any()
    assert all(np.array_equal(a, example_inputs(card)[n]) for n, a in again.items())


@pytest.mark.parametrize(("plugin_ms", "kept"), [(0.5, "plugin"), (2.0, "standard")])
def test_on_a_gpu_the_faster_engine_is_kept(
    tmp_path, plugin_library, monkeypatch, plugin_ms, kept
) -> None:
    jobs: list[BuildJob] = []

    def build(job, timeout, progress, target):
        jobs.append(job)
        Path(job.plan).write_bytes(b"with" if job.plugin else b"without")
        flags = ["strongly_typed", "plugin_layers=1"] if job.plugin else ["strongly_typed"]
        return {"version": "1.7", "flags": flags, "half_layer_share": 0.0}

    def measure(engines, open_engine):
        for name, path in engines.items():
            sidecar = EngineSidecar.read(path)
            assert bool(sidecar.plugin) == (name == "plugin"), "each has a sidecar of its own"
        return {"plugin": plugin_ms, "standard": 1.0}

    monkeypatch.setattr(engine_module.cuda, "why_unusable", lambda: "")
    monkeypatch.setattr(engine_module, "choose_flavour", lambda flavour: "tensorrt_rtx")
    monkeypatch.setattr(engine_module, "run_child", build)
    monkeypatch.setattr(engine_module, "time_engines", measure)
    path = graphs.save_with_card(tmp_path / "m.onnx", graphs.attention_model(("joint",)))
    monkeypatch.setenv(library_module.VARIABLE, str(plugin_library.path))
    sidecar = build_engine(path)
    assert [bool(job.plugin) for job in jobs] == [True, False]
    assert sidecar.flags[-1] == (
        f"plugin_auto={kept} (plugin {plugin_ms:.3f} ms, standard 1.000 ms)"
    )
    assert path.with_suffix(".engine").read_bytes() == (b"with" if kept == "plugin" else b"without")
    assert sidecar.plugin == (plugin_library.stamp if kept == "plugin" else "")
    assert EngineSidecar.read(path.with_suffix(".engine")) == sidecar
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.engine", "m.engine.json", "m.onnx"]
    jobs.clear()
    assert build_engine(path, plugin="on").plugin == plugin_library.stamp
    assert [bool(job.plugin) for job in jobs] == [True], "on is on: nothing is timed"


def test_the_child_finds_the_library_under_the_name_it_wants(tmp_path, monkeypatch) -> None:
    package = tmp_path / "fake_rtx_libs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "libtensorrt_rtx.so.1").write_bytes(b"the library")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(engine_child, "_RTX_PACKAGE", "fake_rtx_libs")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/elsewhere")
    job = BuildJob("m.onnx", "m.engine", "tensorrt_rtx", 1, plugin="p.so")
    with engine_child._environment(job) as variables:
        folder, rest = variables["LD_LIBRARY_PATH"].split(os.pathsep)
        assert rest == "/elsewhere"
        assert (Path(folder) / "libtensorrt_rtx.so").read_bytes() == b"the library"
    assert not Path(folder).exists() and os.environ["LD_LIBRARY_PATH"] == "/elsewhere"
    for other in ({"plugin": ""}, {"flavour": "tensorrt"}):
        with engine_child._environment(dataclasses.replace(job, **other)) as variables:
            assert variables["LD_LIBRARY_PATH"] == "/elsewhere"


def test_command_line(tmp_path, plugin_library, capsys) -> None:
    pytest.importorskip("typer", reason="typer is not installed (extra apps)")
    from prunus.apps.cli.main import main

    assert main(["plugin", "info", str(plugin_library.path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["identity"] == plugin_library.identity and facts["architectures"] == [80]
    assert main(["plugin", "info", str(plugin_library.path)]) == 0
    assert "compute capability 8.0" in capsys.readouterr().out
    assert main(["plugin", "build", "--arch", "72", "-o", str(tmp_path / "x.so"), "--quiet"]) == 2
    assert "75, 80, 86, 87, 89, 90, 100, 120" in capsys.readouterr().err
    assert main(["plugin", "info", sys.executable]) == 2
    assert "not a plugin library of prunus" in capsys.readouterr().err
    path = graphs.save_with_card(tmp_path / "m.onnx", graphs.attention_model(("joint",)))
    assert main(["build", str(path), "--plugin", "maybe"]) in (2, 3)


def test_doctor_tells_of_the_library(plugin_library, monkeypatch, tmp_path) -> None:
    pytest.importorskip("typer", reason="typer is not installed (extra apps)")
    from prunus.apps.cli import doctor as doctor_cmd

    assert "prunus plugin build" in doctor_cmd._plugin()
    monkeypatch.setenv(library_module.VARIABLE, str(plugin_library.path))
    assert doctor_cmd._plugin().startswith(f"LocalGlobalAttention {plugin_library.identity}, ")
    monkeypatch.setenv(library_module.VARIABLE, str(tmp_path))
    assert doctor_cmd._plugin().startswith("not usable: PRUNUS_PLUGIN_PATH is")
