"""Keys, a bundle, a registry, and a back end that computes wrongly on request."""

import base64
import dataclasses
import hashlib
import http.server
import json
import re
import socket
import sys
import threading
import types
import urllib.parse
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
        return types.SimpleNamespace(
            code=ran.code, out=ran.out, err=ran.err, receipt=made, bundle=of
        )

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


class _Store(http.server.ThreadingHTTPServer):
    """An OCI registry in memory: blobs, manifests, ranges, a token, and ways to fail."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.blobs, self.manifests, self.asked, self.ranges = {}, {}, [], []
        self.stop_after = None  # bytes of a blob after which the connection closes, once
        self.stop_upload = False  # the next upload is cut off
        self.password = ""  # user:password that gets a token; empty: none is asked for

    @property
    def host(self):
        return f"127.0.0.1:{self.server_port}"


class _Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def _answer(self, code, headers=(), body=b""):
        self.send_response(code)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        if "Content-Length" not in dict(headers):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refused(self):
        store = self.server
        store.asked.append((self.command, self.path))
        if not store.password or self.headers.get("Authorization") == "Bearer letmein":
            return False
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        realm = f'Bearer realm="http://{store.host}/token",service="here"'
        self._answer(401, {"WWW-Authenticate": realm})
        return True

    def do_GET(self):
        store, path = self.server, urllib.parse.urlsplit(self.path)
        if path.path == "/token":
            assert urllib.parse.parse_qs(path.query)["service"] == ["here"]

            sent = base64.b64decode(self.headers.get("Authorization", "")[6:]).decode()
            right = sent == store.password
            self._answer(200 if right else 401, {}, b'{"token": "letmein"}' if right else b"")
        elif not self._refused():
            self._give(path.path)

    def do_HEAD(self):
        self.do_GET()

    def _give(self, path):
        store = self.server
        kind, _, name = path.rpartition("/")
        found = (store.blobs if kind.endswith("blobs") else store.manifests).get(name)
        if found is None:
            self._answer(404)
            return
        start = int(re.findall(r"\d+", self.headers.get("Range", "0"))[0])
        if start >= len(found):
            self._answer(416, {"Content-Range": f"bytes */{len(found)}"})
            return
        store.ranges += [start] if start else []
        code = 206 if start else 200
        rest = found[start:]
        headers = {"Content-Length": str(len(rest)),
                   "Content-Range": f"bytes {start}-{len(found) - 1}/{len(found)}"}  # fmt: skip
        if self.command == "GET" and store.stop_after and len(rest) > store.stop_after:
            rest, store.stop_after = rest[: store.stop_after], None
            self.close_connection = True
        self._answer(code, headers, rest)

    def do_POST(self):
        if not self._refused():
            self._answer(202, {"Location": "/v2/upload/1?state=x"})

    def do_PUT(self):
        if self._refused():
            return
        store, path = self.server, urllib.parse.urlsplit(self.path)
        size = int(self.headers["Content-Length"])
        if store.stop_upload and size > 1 << 16:
            store.stop_upload = False
            self.rfile.read(1 << 15)
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        data = self.rfile.read(size)
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if path.path.startswith("/v2/upload/"):
            asked = urllib.parse.parse_qs(path.query)
            assert asked == {"state": ["x"], "digest": [digest]}
            store.blobs[digest] = data
        else:
            assert self.headers["Content-Type"] == "application/vnd.oci.image.manifest.v1+json"
            for part in [json.loads(data)["config"], *json.loads(data)["layers"]]:
                assert part["digest"] in store.blobs, "a registry takes blobs before their manifest"
            store.manifests[path.path.rpartition("/")[2]] = store.manifests[digest] = data
        self._answer(201)


@pytest.fixture
def store():
    server = _Store()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
