"""The segmentation app end to end on a network that sees colours: modes, outputs, bad input."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from prunus.apps.io.sinks.video import VideoSink
from prunus.apps.segmentation import app
from prunus.apps.segmentation.overlay import Look, MaskPainter
from prunus.apps.segmentation.results import MaskFolder, MaskList
from prunus.runtime.errors import UsageError
from prunus.runtime.tasks.segmentation.card import MaskPostprocess

RED, GREEN, BLUE = (0, 0, 255), (0, 255, 0), (255, 0, 0)  # BGR


@pytest.fixture
def segment(prunus, colour_model):
    """Run the app on one thread of ONNX Runtime."""

    def run(source, *words, decoder="class_ids", **fit):
        model = colour_model(decoder, **fit)
        return prunus("run", "segmentation", "--source", source, "--model", model,
                      "--threads", 1, "--backend", "onnxruntime", *words)  # fmt: skip

    return run


def scene(height=256, width=256):
    """Left half blue, right half red, the lower quarter green."""
    frame = np.full((height, width, 3), BLUE, np.uint8)
    frame[:, width // 2 :] = RED
    frame[height * 3 // 4 :] = GREEN
    return frame


def save(path, image):
    assert cv2.imwrite(str(path), image)
    return path


@pytest.fixture
def picture(tmp_path):
    (tmp_path / "in").mkdir()
    return save(tmp_path / "in" / "scene.png", scene())


@pytest.fixture
def clip(tmp_path):
    """Ten frames of 128x96 at ten a second, red from the left, wider in each frame."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (128, 96))
    for i in range(10):
        frame = np.full((96, 128, 3), BLUE, np.uint8)
        frame[:, : 12 * (i + 1)] = RED
        writer.write(frame)
    writer.release()
    return path


def test_overlay_paints_each_class_in_its_colour(segment, tmp_path, picture) -> None:
    out = tmp_path / "out.png"
    ran = segment(picture, "-o", out, "--no-numbers", "--opacity", 0.5)
    assert ran.code == 0, ran.err
    drawn = cv2.imread(str(out))
    # Class 0 is black in the palette, class 1 red, class 2 green, each half and half.
    np.testing.assert_allclose(drawn[60, 60], (128, 0, 0), atol=1)
    np.testing.assert_allclose(drawn[60, 200], RED, atol=1)
    np.testing.assert_allclose(drawn[230, 60], GREEN, atol=1)
    assert (drawn == 245).all(axis=2).any()  # a line between the classes


def test_numbers_and_legend_are_on_the_picture(segment, tmp_path, picture) -> None:
    plain, told = tmp_path / "plain.png", tmp_path / "told.png"
    assert segment(picture, "-o", plain, "--no-numbers").code == 0
    assert segment(picture, "-o", told).code == 0
    differs = (cv2.imread(str(plain)) != cv2.imread(str(told))).any(axis=2)
    assert differs[:60, :120].any() and differs[-60:, :60].any()
    assert not differs[90:170].any()  # the middle stays free


def test_a_page_gets_clean_pictures_and_outlines(segment, page, clip) -> None:
    page.settings = {-1: {"opacity": 0.25}}
    assert segment(clip, "--sink", "web:1", "--no-smooth").code == 0
    assert [c["name"] for c in page.controls.describe()] == ["mode", "opacity", "paused"]
    assert len(page.told) == 10
    for k, (clean, data, drawn) in enumerate(page.told):
        red = next(shape for shape in data["overlay"] if shape["label"] == "red")
        assert red["colour"] == "#ff0000" and red["fill"] == 0.25
        (ring,) = red["rings"]
        assert min(ring) == 0 and max(ring[1::2]) == 95  # from the left, over the full height
        assert abs(max(ring[::2]) - (12 * (k + 1) - 1)) <= 2
        assert abs(int(clean[50, 2, 2]) - 255) < 9 and int(drawn[50, 120, 0]) < 200


def test_a_page_changes_the_background(segment, page, clip) -> None:
    page.settings = {-1: {"mode": "replace"}}
    assert segment(clip, "--sink", "web:1").code == 0
    for clean, data, drawn in page.told:
        assert data["overlay"] == []  # what was painted is the picture
        for image in (clean, drawn):
            np.testing.assert_allclose(image[90, 126], (0x40, 0xA0, 0x40), atol=9)
            np.testing.assert_allclose(image[90, 1], RED, atol=9)


def test_without_a_class_to_keep_a_page_offers_no_background(
    segment, page, clip, monkeypatch
) -> None:
    monkeypatch.setattr(app, "subject_number", lambda name, post: -1)
    assert segment(clip, "--sink", "web:1").code == 0
    assert [c["name"] for c in page.controls.describe()] == ["opacity", "paused"]


def test_masks_and_shares_are_exact(segment, tmp_path, picture) -> None:
    masks, shares = tmp_path / "masks", tmp_path / "shares.json"
    ran = segment(picture, "--masks", f"{masks}/", "--json-out", shares, "--json")
    assert ran.code == 0, ran.err
    mask = cv2.imread(str(masks / "scene.png"), cv2.IMREAD_UNCHANGED)
    expected = np.zeros((256, 256), np.uint8)
    expected[:, 128:] = 1
    expected[192:] = 2
    np.testing.assert_array_equal(mask, expected)  # 256 = 4 x 64: every border falls on a cell
    (entry,) = json.loads(shares.read_text())
    assert entry == {
        "frame": 0, "width": 256, "height": 256, "file_name": "scene.png", "mask": "scene.png",
        "classes": {"other": 0.375, "red": 0.375, "green": 0.25},
    }  # fmt: skip
    summary = json.loads(ran.out)
    assert summary["subject_share"] == pytest.approx(0.375)
    assert [name for name, *_ in summary["stages"]] == ["capture", "segment", "in_flight"]
    assert sorted(os.listdir(tmp_path)) == ["in", "masks", "shares.json"]


def test_replacing_the_background_keeps_the_subject(segment, tmp_path, picture) -> None:
    out = tmp_path / "out.png"
    words = ("-o", out, "--no-numbers", "--mode", "replace", "--background")
    assert segment(picture, *words, "#102030", "--subject", "red").code == 0
    drawn = cv2.imread(str(out))
    np.testing.assert_array_equal(drawn[60, 60], (0x30, 0x20, 0x10))
    np.testing.assert_array_equal(drawn[60, 200], RED)
    np.testing.assert_array_equal(drawn[230, 200], (0x30, 0x20, 0x10))
    # A picture covers the frame whatever its shape is: here its middle is seen.
    wide = np.zeros((20, 80, 3), np.uint8)
    wide[:, 30:50] = (9, 8, 7)
    back = save(tmp_path / "back.png", wide)
    assert segment(picture, *words, back).code == 0  # the card's own subject is red, too
    np.testing.assert_array_equal(cv2.imread(str(out))[60, 60], (9, 8, 7))


def test_blur_touches_the_background_alone_and_leaves_no_halo(segment, tmp_path) -> None:
    frame = scene()
    frame[:, :128:8] = 0  # stripes behind
    frame[:, 1:128:8] = 0
    frame[::8, 128:] = (40, 40, 255)  # and a pattern in front, still red
    source, out = save(tmp_path / "a.png", frame), tmp_path / "out.png"
    ran = segment(source, "-o", out, "--no-numbers", "--mode", "blur", decoder="class_ids")
    assert ran.code == 0, ran.err
    drawn = cv2.imread(str(out))
    np.testing.assert_array_equal(drawn[20:180, 140:250], frame[20:180, 140:250])
    behind = drawn[40:150, 30:110].astype(float)
    assert behind[..., 0].std() < 0.2 * frame[40:150, 30:110, 0].std()
    assert behind[..., 2].max() < 10  # nothing of the red subject smears into it


def test_probabilities_make_soft_edges(segment, tmp_path) -> None:
    ramp = np.zeros((64, 64, 3), np.uint8)
    ramp[..., 2] = np.linspace(0, 255, 64).astype(np.uint8)
    source, out = save(tmp_path / "ramp.png", ramp), tmp_path / "out.png"
    words = ("-o", out, "--no-numbers", "--mode", "replace", "--background", "#00ff00")
    assert segment(source, *words, decoder="probability").code == 0
    green = cv2.imread(str(out))[32, :, 1].astype(int)
    assert green[:8].min() == 255 and green[-8:].max() == 0  # sure is sure
    assert (np.diff(green) <= 0).all() and len(np.unique(green)) > 30  # and soft in between


def test_the_only_subject_is_tinted_alone(segment, tmp_path, picture) -> None:
    out = tmp_path / "out.png"
    assert segment(picture, "-o", out, decoder="probability").code == 0
    np.testing.assert_array_equal(cv2.imread(str(out))[180, 20], BLUE)


def test_video_in_video_out_with_times(segment, tmp_path, clip, frames_of) -> None:
    out, shares = tmp_path / "out.avi", tmp_path / "s.json"
    ran = segment(clip, "-o", out, "--json-out", shares, "--json", "--no-smooth")
    assert ran.code == 0, ran.err
    summary = json.loads(ran.out)
    assert summary["frames"] == 10 and summary["warnings"] == []
    assert [name for name, *_ in summary["stages"]][:3] == ["capture", "segment", "draw"]
    assert all(p50 >= 0 for _, p50, _ in summary["stages"])
    assert len(frames_of(out)) == 10
    assert "100 %" in ran.err
    entries = json.loads(shares.read_text())
    red = [entry["classes"]["red"] for entry in entries]
    np.testing.assert_allclose(red, np.arange(1, 11) * 12 / 128, atol=0.02)
    steps = np.diff([entry["seconds"] for entry in entries])
    np.testing.assert_allclose(steps, steps[0], atol=2e-3)


def test_smoothing_waits_for_a_class_to_stay(segment, tmp_path, clip) -> None:
    def red(*words):
        assert segment(clip, "--json-out", tmp_path / "s.json", *words).code == 0
        entries = json.loads((tmp_path / "s.json").read_text())
        return np.array([entry["classes"]["red"] for entry in entries])

    plain, steady = red("--no-smooth"), red()
    # Each frame's new stripe is believed one frame later.
    np.testing.assert_allclose(steady[1:], plain[:-1], atol=0.001)


def test_frames_of_a_clip_are_numbered(segment, tmp_path, clip) -> None:
    assert segment(clip, "--masks", tmp_path / "m", "--max-frames", 2).code == 0
    assert sorted(os.listdir(tmp_path / "m")) == ["frame_000000.png", "frame_000001.png"]


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("grey.png", np.full((40, 60), 200, np.uint8)),
        ("alpha.png", np.dstack([scene(40, 60), np.full((40, 60), 7, np.uint8)])),
        ("deep.png", scene(40, 60).astype(np.uint16) * 257),
        ("deep.tiff", scene(40, 60).astype(np.uint16) * 257),
        ("dot.png", np.full((1, 1, 3), RED, np.uint8)),
        ("row.png", np.full((1, 300, 3), RED, np.uint8)),
    ],
)
@pytest.mark.parametrize("mode", ["overlay", "blur", "replace"])
def test_unusual_pictures_give_correct_masks(segment, tmp_path, name, pixels, mode) -> None:
    source, masks = save(tmp_path / name, pixels), tmp_path / "m"
    ran = segment(source, "--masks", masks, "-o", tmp_path / "out.png", "--mode", mode)
    assert ran.code == 0, ran.err
    mask = cv2.imread(str(masks / f"{source.stem}.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == pixels.shape[:2]
    assert cv2.imread(str(tmp_path / "out.png")).shape == (*pixels.shape[:2], 3)
    if name == "grey.png":  # as bright in red as in green: the first wins
        assert (mask == 1).all()
    elif min(pixels.shape[:2]) == 1:
        assert (mask == 1).all()
    else:
        assert (mask[5, 10], mask[5, 50], mask[36, 10]) == (0, 1, 2)


def bad_folder(folder):
    """Three good pictures, and one of each kind of bad one."""
    folder.mkdir()
    good = cv2.imencode(".jpg", scene())[1].tobytes()
    for name in ("a.jpg", "m.jpg", "z.jpg"):
        (folder / name).write_bytes(good)
    (folder / "b.jpg").write_bytes(good[: len(good) // 2])
    (folder / "c.png").write_bytes(b"")
    (folder / "d.png").write_text("not a picture")
    (folder / "notes.txt").write_text("no picture at all")
    return folder


def test_a_batch_goes_on_and_names_the_bad_pictures(segment, tmp_path) -> None:
    folder = bad_folder(tmp_path / "in")
    words = ("--masks", tmp_path / "m", "--json-out", tmp_path / "s.json", "-o", f"{tmp_path}/d/")
    ran = segment(folder, *words)
    assert ran.code == 1
    for name in ("b.jpg", "c.png", "d.png"):
        assert f"warning: skipped: {folder / name}" in ran.out
    assert "Traceback" not in ran.err
    assert sorted(os.listdir(tmp_path / "m")) == ["a.png", "m.png", "z.png"]
    assert sorted(os.listdir(tmp_path / "d")) == ["a.jpg", "m.jpg", "z.jpg"]
    assert len(json.loads((tmp_path / "s.json").read_text())) == 3


def test_a_quiet_batch_still_names_the_bad_pictures(segment, tmp_path) -> None:
    ran = segment(bad_folder(tmp_path / "in"), "--masks", tmp_path / "m", "--quiet")
    assert ran.code == 1 and ran.out == ""
    assert len(ran.err.strip().splitlines()) == 3 and "d.png" in ran.err


def test_pictures_that_the_model_does_not_take_are_left_out(segment, tmp_path) -> None:
    fit = {"fit": "keep_ratio", "longest": 256, "shortest": 64, "multiple": 32}
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "square.png", scene(128, 128))
    wide = save(tmp_path / "in" / "wide.png", scene(64, 128))
    ran = segment(tmp_path / "in", "--masks", tmp_path / "m", **fit)
    assert ran.code == 1
    assert "skipped: wide.png" in ran.out and "64x128" in ran.out
    assert os.listdir(tmp_path / "m") == ["square.png"]
    alone = segment(wide, "--masks", tmp_path / "m", **fit)
    assert alone.code == 2 and "Export one with --size 64x128" in alone.err
    (tmp_path / "in" / "square.png").unlink()
    none = segment(tmp_path / "in", "--masks", tmp_path / "m", **fit)
    assert none.code == 2 and "64x128" in none.err


def test_two_pictures_of_one_stem_keep_two_masks(segment, tmp_path) -> None:
    (tmp_path / "in").mkdir()
    save(tmp_path / "in" / "a.png", scene())
    save(tmp_path / "in" / "a.bmp", scene())
    assert segment(tmp_path / "in", "--masks", tmp_path / "m").code == 0
    assert sorted(os.listdir(tmp_path / "m")) == ["a.png", "a.png.png"]


def test_a_video_that_is_cut_off_gives_its_part_and_says_so(segment, tmp_path, frames_of) -> None:
    whole, out = tmp_path / "whole.avi", tmp_path / "out.avi"
    writer = cv2.VideoWriter(str(whole), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (128, 96))
    noise = np.random.default_rng(0)
    for _ in range(30):
        writer.write(noise.integers(0, 256, (96, 128, 3), np.uint8))
    writer.release()
    data = whole.read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    ran = segment(tmp_path / "cut.avi", "-o", out)
    assert ran.code == 1, ran.err
    assert "cut off or damaged" in ran.out
    assert 10 < len(frames_of(out)) < 20


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--source", "missing.mp4"], 2, "not found"),
        (["--source", "empty"], 2, "holds no picture"),
        (["--mode", "blurr"], 2, "did you mean 'blur'"),
        (["--mode", "replace", "--background", "beach.jpg"], 2, "Background not found"),
        (["--background", "#00ff00"], 2, "which shows none"),
        (["--mode", "blur", "--background", "beach.jpg"], 2, "which shows none"),
        (["--mode", "replace", "--background", "#12345"], 2, "Background not found"),
        (["--subject", "gren"], 2, "did you mean 'green'"),
        (["--opacity", "2"], 2, "opacity"),
        (["--smooth", "1"], 2, "smooth"),
        (["--json-out", "a.txt"], 2, "expected a .json file"),
        (["--masks", "m", "-o", "m/"], 2, "to hold masks and drawn frames"),
        (["--backend", "onnxrt"], 2, "onnxruntime"),
        (["--model", "nothing.onnx"], 2, "not found"),
        (["--model", "movenet_lightning"], 2, "made for pose"),
    ],
)
def test_bad_requests_are_two_lines(
    prunus, tmp_path, monkeypatch, colour_model, words, code, said
) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("empty")
    before = {"--source": "synthetic:", "--sink": "null:", "--model": str(colour_model())}
    before = {k: v for k, v in before.items() if k not in words}
    given = [word for pair in before.items() for word in pair]
    ran = prunus("run", "segmentation", *given, *words)
    assert ran.code == code, ran.err
    assert said in ran.err
    assert len(ran.err.strip().splitlines()) == 2
    assert [p for p in os.listdir(tmp_path) if p not in ("empty", "m")] == []


def test_effects_need_a_subject() -> None:
    streets = MaskPostprocess("class_ids", ("road", "sky"), ((1, 2, 3), (4, 5, 6)))
    MaskPainter(streets, Look("overlay"))
    with pytest.raises(UsageError, match="keeps one class in front") as caught:
        MaskPainter(streets, Look("blur"))
    assert "--subject" in caught.value.hint


def test_nothing_of_the_source_is_overwritten(segment, picture) -> None:
    before = picture.read_bytes()
    for words in (("-o", picture), ("--masks", picture.parent), ("-o", f"{picture.parent}/")):
        ran = segment(picture, *words)
        assert ran.code == 2 and "both source and output" in ran.err
    assert segment(picture.parent, "--masks", picture.parent).code == 2
    words = ("--mode", "replace", "--background", picture, "-o", picture)
    assert segment("synthetic:", *words).code == 2
    assert picture.read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_complete_files(tmp_path, colour_model, frames_of, number) -> None:
    words = ["run", "segmentation", "--source", "synthetic:128x96@0*100000", "--model",
             str(colour_model()), "--sink", "out.avi", "--json-out", "s.json"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "prunus.apps.cli.main", *words],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        for line in process.stderr:  # the first line of progress: frames are coming out
            if line.startswith("segmentation:"):
                break
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "stopped with Ctrl-C" in out
    frames = frames_of(tmp_path / "out.avi")
    assert frames and len(json.loads((tmp_path / "s.json").read_text())) == len(frames)
    assert sorted(os.listdir(tmp_path)) == ["out.avi", "s.json"]


@pytest.mark.parametrize("owner", [VideoSink, MaskFolder, MaskList])
def test_a_sink_that_fails_takes_nothing_of_the_others_along(
    segment, tmp_path, clip, frames_of, full_disk, owner
) -> None:
    out, masks, found = tmp_path / "out.mp4", tmp_path / "masks", tmp_path / "out.json"
    frames = tmp_path / "frames"
    calls = full_disk(owner, at=4)
    ran = segment(clip, "-o", out, "-o", frames, "--masks", masks, "--json-out", found)
    lost = {VideoSink: out, MaskFolder: masks, MaskList: found}[owner]
    assert ran.code == 1 and len(calls) == 4
    assert f"warning: No space left while writing {lost}" in ran.out
    # What had failed is whole too, with the frames until then.
    assert len(frames_of(out)) == (3 if owner is VideoSink else 10)
    assert len(list(frames.iterdir())) == 10
    assert len(list(masks.iterdir())) == (3 if owner is MaskFolder else 10)
    entries = json.loads(found.read_text())
    assert len(entries) == (3 if owner is MaskList else 10)
    named = [entry["mask"] for entry in entries if "mask" in entry]
    assert all((masks / name).is_file() for name in named)


def test_several_sources_share_runs_and_give_what_each_gives_alone(
    segment, tmp_path, clip, monkeypatch
):
    from prunus.runtime.tasks.segmentation.segmenter import Segmenter

    other = tmp_path / "other.avi"
    writer = cv2.VideoWriter(str(other), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (96, 96))
    for i in range(6):
        writer.write(np.full((96, 96, 3), (RED, GREEN, BLUE)[i % 3], np.uint8))
    writer.release()
    alone = {}
    for path in (clip, other):
        listed, masks = tmp_path / f"{path.stem}.json", tmp_path / f"masks-{path.stem}"
        ran = segment(path, "--json-out", listed, "--masks", masks, batch=2)
        assert ran.code == 0, ran.err
        alone[path.stem] = json.loads(listed.read_text()), masks
    runs, run = [], Segmenter._run
    monkeypatch.setattr(Segmenter, "_run", lambda *a: runs.append(1) or run(*a))
    listed, masks = tmp_path / "all.json", tmp_path / "all"
    words = ("--source", other, "--json-out", listed, "--masks", masks)
    ran = segment(clip, *words, batch=2)
    assert ran.code == 0, ran.err
    assert len(runs) == 10  # of 16 frames
    for name, (entries, folder) in alone.items():
        own = json.loads((tmp_path / f"all-{name}.json").read_text())
        assert own == [{"source": name, **entry} for entry in entries]
        for entry in entries:
            mask = (masks / name / entry["mask"]).read_bytes()
            assert mask == (folder / entry["mask"]).read_bytes()
