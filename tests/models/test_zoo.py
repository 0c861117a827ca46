import hashlib
import importlib
import json
import lzma
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from prunus.models import zoo
from prunus.models.checkpoints.header import read_entry, read_header
from prunus.models.checkpoints.read import read_checkpoint
from prunus.runtime.errors import ArtifactError, MissingDependencyError, UsageError

ROW = {
    "name": "net",
    "file": "net.safetensors",
    "kind": "checkpoint",
    "task": "pose",
    "sha256": "0" * 64,
    "size": 10,
    "licence": "Apache-2.0",
    "origin": "a test",
}


def _write(path, *rows):
    lines = []
    for row in rows:
        lines.append("[[entry]]")
        lines += [f"{k} = {v}" if isinstance(v, int) else f'{k} = "{v}"' for k, v in row.items()]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A weights folder with one real checkpoint in half precision."""
    tensors = {"weight": torch.arange(6.0).reshape(2, 3).half(), "count": torch.tensor(7)}
    file = tmp_path / ROW["file"]
    save_file(tensors, file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    row = {**ROW, "sha256": digest, "size": file.stat().st_size}
    monkeypatch.setattr(zoo, "TABLE", _write(tmp_path / "zoo.toml", row))
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path)
    return file


def test_every_shipped_file_is_listed_and_intact():
    listed = {entry.file for entry in zoo.entries()}
    kinds = (".onnx", ".safetensors", ".xz")
    on_disk = {p.name for p in zoo.WEIGHTS.iterdir() if p.suffix in kinds}
    assert listed == on_disk
    for entry in zoo.entries():
        zoo.verify(entry)
    assert sum(entry.size for entry in zoo.entries()) < 45 * 2**20


def test_the_table_is_read_without_torch():
    code = "import sys; from prunus.models import zoo; zoo.entries(); print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_checkpoint_comes_back_in_float32(shelf):
    state = zoo.load_checkpoint("net")
    assert state["weight"].dtype == torch.float32
    assert torch.equal(state["weight"], torch.arange(6.0).reshape(2, 3))
    assert state["count"].dtype == torch.int64
    assert zoo.model_path("net") == shelf


def test_damage_is_noticed(shelf):
    data = bytearray(shelf.read_bytes())
    data[-1] ^= 1
    shelf.write_bytes(data)
    with pytest.raises(ArtifactError, match="sha256"):
        zoo.load_checkpoint("net")
    shelf.write_bytes(data[:-3])
    with pytest.raises(ArtifactError, match="bytes; expected"):
        zoo.model_path("net")
    shelf.unlink()
    with pytest.raises(ArtifactError, match="missing"):
        zoo.model_path("net")


def test_unknown_name_gets_the_nearest(shelf):
    with pytest.raises(UsageError, match="did you mean 'net'"):
        zoo.find("nett")


def test_an_artifact_is_no_checkpoint():
    with pytest.raises(UsageError, match="expected a checkpoint"):
        zoo.load_checkpoint("movenet_lightning")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sise": 3}, "unknown key 'sise' .did you mean 'size'"),
        ({"kind": "picture"}, "kind 'picture'"),
        ({"sha256": "abc"}, "64 lower-case"),
        ({"file": "../net.safetensors"}, "plain name"),
        ({"file": "net.onnx"}, "ends in .safetensors"),
        ({"kind": "artifact", "file": "net.onnx.xz"}, "a plain_sha256 that is not 64"),
        ({"size": 0}, "at least 1"),
        ({"size": "10"}, "of type str; expected int"),
    ],
)
def test_wrong_rows_are_refused(tmp_path, change, message):
    with pytest.raises(ArtifactError, match=message):
        zoo.read_table(_write(tmp_path / "zoo.toml", {**ROW, **change}))


def test_missing_and_repeated_are_refused(tmp_path):
    short = {k: v for k, v in ROW.items() if k != "licence"}
    with pytest.raises(ArtifactError, match="lacks licence"):
        zoo.read_table(_write(tmp_path / "a.toml", short))
    with pytest.raises(ArtifactError, match="twice"):
        zoo.read_table(_write(tmp_path / "b.toml", ROW, ROW))
    with pytest.raises(ArtifactError, match="Cannot read"):
        zoo.read_table(tmp_path / "none.toml")


def test_compressed_weights_are_the_same_numbers(tmp_path):
    tensors = {"w": torch.arange(6.0).reshape(2, 3).half(), "n": torch.tensor(3)}
    plain, packed = tmp_path / "net.safetensors", tmp_path / "net.safetensors.xz"
    save_file(tensors, plain)
    packed.write_bytes(lzma.compress(plain.read_bytes()))
    first, second = read_checkpoint(plain), read_checkpoint(packed)
    assert first.keys() == second.keys() == tensors.keys()
    assert all(torch.equal(first[name], second[name]) for name in tensors)
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(ArtifactError, match="Cannot read"):
        read_checkpoint(packed)


def test_headers_are_read_from_plain_and_packed_files(tmp_path):
    plain, packed = tmp_path / "net.safetensors", tmp_path / "net.safetensors.xz"
    save_file({"w": torch.zeros(3)}, plain, metadata={"who": "a test"})
    packed.write_bytes(lzma.compress(plain.read_bytes()))
    assert read_header(plain) == read_header(packed) == {"who": "a test"}
    for path, data in ((plain, b"\xff" * 20), (packed, b"no archive"), (plain, b"")):
        path.write_bytes(data)
        assert read_header(path) == {}
    assert read_header(tmp_path / "net.pth") == {}


@pytest.mark.fuzz
@given(
    length=st.one_of(st.integers(0, 80), st.integers(0, 2**64 - 1)),
    text=st.one_of(
        st.binary(max_size=80),
        st.recursive(st.none() | st.integers() | st.text(max_size=4), lambda inner: st.lists(
            inner, max_size=3) | st.dictionaries(st.sampled_from(["__metadata__", "w", "a"]), inner)
        ).map(lambda value: json.dumps(value).encode()),
    ),
)  # fmt: skip
def test_any_bytes_are_a_header_or_none(tmp_path_factory, length, text):
    data = length.to_bytes(8, "little") + text
    exact = len(text).to_bytes(8, "little") + text
    for name in ("fuzz.safetensors", "fuzz.safetensors.xz"):
        path = tmp_path_factory.getbasetemp() / name
        for content in (data, exact):
            path.write_bytes(lzma.compress(content, preset=0) if name.endswith("xz") else content)
            assert all(isinstance(value, str) for value in read_header(path).values())


def test_headers_beyond_the_limits_are_not_read(tmp_path):
    path = tmp_path / "net.safetensors"
    for text in (b"[" * 100_000, b'{"__metadata__":' * 1000, b'{"__metadata__": 3}', b"[]"):
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        assert read_header(path) == {}
    with path.open("wb") as file:  # a header of 99 MiB, within the format's own limit
        file.write((99 << 20).to_bytes(8, "little"))
        file.truncate(100 << 20)
    assert read_header(path) == {}


@pytest.mark.parametrize("text", ["3", "[]", "{", "[" * 3000, "NaN", '{"a": 1e}'])
def test_a_header_entry_that_is_no_object_is_named(tmp_path, text):
    path = tmp_path / "net.safetensors"
    save_file({"w": torch.zeros(3)}, path, metadata={"prunus": text, "good": '{"a": 1}'})
    assert read_entry(path, "good") == {"a": 1}
    assert read_entry(path, "none") == {}
    with pytest.raises(ArtifactError, match=r"entry 'prunus' in the header of .*net\.safetensors"):
        read_entry(path, "prunus")


@pytest.fixture
def wheel(shelf, tmp_path, monkeypatch):
    """Only the table is beside the code; returns where prunus-models would be."""
    site = tmp_path / "site"
    monkeypatch.setattr(zoo, "PACKAGE", "sister")  # the real one may be installed here
    place = site / "sister" / "weights"
    monkeypatch.setattr(zoo, "WEIGHTS", tmp_path / "code" / "weights")
    monkeypatch.syspath_prepend(str(site))
    return place


def test_a_wheel_finds_the_files_of_its_sister(shelf, wheel):
    wheel.mkdir(parents=True)
    there = wheel / ROW["file"]
    there.write_bytes(shelf.read_bytes())
    importlib.invalidate_caches()
    assert zoo.model_path("net") == there
    there.write_bytes(shelf.read_bytes()[:-3])
    with pytest.raises(ArtifactError, match="bytes; expected"):
        zoo.model_path("net")
    there.unlink()  # an older sister, which lacks a file
    with pytest.raises(ArtifactError, match=r"missing: .*sister.*prunus-models again"):
        zoo.model_path("net")


def test_what_lies_beside_the_code_comes_first(shelf, wheel, monkeypatch):
    wheel.mkdir(parents=True)
    (wheel / ROW["file"]).write_bytes(b"other")
    importlib.invalidate_caches()
    monkeypatch.setattr(zoo, "WEIGHTS", shelf.parent)
    assert zoo.model_path("net") == shelf


@pytest.mark.parametrize("left", [False, True])
def test_a_wheel_without_its_sister_says_what_to_install(wheel, left):
    if left:  # what pip leaves behind when it removes her
        wheel.parent.mkdir(parents=True)
        importlib.invalidate_caches()
    with pytest.raises(MissingDependencyError) as caught:
        zoo.model_path("net")
    assert "'net' needs the package 'sister'" in caught.value.message
    assert caught.value.hint.startswith("Install it with: pip install 'prunus[weights]'; from a")
    assert caught.value.exit_code == 3
