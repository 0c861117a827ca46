"""Arrays in files: what honest ones hold, and that no hostile one gets further than one error."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.runtime import arrays as module
from prunus.runtime.arrays import read_array, read_arrays, write_arrays
from prunus.runtime.errors import SourceError, UsageError
from prunus.runtime.limits import Limit

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def npy(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(save=np.savez, **arrays) -> bytes:
    file = io.BytesIO()
    save(file, **arrays)
    return file.getvalue()


def header(shape, descr="<f4", rest=b"") -> bytes:
    file = io.BytesIO()
    declared = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, declared)
    return file.getvalue() + rest


def zipped(*members, kind=zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_was_saved_is_read(tmp_path, save) -> None:
    arrays = {
        "x": X, "columns": np.asfortranarray(X), "one": np.int64(7), "none": np.zeros((0, 4)),
        "flags": np.array([True, False]), "words": np.array(["a", "bcd"]),
    }  # fmt: skip
    path = tmp_path / "a.npz"
    path.write_bytes(npz(save, **arrays))
    for found in (read_arrays(path), read_arrays(path.read_bytes())):
        assert list(found) == list(arrays)
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype and found[name].shape == array.shape
            assert found[name].flags.c_contiguous
            np.testing.assert_array_equal(found[name], array)
    np.testing.assert_array_equal(read_array(path, "gone", "columns"), X)
    (tmp_path / "x.npy").write_bytes(npy(X))
    for mapped in (False, True):
        np.testing.assert_array_equal(read_array(tmp_path / "x.npy", "x", mapped=mapped), X)


def test_what_is_written_may_have_any_name(tmp_path) -> None:
    arrays = {"file": X, "a/b:0": np.float32(2), "allow_pickle": np.array([3])}
    write_arrays(tmp_path / "a.npz", arrays)
    body = io.BytesIO()
    write_arrays(body, arrays)
    assert (tmp_path / "a.npz").read_bytes() == body.getvalue()
    with zipfile.ZipFile(body) as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}  # whenever written
    with np.load(tmp_path / "a.npz", allow_pickle=False) as loaded:
        assert set(loaded.files) == set(arrays)
    for found in (read_arrays(tmp_path / "a.npz"), read_arrays(body.getvalue())):
        assert found["a/b:0"].shape == () and list(found) == list(arrays)
        np.testing.assert_array_equal(found["file"], X)
    with pytest.raises(ValueError, match="Object"):
        write_arrays(io.BytesIO(), {"x": np.array([{}], object)})


HOSTILE = {
    "empty": (b"", "npy", "empty"),
    "text": (b"hello, world", "npy", "begins with b'hello,'"),
    "pickle": (pickle.dumps(X), "npy", "pickled"),
    "objects": (npy(np.array([{}], object)), "npy", "pickled"),
    "cut in the header": (npy(X)[:40], "npy", "not a complete"),
    "cut in the data": (npy(X)[:-1], "npy", "declares 24 bytes .* and 23 are there"),
    "more behind": (npy(X) + b"1", "npy", "and 25 are there"),
    "huge": (header((1 << 40,), rest=bytes(24)), "npy", "declares 4398046511104 bytes"),
    "endless": (header((1 << 200, 1 << 200)), "npy", "a number of 403 bits"),
    "negative": (header((-2, 3), rest=bytes(24)), "npy", "declares -24 bytes"),
    "twice negative": (header((-2, -3), rest=bytes(24)), "npy", "not a complete"),
    "no width": (header((1 << 40,), "|V0"), "npy", "declares 0 bytes"),
    "deep": (b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000, "npy", "not a complete"),
    "no token": (b"\x93NUMPY\x01\x00" + struct.pack("<H", 3) + b"'''", "npy", "not a complete"),
    "version": (b"\x93NUMPY\x09\x00" + npy(X)[8:], "npy", "version"),
    "not an archive": (b"hello, world", "npz", "not a complete"),
    "empty archive file": (b"", "npz", "not a complete"),
    "one array": (npy(X), "npz", "single array"),
    "cut archive": (npz(x=X)[:-30], "npz", "not a complete"),
    "cut compressed": (npz(np.savez_compressed, x=np.arange(999))[:600], "npz", "not a complete"),
    "damaged": (npz(x=X).replace(X.tobytes(), bytes(24)), "npz", "CRC"),
    "pickled member": (npz(x=np.array([{}], object)), "npz", "pickled"),
    "text in it": (zipped(("x.npy", b"hello")), "npz", "begins with b'hello'"),
    "lying member": (zipped(("x.npy", header((1 << 40,), rest=bytes(9)))), "npz", "declares"),
    "bzip2": (zipped(("x.npy", npy(X)), kind=zipfile.ZIP_BZIP2), "npz", "own compression"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_gives_one_error_with_its_name(tmp_path, kind) -> None:
    data, suffix, said = HOSTILE[kind]
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(data)
    reads = [read_arrays] if suffix == "npz" else [
        read_array, lambda p: read_array(p, "x"), lambda p: read_array(p, mapped=True)
    ]  # fmt: skip
    if suffix == "npz" and data[:2] == b"PK":
        reads.append(lambda p: read_array(p, "x"))
    for read in reads:
        with pytest.raises(SourceError, match=said) as caught:
            read(path)
        assert "a." + suffix in caught.value.message and caught.value.hint
        assert len(caught.value.message) < 400 + len(str(path))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_twice_is_refused() -> None:
    with pytest.raises(SourceError, match="'x' twice"):
        read_arrays(zipped(("x.npy", npy(X)), ("x.npy", npy(2 * X))))


def test_what_is_not_there_is_named(tmp_path) -> None:
    for read in (read_array, read_arrays):
        with pytest.raises(SourceError, match=r"Array file not found: .*gone"):
            read(tmp_path / "gone.npz")
        with pytest.raises(SourceError, match=r"Cannot read .*: Is a directory"):
            read(tmp_path)
    path = tmp_path / "a.npz"
    path.write_bytes(npz(images=X))
    with pytest.raises(SourceError, match=r"\['images'\]; expected 'crops' or 'data'") as caught:
        read_array(path, "crops", "data", hint="Do this.")
    assert caught.value.hint == "Do this."
    with pytest.raises(SourceError, match="begins with b'PK"):
        read_array(path)
    with pytest.raises(SourceError, match=r"\['images'\]; expected 'lengths' and 'boxes'"):
        read_arrays(path, "images", "lengths", "boxes")


def test_what_unpacks_to_too_much_is_refused_unread(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(module, "ARRAY_BYTES", Limit("the size of its arrays", 1000, "bytes"))
    bomb = npz(np.savez_compressed, x=np.zeros(2000, np.uint8), y=X)
    (tmp_path / "a.npz").write_bytes(bomb)
    (tmp_path / "a.npy").write_bytes(npy(np.zeros(2000, np.uint8)))
    monkeypatch.setattr(module, "_array", None)  # nothing is unpacked
    for read in (
        lambda: read_arrays(bomb), lambda: read_array(tmp_path / "a.npz", "x"),
        lambda: read_array(tmp_path / "a.npy"),
    ):  # fmt: skip
        with pytest.raises(SourceError, match="expected at most 1000"):
            read()


def test_who_asks_may_refuse_before_anything_is_unpacked() -> None:
    seen = []

    def admit(name, size):
        seen.append((name, size))
        if name == "y":
            raise UsageError("no y")

    with pytest.raises(UsageError, match="no y"):
        read_arrays(npz(x=X, y=X), admit=admit)
    assert seen == [("x", len(npy(X))), ("y", len(npy(X)))]


@pytest.mark.fuzz
@given(st.data())
def test_any_damage_gives_arrays_or_one_error(data) -> None:
    whole = data.draw(st.sampled_from([npz(x=X, y=np.arange(9)), npz(np.savez_compressed, x=X)]))
    body = bytearray(whole[: data.draw(st.integers(0, len(whole)))])
    for _ in range(data.draw(st.integers(0, 4))):
        if body:
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read_arrays(bytes(body))
    except SourceError:
        return
    assert all(isinstance(array, np.ndarray) for array in found.values())


SIZES = st.integers(-3, 3) | st.sampled_from([1 << 31, 1 << 63, -1 << 63, 1 << 300])
TYPES = st.sampled_from(
    ["<f4", ">i2", "|u1", "|b1", "<c16", "<U3", "|S0", "|V3", "|O", "(2,)<f4", [("a", "<f4")]]
)  # fmt: skip


@pytest.mark.fuzz
@given(
    head=st.binary(max_size=200)
    | st.builds(
        lambda shape, descr, order: str(
            {"descr": descr, "fortran_order": order, "shape": tuple(shape)}
        ).encode(),
        st.lists(SIZES, max_size=4), TYPES, st.booleans(),
    ),
    rest=st.binary(max_size=40),
)  # fmt: skip
def test_any_header_gives_an_array_or_one_error(tmp_path_factory, head, rest) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + rest)
    for mapped in (False, True):
        try:
            assert read_array(path, mapped=mapped).nbytes <= len(rest)
        except SourceError:
            pass
