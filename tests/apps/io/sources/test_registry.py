"""Sources: what they deliver, and one clear error for each kind of bad input."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.apps.io.rows import without_password
from prunus.apps.io.sources.pictures import picture_ids, read_picture
from prunus.apps.io.sources.registry import open_source
from prunus.runtime.errors import PrunusError, SourceError


def read(uri):
    with contextlib.closing(open_source(str(uri))) as source:
        return list(source), source


def test_picture(portrait):
    frames, source = read(portrait)
    assert len(frames) == 1
    assert frames[0].image.shape == (512, 512, 3)
    assert frames[0].name == "portrait.jpg"
    assert source.info.kind == "picture"


def test_one_pixel_picture(tmp_path):
    cv2.imwrite(str(tmp_path / "dot.png"), np.full((1, 1, 3), 7, np.uint8))
    frames, _ = read(tmp_path / "dot.png")
    assert frames[0].image.shape == (1, 1, 3)


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("grey.png", np.full((4, 6), 9, np.uint8)),
        ("alpha.png", np.full((4, 6, 4), 9, np.uint8)),
        ("deep.tiff", np.full((4, 6, 3), 9 << 8, np.uint16)),
        ("float.tiff", np.full((4, 6, 3), 9 / 255, np.float32)),
    ],
)
def test_other_layouts_become_bgr8(tmp_path, name, pixels):
    cv2.imwrite(str(tmp_path / name), pixels)
    frames, _ = read(tmp_path / name)
    assert frames[0].image.dtype == np.uint8
    np.testing.assert_array_equal(frames[0].image, np.full((4, 6, 3), 9, np.uint8))


def test_nan_picture(tmp_path):
    cv2.imwrite(str(tmp_path / "nan.tiff"), np.full((4, 4, 3), np.nan, np.float32))
    with pytest.raises(SourceError, match="NaN"):
        open_source(str(tmp_path / "nan.tiff"))


def test_folder_skips_damaged_pictures_and_says_so(tmp_path, portrait):
    for name in ("a.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(portrait.read_bytes())
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    (tmp_path / "notes.txt").write_text("not a picture")
    frames, source = read(tmp_path)
    assert [(f.index, f.name) for f in frames] == [(0, "a.jpg"), (1, "c.jpg")]
    assert len(source.warnings) == 1
    assert "b.jpg" in source.warnings[0]
    assert [f.image_id for f in frames] == [0, 2]  # whatever is skipped before


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["000000000139.jpg", "000000000285.jpg"], [139, 285]),
        (["COCO_val2014_000000000042.jpg", "COCO_val2014_000000000139.jpg"], [42, 139]),
        (["2.jpg", "2.png"], [0, 1]),  # one number twice
        (["10.jpg", "2.jpg", "portrait.jpg"], [0, 1, 2]),  # one has none
        (["007.jpg", "7.png"], [0, 1]),
        (["shot_2.jpg", "shot_3.jpg"], [0, 1]),
        (["²_1.jpg"], [0]),
    ],
)
def test_ids_follow_one_scheme_for_the_whole_folder(names, ids):
    assert list(picture_ids(names).values()) == ids


def jpeg(size, thumbnail=b""):
    noise = np.random.default_rng(2).integers(0, 256, (*size, 3), np.uint8)
    data = cv2.imencode(".jpg", noise)[1].tobytes()
    exif = b"Exif\0\0" + thumbnail
    head = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif if thumbnail else b""
    return data[:2] + head + data[2:]


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize(
    "behind", [b"", bytes(9000), b"\0\0\0\x18ftypmp42" + bytes(range(256)) * 40]
)
def test_a_film_behind_a_jpeg_is_no_damage(tmp_path, progressive, behind):
    noise = np.random.default_rng(2).integers(0, 256, (48, 64, 3), np.uint8)
    data = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_PROGRESSIVE, progressive])[1].tobytes()
    (tmp_path / "motion.jpg").write_bytes(data + behind)
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(read_picture(tmp_path / "motion.jpg"), image)


@pytest.mark.parametrize("left", [2, 100, 3000])
def test_the_end_of_a_thumbnail_is_not_the_end_of_the_picture(tmp_path, left):
    whole = jpeg((64, 96), thumbnail=jpeg((8, 8)))
    (tmp_path / "whole.jpg").write_bytes(whole)
    assert read_picture(tmp_path / "whole.jpg").shape == (64, 96, 3)
    (tmp_path / "cut.jpg").write_bytes(whole[:-left])
    with pytest.raises(SourceError, match="not a complete picture"):
        read_picture(tmp_path / "cut.jpg")


def bad_files(tmp_path, portrait, video):
    data = portrait.read_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_text("hello")
    png = cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes()
    (tmp_path / "half.png").write_bytes(png[: len(png) // 2])
    # A valid header that promises 60000 x 60000 pixels.
    huge = bytearray(png)
    huge[16:24] = (60000).to_bytes(4, "big") * 2
    import zlib

    huge[29:33] = zlib.crc32(bytes(huge[12:29])).to_bytes(4, "big")
    (tmp_path / "huge.png").write_bytes(bytes(huge))
    (tmp_path / "noise.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + b"x" * 999)
    (tmp_path / "empty.mp4").write_bytes(b"")
    film = video.read_bytes()
    (tmp_path / "half.mp4").write_bytes(film[: len(film) // 2])
    (tmp_path / "no_pictures").mkdir()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("missing.jpg", "not found"),
        ("half.jpg", "not a complete picture"),
        ("empty.jpg", "is empty"),
        ("text.png", "not a complete picture"),
        ("half.png", "not a complete picture"),
        ("huge.png", "not a complete picture|million pixels"),
        ("missing.mp4", "not found"),
        ("noise.mp4", "not a video"),
        ("empty.mp4", "is empty"),
        ("half.mp4", "not a video|gives no picture"),
        ("no_pictures", "holds no picture"),
    ],
)
def test_bad_files_are_one_clear_error(tmp_path, portrait, video, capfd, name, said):
    bad_files(tmp_path, portrait, video)
    with pytest.raises(SourceError, match=said) as caught:
        open_source(str(tmp_path / name))
    assert caught.value.hint
    assert capfd.readouterr().err == ""  # the decoders' own messages do not get through


def test_video(video):
    frames, source = read(video)
    assert len(frames) == 12
    assert (source.info.width, source.info.height, source.info.fps) == (256, 256, 10.0)
    assert source.info.frames == 12
    assert not source.info.live
    assert source.warnings == []


def test_cut_off_video_gives_what_decodes_and_a_warning(tmp_path, portrait, capfd):
    path = tmp_path / "long.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (256, 256))
    picture = cv2.resize(cv2.imread(str(portrait)), (256, 256))
    for _ in range(30):
        writer.write(picture)
    writer.release()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames, source = read(path)
    assert 5 < len(frames) < 30
    assert "of 30 frames" in source.warnings[0]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    "name", ["/dev/video", "/dev/videos", "/dev/video-1", "²", "٣", "9" * 5000]
)
def test_what_only_looks_like_a_camera_is_not_found(name):
    with pytest.raises(SourceError, match="not found"):
        open_source(name)


def test_a_folder_named_like_a_number_is_a_folder(tmp_path, portrait, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "2024").mkdir()
    shutil.copy(portrait, tmp_path / "2024" / "may.jpg")
    frames, source = read("2024")
    assert ([f.name for f in frames], source.info.kind) == (["may.jpg"], "folder")


@pytest.mark.parametrize("name", ["12:30.mp4", "http:clip.mp4", "synthetic.mp4", "a?b#c%20.mp4"])
def test_a_file_may_have_any_name(tmp_path, video, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    shutil.copy(video, tmp_path / name)
    frames, source = read(name)
    assert (len(frames), source.info.kind) == (12, "video")


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for name in (tmp_path / "pipe.mp4", "/dev/zero"):
        with pytest.raises(SourceError, match="neither a file nor a folder"):
            open_source(str(name))


@pytest.mark.parametrize("uri", [":", ":x", ":8080", "::"])
def test_a_colon_in_front_is_no_scheme(uri):
    with pytest.raises(SourceError, match="Source not found"):
        open_source(uri)


@pytest.mark.fuzz
@given(
    st.sampled_from(["", "/dev/video", "synthetic:", "http:", "file://", "rtsp:", "x://", "~"]),
    st.text(st.characters(exclude_characters="/\\0123456789"), max_size=30),
)
def test_any_text_opens_or_is_one_clear_error(prefix, text):
    with contextlib.suppress(PrunusError):
        open_source(prefix + text).close()


@pytest.mark.parametrize(
    "uri",
    ["http://[", "http://", "https:///a", "http://a b/", "http://127.0.0.1:99999/", "http://:1/",
     "synthetic:*" + "9" * 5000, "synthetic:٣x٣", "synthetic:@" + "9" * 400,
     "http://127.0.0.1:1/\n", "http://" + "a" * 300 + "/", "http://é\ud800/", "a\0b", "x" * 5000],
)  # fmt: skip
def test_odd_addresses_are_one_clear_error(uri):
    with pytest.raises(SourceError):
        open_source(uri)


def test_cameras_that_do_not_exist(capfd):
    for name in ("97", "/dev/video97"):
        with pytest.raises(SourceError, match="cannot be opened"):
            open_source(name)
    assert capfd.readouterr().err == ""


def test_streams_that_do_not_answer_fail_soon():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        for scheme in ("rtsp", "http"):
            start = time.monotonic()
            with pytest.raises(SourceError, match="No stream answers"):
                open_source(f"{scheme}://me:secret@127.0.0.1:{port}/x")
            assert time.monotonic() - start < 6


def test_unknown_scheme_names_the_nearest():
    with pytest.raises(SourceError, match=r"did you mean 'rtsp'\?"):
        open_source("rstp://camera/1")


def test_synthetic_is_the_same_every_time():
    first, source = read("synthetic:64x48@0*3")
    second, _ = read("synthetic:64x48@0*3")
    assert [f.image.shape for f in first] == [(48, 64, 3)] * 3
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, second, strict=True))
    assert not np.array_equal(first[0].image, first[2].image)
    assert not source.info.live


@pytest.mark.parametrize("text", ["640", "0x5", "9999x9999", "a@b"])
def test_synthetic_of_another_form(text):
    with pytest.raises(SourceError, match="WIDTHxHEIGHT"):
        open_source(f"synthetic:{text}")


def test_passwords_stay_out_of_messages():
    assert without_password("rtsp://me:secret@camera/1") == "rtsp://me:***@camera/1"
    assert without_password("http://camera/1") == "http://camera/1"
