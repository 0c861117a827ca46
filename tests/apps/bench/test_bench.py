"""`prunus bench`: which runners come of which words, and one real comparison."""

from __future__ import annotations

import json

import numpy as np
import pytest

from prunus.apps.bench.runs import runners_for, session_runner
from prunus.apps.bench.targets import (
    people,
    portrait_boxes,
    portrait_crops,
    real_inputs,
    scene,
)
from prunus.models import zoo
from prunus.runtime.card.artifact import read_card, sha256_of
from prunus.runtime.errors import UsageError
from prunus.runtime.session.base import open as open_session


def test_one_runner_per_model_and_back_end():
    words = (["movenet_lightning"], ["onnxruntime", "openvino-bf16"], ["torch-eager"], 2)
    runners = runners_for(*words)
    assert [bool(r.target) for r in runners] == [True, False, False]
    assert runners[2].backend == "openvino"
    assert runners[2].options.inference_precision == "bf16"
    assert {r.threads for r in runners} == {2}
    assert len({r.name for r in runners}) == 3


def test_pipeline_boundary_measures_whole_poses():
    (runner,) = runners_for(["movenet_lightning"], ["onnxruntime"], [], 1, "pipeline")
    assert runner.boundary == "pipeline"
    assert runner.target


def test_tasks_without_a_pipeline_are_refused():
    with pytest.raises(UsageError, match="task 'detection'"):
        runners_for(["facemesh"], ["onnxruntime"], [], 1, "pipeline")
    with pytest.raises(UsageError, match="task 'codec'"):
        runners_for(["nsfcodec_16k_encoder"], ["onnxruntime"], [], 1, "pipeline")


def test_unknown_opponents_are_named():
    with pytest.raises(UsageError, match=r"did you mean 'torch-eager'\?"):
        runners_for(["movenet_lightning"], ["auto"], ["torch-eger"], 1)


def test_inputs_are_real_and_different():
    card = read_card(zoo.model_path("movenet_lightning"))
    crops = portrait_crops(card)["image"]
    assert crops.shape == (4, 1, 192, 192, 3)
    assert crops.dtype == np.uint8
    assert crops.std() > 30
    assert not np.array_equal(crops[0], crops[3])


def test_boxes_stay_around_the_person():
    boxes = portrait_boxes(np.zeros((512, 512, 3), np.uint8), 4)
    assert boxes.shape == (4, 4)
    assert len(np.unique(boxes[:, 0])) == 4


def test_people_target_runs_a_whole_pose():
    call = people({}, 1, "onnxruntime", "2", str(zoo.model_path("movenet_lightning")))
    assert len(call()) == 2


def test_dense_networks_get_frames_of_the_clip(colour_model):
    frames = real_inputs(read_card(colour_model()))["image"]
    assert frames.shape == (4, 1, 64, 64, 3) and frames.dtype == np.uint8
    assert frames.std() > 20 and not np.array_equal(frames[0], frames[3])


@pytest.mark.parametrize("name", ["blazeface_full", "facemesh"])
def test_finders_get_the_portrait_and_a_mesh_its_face(name):
    """What the networks say shows that they see a face: the mesh is sure, the finder finds one."""
    path = zoo.model_path(name)
    inputs = real_inputs(read_card(path), 3)
    assert inputs["image"].shape[:2] == (3, 1) and not np.array_equal(*inputs["image"][[0, 2]])
    with open_session(path, threads=1) as session:
        for frame in inputs["image"]:
            outputs = session.run({"image": frame})
            sure = ["face"] if name == "facemesh" else ["scores_16", "scores_32"]
            assert max(outputs[output].max() for output in sure) > 0


def test_pipeline_boundary_of_a_dense_network_goes_from_video_to_mask(colour_model):
    path = str(colour_model())
    (runner,) = runners_for([path], ["onnxruntime"], [], 1, "pipeline")
    assert runner.boundary == "pipeline" and runner.arguments == ("onnxruntime", path)
    call = scene({}, 1, "onnxruntime", path)
    first, second = call(), call()
    assert first.shape == second.shape and first.dtype == np.uint8
    assert not np.array_equal(first, second)


def test_bench_prints_ratios_and_keeps_raw_samples(prunus, tmp_path):
    out = tmp_path / "bench.json"
    ran = prunus(
        "bench", "movenet_lightning", "--backend", "onnxruntime", "--rounds", 1,
        "--seconds", 0.1, "--threads", 1, "-o", out,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    assert "p90 ms" in ran.out
    (result,) = json.loads(out.read_text())["results"]
    assert result["sha256"] == sha256_of(zoo.model_path("movenet_lightning"))
    assert len(result["rounds_ms"][0]) >= 3
    assert result["latency"]["boundary"] == "engine"


def test_models_of_different_shapes_need_the_pipeline_boundary(prunus):
    path = zoo.model_path("movenet_multipose")
    assert session_runner(path, "onnxruntime", 1).path == str(path)
    ran = prunus("bench", "movenet_lightning", "movenet_multipose")
    assert ran.code == 2
    assert "--boundary pipeline" in ran.err
