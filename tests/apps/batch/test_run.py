"""Results are those of `prunus run`; every input has exactly one, whatever happens on the way."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("pyarrow")
from prunus.apps.batch import worker
from prunus.apps.batch.inputs import expand
from prunus.apps.batch.ledger import MOST_TRIES, Ledger
from prunus.apps.batch.manifest import Run
from prunus.apps.batch.options import Compute, Work
from prunus.apps.batch.shards import FIRST, LAST, QUARANTINE
from prunus.apps.batch.storage import Store
from prunus.apps.batch.worker import Worker
from prunus.apps.pose.options import PoseBatchOptions
from prunus.apps.registry import APPS
from prunus.runtime.errors import HostError
from prunus.runtime.references import load

ROOT = Path(__file__).parents[3]
POSE = next(app for app in APPS if app.task == "pose")


def _told(prunus, source, *words):
    """Return what `prunus run` writes for one source."""
    path = Path(str(source) + ".json")
    ran = prunus("run", *words, "--source", source, "--json-out", path, "--threads", 1,
                 "--backend", "onnxruntime", "--quiet")  # fmt: skip
    assert ran.code == 0, ran.err
    return json.loads(path.read_text())


def test_people_are_those_of_run(prunus, batch, folder, tmp_path, rows_of):
    summary, said = batch("pose", folder, "--coco", "--media")
    assert "batch 1: frame by frame" in said
    assert (summary["inputs"], summary["done"], summary["aside"]) == (3, 3, {})
    rows = rows_of(tmp_path / "out")
    assert len(rows) == summary["rows"] > 3
    for name in ("000000000007.jpg", "below/000000000009.jpg", "walk.mp4"):
        own = [row for row in rows if row["input"] == str(folder / name)]
        expected = _told(prunus, folder / name, "pose")
        assert len(own) == len(expected) > 0
        for row, entry in zip(own, expected, strict=True):
            kept = {k: entry.get(k) for k in ("score", "bbox", "keypoints", "track_id", "age_s",
                                              "seconds")}  # fmt: skip
            assert {k: row[k] for k in kept} == kept
            assert row["frame"] == (entry["image_id"] if "seconds" in entry else 0)
            assert len(row["model_sha256"]) == 64 and row["prunus"]
    media = sorted(path.suffix for path in (tmp_path / "out" / "media").iterdir())
    assert media == [".jpg", ".jpg", ".mp4"]
    listed = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert len({entry["image_id"] for entry in listed}) == 2 + 12


def test_coco_results_of_a_folder_of_pictures_are_those_of_run(prunus, batch, folder, tmp_path):
    shutil.copy(folder / "below" / "000000000009.jpg", folder)
    batch("pose", folder / "*.jpg", "--coco")
    (folder / "walk.mp4").unlink()
    expected = _told(prunus, folder, "pose")
    assert json.loads((tmp_path / "out" / "coco.json").read_text()) == expected
    assert {entry["image_id"] for entry in expected} == {7, 9}


def _colours(path, kind, frames=6):
    """Write a video in which a red field grows; kind is its number."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (96, 64))
    for k in range(frames):
        picture = np.zeros((64, 96, 3), np.uint8)
        picture[:, : 8 * (k + 1) + 4 * kind, 2] = 255
        writer.write(picture)
    writer.release()


@pytest.mark.parametrize("size", [1, 4])
def test_masks_are_those_of_run_whoever_shares_a_run(
    prunus, batch, colour_model, tmp_path, rows_of, size
):
    """Five videos of different lengths: four share each run of the batch, the fifth has its own."""
    (inside := tmp_path / "in").mkdir()
    for kind in range(5):
        _colours(inside / f"{kind}.avi", kind, frames=3 + kind)
    model = colour_model(batch=size)
    summary, said = batch("segmentation", inside, "--model", model)
    assert (f"share its runs {size} by {size}" if size > 1 else "frame by frame") in said
    rows = rows_of(tmp_path / "out")
    assert summary["done"] == 5 and len(rows) == sum(3 + kind for kind in range(5))
    for kind in range(5):
        source, masks = inside / f"{kind}.avi", tmp_path / f"masks-{kind}"
        own = [row for row in rows if row["input"] == str(source)]
        expected = _told(prunus, source, "segmentation", "--model", model, "--masks", masks)
        for row, entry in zip(own, expected, strict=True):
            assert dict(row["classes"]) == entry["classes"] and row["seconds"] == entry["seconds"]
            assert row["mask"] == (masks / entry["mask"]).read_bytes()


def test_masks_can_be_left_out(batch, colour_model, tmp_path, rows_of):
    _colours(tmp_path / "a.avi", 0)
    batch("segmentation", tmp_path / "a.avi", "--model", colour_model(), "--no-masks")
    assert all(row["mask"] is None and row["classes"] for row in rows_of(tmp_path / "out"))


@pytest.mark.parametrize("name", ["wavtokenizer", "freecodec"])
def test_codes_are_those_of_encode(prunus, batch, tiny_codec, tmp_path, rows_of, name):
    from prunus.runtime.audio.pcodec import PcodecReader

    soundfile = pytest.importorskip("soundfile")
    sound = 0.2 * np.random.default_rng(0).standard_normal(50_000)
    soundfile.write(tmp_path / "talk.wav", sound, 16_000)
    model = tiny_codec(name)
    batch("codec", tmp_path / "talk.wav", "--model", model, "--media")
    out, coded = tmp_path / "out", tmp_path / "talk.pcodec"
    assert prunus("encode", tmp_path / "talk.wav", coded, "--model", model, "--threads", 1,
                  "--backend", "onnxruntime").code == 0  # fmt: skip
    assert next((out / "media").iterdir()).read_bytes() == coded.read_bytes()
    rows, parts = rows_of(out), {}
    with coded.open("rb") as file:
        reader = PcodecReader(file)
        streams = list(dict.fromkeys(row["stream"] for row in rows))
        for codes in reader.blocks(tuple(streams)):
            for stream in streams:
                parts.setdefault(stream, []).append(codes[stream])
    for stream in streams:
        own = [np.array(row["codes"]) for row in rows if row["stream"] == stream]
        assert np.array_equal(np.concatenate(own, 1), np.concatenate(parts[stream], 1))
    assert rows[0]["seconds"] == 0.0 and rows[-1]["seconds"] < 50_000 / 16_000


def test_voices_are_those_of_run(prunus, batch, lip_gate, separator, portrait, tmp_path, rows_of):
    from contextlib import closing

    from prunus.apps.io.sinks.clip import ClipWriter

    soundfile = pytest.importorskip("soundfile")
    picture = cv2.imread(str(portrait))[20:260, 100:340]
    noise = 0.1 * np.random.default_rng(3).standard_normal(19_200)
    with closing(ClipWriter(tmp_path / "talk.mkv", 240, 240, 25, 16_000)) as writer:
        for _ in range(30):
            writer.picture(picture)
        writer.sound(noise.astype(np.float32))
    words = ("separation", "--model", separator, "--face", 1)
    batch(*words, tmp_path / "talk.mkv")
    ran = prunus("run", *words, "--source", tmp_path / "talk.mkv", "-o", tmp_path / "voice.wav",
                 "--threads", 1, "--backend", "onnxruntime")  # fmt: skip
    assert ran.code == 0, ran.err
    rows = rows_of(tmp_path / "out")
    heard = np.concatenate([np.array(row["samples"], np.int16) for row in rows])
    assert np.array_equal(heard, soundfile.read(tmp_path / "voice.wav", dtype="int16")[0])
    assert [row["seconds"] for row in rows] == [0.0, 1.0] and {row["face"] for row in rows} == {1}
    summary, _ = batch(*words[:3], "--face", 2, tmp_path / "talk.mkv", out=tmp_path / "b", code=1)
    assert "Face 2 was not seen" in summary["aside"][str(tmp_path / "talk.mkv")]


def _spoil(folder, portrait):
    """Put inputs that cannot be read beside good ones; return words that the reasons hold."""
    data = portrait.read_bytes()
    (folder / "cut.jpg").write_bytes(data[:3000])
    (folder / "text.png").write_text("no picture")
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "locked.jpg").write_bytes(data)
    whole = (folder / "walk.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "list").write_text(f"{folder / 'gone.jpg'}\n")
    return {"cut.jpg": "not a complete picture", "text.png": "not a complete picture",
            "empty.mp4": "is empty", "locked.jpg": "Permission denied", "cut.mp4": "not a video",
            "gone.jpg": "not found"}  # fmt: skip


def test_poisoned_inputs_are_set_aside_and_the_rest_goes_on(
    batch, folder, portrait, tmp_path, rows_of, state, monkeypatch
):
    reasons = {str(folder / k): v for k, v in _spoil(folder, portrait).items()}
    read = Path.read_bytes

    def guarded(path):
        if path.name == "locked.jpg" and guarded.locked:
            raise PermissionError(13, "Permission denied")
        return read(path)

    guarded.locked = True
    monkeypatch.setattr(Path, "read_bytes", guarded)
    words = ("pose", folder, f"@{folder / 'list'}")
    summary, _ = batch(*words, code=1)
    assert (summary["inputs"], summary["done"]) == (9, 3)
    assert set(summary["aside"]) == set(reasons)
    table = {row["input"]: row["reason"] for row in rows_of(tmp_path / "out", "quarantine")}
    for name, reason in reasons.items():
        assert reason in table[name] and table[name] == summary["aside"][name]
    before = state(tmp_path / "out")
    again, _ = batch(*words, code=1)
    assert (again["done"], again["earlier"], again["aside"]) == (0, 3, summary["aside"])
    assert state(tmp_path / "out") == before
    guarded.locked = False
    retried, _ = batch(*words, "--retry", code=1)
    assert retried["done"] == 1 and str(folder / "locked.jpg") not in retried["aside"]
    assert {row["input"] for row in rows_of(tmp_path / "out")} >= {str(folder / "locked.jpg")}


def test_text_for_people_counts_and_names_what_was_set_aside(prunus, folder, tmp_path):
    (folder / "cut.jpg").write_bytes(b"\xff\xd8\xff")
    ran = prunus("batch", "pose", folder / "cut.jpg", "--out", tmp_path / "out", "--ray", "none")
    assert ran.code == 1
    assert "1 inputs: 0 done" in ran.out and "1 set aside" in ran.out
    assert f"set aside: {folder / 'cut.jpg'} is not a complete picture" in ran.out


def _shard(out, name):
    [path] = (out / "results").glob(f"{name}-*")
    return path


def _of_keypoints(path):
    """Return a place inside the numbers of the joints."""
    from pyarrow.parquet import ParquetFile

    group = ParquetFile(path).metadata.row_group(0)
    columns = [group.column(k) for k in range(group.num_columns)]
    [own] = [c for c in columns if c.path_in_schema.startswith("keypoints")]
    return own.data_page_offset + own.total_compressed_size - 20


@pytest.mark.parametrize("damage", ["half", "empty", "flipped", "foreign"])
def test_a_damaged_result_is_made_again_with_a_word(batch, folder, tmp_path, state, damage):
    batch("pose", folder / "*.jpg")
    whole = state(out := tmp_path / "out")
    data = (path := _shard(out, "000000000007.jpg")).read_bytes()
    at = _of_keypoints(path)
    flipped = data[:at] + bytes(b ^ 255 for b in data[at : at + 8]) + data[at + 8 :]
    path.write_bytes(
        {"half": data[: len(data) // 2], "empty": b"", "flipped": flipped, "foreign": b"x" * 900}[
            damage
        ]
    )
    summary, said = batch("pose", folder / "*.jpg")
    assert summary["done"] == 1 and list(summary["redone"]) == [str(folder / "000000000007.jpg")]
    assert "is made again: It is no whole Parquet file" in said
    assert state(out) == whole


def test_an_input_that_has_changed_is_done_again(batch, folder, tmp_path, rows_of):
    batch("pose", folder / "*.jpg")
    black = np.zeros((60, 60, 3), np.uint8)
    cv2.imwrite(str(folder / "000000000007.jpg"), black)
    summary, said = batch("pose", folder / "*.jpg")
    assert "The input has changed since" in said and summary["done"] == 1
    assert rows_of(tmp_path / "out") == [] and summary["rows"] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--conf", 0.5), "conf is null there, 0.5 here"),
        (("--media",), "media is false there, true here"),
        (("--model", "evitpose.onnx"), "Model file not found"),
    ],
)
def test_results_of_two_runs_are_not_mixed(batch, folder, words, said):
    batch("pose", folder / "*.jpg")
    _, told = batch("pose", folder / "*.jpg", *words, code=2)
    assert said in told


def test_a_result_beside_its_quarantine_wins(batch, folder, tmp_path, state):
    """What a run leaves that is killed between keeping a result and taking back why it had none."""
    batch("pose", folder / "*.jpg")
    whole = state(out := tmp_path / "out")
    (out / "quarantine").mkdir(exist_ok=True)
    shutil.copy(path := _shard(out, "000000000007.jpg"), out / "quarantine" / path.name)
    summary, _ = batch("pose", folder / "*.jpg")
    assert summary["aside"] == {} and state(out) == whole


def test_what_changes_no_result_may_change(batch, folder):
    batch("pose", folder / "*.jpg")
    summary, _ = batch("pose", folder / "*.jpg", "--threads", 2, "--coco")
    assert summary["earlier"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--out", "/proc/none/out", "in.jpg"), "Cannot write /proc/none/out/run.json"),
        (("--out", "out", "*.png"), "No input: "),
        (("--out", "out"), "There is no input"),
        (("in.jpg",), "--out"),
    ],
)
def test_bad_requests_are_one_clear_error(prunus, portrait, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    shutil.copy(portrait, "in.jpg")
    ran = prunus("batch", "pose", *words, "--ray", "none")
    assert ran.code == 2 and said in ran.err and ran.err.startswith("error: ")
    assert not Path("out").exists()


def _command(source, out, *more):
    return [sys.executable, "-m", "prunus", "batch", "pose", str(source), "--out", str(out),
            "--quiet", "--backend", "onnxruntime", *more]  # fmt: skip


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_a_killed_driver_goes_on_with_nothing_twice_and_nothing_lost(
    batch, portrait, tmp_path, state
):
    (inside := tmp_path / "in").mkdir()
    for k in range(8):
        shutil.copy(portrait, inside / f"{k}.jpg")
    out, results = tmp_path / "out", tmp_path / "out" / "results"
    with subprocess.Popen(_command(inside, out, "--ray", "none"), env=ENVIRONMENT) as driver:
        until = time.monotonic() + 120
        while len(list(results.glob("*.parquet"))) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        driver.send_signal(signal.SIGKILL)
    there = {path.name: path.stat().st_mtime_ns for path in results.glob("*.parquet")}
    assert 2 <= len(there) < 8 and driver.returncode == -signal.SIGKILL
    summary, said = batch("pose", inside)
    assert (summary["earlier"], summary["done"]) == (len(there), 8 - len(there))
    assert summary["rows"] == 8
    assert said.count("an earlier run ended over") <= 1
    assert all((results / name).stat().st_mtime_ns == when for name, when in there.items())
    batch("pose", inside, out=tmp_path / "straight")
    assert state(out) == state(tmp_path / "straight")


def _options(source, out):
    return PoseBatchOptions(
        work=Work(str(out), (str(source),)), compute=Compute("onnxruntime", threads=1)
    )


def test_an_input_that_kills_its_workers_is_given_up_after_three(portrait, tmp_path, rows_of):
    """Markers of three deaths lie there; a fourth worker must not die as well."""
    options = _options(portrait, tmp_path / "out")
    run, store = Run.of(POSE, options), Store(str(tmp_path / "out"))
    run.begin(store)
    [one] = expand([str(portrait)], (".jpg",), "/nowhere")
    ledger = Ledger(store, run.same, run=(number := "here"))
    for before in range(MOST_TRIES):
        ledger.begin(one, before)
    with Worker(run, "another") as at_another_time:
        assert at_another_time([one])[0].reason == ""
    for path in (tmp_path / "out" / "results").iterdir():
        path.unlink()
    with Worker(run, number) as last:
        [outcome] = last([one])
    assert outcome.reason.startswith("The program died 3 times over ")
    assert rows_of(tmp_path / "out", "quarantine")[0]["reason"] == outcome.reason
    assert ledger.begun() == {}


def test_a_worker_that_sees_another_folder_is_refused(portrait, tmp_path):
    run = Run.of(POSE, _options(portrait, tmp_path / "out"))
    with pytest.raises(Exception, match="is not the folder in which this run began"):
        Worker(run, "x")


def test_what_the_machine_lacks_ends_the_run_and_blames_no_input(
    batch, folder, tmp_path, monkeypatch
):
    def lacks(*_, **__):
        raise HostError("No space left.", "Free some.")

    monkeypatch.setattr(worker, "on_this_machine", lacks)
    _, said = batch("pose", folder / "*.jpg", code=3)
    assert "No space left" in said
    assert not (tmp_path / "out" / "quarantine").exists()


@pytest.mark.slow
def test_people_of_several_videos_share_the_batch_of_their_joints(
    prunus, batch, made_once, tmp_path, portrait, rows_of, state
):
    """Videos of 6, 8 and 10 frames side by side, and one picture of nobody; each as alone."""
    pytest.importorskip("onnxscript")
    from prunus.export.evitpose import export_evitpose

    def fill(folder):
        export_evitpose("tiny", level="L3", batch=4, output=folder / "pose.onnx")

    model = made_once("batch-pose", fill) / "pose.onnx"
    (inside := tmp_path / "in").mkdir()
    picture = cv2.resize(cv2.imread(str(portrait)), (256, 256))
    for number, frames in enumerate((6, 8, 10)):
        path = str(inside / f"{number}.avi")
        writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 10.0, (256, 256))
        for k in range(frames):
            writer.write(np.roll(picture, (number + 1) * k, axis=1))
        writer.release()
    cv2.imwrite(str(inside / "nobody.png"), np.zeros((80, 80, 3), np.uint8))
    summary, said = batch("pose", inside, "--model", model, out=tmp_path / "out")
    assert "share its runs 4 by 4" in said and summary["done"] == 4
    rows = rows_of(tmp_path / "out")
    assert {Path(row["input"]).name for row in rows} >= {"1.avi", "2.avi"}
    for number in range(3):
        source = inside / f"{number}.avi"
        own = [row for row in rows if row["input"] == str(source)]
        expected = _told(prunus, source, "pose", "--model", model)
        assert [r["frame"] for r in own] == [e["image_id"] for e in expected]
        for row, entry in zip(own, expected, strict=True):  # other places of the batch: last digits
            assert np.allclose(row["keypoints"], entry["keypoints"], rtol=0, atol=0.01)
    # One that is missing is made again beside the same others, so that no digit changes.
    whole, kept = state(tmp_path / "out"), _shard(tmp_path / "out", "1.avi").stat().st_mtime_ns
    _shard(tmp_path / "out", "2.avi").unlink()
    summary, _ = batch("pose", inside, "--model", model, out=tmp_path / "out")
    assert (summary["earlier"], summary["done"]) == (3, 1)
    assert state(tmp_path / "out") == whole
    assert _shard(tmp_path / "out", "1.avi").stat().st_mtime_ns == kept


PAGE = (ROOT / "docs" / "batch.md").read_text()


def test_the_page_has_every_column():
    for app in (app for app in APPS if app.batch):
        part = PAGE.partition(f"\n`{app.task}`, a row per")[2].partition("\n\n`")[0]
        told = re.findall(r"^\| `(\w+)` \| ([\w<>]+) \|", part, re.M)
        assert told[: len(load(app.batch).columns)] == list(load(app.batch).columns), app.task
    part = PAGE.partition("\nThe quarantine:")[2]
    assert re.findall(r"^\| `(\w+)` \| (\w+) \|", part, re.M)[: len(QUARANTINE)] == list(QUARANTINE)
    part = PAGE.partition("Every table has these columns:")[2].partition("\n`pose`")[0]
    assert re.findall(r"^\| `(\w+)` \| (\w+) \|", part, re.M) == [*FIRST, *LAST]


def test_the_example_of_the_page_reads_results(batch, folder, tmp_path):
    [code] = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    exec(compile(code, "batch.md", "exec"), scope := {})
    batch("pose", folder)
    assert scope["people_at"](str(tmp_path / "out"), 0.5) == {str(folder / "walk.mp4"): 1}
