"""Sinks: complete files whatever happens, and one clear error for what cannot be written."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import cv2
import numpy as np
import pytest

from prunus.apps.io.sinks.registry import open_sink
from prunus.apps.io.sources.registry import Frame, SourceInfo
from prunus.apps.pose.coco_results import ResultWriter
from prunus.runtime.errors import HostError, SourceError
from prunus.runtime.tasks.pose.estimator import Pose

INFO = SourceInfo("video", 64, 48, 10.0, 5, live=False)
Usage = namedtuple("Usage", "total used free")


def frame(index=0, name="", size=(48, 64), value=90):
    return Frame(index, np.full((*size, 3), value, np.uint8), name, 0)


def write(uri, frames, info=INFO):
    with contextlib.closing(open_sink(str(uri), info)) as sink:
        for one in frames:
            sink.write(one, one.image)


def pose(track_id=3):
    keypoints = np.arange(51, dtype=np.float32).reshape(17, 3) / 51
    return Pose(keypoints, (1.0, 2.0, 11.0, 22.0), 0.5, track_id)


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv"])
def test_video_round_trip(tmp_path, suffix, frames_of):
    path = tmp_path / f"out{suffix}"
    write(path, [frame(i, value=40 * (i + 1)) for i in range(5)])
    values = [int(f.mean().round()) for f in frames_of(path)]
    assert len(values) == 5
    assert np.abs(np.array(values) - [40, 80, 120, 160, 200]).max() <= 3
    assert os.listdir(tmp_path) == [path.name]


def test_video_has_its_name_only_when_complete(tmp_path):
    path = tmp_path / "out.mp4"
    with contextlib.closing(open_sink(str(path), INFO)) as sink:
        sink.write(frame(), frame().image)
        assert not path.exists()
    assert path.exists()


def test_video_without_frames_leaves_nothing(tmp_path):
    write(tmp_path / "out.mp4", [])
    assert os.listdir(tmp_path) == []


def test_video_takes_frames_of_other_and_odd_sizes(tmp_path, frames_of):
    odd = SourceInfo("folder", 65, 49, 0.0, 3, live=False)
    frames = [frame(0, size=(49, 65)), frame(1, size=(200, 20)), frame(2, size=(1, 1))]
    write(tmp_path / "out.mp4", frames, odd)
    shapes = {f.shape for f in frames_of(tmp_path / "out.mp4")}
    assert shapes == {(48, 64, 3)}


def test_one_pixel_video(tmp_path, frames_of):
    dot = SourceInfo("picture", 1, 1, 0.0, 1, live=False)
    write(tmp_path / "dot.mp4", [frame(size=(1, 1))], dot)
    assert len(frames_of(tmp_path / "dot.mp4")) == 1


def test_video_keeps_what_fitted_when_the_disk_fills_up(tmp_path, monkeypatch, frames_of):
    path = tmp_path / "out.mp4"
    sink = open_sink(str(path), INFO)
    for i in range(16):
        sink.write(frame(i), frame(i).image)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 1000))
    with pytest.raises(HostError, match="No space left"):
        sink.write(frame(16), frame(16).image)
    sink.close()
    assert len(frames_of(path)) == 16


@pytest.mark.parametrize("name", ["out.mp4", "out.png", "folder/"])
def test_full_disk_is_told_before_the_work(tmp_path, monkeypatch, name):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9, 1000))
    with pytest.raises(HostError, match="No space left") as caught:
        open_sink(str(tmp_path / name), INFO)
    assert caught.value.exit_code == 3
    assert [n for n in os.listdir(tmp_path) if n != "folder"] == []


@pytest.mark.parametrize("name", ["out.mp4", "out.png", "out.json"])
def test_missing_folder_is_told_before_the_work(tmp_path, name):
    with pytest.raises(SourceError, match="does not exist"):
        path = tmp_path / "nowhere" / name
        ResultWriter(path) if name.endswith("json") else open_sink(str(path), INFO)


@pytest.mark.parametrize("name", ["out.mp4", "out.png", "sub/", "out.json"])
def test_read_only_folder(tmp_path, monkeypatch, name):
    tmp_path.chmod(0o500)
    if os.geteuid() == 0:  # the superuser may write anywhere: let the system calls refuse instead

        def refuse(*_, **__):
            raise PermissionError(errno.EACCES, "Permission denied")

        monkeypatch.setattr(tempfile, "mkstemp", refuse)
        monkeypatch.setattr(Path, "mkdir", refuse)
    try:
        # Named as the user named it: files that only try the folder out are nobody's business.
        shown = rf"Cannot write .*{name.rstrip('/')}: Permission denied"
        with pytest.raises(SourceError, match=shown):
            path = tmp_path / name
            ResultWriter(path) if name.endswith("json") else open_sink(f"{tmp_path}/{name}", INFO)
    finally:
        tmp_path.chmod(0o700)
    assert os.listdir(tmp_path) == []


def test_a_file_in_the_place_of_a_folder(tmp_path):
    (tmp_path / "file").touch()
    for name in ("file/out.mp4", "file/sub/"):
        with pytest.raises(SourceError):
            open_sink(f"{tmp_path}/{name}", INFO)


def test_pictures_keep_their_names(tmp_path):
    write(f"{tmp_path}/new/", [frame(0, "a.png"), frame(1, "b.jpg"), frame(2)])
    assert sorted(os.listdir(tmp_path / "new")) == ["a.png", "b.jpg", "frame_000002.jpg"]
    assert cv2.imread(str(tmp_path / "new" / "a.png")).shape == (48, 64, 3)


def test_picture_sink(tmp_path):
    write(tmp_path / "one.png", [frame(value=33)])
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "one.png")), frame(value=33).image)
    assert os.listdir(tmp_path) == ["one.png"]


def test_unknown_kinds():
    with pytest.raises(SourceError, match=r"did you mean 'web'\?"):
        open_sink("wab:80", INFO)
    with pytest.raises(SourceError, match=r"unknown ending '\.gif'"):
        open_sink("out.gif", INFO)


def test_headless_opencv_says_so():
    if any("GUI:" in s and "NONE" not in s for s in cv2.getBuildInformation().splitlines()):
        pytest.skip("this OpenCV can open windows")
    with pytest.raises(HostError, match="cannot open windows"):
        open_sink("window:", INFO)


def test_results_have_coco_format(tmp_path):
    import json

    path = tmp_path / "out.json"
    with contextlib.closing(ResultWriter(path)) as writer:
        writer.write(frame(7), [pose(), pose(-1)])
        writer.write(Frame(8, frame().image, "000000000139.jpg", 0, 139), [pose()])
        assert not path.exists()
    first, second, third = json.loads(path.read_text())
    assert first["image_id"] == 7
    assert first["category_id"] == 1
    assert first["bbox"] == [1.0, 2.0, 10.0, 20.0]
    assert len(first["keypoints"]) == 51
    np.testing.assert_allclose(first["keypoints"], pose().keypoints.reshape(-1), atol=5e-4)
    assert first["track_id"] == 3
    assert "track_id" not in second
    assert (third["image_id"], third["file_name"]) == (139, "000000000139.jpg")
    assert os.listdir(tmp_path) == ["out.json"]


def test_no_people_is_an_empty_list(tmp_path):
    with contextlib.closing(ResultWriter(tmp_path / "out.json")) as writer:
        writer.write(frame(), [])
    assert (tmp_path / "out.json").read_text().split() == ["[", "]"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_results_on_a_full_disk(tmp_path):
    writer = ResultWriter(tmp_path / "out.json")
    writer._file.close()
    with open("/dev/full", "w") as full:
        writer._file = full
        writer.write(frame(), [pose()])
        with pytest.raises(HostError, match="No space left"):
            writer.close()
        writer._file = open(os.devnull, "w")
        with contextlib.suppress(OSError):
            full.close()
    assert os.listdir(tmp_path) == []


def test_image_id():
    assert Frame(4, frame().image, "000000000139.jpg", 0, 139).image_id == 139
    assert frame(4, "street.jpg").image_id == 4
    assert frame(4).image_id == 4


def test_results_carry_the_time_of_frames_that_have_one(tmp_path):
    import json

    path = tmp_path / "out.json"
    timed = Frame(7, frame().image, "", 0, seconds=1.4000001)
    with contextlib.closing(ResultWriter(path)) as writer:
        writer.write(timed, [pose()])
        writer.write(frame(8, "a.jpg"), [pose()])
    first, second = json.loads(path.read_text())
    assert first["seconds"] == 1.4
    assert "seconds" not in second
