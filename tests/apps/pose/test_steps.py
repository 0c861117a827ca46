"""Variants at hand, and the pose app under a governor."""

import dataclasses
import json

import numpy as np
import onnx
import pytest

from prunus.apps.pose.steps import variants_of
from prunus.models import zoo
from prunus.runtime.card.artifact import CARD_KEY, read_card
from prunus.runtime.card.tokens import TokenPlan
from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.pipeline.governor import replay

MODEL = ("--model", "movenet_lightning", "--threads", "1", "--backend", "onnxruntime")


@pytest.fixture(scope="module")
def levels(tmp_path_factory):
    """The shipped network twice, once with a card that says it were pruned."""
    folder = tmp_path_factory.mktemp("levels")
    source = zoo.model_path("movenet_lightning")
    card = read_card(source)
    for level, macs in (("L0", 200), ("L2", 100)):
        plan = TokenPlan(level, (), (), 4, 0, "none", "none", macs, 200)
        model = onnx.load(source)
        for entry in model.metadata_props:
            if entry.key == CARD_KEY:
                entry.value = dataclasses.replace(card, tokens=plan).to_json()
        onnx.save(model, folder / f"{level}.onnx")
    return folder


def test_variants_are_told_apart_by_level_best_first(levels):
    found = variants_of([levels / "L2.onnx", levels / "L0.onnx"])
    assert [(v.name, v.cost, v.files[0].name) for v in found] == [
        ("L0", 200, "L0.onnx"), ("L2", 100, "L2.onnx")
    ]  # fmt: skip


def test_two_files_of_one_variant_and_batch_size_are_refused(levels, tmp_path):
    other = tmp_path / "copy.onnx"
    other.write_bytes((levels / "L0.onnx").read_bytes())
    with pytest.raises(UsageError, match="same batch size"):
        variants_of([levels / "L0.onnx", other])


def test_different_networks_are_no_variants(levels):
    with pytest.raises(ArtifactError, match="different networks"):
        variants_of([levels / "L0.onnx", zoo.model_path("movenet_multipose")])


def test_several_variants_need_a_budget(prunus, levels, video):
    words = ("run", "pose", "--source", video, "--sink", "null:", "--model", levels,
             "--threads", 1, "--backend", "onnxruntime")  # fmt: skip
    ran = prunus(*words)
    assert ran.code == 2 and "2 variants (L0, L2)" in ran.err and "--budget" in ran.err
    ran = prunus(*words, "--budget", "5s", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["pace"]["frames"] == {"L0": 12}


def test_a_governed_run_is_logged_and_replays(prunus, tmp_path, video):
    log, found = tmp_path / "run.jsonl", tmp_path / "out.jsonl"
    ran = prunus("run", "pose", "--source", video, *MODEL, "--budget", "2ms", "--log", log,
                 "--json-out", found, "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    summary = json.loads(ran.out)
    assert summary["pace"]["budget_ms"] == 2
    assert str(log) in summary["outputs"]
    lines = log.read_text().splitlines()
    assert [rung.name for _, rung in replay(lines)] == [json.loads(x)["rung"] for x in lines[1:]]
    people = [json.loads(line) for line in found.read_text().splitlines()]
    assert [p["image_id"] for p in people] == list(range(12))
    assert {p["age_s"] for p in people} == {0}  # one person is never too many


def test_a_budget_is_refused_where_nobody_is_followed(prunus, portrait, video):
    for words in (("--source", portrait), ("--source", video, "--single")):
        ran = prunus("run", "pose", *words, *MODEL, "--sink", "null:", "--budget", "33ms")
        assert ran.code == 2 and "found and followed" in ran.err
    ran = prunus("run", "pose", "--source", video, *MODEL, "--sink", "null:", "--budget", "33")
    assert ran.code == 2 and "--budget 33ms" in ran.err
    ran = prunus("run", "pose", "--source", video, *MODEL, "--sink", "null:", "--log", "a.csv")
    assert ran.code == 2 and ".jsonl" in ran.err


def test_a_live_source_is_governed_and_its_finder_runs_beside(prunus, tmp_path):
    found = tmp_path / "out.jsonl"
    ran = prunus("run", "pose", "--source", "synthetic:320x240@10*40", *MODEL, "--json-out", found,
                 "--json")  # fmt: skip
    assert ran.code == 0, ran.err
    pace = json.loads(ran.out)["pace"]
    assert pace["budget_ms"] == pytest.approx(1000 / 15, abs=1e-3)
    people = [json.loads(line) for line in found.read_text().splitlines()]
    assert people and {p["track_id"] for p in people} == {0}
    off = prunus("run", "pose", "--source", "synthetic:320x240@10*5", *MODEL, "--sink", "null:",
                 "--no-governor", "--json")  # fmt: skip
    assert off.code == 0 and json.loads(off.out)["pace"] is None


def test_stride_takes_every_nth_frame_and_keeps_its_time(prunus, tmp_path, video):
    found = tmp_path / "out.jsonl"
    ran = prunus("run", "pose", "--source", video, *MODEL, "--json-out", found, "--stride", 5,
                 "--json")  # fmt: skip
    assert ran.code == 0 and json.loads(ran.out)["frames"] == 3
    people = [json.loads(line) for line in found.read_text().splitlines()]
    assert [p["image_id"] for p in people] == [0, 5, 10]
    np.testing.assert_allclose([p["seconds"] for p in people], [0, 0.5, 1.0], atol=1e-6)


def test_lines_on_standard_output_leave_the_summary_to_the_other_stream(prunus, video):
    ran = prunus("run", "pose", "--source", video, *MODEL, "--json-out", "-", "--max-frames", 3)
    assert ran.code == 0
    assert [json.loads(line)["image_id"] for line in ran.out.splitlines()] == [0, 1, 2]
    assert "3 frames, 3 people" in ran.err


def test_scores_and_numbers_of_people_are_bounded(prunus, tmp_path, portrait, video):
    for words, expected in (((), 1), (("--conf", "0.99"), 0)):
        for source in (portrait, video):
            found = tmp_path / "out.jsonl"
            ran = prunus("run", "pose", "--source", source, *MODEL, "--max-frames", 1, *words,
                         "--json-out", found)  # fmt: skip
            assert ran.code == 0, ran.err
            assert len(found.read_text().splitlines()) == expected
    ran = prunus("run", "pose", "--source", video, *MODEL, "--conf", "1.5", "--sink", "null:")
    assert ran.code == 2 and "0 to 1" in ran.err
