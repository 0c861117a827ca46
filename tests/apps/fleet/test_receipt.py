import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.apps.fleet.receipt import Finding, Receipt, file_name, read, write
from prunus.runtime.errors import ArtifactError, PrunusError

MADE = Receipt("cam 1", "2026-01-01T00:00:00Z", "test", {"name": "two", "digest": "ab" * 32,
               "signer": "s", "trusted": False}, (Finding("throttled", "m", "d"),),
               ({"name": "m", "effect": {"snr_db": float("inf"), "px": 0.1}},), {})  # fmt: skip


def test_what_is_written_is_read(keys, tmp_path) -> None:
    write(MADE, keys / "device.key", tmp_path / "r.json")
    made, signature = read(tmp_path / "r.json")
    assert made["verdict"] == "throttled"
    assert made["models"][0]["effect"] == {"snr_db": None, "px": 0.1}
    assert signature.signer.startswith("ed25519:")
    assert file_name("cam 1", "ab" * 32) == "cam_1-abababababab.json"


@pytest.mark.parametrize("key", ["device", "verdict", "findings", "models", "machine", "bundle"])
def test_a_change_anywhere_is_seen(key, keys, tmp_path) -> None:
    path = tmp_path / "r.json"
    write(MADE, keys / "device.key", path)
    whole = json.loads(path.read_text())
    del whole["receipt"][key]
    path.write_text(json.dumps(whole))
    with pytest.raises(ArtifactError):
        read(path)


def test_another_layout_of_the_same_json_is_the_same_receipt(keys, tmp_path) -> None:
    path = tmp_path / "r.json"
    write(MADE, keys / "device.key", path)
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert read(path)[0]["device"] == "cam 1"


@pytest.mark.fuzz
@given(st.binary(max_size=300) | st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(
        st.sampled_from(["receipt", "signature", "key", "schema", "device"]), inner, max_size=3),
).map(lambda raw: json.dumps(raw).encode()))  # fmt: skip
def test_hostile_files_end_in_one_error(tmp_path_factory, data) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile.json"
    path.write_bytes(data)
    with pytest.raises(PrunusError):
        read(path)
