"""Keys, a bundle of two shipped networks, and a back end that computes wrongly on request."""

import dataclasses
import hashlib
import json
import sys
import types
from pathlib import Path

import onnx
import pytest

from prunus.apps.cli.main import main
from prunus.apps.fleet.bundle import BLOBS, BundleFile, open_bundle, write_bundle
from prunus.runtime.session import onnxruntime as honest
from prunus.runtime.session import registry
from prunus.runtime.session.registry import Arithmetic, BackendInfo, Package

THREADS = ("--threads", "1", "--quiet")


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """Return a folder with maker.key, device.key, other.key and their .pub files."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("maker", "device", "other"):
        assert main(["fleet", "key", str(folder / name), "--quiet"]) == 0
    return folder


@pytest.fixture(scope="session")
def bundle(keys, tmp_path_factory):
    """Return a bundle of the selfie network and MoveNet Lightning; nobody writes into it."""
    path = tmp_path_factory.mktemp("bundle") / "two.bundle"
    words = ["bundle", "selfie", "movenet_lightning", "--samples", "4", "-o", str(path), *THREADS]
    assert main([*words, "--key", str(keys / "maker.key")]) == 0
    return path


@pytest.fixture
def verify(prunus, bundle, keys, tmp_path):
    """Return `prunus verify` on one model; its result has the receipt in `.receipt`."""
    def run(*words, of=bundle, model="selfie"):
        path = tmp_path / "receipt.json"
        path.unlink(missing_ok=True)
        ran = prunus(
            "verify", of, "--key", keys / "maker.pub", "--sign", keys / "device.key", "-o", path,
            "--seconds", "0.05", "--name", "cam-1", "--model", model, *THREADS, *words,
        )  # fmt: skip
        made = json.loads(path.read_text())["receipt"] if path.exists() else None
        return types.SimpleNamespace(code=ran.code, out=ran.out, err=ran.err, receipt=made)

    return run


@pytest.fixture
def faulty(monkeypatch):
    """Register the back end ``faulty``, which is ONNX Runtime with planted faults.

    faulty(graph=f) changes the loaded graph in place, faulty(outputs=f) what comes out,
    faulty(inputs=f) what goes in, faulty(arithmetic="bf16") what it says that it computes in.
    """
    plan = types.SimpleNamespace(graph=None, inputs=None, outputs=None, arithmetic="f32")

    class Session(honest.OnnxRuntimeSession):
        backend = "faulty"

        def _infer(self, inputs):
            inputs = plan.inputs(inputs) if plan.inputs else inputs
            outputs = super()._infer(inputs)
            return plan.outputs(outputs) if plan.outputs else outputs

    def open_session(source, card, threads, device, options):
        if plan.graph is not None:
            data = source if isinstance(source, bytes) else Path(source).read_bytes()
            model = onnx.load_from_string(data)
            source = (plan.graph(model) or model).SerializeToString()
        opened = honest.open_session(source, card, threads, "cpu", options)
        opened.__class__ = Session
        opened.arithmetic = plan.arithmetic
        return opened

    module = types.ModuleType("faulty_backend")
    module.open_session = open_session
    monkeypatch.setitem(sys.modules, "faulty_backend", module)
    row = BackendInfo(
        "faulty", "faulty_backend", "The faulty one", (Package("onnxruntime", "ort", ()),),
        (".onnx",), ("npu",), (), (Arithmetic("f32"), Arithmetic("bf16", budget="fp16")),
    )  # fmt: skip
    monkeypatch.setattr(registry, "BACKENDS", (*registry.BACKENDS, row))

    def plant(**faults):
        for name, fault in faults.items():
            setattr(plan, name, fault)
        return ("--backend", "faulty", "--device", "npu")

    return plant


@pytest.fixture
def remade(bundle, keys, tmp_path):
    """Return a maker of a changed copy of the bundle, signed anew: remade({name: bytes}, ...).

    `contents` changes what it says about itself; files without bytes are left out of the folder.
    """
    def make(files, contents=lambda c: c):
        old = open_bundle(bundle)
        sources = {f.name: bundle / BLOBS / f.sha256 for f in old.contents.files}
        for name, data in files.items():
            sources[name] = tmp_path / name
            sources[name].write_bytes(data)
        listed = tuple(
            BundleFile(n, hashlib.sha256(p.read_bytes()).hexdigest(), p.stat().st_size)
            for n, p in sources.items()
        )
        made = contents(dataclasses.replace(old.contents, files=listed))
        target = tmp_path / "remade.bundle"
        write_bundle(made, sources, target, keys / "maker.key")
        return target

    return make
