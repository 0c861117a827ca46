"""Pictures and label maps of any bytes: read whole, or one clear error."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.runtime.errors import PrunusError, SourceError
from prunus.runtime.pictures.files import PICTURES, read_picture

cv2 = pytest.importorskip("cv2")
IMAGE = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def huge_png(width: int, height: int) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = (_chunk(b"IHDR", head), _chunk(b"IDAT", zlib.compress(b"")), _chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("ending", [p for p in PICTURES if p not in (".jpeg", ".tif")])
def test_whole_pictures_are_read_and_cut_ones_named(tmp_path, ending) -> None:
    data = cv2.imencode(ending, IMAGE)[1].tobytes()
    path = tmp_path / f"a{ending}"
    path.write_bytes(data)
    assert read_picture(path).shape == IMAGE.shape
    if ending not in (".jpg", ".webp"):
        np.testing.assert_array_equal(read_picture(path), IMAGE)
    for share in (0.3, 0.7, 0.95):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(SourceError, match="not a complete picture"):
            read_picture(path)


def test_a_declared_size_beyond_the_limit_is_refused_before_any_work(tmp_path) -> None:
    (tmp_path / "a.png").write_bytes(huge_png(60_000, 60_000))
    with pytest.raises(SourceError, match="more than 134 million pixels"):
        read_picture(tmp_path / "a.png")


def test_a_jpeg_is_whole_with_a_film_behind_it_and_cut_with_a_thumbnail_inside(tmp_path) -> None:
    path = tmp_path / "a.jpg"
    data = cv2.imencode(".jpg", IMAGE)[1].tobytes()
    path.write_bytes(data + bytes(8000))
    assert read_picture(path).shape == IMAGE.shape
    thumbnail = b"\xff\xe1" + struct.pack(">H", len(data) + 2) + data
    path.write_bytes(data[:2] + thumbnail + data[2 : len(data) // 2])
    with pytest.raises(SourceError, match="not a complete picture"):
        read_picture(path)


@pytest.mark.fuzz
@given(st.sampled_from([".png", ".jpg", ".bmp", ".webp", ".tiff", ".ppm"]), st.data())
def test_any_bytes_are_a_picture_or_one_clear_error(tmp_path_factory, ending, data) -> None:
    whole = cv2.imencode(ending, IMAGE)[1].tobytes()
    noise, place = data.draw(st.binary(max_size=40)), data.draw(st.integers(0, len(whole)))
    path = tmp_path_factory.getbasetemp() / f"fuzz{ending}"
    path.write_bytes(whole[:place] + noise + whole[place + len(noise) :])
    try:
        image = read_picture(path)
    except PrunusError as error:
        assert error.message and error.hint
    else:
        assert image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
