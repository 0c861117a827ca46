"""The pose app end to end with a shipped model: pictures, videos, boxes, Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from prunus.apps.io.sinks.pictures import FolderSink
from prunus.apps.pose.coco_results import ResultWriter

MODEL = ("--model", "movenet_lightning", "--threads", "1", "--backend", "onnxruntime")


def test_picture_to_picture_and_keypoints(prunus, tmp_path, portrait):
    out, found = tmp_path / "out.png", tmp_path / "out.json"
    ran = prunus("run", "pose", "--source", portrait, *MODEL, "-o", out, "--json-out", found)
    assert ran.code == 0, ran.err
    (person,) = json.loads(found.read_text())
    nose, left_eye, right_eye = np.array(person["keypoints"]).reshape(17, 3)[:3]
    # Where they are in the portrait, within a tenth of the width of the face.
    assert np.abs(nose[:2] - (226, 122)).max() < 12
    assert left_eye[0] > nose[0] > right_eye[0]
    assert min(nose[2], left_eye[2], right_eye[2]) > 0.3
    drawn, plain = cv2.imread(str(out)), cv2.imread(str(portrait))
    assert drawn.shape == plain.shape
    assert (drawn != plain).any()


def test_video_to_video_with_summary(prunus, tmp_path, video, frames_of):
    out = tmp_path / "out.mp4"
    ran = prunus("run", "pose", "--source", video, *MODEL, "-o", out, "--json", "--max-frames", 5)
    assert ran.code == 0, ran.err
    summary = json.loads(ran.out)
    assert summary["frames"] == 5
    assert summary["dropped"] == 0
    assert [name for name, *_ in summary["stages"]][:3] == ["capture", "pose", "draw"]
    assert len(frames_of(out)) == 5
    assert "100 %" in ran.err


def test_a_page_gets_clean_pictures_and_people_as_data(prunus, page, tmp_path, video):
    found = tmp_path / "out.json"
    ran = prunus("run", "pose", "--source", video, *MODEL, "--json-out", found, "--sink", "web:1")
    assert ran.code == 0, ran.err
    assert page.head["model"] == "movenet lightning fp32" and page.head["source"] == "walk.mp4"
    skeleton = page.head["skeleton"]
    assert len(skeleton["limbs"]) == len(skeleton["limb_colours"]) > 10
    assert {c["name"] for c in page.controls.describe()} == {"conf", "paused"}
    assert len(page.told) == 12
    for (clean, data, drawn), written in zip(
        page.told, json.loads(found.read_text()), strict=True
    ):
        (person,) = data["overlay"]
        assert np.abs(np.ravel(person["joints"]) - written["keypoints"]).max() < 0.06
        assert person["id"] == written["track_id"] and person["label"] == "0"
        assert (clean != drawn).any()  # what was drawn is on one of them alone
        assert data["facts"]["People"] == "1" and data["facts"]["Number format"] == "fp32"
        assert {"find", "infer", "draw"} <= set(data["stages"])


def test_the_threshold_of_a_page_acts(prunus, page, portrait, tmp_path):
    picture = cv2.resize(cv2.imread(str(portrait)), (256, 256))
    video = tmp_path / "still.mp4"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (256, 256))
    for _ in range(48):
        writer.write(picture)
    writer.release()
    page.settings = {5: {"conf": 1.0}, 26: {"conf": 0.1}}
    words = ("--source", video, *MODEL, "--sink", "web:1", "--detect-every", 1)
    assert prunus("run", "pose", *words).code == 0
    people = [len(data["overlay"]) for _, data, _ in page.told]
    assert people[:5] == [1] * 5
    # Some frames are on their way meanwhile; who is lost from view is followed for half a second.
    assert page.controls["conf"] == 0.1 and 0 in people[6:] and people[-1] == 1


@pytest.mark.parametrize(("words", "shown"), [((), 0.15), (("--conf", 0), 0), (("--conf", 1), 1)])
def test_a_page_begins_with_the_threshold_of_the_run(prunus, page, video, words, shown):
    words = ("--source", video, *MODEL, "--sink", "web:1", "--max-frames", 2, *words)
    assert prunus("run", "pose", *words).code == 0
    assert page.controls["conf"] == shown


def test_one_person_without_a_finder_has_no_threshold(prunus, page, video):
    assert prunus("run", "pose", "--source", video, *MODEL, "--single", "--sink", "web:1").code == 0
    assert [c["name"] for c in page.controls.describe()] == ["paused"]
    assert {len(data["overlay"]) for _, data, _ in page.told} == {1}


def test_people_keep_their_names_in_a_video(prunus, tmp_path, video):
    found = tmp_path / "out.json"
    ran = prunus("run", "pose", "--source", video, *MODEL, "--json-out", found, "--quiet")
    assert ran.code == 0, ran.err
    assert ran.err == ran.out == ""
    results = json.loads(found.read_text())
    assert [r["image_id"] for r in results] == list(range(12))
    assert {r["track_id"] for r in results} == {0}
    noses = np.array([r["keypoints"][:2] for r in results])
    steps = np.diff(noses[:, 0])
    assert 0 < np.median(steps) < 2  # the picture moves one pixel a frame


def test_single_needs_no_finder(prunus, tmp_path, video):
    found = tmp_path / "out.json"
    words = ("run", "pose", "--source", video, *MODEL, "--single", "--json-out", found)
    assert prunus(*words, "--finder", "no-such-model").code == 0
    assert {r["track_id"] for r in json.loads(found.read_text())} == {0}


def test_boxes_of_another_detector(prunus, tmp_path, portrait):
    boxes, found = tmp_path / "boxes.json", tmp_path / "out.json"
    boxes.write_text('[{"image_id": 0, "bbox": [10, 10, 360, 500], "score": 0.9}]')
    words = ("run", "pose", "--source", portrait, *MODEL, "--boxes", boxes, "--json-out", found)
    assert prunus(*words).code == 0
    (person,) = json.loads(found.read_text())
    np.testing.assert_allclose(person["bbox"], [10, 10, 360, 500])


@pytest.fixture
def folder(tmp_path, portrait):
    """Four pictures, the second one cut."""
    whole = portrait.read_bytes()
    (tmp_path / "in").mkdir()
    for name in "abcd":
        (tmp_path / "in" / f"{name}.jpg").write_bytes(whole)
    (tmp_path / "in" / "b.jpg").write_bytes(whole[: len(whole) // 2])
    return tmp_path / "in"


def people_boxes(path, **extra):
    rows = [
        {"image_id": k, "category_id": 1, "bbox": [10 + k, 20, 300, 480], "score": 0.9}
        | {key: value(k) for key, value in extra.items()}
        for k in range(4)
    ]
    path.write_text(json.dumps(rows))
    return path


def test_boxes_stay_with_their_picture_when_one_is_damaged(prunus, tmp_path, folder):
    boxes, found = people_boxes(tmp_path / "boxes.json"), tmp_path / "out.json"
    words = ("run", "pose", "--source", folder, *MODEL, "--json-out", found)
    assert prunus(*words, "--boxes", boxes).code == 1
    results = json.loads(found.read_text())
    of = [(r["file_name"], r["image_id"], r["bbox"][0]) for r in results]
    assert of == [("a.jpg", 0, 10), ("c.jpg", 2, 12), ("d.jpg", 3, 13)]
    # The results are boxes themselves, and names count more than ids.
    results = [r | {"image_id": 3 - r["image_id"]} for r in results]
    boxes.write_text(json.dumps(results))
    assert prunus(*words, "--boxes", boxes).code == 1
    assert [(r["file_name"], r["bbox"][0]) for r in json.loads(found.read_text())] == [
        ("a.jpg", 10), ("c.jpg", 12), ("d.jpg", 13)
    ]  # fmt: skip


def test_boxes_numbered_from_zero_are_people_and_strangers_are_refused(prunus, tmp_path, folder):
    found = tmp_path / "out.json"
    words = ("run", "pose", "--source", folder, *MODEL, "--json-out", found, "--boxes")
    boxes = people_boxes(tmp_path / "boxes.json", category_id=lambda k: min(k, 1))
    assert prunus(*words, boxes).code == 1
    assert [r["file_name"] for r in json.loads(found.read_text())] == ["a.jpg"]
    boxes = people_boxes(tmp_path / "boxes.json", category_id=lambda k: 3)
    ran = prunus(*words, boxes)
    assert ran.code == 2 and "categories 3 only" in ran.err
    boxes = people_boxes(tmp_path / "boxes.json", file_name=lambda k: f"other{k}.jpg")
    ran = prunus(*words, boxes)
    assert ran.code == 2 and "None of the 4 boxes" in ran.err


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_damaged_pictures_are_named_and_end_with_code_1(prunus, tmp_path, folder, quiet):
    words = ("run", "pose", "--source", folder, *MODEL, "--single", "--sink", "null:")
    ran = prunus(*words, *quiet)
    assert ran.code == 1
    assert "skipped" in ran.out + ran.err and "b.jpg is not a complete" in ran.out + ran.err
    assert not quiet or ran.out == ""
    (folder / "b.jpg").unlink()
    assert prunus(*words, *quiet).code == 0


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_a_cut_video_is_told_and_ends_with_code_1(prunus, tmp_path, quiet):
    path = tmp_path / "long.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (64, 64))
    for _ in range(30):
        writer.write(np.full((64, 64, 3), 90, np.uint8))
    writer.release()
    words = ("run", "pose", "--source", path, *MODEL, "--single", "--sink", "null:", *quiet)
    assert prunus(*words).code == 0
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    ran = prunus(*words)
    assert ran.code == 1 and "of 30 frames" in ran.out + ran.err


def test_zero_people_and_one_pixel(prunus, tmp_path):
    picture, found = tmp_path / "dot.png", tmp_path / "out.json"
    cv2.imwrite(str(picture), np.zeros((1, 1, 3), np.uint8))
    ran = prunus("run", "pose", "--source", picture, *MODEL, "--json-out", found,
                 "--sink", tmp_path / "out.png")  # fmt: skip
    assert ran.code == 0, ran.err
    assert json.loads(found.read_text()) == []
    assert cv2.imread(str(tmp_path / "out.png")).shape == (1, 1, 3)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--source", "missing.mp4"], 2, "not found"),
        (["--source", "97"], 2, "cannot be opened"),
        (["--source", "synthetic:", "--sink", "nowhere/out.mp4"], 2, "does not exist"),
        (["--source", "synthetic:", "--sink", "null:", "--single", "--boxes", "a"], 2, "one of"),
        (["--source", "synthetic:", "--sink", "null:", "--backend", "onnxrt"], 2, "onnxruntime"),
        (["--source", "synthetic:", "--sink", "null:", "--finder", "nobody"], 2, "nobody"),
        (["--source", "synthetic:", "--sink", "null:", "--boxes", "missing.json"], 2, "read"),
    ],
)
def test_bad_requests_are_two_lines(prunus, tmp_path, monkeypatch, words, code, said):
    monkeypatch.chdir(tmp_path)
    ran = prunus("run", "pose", "--model", "movenet_lightning", *words)
    assert ran.code == code, ran.err
    assert said in ran.err
    assert len(ran.err.strip().splitlines()) == 2
    assert os.listdir(tmp_path) == []


def test_a_source_is_not_overwritten(prunus, video):
    before = video.read_bytes()
    ran = prunus("run", "pose", "--source", video, *MODEL, "-o", video)
    assert ran.code == 2
    assert "both source and output" in ran.err
    assert video.read_bytes() == before


@pytest.mark.parametrize(
    ("source", "sink"),
    [("in/a.png", "in"), ("in/a.png", "in/"), ("in", "in/a.png"), ("link.png", "in/a.png")],
)
def test_no_picture_of_the_source_is_overwritten(prunus, tmp_path, monkeypatch, source, sink):
    monkeypatch.chdir(tmp_path)
    os.mkdir("in")
    cv2.imwrite("in/a.png", np.zeros((32, 32, 3), np.uint8))
    os.symlink("in/a.png", "link.png")
    before = (tmp_path / "in" / "a.png").read_bytes()
    ran = prunus("run", "pose", "--source", source, *MODEL, "-o", sink)
    assert ran.code == 2
    assert "both source and output" in ran.err
    assert (tmp_path / "in" / "a.png").read_bytes() == before


def test_boxes_are_not_overwritten(prunus, tmp_path, portrait):
    boxes = tmp_path / "boxes.json"
    boxes.write_text("[]")
    ran = prunus("run", "pose", "--source", portrait, *MODEL, "--boxes", boxes, "--json-out", boxes)
    assert ran.code == 2
    assert boxes.read_text() == "[]"


def test_a_slash_makes_the_output_a_folder(prunus, tmp_path, portrait):
    ran = prunus("run", "pose", "--source", portrait, *MODEL, "-o", f"{tmp_path}/walk.mp4/")
    assert ran.code == 0, ran.err
    assert os.listdir(tmp_path / "walk.mp4") == ["portrait.jpg"]


def test_a_file_is_not_replaced_where_a_folder_was_meant(prunus, tmp_path, portrait):
    kept = tmp_path / "walk.mp4"
    kept.write_bytes(b"kept")
    ran = prunus("run", "pose", "--source", portrait, *MODEL, "-o", f"{kept}/")
    assert ran.code == 2
    assert "File exists" in ran.err
    assert kept.read_bytes() == b"kept"


def test_without_a_model_the_command_that_makes_one_is_named(prunus, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = prunus("run", "pose", "--source", "synthetic:", "--sink", "null:", "--level", "L1")
    assert ran.code == 2
    assert "prunus export evitpose --level L1" in ran.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_complete_files(tmp_path, frames_of, number):
    words = ["run", "pose", "--source", "synthetic:128x96@0*100000", *MODEL, "--single",
             "--sink", "out.mp4", "--json-out", "out.json"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "prunus.apps.cli.main", *words],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for line in process.stderr:  # the first line of progress: frames are coming out
            if line.startswith("pose:"):
                break
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "stopped with Ctrl-C" in out
    frames = frames_of(tmp_path / "out.mp4")
    assert frames
    results = json.loads((tmp_path / "out.json").read_text())
    assert len(results) <= len(frames)
    assert sorted(os.listdir(tmp_path)) == ["out.json", "out.mp4"]


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_damaged_pictures_are_named_and_the_exit_code_is_1(prunus, tmp_path, portrait, quiet):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "good.jpg").write_bytes(portrait.read_bytes())
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff" + bytes(100))
    found = tmp_path / "found.json"
    words = ("--sink", "null:", "--json-out", found, *quiet)
    ran = prunus("run", "pose", "--source", f"{folder}/", *MODEL, *words)
    assert ran.code == 1
    assert "bad.jpg" in ran.out + ran.err
    assert len(json.loads(found.read_text())) == 1


def test_an_exported_file_here_does_not_run_unless_it_is_named(
    prunus, tmp_path, portrait, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evitpose-tiny-L2.onnx").write_bytes(b"not even a model")
    ran = prunus("run", "pose", "--source", portrait, *MODEL[2:], "--sink", "null:")
    assert ran.code == 0
    assert "movenet lightning" in ran.err and "the best that ships" in ran.err


@pytest.mark.parametrize("owner", [FolderSink, ResultWriter])
def test_a_sink_that_fails_takes_nothing_of_the_others_along(
    prunus, tmp_path, video, frames_of, full_disk, owner
):
    out, found, folder = tmp_path / "out.mp4", tmp_path / "out.json", tmp_path / "frames"
    calls = full_disk(owner, at=5)
    words = ("--single", "-o", folder, "-o", out, "--json-out", found)
    ran = prunus("run", "pose", "--source", video, *MODEL, *words)
    assert ran.code == 1 and len(calls) == 5
    lost = folder if owner is FolderSink else found
    assert f"warning: No space left while writing {lost}" in ran.out
    told = ran.out.splitlines()
    assert f"wrote {lost}" not in told and f"wrote {out}" in told
    assert len(frames_of(out)) == 12
    assert len(list(folder.iterdir())) == (4 if owner is FolderSink else 12)
    entries = json.loads(found.read_text())
    assert len({e["image_id"] for e in entries}) == (12 if owner is FolderSink else 4)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("drawn", [True, False])
def test_the_only_output_ends_the_run_with_its_own_error(prunus, tmp_path, video, full_disk, drawn):
    calls = full_disk(FolderSink if drawn else ResultWriter, at=2)
    words = ("-o", tmp_path / "frames") if drawn else ("--json-out", tmp_path / "a.json")
    ran = prunus("run", "pose", "--source", video, *MODEL, "--single", *words)
    assert ran.code == 3 and len(calls) == 2
    assert "error: No space left while writing" in ran.err and "hint: Free some" in ran.err


@pytest.mark.parametrize(("alone", "quiet"), [(True, True), (False, True), (False, False)])
def test_a_reader_who_has_gone_stops_nobody_else(tmp_path, video, frames_of, alone, quiet):
    out = tmp_path / "out.mp4"
    words = [sys.executable, "-m", "prunus.apps.cli.main", "run", "pose", "--source", str(video),
             *MODEL, "--single", *["--quiet"] * quiet, "--json-out", "-"]  # fmt: skip
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run(
        words if alone else [*words, "-o", str(out)], stdout=write, stderr=subprocess.PIPE,
        text=True, check=False,
    )  # fmt: skip
    os.close(write)
    assert "Traceback" not in ran.stderr
    if alone:  # as with head: nothing is wrong
        assert (ran.returncode, ran.stderr) == (0, "")
    else:
        assert ran.returncode == 1 and "reader of standard output has gone" in ran.stderr
        assert len(frames_of(out)) == 12


@pytest.fixture
def turned(tmp_path, video, frames_of):
    """The video in a mirror, without its first four frames."""
    path = tmp_path / "turned.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (256, 256))
    for frame in frames_of(video)[4:]:
        writer.write(np.ascontiguousarray(frame[:, ::-1]))
    writer.release()
    return path


def test_several_sources_give_what_each_gives_alone(
    prunus, tmp_path, video, turned, frames_of, monkeypatch
):
    from prunus.runtime.tasks.pose.estimator import PoseEstimator

    alone = {}
    for path in (video, turned):
        out = tmp_path / f"alone-{path.stem}.json"
        assert prunus("run", "pose", "--source", path, *MODEL, "--json-out", out).code == 0
        alone[path.stem] = json.loads(out.read_text())
        assert len(alone[path.stem]) > 5
    out, found = tmp_path / "out.mp4", tmp_path / "out.json"
    words = ("--source", video, "--source", turned, *MODEL, "-o", out, "--json-out", found)
    calls, many = [], PoseEstimator.many
    monkeypatch.setattr(PoseEstimator, "many", lambda *a: calls.append(len(a[1])) or many(*a))
    ran = prunus("run", "pose", *words, "--json")
    assert calls == [2] * 8 + [1] * 4  # the people of both frames are read together
    assert ran.code == 0, ran.err
    for name, expected in alone.items():
        entries = json.loads((tmp_path / f"out-{name}.json").read_text())
        assert entries == [{"source": name, **entry} for entry in expected]  # bit for bit
        assert len(frames_of(tmp_path / f"out-{name}.mp4")) == (12 if name == "walk" else 8)
    summary, seen = json.loads(ran.out), {name: len(found) for name, found in alone.items()}
    assert (summary["frames"], len(summary["outputs"])) == (20, 4)
    assert summary["people"] == sum(seen.values())
    rows = {row["name"]: (row["frames"], row["facts"]["people"]) for row in summary["sources"]}
    assert rows == {"walk": (12, seen["walk"]), "turned": (8, seen["turned"])}
    assert not out.exists() and not found.exists()


def test_a_source_that_is_cut_off_leaves_the_others(prunus, tmp_path, video, turned):
    turned.write_bytes(turned.read_bytes()[:40])
    words = ("--source", video, "--source", turned, *MODEL, "--single", "--json-out", "-")
    ran = prunus("run", "pose", *words, "--max-frames", 5)
    assert ran.code == 1
    entries = [json.loads(line) for line in ran.out.splitlines()]
    assert [e["image_id"] for e in entries] == list(range(5))
    assert {e["source"] for e in entries} == {"walk"}
    told = [line for line in ran.err.splitlines() if "turned.mp4 is not a video" in line]
    assert told[0].startswith("turned: ") and told[1].startswith("warning: turned: ")


def test_boxes_are_those_of_one_source(prunus, video, turned, tmp_path):
    words = ("--source", video, "--source", turned, *MODEL, "--boxes", tmp_path / "b.json")
    ran = prunus("run", "pose", *words)
    assert ran.code == 2 and "Got --boxes and 2 sources" in ran.err


def test_a_page_shows_all_sources_or_the_chosen_one(prunus, page, video, turned):
    page.settings = {10: {"shown": "turned"}}
    words = ("--source", video, "--source", turned, *MODEL, "--single", "--sink", "web:1")
    assert prunus("run", "pose", *words).code == 0
    assert page.head["source"] == "walk, turned"
    [control] = [c for c in page.controls.describe() if c["name"] == "shown"]
    assert control["choices"] == ("all", "walk", "turned")
    sizes = [drawn.shape[1] for _, _, drawn in page.told]
    # Frames 5, 6 and 7 of the chosen one; then it has ended, and the other is shown beside it.
    assert sizes[:11] == [512] * 11 and sizes[11:14] == [256] * 3 and set(sizes[14:]) == {512}
    overlays = [len(data["overlay"]) for _, data, _ in page.told]
    assert overlays[5] == 2 and overlays[11:14] == [1] * 3 and overlays[-1] == 1
