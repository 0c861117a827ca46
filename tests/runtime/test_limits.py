"""The table of limits: what passes, what is refused, and the values that others may rely on."""

import dataclasses

import pytest

from prunus.runtime import limits
from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.limits import Limit, short_number

LIMIT = Limit("the nesting", 3, "levels")


@pytest.mark.parametrize("got", [0, 1, 3])
def test_what_lies_within_passes(got) -> None:
    LIMIT.check(got, "card.json")


@pytest.mark.parametrize("got", [-1, 4, 1 << 40])
def test_what_lies_outside_is_refused_by_name(got) -> None:
    said = rf"^card.json: the nesting is {got} levels; expected at most 3\."
    with pytest.raises(UsageError, match=said) as caught:
        LIMIT.check(got, "card.json")
    assert "damaged" in caught.value.hint
    with pytest.raises(ArtifactError, match=said):
        LIMIT.check(got, "card.json", ArtifactError)


def test_endless_numbers_are_told_by_their_length() -> None:
    assert short_number(2**96 - 1) == str(2**96 - 1)
    assert short_number(2**96) == "a number of 97 bits"
    with pytest.raises(UsageError, match="is a number of 20001 bits levels"):
        LIMIT.check(1 << 20000, "card.json")  # longer than Python writes out


def test_a_limit_cannot_be_moved_by_accident() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        limits.JSON_DEPTH.most = 1 << 40  # type: ignore[misc]


def test_the_table() -> None:
    """Raising one of these is a decision about memory and time: it is made here as well."""
    kib, mib, gib = 1024, 1024**2, 1024**3
    table = {name: row for name, row in vars(limits).items() if isinstance(row, Limit)}
    assert {name: row.most for name, row in table.items()} == {
        "CARD_BYTES": 16 * mib, "SIDECAR_BYTES": 16 * mib, "SAFETENSORS_HEADER_BYTES": 16 * mib,
        "JSON_DEPTH": 64, "TENSOR_VALUES": gib, "UNPACKED_BYTES": gib, "PLUGIN_BYTES": 256 * mib,
        "PICTURE_PIXELS": 128 * mib, "DOWNLOAD_BYTES": 16 * gib, "PICTURE_BYTES": 32 * mib,
        "PART_HEADER_BYTES": 64 * kib, "WEB_CONNECTIONS": 32, "ONNX_BYTES": 2 * gib - 1,
        "GRAPH_ITEMS": mib, "GRAPH_NAME_BYTES": 64 * kib, "WEB_VIEWERS": 24,
        "CONTROL_BYTES": 4 * kib, "OFFER_BYTES": 32 * kib, "OFFER_PARTS": 4,
        "CAMERA_PIXELS": 1920 * 1088, "ARRAY_BYTES": 8 * gib, "MANIFEST_BYTES": 4 * mib,
        "BUNDLE_FILES": 4 * kib, "RECEIPT_BYTES": 4 * mib,
    }  # fmt: skip
    seconds = {name: s for name, s in vars(limits).items() if name.endswith("_S")}
    assert seconds == {
        "ANSWER_S": 10, "PICTURE_S": 10, "BLOCK_S": 60, "BODY_S": 30, "REQUEST_S": 10,
        "RECONNECT_S": 300,
    }  # fmt: skip
