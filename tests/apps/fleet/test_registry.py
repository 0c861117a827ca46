"""Push and pull against a registry written for the test, and against Debian's docker-registry."""

import json
import shutil
import socket
import subprocess
import threading
import urllib.request

import pytest

from prunus.apps.fleet.bundle import BLOBS, open_bundle
from prunus.apps.fleet.registry import Registry
from prunus.runtime.errors import UsageError


@pytest.fixture
def pushed(store, prunus, bundle):
    assert prunus("push", bundle, f"oras://{store.host}/models/two:1.0", "--quiet").code == 0
    return f"oras://{store.host}/models/two"


def _left(folder):
    return sorted(p.name for p in folder.iterdir() if "two" in p.name or "got" in p.name)


def test_what_is_pushed_is_what_is_pulled(pushed, store, prunus, bundle, keys, tmp_path) -> None:
    target = tmp_path / "got.bundle"
    ran = prunus("pull", f"{pushed}:1.0", "-o", target, "--key", keys / "maker.pub", "--json")
    found = json.loads(ran.out)
    assert ran.code == 0 and found["trusted"] and found["bundle"] == str(target)
    files = sorted(p.relative_to(bundle) for p in bundle.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(target) for p in target.rglob("*") if p.is_file())
    assert all((bundle / f).read_bytes() == (target / f).read_bytes() for f in files)
    assert _left(tmp_path) == ["got.bundle"]
    by_digest = f"{pushed}@{found['digest']}"
    assert prunus("pull", by_digest, "-o", tmp_path / "got2.bundle", "--quiet").code == 0


def test_a_second_push_sends_no_blob(pushed, prunus, bundle) -> None:
    ran = prunus("push", bundle, f"{pushed}:2.0", "--json", "--quiet")
    assert ran.code == 0 and json.loads(ran.out)["sent"] == 0


def test_a_pull_that_breaks_off_goes_on(pushed, store, prunus, tmp_path) -> None:
    target, store.stop_after = tmp_path / "got.bundle", 1_000_000
    ran = prunus("pull", f"{pushed}:1.0", "-o", target, "--quiet")
    assert ran.code == 3 and ran.err.count("error:") == 1 and "goes on where it stopped" in ran.err
    assert not target.exists() and not store.ranges
    assert prunus("pull", f"{pushed}:1.0", "-o", target, "--quiet").code == 0
    assert _left(tmp_path) == ["got.bundle"] and open_bundle(target)
    assert store.ranges == [1_000_000], "what had come was kept"


def test_a_push_that_breaks_off_goes_on(store, prunus, bundle) -> None:
    address, store.stop_upload = f"oras://{store.host}/models/two:1.0", True
    ran = prunus("push", bundle, address, "--quiet")
    assert ran.code == 3 and ran.err.count("error:") == 1 and "goes on where" in ran.err
    assert not store.manifests
    there = len(store.blobs)
    ran = prunus("push", bundle, address, "--json", "--quiet")
    sent = json.loads(ran.out)["sent"]
    assert ran.code == 0 and "1.0" in store.manifests and sent == len(store.blobs) - there


def test_a_token_is_asked_for_and_sent(store, prunus, bundle, tmp_path, monkeypatch) -> None:
    store.password = "me:secret"
    address = f"oras://{store.host}/models/two:1.0"
    ran = prunus("push", bundle, address, "--quiet")
    assert ran.code == 2 and "answered 401" in ran.err and "PRUNUS_REGISTRY_AUTH" in ran.err
    monkeypatch.setenv("PRUNUS_REGISTRY_AUTH", "me:secret")
    assert prunus("push", bundle, address, "--quiet").code == 0
    ran = prunus("pull", address, "-o", tmp_path / "got.bundle", "--quiet")
    assert ran.code == 0 and "secret" not in ran.out + ran.err


def test_another_signer_is_refused_and_leaves_nothing(pushed, prunus, keys, tmp_path) -> None:
    ran = prunus("pull", f"{pushed}:1.0", "-o", tmp_path / "got.bundle", "--key",
                 keys / "other.pub", "--quiet")  # fmt: skip
    assert ran.code == 2 and "none of the keys that were given" in ran.err
    assert pushed in ran.err and not _left(tmp_path)


def test_a_blob_that_is_not_its_digest_is_refused(pushed, store, prunus, tmp_path) -> None:
    largest = max(store.blobs, key=lambda d: len(store.blobs[d]))
    store.blobs[largest] = bytes(len(store.blobs[largest]))
    ran = prunus("pull", f"{pushed}:1.0", "-o", tmp_path / "got.bundle", "--quiet")
    assert ran.code == 2 and "has sha256" in ran.err and not _left(tmp_path)


def test_a_plan_that_the_registry_lost(pushed, store, prunus, tmp_path) -> None:
    store.blobs.pop(max(store.blobs, key=lambda d: len(store.blobs[d])))
    ran = prunus("pull", f"{pushed}:1.0", "-o", tmp_path / "got.bundle", "--quiet")
    assert ran.code == 2 and "answered 404" in ran.err and not (tmp_path / "got.bundle").exists()


def test_a_manifest_of_something_else(pushed, store, prunus, tmp_path) -> None:
    store.manifests["1.0"] = b'{"schemaVersion": 2, "config": {}, "layers": []}'
    ran = prunus("pull", f"{pushed}:1.0", "-o", tmp_path / "got.bundle", "--quiet")
    assert ran.code == 2 and "is no bundle of prunus" in ran.err and not _left(tmp_path)


def test_a_manifest_that_is_not_its_digest(pushed, store, prunus, tmp_path) -> None:
    digest = next(name for name in store.manifests if name.startswith("sha256"))
    store.manifests[digest] = store.manifests[digest].replace(b"artifactType", b"artifactTypo")
    ran = prunus("pull", f"{pushed}@{digest}", "-o", tmp_path / "got.bundle", "--quiet")
    assert ran.code == 2 and "expected sha256:" in ran.err and not _left(tmp_path)


def test_nothing_is_there_and_nobody_listens(pushed, store, prunus, tmp_path) -> None:
    target = tmp_path / "got.bundle"
    ran = prunus("pull", f"{pushed}:9.9", "-o", target, "--quiet")
    assert ran.code == 2 and "has no models/two with the tag or digest 9.9" in ran.err
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"oras://127.0.0.1:{free.getsockname()[1]}/models/two:1.0"
        ran = prunus("pull", nowhere, "-o", target, "--quiet")
    assert ran.code == 3 and ran.err.count("error:") == 1 and "did not answer" in ran.err
    assert not _left(tmp_path)


def test_what_is_here_is_never_replaced(pushed, prunus, tmp_path) -> None:
    (tmp_path / "got.bundle").mkdir()
    ran = prunus("pull", f"{pushed}:1.0", "-o", tmp_path / "got.bundle", "--quiet")
    assert ran.code == 2 and "exists" in ran.err


@pytest.mark.parametrize(
    "address",
    ["oras://host", "docker://host/x:1", "oras://host/X:1", "oras://host/x", "oras://u:p@host/x:1",
     "oras://host/x@sha256:12", "oras://host/../x:1", "oras:///x:1"],
)  # fmt: skip
def test_other_addresses_are_refused(address) -> None:
    with pytest.raises(UsageError, match="expected oras://HOST"):
        Registry.of(address)


@pytest.mark.parametrize(
    ("host", "plain", "scheme"),
    [("localhost:5000", False, "http"), ("127.0.0.1", False, "http"), ("[::1]:5000", False, "http"),
     ("10.0.0.1:5000", False, "https"), ("registry.example", False, "https"),
     ("10.0.0.1:5000", True, "http"), ("localhost.example", False, "https")],
)  # fmt: skip
def test_tls_everywhere_but_here(host, plain, scheme) -> None:
    assert Registry.of(f"oras://{host}/a/b:1", plain).base == f"{scheme}://{host}"


def test_a_push_needs_a_tag_and_a_whole_bundle(store, prunus, bundle, tmp_path) -> None:
    digest = "0" * 64
    ran = prunus("push", bundle, f"oras://{store.host}/two@sha256:{digest}")
    assert ran.code == 2 and "a push needs a tag" in ran.err
    copy = tmp_path / "two.bundle"
    shutil.copytree(bundle, copy)
    max((copy / BLOBS).iterdir(), key=lambda p: p.stat().st_size).unlink()
    ran = prunus("push", copy, f"oras://{store.host}/two:1")
    assert ran.code == 2 and "is missing in" in ran.err and not store.asked


@pytest.fixture
def real_registry(tmp_path):
    program = shutil.which("docker-registry")
    if program is None:
        pytest.skip("docker-registry is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    (tmp_path / "registry.yml").write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {tmp_path / 'registry'}}}}}\n"
        f"http: {{addr: '{host}'}}\n"
    )
    server = subprocess.Popen([program, "serve", str(tmp_path / "registry.yml")],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://{host}/v2/", timeout=5).close()
                break
            except OSError:
                threading.Event().wait(0.05)
        yield host
    finally:
        server.terminate()
        server.wait()


def test_a_real_registry_takes_and_gives_it(real_registry, prunus, bundle, keys, tmp_path) -> None:
    address, target = f"oras://{real_registry}/models/two:1.0", tmp_path / "got.bundle"
    ran = prunus("push", bundle, address, "--json", "--quiet")
    assert ran.code == 0 and json.loads(ran.out)["sent"] > 3, ran.err
    assert json.loads(prunus("push", bundle, address, "--json", "--quiet").out)["sent"] == 0
    ran = prunus("pull", address, "-o", target, "--key", keys / "maker.pub", "--quiet")
    assert ran.code == 0, ran.err
    assert open_bundle(target).digest == open_bundle(bundle).digest
    ran = prunus("pull", f"oras://{real_registry}/models/none:1.0", "-o", tmp_path / "none")
    assert ran.code == 2 and "has no models/none" in ran.err
