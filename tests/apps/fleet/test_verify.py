"""Faults that are planted in a device, and the name that each of them gets."""

import dataclasses
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from prunus.apps.fleet.bundle import BLOBS, open_bundle
from prunus.apps.fleet.receipt import VERDICTS, read
from prunus.export.verify.saved import load_runs, save_runs
from prunus.runtime.card.artifact import CARD_KEY, EngineSidecar, read_card
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import FallbackError
from prunus.runtime.measure import latency
from prunus.runtime.session import onnxruntime
from prunus.runtime.session.tensorrt import cuda, match

NOISY = ("--threads", "1")  # words that any run takes


def _faults(ran):
    return [(one["verdict"], one["detail"]) for one in ran.receipt["findings"]]


def _only(ran):
    ((verdict, detail),) = _faults(ran)
    assert ran.code == 1 and verdict in VERDICTS and f"cam-1 fails: {verdict}" in ran.err
    assert f"fault: {verdict}" in ran.out
    return verdict, detail


def test_a_device_without_fault_passes(verify, keys, tmp_path) -> None:
    ran = verify("--model", "movenet_lightning", "--json")
    assert json.loads(ran.out)["device"] == "cam-1"
    assert ran.code == 0 and not ran.receipt["findings"] and ran.receipt["verdict"] == "ok"
    selfie, movenet = ran.receipt["models"]
    assert [m["name"] for m in (selfie, movenet)] == ["selfie", "movenet_lightning"]
    assert {m["limit"]["quantity"] for m in movenet["limits"]} >= {"max_px", "judged_joints"}
    assert all(m["latency"]["p50_ms"] > 0 and m["peak_memory_mib"] > 10 for m in (selfie, movenet))
    assert ran.receipt["machine"]["processor"] and ran.receipt["bundle"]["trusted"] is True
    made, signature = read(tmp_path / "receipt.json")
    assert made == ran.receipt and signature.signer.startswith("ed25519:")


def _shaken(outputs):
    """Return what a device of its own gives: rounded in another way."""
    return {n: v * np.float32(1 + 1e-6) for n, v in outputs.items()}


def test_an_honest_back_end_of_another_device_passes(verify, faulty) -> None:
    ran = verify(*faulty(outputs=_shaken))
    assert ran.code == 0, ran.err


def _scale_weight(model):
    weights = [t for t in model.graph.initializer if t.name.startswith("conv2d_10/") or
               t.name == "Conv2D_10/filter#oihw"]  # fmt: skip
    assert len(weights) == 1, sorted(t.name for t in model.graph.initializer)[:20]
    weights[0].CopyFrom(numpy_helper.from_array(
        (1.5 * numpy_helper.to_array(weights[0])).astype(numpy_helper.to_array(weights[0]).dtype),
        weights[0].name,
    ))  # fmt: skip


def test_fault_1_a_scaled_weight(verify, faulty) -> None:
    verdict, detail = _only(verify(*faulty(graph=_scale_weight)))
    assert verdict == "wrong-values" and "First node: Conv2D_10/filter#oihw#float" in detail
    assert "its inputs are off by 0" in detail


def _rows(change):
    """Return a fault in MoveNet's rows (batch, person, joint, (y, x, score))."""

    def fault(outputs):
        rows = outputs["keypoints"].copy()
        change(rows)
        return {"keypoints": rows}

    return fault


def _swap_shoulders(rows):
    rows[:, :, [5, 6]] = rows[:, :, [6, 5]]


def _halve_scores(rows):
    rows[..., 2] *= 0.5


def _kill_joint(rows):
    rows[:, :, 3] = 0.25


def test_fault_2_swapped_channels_of_an_output(verify, faulty) -> None:
    ran = verify(*faulty(outputs=_rows(_swap_shoulders)), model="movenet_lightning")
    verdict, detail = _only(ran)
    assert verdict == "swapped-channels" and "axis 2: 5 holds 6, 6 holds 5" in detail


def test_fault_3_swapped_colours(verify, faulty) -> None:
    backwards = {"inputs": lambda i: {n: v[..., ::-1].copy() for n, v in i.items()}}
    verdict, detail = _only(verify(*faulty(**backwards)))
    assert verdict == "swapped-channels" and "axis 3 (rgb) is read backwards" in detail


def test_fault_4_silent_fallback_to_the_cpu(verify, faulty) -> None:
    verdict, detail = _only(verify(*faulty()))
    assert verdict == "cpu-fallback" and "suspiciously identical" in detail
    assert "ONNX Runtime computes on the CPU" in detail


def test_a_device_that_is_its_cpu_and_passes_runs_nothing_beside(verify, monkeypatch) -> None:
    monkeypatch.setattr("prunus.apps.fleet.judge._on_cpu", lambda *_: pytest.fail("ran the CPU"))
    assert verify("--backend", "onnxruntime").code == 0


def test_fault_4_a_coarser_format_that_is_not_used(verify, faulty) -> None:
    words = faulty(arithmetic="bf16")
    assert _only(verify(*words, "--arithmetic", "bf16"))[0] == "cpu-fallback"


def test_fault_4_a_provider_that_is_dropped(verify, monkeypatch) -> None:
    def drop(*_, **__):
        raise FallbackError("ONNX Runtime dropped CUDAExecutionProvider on this machine.")

    monkeypatch.setattr(onnxruntime, "open_session", drop)
    verdict, detail = _only(verify("--backend", "onnxruntime", "--device", "cuda"))
    assert verdict == "cpu-fallback" and "dropped CUDA" in detail


def test_fault_4_nodes_that_all_stay_on_the_cpu(verify, monkeypatch) -> None:
    real = onnxruntime.open_session

    def placed(source, card, threads, device, options):
        session = real(source, card, threads, "cpu", options)
        session.elsewhere = (336, 336) if device == "cuda" else (0, 0)
        return session

    monkeypatch.setattr(onnxruntime, "open_session", placed)
    assert _only(verify("--backend", "onnxruntime", "--device", "cuda")) == (
        "cpu-fallback", "all 336 nodes run on the CPU",
    )  # fmt: skip


def test_fault_5_a_score_halved(verify, faulty) -> None:
    ran = verify(*faulty(outputs=_rows(_halve_scores)), model="movenet_lightning")
    verdict, detail = _only(ran)
    assert verdict == "scaled-output" and "2 on axis 3 is 0.5 times" in detail


def _round_products(model):
    """Round what every convolution gives to bfloat16, as a device does that multiplies it."""
    nodes = []
    for node in model.graph.node:
        nodes.append(node)
        if node.op_type == "Conv":
            name, exact = node.output[0], f"{node.output[0]}__exact"
            node.output[0] = exact
            nodes.append(helper.make_node("Cast", [exact], [f"{exact}16"], to=TensorProto.BFLOAT16))
            nodes.append(helper.make_node("Cast", [f"{exact}16"], [name], to=TensorProto.FLOAT))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def test_fault_6_a_wrong_number_format(verify, faulty) -> None:
    """The device computes in bfloat16 although float32 was asked for; its outputs hide it."""
    verdict, detail = _only(verify(*faulty(graph=_round_products), "--arithmetic", "f32"))
    assert verdict == "number-format"
    assert "'Conv2D' holds nothing but bfloat16 values" in detail


def test_fault_6_is_told_within_the_budget_as_well(verify, faulty) -> None:
    def rounded(outputs):
        bits = {n: v.view(np.uint32) + 0x7FFF & 0xFFFF0000 for n, v in outputs.items()}
        return {n: v.astype(np.uint32).view(np.float32) for n, v in bits.items()}

    ran = verify(*faulty(outputs=rounded), "--arithmetic", "f32")
    assert _only(ran)[0] == "number-format"


def test_fault_7_a_dead_channel(verify, faulty) -> None:
    ran = verify(*faulty(outputs=_rows(_kill_joint)), model="movenet_lightning")
    verdict, detail = _only(ran)
    assert verdict == "dead-channel" and "3 on axis 2 is constant 0.25" in detail


def test_fault_8_not_finite(verify, faulty) -> None:
    def poison(outputs):
        return {n: np.where(v > 0.5, np.float32("nan"), v) for n, v in outputs.items()}

    ran = verify(*faulty(outputs=poison))
    assert _only(ran)[0] == "not-finite" and "NaN" not in json.dumps(ran.receipt["models"])


def test_fault_9_a_card_of_another_graph(verify, remade, bundle) -> None:
    opened = open_bundle(bundle)
    with opened.unpacked() as folder:
        model = onnx.load(folder / "selfie.onnx")
        card = read_card(folder / "selfie.onnx")
    later = dataclasses.replace(card, variant="later")
    entry = next(p for p in model.metadata_props if p.key == CARD_KEY)
    entry.value = later.to_json()
    changed = remade({"selfie.onnx": model.SerializeToString()})
    ran = verify(of=changed)
    verdict, detail = _only(ran)
    assert verdict == "card-mismatch" and "not the one that was bundled" in detail


def test_fault_9_a_graph_that_is_not_what_its_card_says(verify, remade, bundle) -> None:
    with open_bundle(bundle).unpacked() as folder:
        model = onnx.load(folder / "selfie.onnx")
    model.graph.output[0].type.tensor_type.shape.dim[2].dim_value = 128
    verdict, detail = _only(verify(of=remade({"selfie.onnx": model.SerializeToString()})))
    assert verdict == "card-mismatch" and "differ in the outputs, first in 'probability'" in detail


def test_fault_10_golden_outputs_of_an_older_graph(verify, remade, bundle) -> None:
    with open_bundle(bundle).unpacked() as folder:
        model = onnx.load(folder / "selfie.onnx")
    model.producer_version = "newer"
    assert _only(verify(of=remade({"selfie.onnx": model.SerializeToString()})))[0] == "stale-golden"


def test_golden_outputs_that_the_cpu_does_not_reach_either(
    verify, remade, bundle, faulty, tmp_path
) -> None:
    """A maker's fault, which no back end of the device is accused of."""
    with open_bundle(bundle).unpacked() as folder:
        runs = load_runs(folder / "selfie.golden.npz")
    outputs = {n: v[::-1].copy() for n, v in runs.reference.outputs.items()}
    worse = dataclasses.replace(runs.reference, outputs=outputs)
    save_runs(dataclasses.replace(runs, reference=worse), tmp_path / "worse.npz")
    changed = remade({"selfie.golden.npz": (tmp_path / "worse.npz").read_bytes()})
    assert _only(verify(*faulty(outputs=_shaken), of=changed))[0] == "reference-differs"


def test_fault_11_a_device_that_throttles(verify, faulty, monkeypatch) -> None:
    now = SimpleNamespace(ns=0, call_ms=4.0)
    clock = SimpleNamespace(perf_counter_ns=lambda: now.ns, process_time_ns=lambda: now.ns)
    monkeypatch.setattr(latency, "time", clock)

    def slower(inputs):
        now.ns += round(1e6 * now.call_ms)
        now.call_ms *= 1.003
        return inputs

    words = faulty(inputs=slower, outputs=_shaken)
    ran = verify(*words, "--soak", "1s")
    verdict, detail = _only(ran)
    assert verdict == "throttled" and "in 1 s, allowed 15 %" in detail
    assert ran.receipt["models"][0]["soak"]["drift"] > 0.15
    assert verify(*words, "--soak", "1s", "--drift", "9").code == 0


# Plans: no GPU is needed to see that parts do not belong together.

LIBRARY = b'\x7fELFprunus-plugin:{"name":"LocalGlobalAttention","version":"1","identity":"1+%s",' \
          b'"architectures":[87],"machine":"aarch64"}\0'  # fmt: skip


@pytest.fixture
def gpu(monkeypatch):
    """Let this machine have TensorRT 10.3 and a GPU of compute capability 8.7."""
    gpu = cuda.DeviceProperties(0, "Orin", "8.7", "12.6")
    monkeypatch.setattr(cuda, "why_unusable", lambda: "")
    monkeypatch.setattr(cuda, "device_properties", lambda index=0: gpu)
    monkeypatch.setattr(match, "import_flavour", lambda f: SimpleNamespace(__version__="10.3.0"))


@pytest.fixture
def planned(remade, bundle, tmp_path):
    """Return a maker of a bundle with a plan of the selfie network; words change the sidecar."""

    def make(plan=b"a plan", library=None, **said):
        with open_bundle(bundle).unpacked() as folder:
            graph = (folder / "selfie.onnx").read_bytes()
            card = read_card(folder / "selfie.onnx")
        sidecar = EngineSidecar(**{
            "card": card, "onnx_sha256": hashlib.sha256(graph).hexdigest(),
            "engine_sha256": hashlib.sha256(b"a plan").hexdigest(), "flavour": "tensorrt",
            "version": "10.3.0", "compute_capability": "8.7", "plugin": "", "flags": (),
            "build_seconds": 1.0, "half_layer_share": 0.0, **said,
        })  # fmt: skip
        sidecar.write(tmp_path / "x.engine")
        files = {"selfie-orin.engine": plan,
                 "selfie-orin.engine.json": (tmp_path / "x.engine.json").read_bytes()}  # fmt: skip
        if library is not None:
            files["plugin.so"] = library

        def add(contents):
            models = [
                dataclasses.replace(m, plans=("selfie-orin.engine",)) if m.name == "selfie" else m
                for m in contents.models
            ]
            name = "plugin.so" if library is not None else ""
            return dataclasses.replace(contents, models=tuple(models), plugin=name)

        return remade(files, add)

    return make


def test_fault_12_a_plan_of_another_graph(verify, planned, gpu) -> None:
    verdict, detail = _only(verify(of=planned(onnx_sha256="ab" * 32)))
    assert verdict == "wrong-plan" and "built from another file, sha256 abababababab" in detail


def test_fault_12_a_plan_that_is_not_its_sidecars(verify, planned, gpu) -> None:
    verdict, detail = _only(verify(of=planned(plan=b"another plan")))
    assert verdict == "wrong-plan" and "not the plan that its sidecar describes" in detail


def test_fault_13_a_stale_plugin(verify, planned, gpu) -> None:
    stamp = "LocalGlobalAttention 1+new sha256:" + "ab" * 32
    verdict, detail = _only(verify(of=planned(library=LIBRARY % b"old", plugin=stamp)))
    assert verdict == "stale-plugin" and "needs LocalGlobalAttention 1+new" in detail
    assert "the bundle has LocalGlobalAttention 1+old" in detail


@pytest.fixture
def plan_session(gpu, bundle, monkeypatch):
    """Let TensorRT run the selfie network; returns what is known of each plan that it opened."""
    seen = SimpleNamespace(opened=[], outputs=_shaken)

    class Session(onnxruntime.OnnxRuntimeSession):
        backend = "tensorrt"

        def _infer(self, inputs):
            return seen.outputs(super()._infer(inputs))

    def open_session(source, card, threads, device, options):
        seen.opened.append((source.name, os.environ.get("PRUNUS_PLUGIN_PATH")))
        graph = source.with_name("selfie.onnx")
        session = onnxruntime.open_session(graph, card, threads, "cpu", options)
        session.__class__ = Session
        return session

    monkeypatch.setattr("prunus.runtime.session.tensorrt.session.open_session", open_session)
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__spec__=match.__spec__))
    monkeypatch.delenv("PRUNUS_PLUGIN_PATH", raising=False)
    return seen


def test_the_plan_for_this_gpu_is_what_runs(verify, planned, plan_session) -> None:
    stamp = "LocalGlobalAttention 1+new sha256:" + hashlib.sha256(LIBRARY % b"new").hexdigest()
    ran = verify(of=planned(library=LIBRARY % b"new", plugin=stamp))
    assert ran.code == 0, ran.err
    ((plan, plugin),) = plan_session.opened
    assert plan == "selfie-orin.engine" and plugin.endswith("/plugin.so")
    assert ran.receipt["models"][0]["file"] == plan and "PRUNUS_PLUGIN_PATH" not in os.environ


def test_a_plan_that_computes_wrongly_is_not_bisected(verify, planned, plan_session) -> None:
    plan_session.outputs = lambda o: {n: np.sqrt(v) for n, v in o.items()}
    ran = verify(of=planned())
    assert _only(ran)[0] == "wrong-values"
    assert ran.receipt["models"][0]["bisect"] == [
        "Not bisected: a plan does not show its inner values."
    ]


def test_a_plan_that_answers_as_the_cpu_does(verify, planned, plan_session) -> None:
    plan_session.outputs = dict
    assert _only(verify(of=planned()))[0] == "cpu-fallback"


def test_plans_in_half_precision_have_their_own_budget(verify, planned, plan_session) -> None:
    plan_session.outputs = lambda o: {n: v * np.float32(1.005) for n, v in o.items()}
    halved = verify(of=planned(half_layer_share=0.5))
    assert halved.code == 0 and halved.receipt["models"][0]["row"] == "fp16"
    shutil.rmtree(halved.bundle)
    assert _only(verify(of=planned()))[0] == "scaled-output"


@pytest.mark.trt
@pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None,
    reason="tensorrt_rtx is not installed (extra trt-rtx)",
)
def test_a_real_plan_travels_and_runs_where_there_is_a_gpu(
    prunus, verify, bundle, keys, tmp_path
) -> None:
    with open_bundle(bundle).unpacked() as folder:
        shutil.copyfile(folder / "selfie.onnx", tmp_path / "selfie.onnx")
    graph, plan = tmp_path / "selfie.onnx", tmp_path / "selfie.engine"
    ran = prunus("build", graph, "-o", plan, "--flavour", "tensorrt_rtx", "--quiet")
    assert ran.code == 0, ran.err
    made = tmp_path / "planned.bundle"
    words = ("--key", keys / "maker.key", "-o", made, "--samples", "2", "--quiet")
    assert prunus("bundle", graph, "--plan", plan, *words).code == 0
    ran = verify(of=made)
    blind = cuda.why_unusable()
    assert ran.code == 0, ran.err
    assert ran.receipt["models"][0]["file"] == ("selfie.onnx" if blind else "selfie-selfie.engine")
    ran = verify("--backend", "tensorrt", of=made)
    assert ran.code == (3 if blind else 0) and ("NVIDIA driver" in ran.err or not blind)


def test_no_stranger_s_plan_is_run(prunus, planned, plan_session) -> None:
    ran = prunus("verify", planned(), "--model", "selfie", "--quiet", *NOISY)
    assert ran.code == 2 and "is a program" in ran.err and not plan_session.opened


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"compute_capability": "8.6"}, "built for sm 8.6, Orin is sm 8.7"),
        ({"version": "10.9.0"}, "built with tensorrt 10.9.0, installed is 10.3.0"),
    ],
)
def test_a_missing_plan_is_one_error_and_no_other_back_end(
    verify, planned, gpu, said, told
) -> None:
    ran = verify(of=planned(**said))
    assert ran.code == 2 and "missing a plan of selfie for this device" in ran.err
    assert told in ran.err and ran.err.count("error:") == 1 and ran.receipt is None


def test_tensorrt_without_any_plan_is_an_error(verify) -> None:
    ran = verify("--backend", "tensorrt")
    assert ran.code == 2 and "The bundle has no plan of selfie" in ran.err


def test_bad_words(verify, prunus, bundle, keys, tmp_path) -> None:
    assert "expected a time" in verify("--soak", "long").err
    assert "no model 'selfy' (did you mean 'selfie'?)" in verify(model="selfy").err
    ran = prunus("verify", bundle, "-o", tmp_path / "r.json")
    assert ran.code == 2 and "without --sign" in ran.err
    for key, place, told in (
        (keys / "none.key", tmp_path, "Cannot read the key"),
        (keys / "device.pub", tmp_path, "holds no private"),
        (keys / "device.key", tmp_path / "none", "does not exist"),
    ):
        words = ("--sign", key, "-o", place / "r.json", "--seconds", "900", "--soak", "5h")
        ran = prunus("verify", bundle, *words)
        assert ran.code == 2 and told in ran.err, "before the hours of work"
    ran = prunus("verify", bundle, "--key", keys / "other.pub")
    assert ran.code == 2 and "none of the keys that were given" in ran.err


def test_a_receipt_without_key_says_that_nobody_checked_the_signer(prunus, bundle) -> None:
    ran = prunus("verify", bundle, "--model", "selfie", "--seconds", "0.05", "--quiet", *NOISY)
    assert ran.code == 0 and "signer not checked (no --key)" in ran.out


_BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "onnx", "onnxscript", "polygraphy", "safetensors"}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Block())
from prunus.apps.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_it_needs_neither_torch_nor_onnx(bundle, keys, tmp_path) -> None:
    """Also where it has to look for a fault: bfloat16 leaves the budget of the selfie network."""
    words = ["verify", bundle, "--model", "selfie", "--seconds", "0.05", *NOISY, "--key", keys]
    program = [sys.executable, "-c", _BLOCKED, *map(str, words)]
    assert subprocess.run(program, capture_output=True, check=False).returncode == 0
    golden = tmp_path / "again.bundle"
    made = [sys.executable, "-c", _BLOCKED, "bundle", "selfie", "-o", golden, "--quiet",
            "--key", keys / "maker.key", "--budget", "score_rms_relative=1e-9"]  # fmt: skip
    subprocess.run(list(map(str, made)), check=True, capture_output=True)
    failed = subprocess.run(
        [sys.executable, "-c", _BLOCKED, "verify", str(golden), "--seconds", "0.05", *NOISY],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert failed.returncode == 1 and "inner values agree" in failed.stdout
    assert "fault: wrong-values (selfie): score_rms_relative is" in failed.stdout


def test_every_blob_is_looked_at_before_anything_runs(verify, bundle, tmp_path) -> None:
    copy = tmp_path / "copy.bundle"
    shutil.copytree(bundle, copy)
    opened = open_bundle(copy)
    blob = copy / BLOBS / next(f.sha256 for f in opened.contents.files if f.name == "selfie.onnx")
    data = bytearray(blob.read_bytes())
    data[1000] ^= 1
    blob.write_bytes(data)
    ran = verify(of=copy)
    assert ran.code == 2 and "The file selfie.onnx" in ran.err and "SHA-256 differs" in ran.err
    assert ran.receipt is None


def test_cards_are_read_by_their_own_class(bundle) -> None:
    with open_bundle(bundle).unpacked() as folder:
        told = (folder / "selfie.card.json").read_text()
        assert ModelCard.from_json(told) == read_card(folder / "selfie.onnx")
