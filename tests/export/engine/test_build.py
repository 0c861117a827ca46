"""Engines of small graphs with TensorRT-RTX (no GPU needed), and every way in which it can fail."""

import dataclasses
import importlib.util
import os
import stat
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunus.export.engine import build as engine_module
from prunus.export.engine import child as engine_child
from prunus.export.engine import worker as engine_worker
from prunus.export.engine.build import build_engine, choose_flavour
from prunus.export.engine.report import half_layer_share, inspected_share
from prunus.export.engine.worker import BuildJob, PhaseTree
from prunus.runtime.card.artifact import EngineSidecar, read_card, sha256_of
from prunus.runtime.card.card import CARD_KEY, ModelCard, Weights
from prunus.runtime.card.precision import PrecisionSpec
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import (
    ArtifactError,
    CheckFailedError,
    HostError,
    MissingDependencyError,
    PrunusError,
    SourceError,
    UsageError,
)

HAS_RTX = importlib.util.find_spec("tensorrt_rtx") is not None
needs_rtx = pytest.mark.skipif(not HAS_RTX, reason="tensorrt_rtx is not installed (extra trt-rtx)")
TOKENS, KEEP, DIM, HIDDEN = 32, 16, 64, 128


def _card(precision: str) -> ModelCard:
    return ModelCard(
        task="pose", model="pruned-mlp", variant="test", paper="none", licence="Apache-2.0",
        exporter="test", weights=Weights("random", "random:0", "Apache-2.0", False),
        inputs=(TensorSpec("tokens", "float32", (1, TOKENS, DIM), ("batch", "token", "dim")),),
        outputs=(TensorSpec("kept", "float32", (1, KEEP, DIM), ("batch", "token", "dim")),),
        precision=PrecisionSpec(precision),
    )  # fmt: skip


def _graph(dtype=np.float32, *, dynamic=False, operator="Relu") -> onnx.ModelProto:
    """Return MLP -> rank tokens by their sum in float32 -> TopK -> Gather -> project."""
    rng = np.random.default_rng(0)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    constants = {
        "w1": rng.normal(size=(DIM, HIDDEN)).astype(dtype),
        "w2": rng.normal(size=(HIDDEN, DIM)).astype(dtype),
        "axis": np.array([2]), "k": np.array([KEEP]), "last": np.array([-1]),
        "shape": np.array([1, KEEP, HIDDEN]),
    }  # fmt: skip
    nodes = [
        ("Cast", ["tokens"], ["t"], {"to": kind}),
        ("MatMul", ["t", "w1"], ["a"], {}),
        (operator, ["a"], ["b"], {}),
        ("Cast", ["b"], ["b32"], {"to": TensorProto.FLOAT}),
        ("ReduceSum", ["b32", "axis"], ["rank"], {"keepdims": 0}),
        ("TopK", ["rank", "k"], ["values", "index"], {"axis": 1}),
        ("Unsqueeze", ["index", "last"], ["index3"], {}),
        ("Expand", ["index3", "shape"], ["where"], {}),
        ("GatherElements", ["b", "where"], ["g"], {"axis": 1}),
        ("MatMul", ["g", "w2"], ["y"], {}),
        ("Cast", ["y"], ["kept"], {"to": TensorProto.FLOAT}),
    ]
    graph = helper.make_graph(
        [helper.make_node(op, i, o, name=f"mlp/{op}_{k}", **a)
         for k, (op, i, o, a) in enumerate(nodes)],
        "pruned",
        [helper.make_tensor_value_info(
            "tokens", TensorProto.FLOAT, ["n" if dynamic else 1, TOKENS, DIM])],
        [helper.make_tensor_value_info("kept", TensorProto.FLOAT, [1, KEEP, DIM])],
        [numpy_helper.from_array(v, name) for name, v in constants.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _save(path, model, precision="fp32"):
    entry = model.metadata_props.add()
    entry.key, entry.value = CARD_KEY, _card(precision).to_json()
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g: setattr(g.input[0], "name", "other"), r"inputs of .* are other float32 \[1, 32"),
        (lambda g: setattr(g.output[0], "name", "w1"), r"outputs of .* are w1 float32"),
        (lambda g: setattr(g.output[0].type.tensor_type, "elem_type", TensorProto.FLOAT16),
         r"are kept float16 .* its card says kept float32"),
        (lambda g: setattr(g.input[0].type.tensor_type.shape.dim[1], "dim_value", 31),
         r"\[1, 31, 64\]; its card says tokens float32 \[batch=1, token=32, dim=64\]"),
        (lambda g: g.output.add(name="more"), "more type 0"),
    ],
)  # fmt: skip
def test_a_graph_that_its_card_does_not_describe_is_refused(tmp_path, monkeypatch, change, said):
    monkeypatch.setattr(engine_module, "choose_flavour", lambda name: "tensorrt_rtx")
    model = _graph()
    change(model.graph)
    with pytest.raises(ArtifactError, match=said):
        build_engine(_save(tmp_path / "m.onnx", model))
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize("how", ["missing", "short", "outside"])
def test_weights_that_are_away_are_named(tmp_path, monkeypatch, how):
    monkeypatch.setattr(engine_module, "choose_flavour", lambda name: "tensorrt_rtx")
    (tmp_path / "m").mkdir()
    model = _graph()
    entry = model.metadata_props.add()
    entry.key, entry.value = CARD_KEY, _card("fp32").to_json()
    path = tmp_path / "m" / "m.onnx"
    onnx.save(model, path, save_as_external_data=True, location="m.data", size_threshold=0)
    data = path.with_name("m.data")
    if how == "short":
        data.write_bytes(data.read_bytes()[:100])
    elif how == "missing":
        data.unlink()
    else:
        data.rename(tmp_path / "out.data")
        path.write_bytes(path.read_bytes().replace(b"m.data", b"../o.d"))
        (tmp_path / "out.data").rename(tmp_path / "o.d")
    with pytest.raises(ArtifactError, match=r"m\.onnx (keeps its weights in|cannot be read)"):
        build_engine(path)
    assert not path.with_suffix(".engine").exists()


class Recorder:
    def __init__(self) -> None:
        self.states: list[tuple[int, int, str]] = []

    def update(self, done: int, total: int, note: str = "") -> None:
        self.states.append((done, total, note))


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """The same on machines with and without one."""
    monkeypatch.setattr(engine_module.cuda, "why_unusable", lambda: "no driver in this test")


@needs_rtx
@pytest.mark.trt
def test_plan_and_sidecar(tmp_path) -> None:
    path = _save(tmp_path / "m.onnx", _graph(np.float16), "fp16")
    progress = Recorder()
    sidecar = build_engine(path, progress=progress, workspace_mib=256)
    plan = path.with_suffix(".engine")
    assert sidecar == EngineSidecar.read(plan), "what is returned is what is on disk"
    assert sidecar.engine_sha256 == sha256_of(plan) and sidecar.onnx_sha256 == sha256_of(path)
    assert sidecar.card == read_card(path) == read_card(plan)
    assert (sidecar.flavour, sidecar.compute_capability) == ("tensorrt_rtx", "portable")
    assert sidecar.half_layer_share == 1.0
    assert sidecar.flags == ("strongly_typed", "workspace_mib=256")
    assert sidecar.build_seconds > 0 and sidecar.version[0].isdigit()
    # A pure plan, which trtexec opens: TensorRT-RTX's own mark comes first, nothing of ours does.
    assert plan.read_bytes()[:4] == b"vtrt"
    done = [d for d, _, _ in progress.states]
    assert done == sorted(done) and done[-1] == 1000 and len(done) > 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.engine", "m.engine.json", "m.onnx"]


@needs_rtx
@pytest.mark.trt
def test_half_precision_is_asserted(tmp_path) -> None:
    path = _save(tmp_path / "m.onnx", _graph(np.float32), "fp16")
    with pytest.raises(CheckFailedError, match=r"0 % of the compute layers .* at least 80 %"):
        build_engine(path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    assert build_engine(path, min_half_share=0.0, tf32=True).flags == ("strongly_typed", "tf32")


@needs_rtx
@pytest.mark.trt
def test_parser_errors_name_node_and_operator(tmp_path) -> None:
    path = _save(tmp_path / "m.onnx", _graph(operator="Zebra"))
    with pytest.raises(ArtifactError, match=r"node 'mlp/Zebra_2' \(Zebra\)"):
        build_engine(path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


@needs_rtx
@pytest.mark.trt
def test_dynamic_shapes_name_the_tensor(tmp_path) -> None:
    path = _save(tmp_path / "m.onnx", _graph(dynamic=True))
    with pytest.raises(ArtifactError, match=r"'tokens' has the dynamic shape \(-1, 32, 64\)"):
        build_engine(path)


@needs_rtx
@pytest.mark.trt
@pytest.mark.parametrize(("both", "share"), [(True, 1.0), (False, 0.0)])
def test_quantised_operands_count_when_both_are(both, share) -> None:
    import tensorrt_rtx as trt

    def quantised(name):
        return [
            helper.make_node("QuantizeLinear", [name, "scale", "zero"], [name + "_q"]),
            helper.make_node("DequantizeLinear", [name + "_q", "scale", "zero"], [name + "_dq"]),
        ]

    nodes = [*quantised("w"), *(quantised("x") if both else [])]
    nodes.append(helper.make_node("MatMul", ["x_dq" if both else "x", "w_dq"], ["y"]))
    constants = {"w": np.ones((8, 8), np.float32), "scale": np.float32(0.1), "zero": np.int8(0)}
    graph = helper.make_graph(
        nodes, "q",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 8])],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(engine_worker._network_flags(trt))
    assert trt.OnnxParser(network, logger).parse(model.SerializeToString())
    assert half_layer_share(network) == share


def test_inspected_share() -> None:
    text = (
        '{"Layers": [{"Outputs": [{"Format/Datatype": "Half"}]}, {"Outputs": [{"Format/Datatype": '
        '"Row major Int8 format"}]}, {"Outputs": [{"Format/Datatype": "Float"}]}, {"Outputs": []}, '
        '"only a name"], "Bindings": []}'
    )
    assert inspected_share(text) == pytest.approx(2 / 3)
    assert inspected_share("{}") == 0.0


def test_bad_files(tmp_path) -> None:
    with pytest.raises(ArtifactError, match="not found"):
        build_engine(tmp_path / "none.onnx")
    cut = _save(tmp_path / "cut.onnx", _graph())
    cut.write_bytes(cut.read_bytes()[:-40])
    with pytest.raises(ArtifactError, match="truncated"):
        build_engine(cut)
    with pytest.raises(UsageError, match="already is an engine"):
        build_engine(tmp_path / "x.engine")


def test_bad_requests(tmp_path, monkeypatch) -> None:
    path = _save(tmp_path / "m.onnx", _graph())
    with pytest.raises(UsageError, match="did you mean 'tensorrt_rtx'"):
        build_engine(path, flavour="tensorrt_rtz")
    monkeypatch.setattr(engine_module.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(UsageError, match="would replace its own ONNX file"):
        build_engine(path, path)
    with pytest.raises(SourceError, match="does not exist"):
        build_engine(path, tmp_path / "no" / "m.engine", flavour="tensorrt_rtx")
    with pytest.raises(UsageError, match="timing cache"):
        build_engine(path, flavour="tensorrt_rtx", timing_cache=tmp_path / "cache")


@pytest.mark.parametrize(
    ("flavour", "installed", "gpu", "expected"),
    [
        ("auto", {"tensorrt", "tensorrt_rtx"}, True, "tensorrt"),
        ("auto", {"tensorrt", "tensorrt_rtx"}, False, "tensorrt_rtx"),
        ("auto", {"tensorrt_rtx"}, True, "tensorrt_rtx"),
        ("tensorrt", {"tensorrt"}, True, "tensorrt"),
        ("auto", set(), True, r"neither is installed. .*prunus\[trt-rtx\]"),
        ("auto", {"tensorrt"}, False, r"pip install 'prunus\[trt-rtx\]'"),
        ("tensorrt", set(), True, r"pip install 'prunus\[trt\]'"),
        ("tensorrt", {"tensorrt"}, False, "needs an NVIDIA GPU: no driver"),
    ],
)
def test_choice_of_flavour(monkeypatch, flavour, installed, gpu, expected) -> None:
    monkeypatch.setattr(
        engine_module.importlib.util,
        "find_spec",
        lambda name: object() if name in installed else None,
    )
    monkeypatch.setattr(engine_module.cuda, "why_unusable", lambda: "" if gpu else "no driver")
    if expected in ("tensorrt", "tensorrt_rtx"):
        assert choose_flavour(flavour) == expected
        return
    with pytest.raises(HostError, match=expected) as caught:
        choose_flavour(flavour)
    assert caught.value.exit_code == 3
    assert isinstance(caught.value, MissingDependencyError) == ("pip install" in expected)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Return a function that replaces the child process by a shell script."""
    monkeypatch.setattr(engine_module, "choose_flavour", lambda flavour: "tensorrt_rtx")

    def install(script: str) -> None:
        path = tmp_path / "child.sh"
        path.write_text("#!/bin/sh\n" + script)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(engine_child.sys, "executable", str(path))

    return install


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'cannot map memory' >&2; kill -SEGV $$", ["SIGSEGV", "cannot map memory"]),
        ("kill -KILL $$", ["SIGKILL", "out of memory"]),
        ("echo 'symbol lookup error'; exit 127", ["exit status 127", "symbol lookup error"]),
    ],
)
def test_a_crash_is_one_clear_error(tmp_path, stand_in, script, words) -> None:
    path = _save(tmp_path / "m.onnx", _graph())
    stand_in(script)
    with pytest.raises(HostError) as caught:
        build_engine(path)
    assert all(word in str(caught.value) for word in words)
    assert not path.with_suffix(".engine").exists()


def test_time_limit_ends_the_child(tmp_path, stand_in) -> None:
    path = _save(tmp_path / "m.onnx", _graph())
    stand_in(f"echo $$ > {tmp_path}/pid; exec sleep 60")
    started = time.monotonic()
    with pytest.raises(HostError, match="not built within 1 s"):
        build_engine(path, timeout=0.6)
    assert time.monotonic() - started < 10
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    ("message", "kind", "words"),
    [
        (
            {"cause": "build", "message": "could not build m.onnx"},
            ArtifactError,
            "Out of registers",
        ),
        ({"cause": "host", "message": "no builder"}, HostError, "Out of registers"),
        ({"cause": "os", "message": "write", "errno": 28}, HostError, "No space left"),
    ],
)
def test_refusals_keep_the_last_error_of_the_log(tmp_path, message, kind, words) -> None:
    report = engine_child.Report(Recorder())
    report.read(b'{"kind": "log", "level": "error", "text": "Out of registers"}')
    report.read(b'{"kind": "log", "level": "warning", "text": "something else"}')
    report.final = {"kind": "error", "hint": "", **message}
    refusal: PrunusError = engine_child.refusal(report, tmp_path / "m.engine")
    assert isinstance(refusal, kind) and words in str(refusal)


def test_phases_never_run_backwards() -> None:
    seen: list[int] = []
    tree = PhaseTree(lambda permille, phase: seen.append(permille))
    tree.start("build", None, 4)
    tree.step("build", 0)
    tree.start("tune", "build", 2)
    tree.step("tune", 0)
    assert seen[-1] == 375, "(1 + 1/2) / 4"
    tree.start("other root", None, 10)
    tree.step("tune", 1)
    tree.finish("tune")
    tree.step("build", 3)
    tree.step("never started", 0)
    assert seen == sorted(set(seen)) and seen[-1] == 1000


def test_timing_cache_starts_anew_when_refused(tmp_path) -> None:
    """A cache of another GPU must not stop a build, and a good one must be used."""

    class Config:
        def __init__(self, refuses: bytes) -> None:
            self.refuses, self.used = refuses, None

        def create_timing_cache(self, data: bytes) -> bytes:
            return data

        def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
            if ignore_mismatch or cache == self.refuses:
                return False
            self.used = cache
            return True

    path = tmp_path / "timing.cache"
    job = BuildJob("m.onnx", "m.engine", "tensorrt", 1, timing_cache=str(path))
    config = Config(refuses=b"other GPU")
    assert engine_worker._timing_cache(job, config) == config.used == b"", "no file yet"
    path.write_bytes(b"good")
    assert engine_worker._timing_cache(job, config) == config.used == b"good"
    path.write_bytes(b"other GPU")
    assert engine_worker._timing_cache(job, config) == config.used == b""
    assert engine_worker._timing_cache(dataclasses.replace(job, timing_cache=""), config) is None
    engine_worker._store(path, b"new")
    assert path.read_bytes() == b"new" and [p.name for p in tmp_path.iterdir()] == ["timing.cache"]


def test_layers_that_the_card_keeps_higher_lower_what_is_expected(onnx_file) -> None:
    names = iter(("net.blocks.0.mlp/MatMul", "net.blocks.10.mlp/MatMul", "net.head/MatMul"))

    def named(model):
        for node in model.graph.node:
            if node.op_type == "MatMul":
                node.name = next(names)

    weight = np.eye(4, dtype=np.float32)
    path = onnx_file(
        "kept",
        [("MatMul", "x w", "a"), ("Relu", "a", "b"), ("MatMul", "b w", "c"),
         ("MatMul", "c w", "y")],
        {"x": ("float32", [1, 4])}, {"y": ("float32", [1, 4])}, {"w": weight}, more=named,
    )  # fmt: skip

    def expected(*kept):
        spec = PrecisionSpec("int8", kept_higher=kept)
        card = dataclasses.replace(_card("int8"), precision=spec)
        return engine_module._expected_half(card, path)

    least = engine_module.MIN_HALF_SHARE["int8"]
    assert expected("softmax", "decode") == least
    assert expected("softmax", "net.blocks.0", "net.blocks.1") == pytest.approx(least * 2 / 3)
