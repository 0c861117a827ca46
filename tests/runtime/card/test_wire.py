"""Protobuf's bytes, read in place."""

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.runtime.card.wire import CutOffError, Message, WireError, opened, signed


def message(data: bytes) -> Message:
    return Message(data, 0, len(data))


def test_fields_are_those_that_protobuf_wrote() -> None:
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], name="café", kernel_shape=[3, 3])
    texts = [(n, v.text()) for n, v in message(node.SerializeToString()).fields() if n != 5]
    assert texts == [(1, "x"), (1, "w"), (2, "y"), (3, "café"), (4, "Conv")]
    float_field = onnx.AttributeProto(name="alpha", f=1.5, type=1).SerializeToString()
    assert [n for n, _ in message(float_field).fields()] == [1, 20]  # 4 fixed bytes passed over


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), max_size=20))
def test_numbers_survive(values) -> None:
    tensor = onnx.TensorProto(dims=values).SerializeToString()
    assert [signed(v) for n, v in message(tensor).fields() if n == 1] == values
    packed = onnx.TensorProto(int64_data=values).SerializeToString()
    found = [signed(v) for n, part in message(packed).fields() if n == 7 for v in part.numbers()]
    assert found == values


@pytest.mark.parametrize("data", [b"\x08", b"\x0a\x05abc", b"\x0d\x00\x00", b"\x08\x80"])
def test_what_ends_inside_a_field_is_cut_off(data) -> None:
    with pytest.raises(CutOffError):
        list(message(data).fields())


@pytest.mark.parametrize(
    ("data", "said"), [(b"\x0b", "wire type 3"), (b"\x08" + b"\xff" * 10 + b"\x01", "64 bits")]
)
def test_what_is_no_message_is_named(data, said) -> None:
    with pytest.raises(WireError, match=said):
        list(message(data).fields())


def test_text_that_is_none() -> None:
    with pytest.raises(WireError, match="utf-8"):
        message(b"\xff").text()


@pytest.mark.fuzz
@given(st.binary(max_size=80))
def test_any_bytes_are_fields_or_a_wire_error(data) -> None:
    try:
        for _, value in message(data).fields():
            if isinstance(value, Message):
                assert value.raw() == data[value.start : value.end]
    except WireError:
        pass


def test_a_file_is_a_message(tmp_path) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"\x08\x07")
    with opened(path) as found:
        assert list(found.fields()) == [(1, 7)]
    path.write_bytes(b"")
    with opened(path) as found:
        assert not list(found.fields())
