"""Reading metadata off the wire, safe writing, and the engine's sidecar."""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.runtime.card.artifact import (
    EngineSidecar,
    atomic_folder,
    atomic_path,
    file_holding,
    plain_name,
    read_card,
    sha256_of,
    write_error,
    write_whole,
)
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.graph import read_metadata
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import (
    ArtifactError,
    HostError,
    MissingDependencyError,
    SourceError,
    UsageError,
)


def test_metadata_equals_onnx(artifact, card) -> None:
    model = onnx.load(artifact)
    assert read_metadata(artifact) == {p.key: p.value for p in model.metadata_props}
    assert read_card(artifact) == card


def test_sha256(tmp_path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"prunus" * 300_000)
    assert sha256_of(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_missing_empty_and_cardless(tmp_path, write_artifact) -> None:
    with pytest.raises(ArtifactError, match="not found"):
        read_card(tmp_path / "none.onnx")
    empty = tmp_path / "empty.onnx"
    empty.touch()
    with pytest.raises(ArtifactError, match="is empty"):
        read_card(empty)
    assert read_card(write_artifact(None, "bare.onnx")).task == "generic"
    with pytest.raises(ArtifactError, match="not found"):
        read_card(tmp_path)


def test_a_card_that_cannot_be_read_names_its_file(card, tmp_path, write_artifact) -> None:
    newer = write_artifact(card, "newer.onnx")
    data = newer.read_bytes()
    newer.write_bytes(data.replace(b'"schema_version":1', b'"schema_version":2'))
    with pytest.raises(ArtifactError, match=r"newer\.onnx: The card has schema version 2"):
        read_card(newer)


def test_truncated_at_every_tenth_byte(artifact, tmp_path) -> None:
    data = artifact.read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in range(0, len(data), 10):
        cut.write_bytes(data[:length])
        with pytest.raises(ArtifactError):
            read_card(cut)


@pytest.mark.fuzz
@given(data=st.binary(max_size=64))
def test_noise_is_metadata_or_an_artifact_error(data, tmp_path_factory) -> None:
    path = tmp_path_factory.getbasetemp() / "noise.onnx"
    path.write_bytes(data)
    try:
        assert isinstance(read_metadata(path), dict)
    except ArtifactError as error:
        assert str(path) in error.message


def test_atomic_path_names_the_file_only_on_success(tmp_path) -> None:
    target = tmp_path / "a.onnx"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o444
    with pytest.raises(RuntimeError, match="planted"), atomic_path(target) as temporary:
        temporary.write_text("broken")
        raise RuntimeError("planted")
    assert target.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]


def test_a_file_of_bytes_is_called_what_the_user_knows(tmp_path) -> None:
    with pytest.raises(MissingDependencyError) as caught, file_holding(b"abc", ".wav", "It") as own:
        assert Path(own).read_bytes() == b"abc" and own.endswith(".wav")
        raise MissingDependencyError("reader", "audio", f"Reading {own}")
    assert str(caught.value).startswith("Reading It needs the package 'reader'")
    with pytest.raises(SourceError, match=r"^It is cut\. Mend It\.$"), file_holding(
        b"", ".mp4", "It"
    ) as own:
        raise SourceError(f"{own} is cut.", f"Mend {own}.")
    assert not Path(own).exists()


def test_plain_names_are_parts_of_file_names() -> None:
    assert plain_name("a b/ü:c-1.x_y") == "a_b___c-1.x_y"


def test_atomic_path_explains_what_the_disk_refused(tmp_path) -> None:
    with pytest.raises(SourceError, match="does not exist"), atomic_path(tmp_path / "no" / "a"):
        pass
    with pytest.raises(HostError, match="No space left"), atomic_path(tmp_path / "a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_a_failure_of_another_file_is_not_blamed_on_the_target(tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="other"), atomic_path(tmp_path / "a"):
        (tmp_path / "other").read_text()


def test_write_error_names_the_reason(tmp_path) -> None:
    error = write_error(PermissionError(errno.EACCES, "Permission denied"), tmp_path / "a")
    assert "Permission denied" in str(error)
    assert error.exit_code == 2


def test_a_folder_that_exists_is_not_called_missing(tmp_path) -> None:
    refused = FileNotFoundError(errno.ENOENT, "No such file or directory")  # as /proc answers
    assert "does not exist" not in str(write_error(refused, tmp_path / "a"))
    assert "does not exist" in str(write_error(refused, tmp_path / "no" / "a"))


def _sidecar(card) -> EngineSidecar:
    return EngineSidecar(
        card, "a", "b", "tensorrt", "10.3", "8.6", "", ("strongly_typed",), 1.5, 0.9
    )


def test_sidecar_round_trip(tmp_path, card) -> None:
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"plan")
    with pytest.raises(ArtifactError, match=r"no sidecar m.engine.json"):
        read_card(engine)
    _sidecar(card).write(engine)
    assert EngineSidecar.read(engine) == _sidecar(card)
    assert read_card(engine) == card


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"card": {}}', '{"card": 1, "x": 2}', "\udcff"])
def test_damaged_sidecar(tmp_path, text) -> None:
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"plan")
    EngineSidecar.path_for(engine).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ArtifactError):
        EngineSidecar.read(engine)


FUZZ_CARD = ModelCard(
    "pose", "tiny", "test", "none", "MIT", "test", Weights("none", "random:0", "MIT", False),
    (TensorSpec("x", "uint8", (1, 4), ("batch", "pixel")),),
    (TensorSpec("y", "float32", (1, 3), ("batch", "value")),),
)  # fmt: skip
FUZZ_MODEL = onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []))
onnx.helper.set_model_props(FUZZ_MODEL, {"prunus.card": FUZZ_CARD.to_json(), "other": "text"})
JUNK = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.lists(st.text(max_size=3), max_size=3), st.dictionaries(st.text(max_size=3), st.integers()),
)  # fmt: skip


@pytest.mark.fuzz
@given(key=st.sampled_from([f.name for f in dataclasses.fields(EngineSidecar)]), value=JUNK)
def test_any_damage_to_a_sidecar_is_an_artifact_error_or_valid(
    tmp_path_factory, key, value
) -> None:
    engine = tmp_path_factory.getbasetemp() / "fuzz.engine"
    engine.write_bytes(b"plan")
    raw = {**dataclasses.asdict(_sidecar(FUZZ_CARD)), key: value}
    EngineSidecar.path_for(engine).write_text(json.dumps(raw))
    try:
        sidecar = EngineSidecar.read(engine)
    except ArtifactError as error:
        assert "\n" not in error.message
    else:
        sidecar.write(engine)
        assert EngineSidecar.read(engine) == sidecar


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"half_layer_share": 0.9', '"half_layer_share": 1.5', "half_layer_share is 1.5"),
        ('"flags": [', '"flags": [[', "damaged"),
        ('"engine_sha256": ', '"engine_sha256": 3, "x": ', "damaged"),
        ("{", "[" * 5000, "nesting of its JSON"),
    ],
)
def test_sidecar_values_out_of_range(tmp_path, card, old, new, said) -> None:
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"plan")
    _sidecar(card).write(engine)
    path = EngineSidecar.path_for(engine)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ArtifactError, match=said):
        EngineSidecar.read(engine)


@pytest.mark.fuzz
@given(st.binary(max_size=60), st.integers(0, 400), st.integers(0, 8))
def test_any_bytes_are_metadata_or_an_artifact_error(tmp_path_factory, damage, at, cut) -> None:
    data = FUZZ_MODEL.SerializeToString()
    path = tmp_path_factory.getbasetemp() / "fuzz.onnx"
    path.write_bytes(data[:at] + damage + data[at + cut :])
    with contextlib.suppress(ArtifactError):
        read_card(path)


def test_a_card_longer_than_any_is_refused(tmp_path) -> None:
    path = tmp_path / "long.onnx"
    length = (16 << 20) + 1
    with path.open("wb") as file:
        file.write(b"\x72" + bytes([length & 127 | 128, length >> 7 & 127 | 128,
                                    length >> 14 & 127 | 128, length >> 21]))  # fmt: skip
        file.truncate(file.tell() + length)
    with pytest.raises(ArtifactError, match="the length of the card is 16777217 bytes"):
        read_metadata(path)


def test_sidecar_with_a_strange_key(tmp_path, card) -> None:
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"plan")
    _sidecar(card).write(engine)
    path = EngineSidecar.path_for(engine)
    path.write_text(path.read_text().replace('"flavour"', '"flavor"'))
    with pytest.raises(ArtifactError, match="damaged"):
        EngineSidecar.read(engine)
    with pytest.raises(ArtifactError, match="not found"):
        EngineSidecar.read(tmp_path / "none.engine")
    assert dataclasses.is_dataclass(EngineSidecar)


def test_a_folder_appears_whole_or_not_at_all(tmp_path) -> None:
    target = tmp_path / "made"
    with pytest.raises(ZeroDivisionError), atomic_folder(target) as folder:
        (folder / "half").write_text("x")
        assert not target.exists()
        1 / 0  # noqa: B018
    assert not list(tmp_path.iterdir())
    with atomic_folder(target) as folder:
        (folder / "whole").write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == ["made"] and (target / "whole").is_file()
    with pytest.raises(UsageError, match="exists"), atomic_folder(target):
        pass
    with pytest.raises(UsageError, match="does not exist"), atomic_folder(tmp_path / "no" / "x"):
        pass


def test_a_draft_of_a_folder_stays_until_it_is_whole(tmp_path) -> None:
    target, draft = tmp_path / "made", tmp_path / ".made.part"
    with pytest.raises(ZeroDivisionError), atomic_folder(target, draft):
        1 / 0  # noqa: B018
    assert not draft.exists(), "nothing was put into it"
    with pytest.raises(ZeroDivisionError), atomic_folder(target, draft) as folder:
        (folder / "half").write_text("x")
        1 / 0  # noqa: B018
    assert [p.name for p in draft.iterdir()] == ["half"]
    with atomic_folder(target, draft) as folder:
        assert (folder / "half").is_file()
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


def test_a_text_is_written_whole_or_not_at_all(tmp_path) -> None:
    target = tmp_path / "a.txt"
    write_whole(target, "größe\n")
    assert target.read_bytes() == "größe\n".encode()
    with pytest.raises(UnicodeEncodeError):
        write_whole(target, "\ud800")
    assert target.read_bytes() == "größe\n".encode()
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
