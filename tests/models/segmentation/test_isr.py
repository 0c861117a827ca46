"""Settings of inference spatial reduction, and which sizes they take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.models.segmentation.isr import IsrSetting, nearest_sizes, parse_isr
from prunus.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("text", "encoder", "decoder"),
    [
        ("off", (8, 4, 2, 1), (4, 2, 1)),
        ("1111-222", (8, 4, 2, 1), (8, 4, 2)),
        ("published", (16, 8, 2, 1), (8, 4, 2)),
        ("2222-222", (16, 8, 4, 2), (8, 4, 2)),
        ("1111-333", (8, 4, 2, 1), (12, 6, 3)),
        ("1234-431", (8, 8, 6, 4), (16, 6, 1)),
    ],
)
def test_factors_multiply_the_trained_pooling(text, encoder, decoder) -> None:
    setting = parse_isr(text)
    assert setting.encoder_pooling == encoder
    assert setting.decoder_pooling == decoder  # strides 8, 16, 32, in this order


def test_names_read_back() -> None:
    assert parse_isr("published").name == "2211-222"
    assert parse_isr("off").is_off and not parse_isr("decoder").is_off
    assert IsrSetting((1, 1, 1, 1), (12, 1, 1)).name == "1.1.1.1-12.1.1"


@pytest.mark.parametrize("text", ["", "2211", "2211222", "2211-22", "0211-222", "publisched"])
def test_what_is_no_setting_is_refused(text) -> None:
    with pytest.raises(UsageError, match="four digits") as error:
        parse_isr(text)
    assert ("published" in error.value.message) == (text == "publisched")


def test_sizes_that_lose_keys_are_refused_with_the_nearest_ones() -> None:
    published = parse_isr("published")
    published.check_size(512, 448)
    with pytest.raises(UsageError, match="multiples of 64") as error:
        published.check_size(500, 333)
    assert "448x320 or 512x384" in error.value.hint
    published.check_size(500, 333, drop_remainder=True)
    parse_isr("off").check_size(96, 32)
    with pytest.raises(UsageError, match="multiples of 192"):
        parse_isr("2211-222").__class__((2, 2, 1, 1), (3, 3, 3)).check_size(512, 512)


def test_a_pooling_larger_than_its_map_is_refused() -> None:
    published = parse_isr("published")
    assert published.smallest_side() == 61
    published.check_size(61, 61, drop_remainder=True)
    with pytest.raises(UsageError, match="at least 61"):
        published.check_size(60, 512, drop_remainder=True)


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([32, 64, 192]))
def test_nearest_sizes_are_valid_and_near(height, width, step) -> None:
    for size in nearest_sizes(height, width, step):
        for got, wanted in zip(map(int, size.split("x")), (height, width), strict=True):
            assert got % step == 0 and got >= step and abs(got - wanted) < step
