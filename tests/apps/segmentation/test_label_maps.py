"""Label maps of any bytes: class numbers, or one clear error."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.apps.segmentation.label_maps import LAYOUTS, read_labels
from prunus.runtime.errors import PrunusError, SourceError

cv2 = pytest.importorskip("cv2")
NUMBERS = np.arange(16, dtype=np.uint8).reshape(4, 4)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(numbers, *, depth=8, indexed=False, size=None) -> bytes:
    """A PNG by hand: `depth` bits, with a palette that is not 0, 1, 2 where `indexed`."""
    rows = [b"\0" + np.packbits(_bits(row, depth)).tobytes() for row in numbers]
    width, height = size or (len(numbers[0]), len(numbers))
    head = struct.pack(">IIBBBBB", width, height, depth, 3 if indexed else 0, 0, 0, 0)
    palette = bytes(255 - i for i in range(2**depth) for _ in range(3))
    parts = [_chunk(b"IHDR", head), *([_chunk(b"PLTE", palette)] if indexed else [])]
    parts += [_chunk(b"IDAT", zlib.compress(b"".join(rows))), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _bits(row, depth):
    return [(int(n) >> k) & 1 for n in row for k in range(depth - 1, -1, -1)]


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_every_depth_gives_the_numbers_that_were_written(tmp_path, depth, indexed) -> None:
    numbers = NUMBERS.astype(int) % 2**depth
    (tmp_path / "a.png").write_bytes(png(numbers, depth=depth, indexed=indexed))
    got = read_labels(tmp_path / "a.png", LAYOUTS["plain"])
    np.testing.assert_array_equal(got, numbers)
    assert got.dtype == np.int32


def test_layouts_number_as_their_data_sets_do(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(png([[0, 1, 7, 8], [150, 33, 255, 9]]))
    shifted = read_labels(tmp_path / "a.png", LAYOUTS["ade20k"])
    np.testing.assert_array_equal(shifted, [[255, 0, 6, 7], [149, 32, 254, 8]])
    cities = read_labels(tmp_path / "a.png", LAYOUTS["cityscapes"])
    np.testing.assert_array_equal(cities, [[255, 255, 0, 1], [255, 18, 255, 255]])


@pytest.mark.parametrize(("data", "words"), [
    (b"", "is empty"), (png(NUMBERS)[:40], "not a complete PNG"),
    (png(NUMBERS, size=(60_000, 60_000)), "million pixels"),
    (cv2.imencode(".png", np.random.default_rng(0).integers(0, 9, (4, 4, 3), np.uint8))[1]
     .tobytes(), "in colours"),
])  # fmt: skip
def test_what_holds_no_labels_is_named(tmp_path, data, words) -> None:
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(SourceError, match=words):
        read_labels(tmp_path / "a.png", LAYOUTS["plain"])


@pytest.mark.fuzz
@given(
    st.sampled_from([1, 2, 4, 8]), st.booleans(), st.binary(max_size=20), st.integers(0, 200),
    st.sampled_from(sorted(LAYOUTS)),
)  # fmt: skip
def test_any_bytes_are_labels_or_one_clear_error(
    tmp_path_factory, depth, indexed, noise, place, layout
) -> None:
    whole = png(NUMBERS.astype(int) % 2**depth, depth=depth, indexed=indexed)
    path = tmp_path_factory.getbasetemp() / "fuzz-labels.png"
    path.write_bytes(whole[:place] + noise + whole[place + len(noise) :])
    try:
        numbers = read_labels(path, LAYOUTS[layout])
    except PrunusError as error:
        assert error.message and error.hint
    else:
        assert numbers.ndim == 2 and numbers.dtype == np.int32
