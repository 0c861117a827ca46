"""`prunus deploy triton`: what lies in the repository, and what is refused before anything does."""

import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from prunus.apps.common.model_files import find_model
from prunus.runtime.card.artifact import EngineSidecar, read_card, sha256_of


def _configs(folder, parsed):
    return {p.parent.name: parsed(p.read_text()) for p in folder.glob("*/config.pbtxt")}


def _everything(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_what_ships_becomes_folders_that_triton_reads(prunus, tmp_path, parsed):
    target = tmp_path / "repository"
    words = ("pose", "people", "segmentation", "codec", "-o", target, "--threads", 2, "--json")
    ran = prunus("deploy", "triton", *words)
    assert ran.code == 0, ran.err
    configs = _configs(target, parsed)
    assert {row["name"] for row in json.loads(ran.out)["models"]} == set(configs)
    assert set(configs) == {
        "pose", "pose-graph", "people", "people-graph", "segmentation", "segmentation-graph",
        "codec-encode", "codec-decode", "codec-encoder-graph", "codec-decoder-graph",
    }  # fmt: skip
    for name, read in configs.items():
        assert read.name == name and (target / name / "1").is_dir()
        assert [p.name for p in target.iterdir() if p.name.startswith(".")] == []
        assert [g.count for g in read.instance_group] == [1]
        for warm in read.model_warmup:
            assert set(warm.inputs) == {one.name for one in read.input}
            for one in warm.inputs.values():
                data = target / name / "warmup" / one.input_data_file
                assert one.zero_data or data.read_bytes()[4:6] == b"\xff\xd8"
    pose = configs["pose"]
    assert pose.backend == "python" and pose.max_batch_size == 1
    assert not pose.HasField("dynamic_batching")  # MoveNet takes one picture
    assert [list(one.dims) for one in pose.output] == [[1], [-1, 17, 3], [-1, 4], [-1]]
    assert (target / "pose" / "1" / "finder.onnx").is_file()
    assert "foreground" in {one.name for one in configs["segmentation"].output}


def test_a_graph_has_the_exact_tensors_of_its_card(prunus, tmp_path, parsed):
    prunus("deploy", "triton", "codec", "pose", "-o", tmp_path / "r", "--threads", 2)
    configs = _configs(tmp_path / "r", parsed)
    for name, model in (("pose-graph", "movenet_lightning"),
                        ("codec-decoder-graph", "nsfcodec_16k_decoder")):  # fmt: skip
        card, read = read_card(find_model(model)), configs[name]
        assert sha256_of(tmp_path / "r" / name / "1" / "model.onnx") == sha256_of(find_model(model))
        for specs, tensors in ((card.inputs, read.input), (card.outputs, read.output)):
            assert [(s.name, s.shape) for s in specs] == [(t.name, tuple(t.dims)) for t in tensors]
        assert read.backend == "onnxruntime" and read.max_batch_size == 0
        assert read.parameters["intra_op_thread_count"].string_value == "2"


def test_streams_are_kept_together(prunus, tmp_path, parsed):
    words = ("codec", "-o", tmp_path / "r", "--streams", 7, "--idle", 2.5)
    assert prunus("deploy", "triton", *words).code == 0
    configs = _configs(tmp_path / "r", parsed)
    for name in ("codec-encode", "codec-decode"):
        batcher = configs[name].sequence_batching
        assert batcher.oldest.max_candidate_sequences == 7
        assert batcher.max_sequence_idle_microseconds == 2_500_000
        assert configs[name].parameters["idle_s"].string_value == "2.5"


@pytest.mark.parametrize(("words", "most"), [((), 4), (("--batch", 3), 3), (("--batch", 1), 1)])
def test_requests_are_joined_as_far_as_the_graph_holds(
    prunus, tmp_path, parsed, batched, words, most
):
    assert prunus("deploy", "triton", batched, "-o", tmp_path / "r", "--wait", 5, *words).code == 0
    read = _configs(tmp_path / "r", parsed)
    whole, graph = read["batched"], read["batched-graph"]
    assert whole.max_batch_size == most and whole.HasField("dynamic_batching") == (most > 1)
    assert list(whole.input[0].dims) == [5]
    if most > 1:
        assert whole.dynamic_batching.max_queue_delay_microseconds == 5000
    assert graph.max_batch_size == 0 and list(graph.input[0].dims) == [4, 5]


def test_pictures_are_joined_where_they_do_not_slide(prunus, tmp_path, parsed, colour_model):
    sliding = {"fit": "sliding", "longest": 128, "shortest": 64, "stride": (32, 32)}
    for k, (path, most) in enumerate((
        (colour_model(batch=4), 4), (colour_model("logits", 4, **sliding), 1),
    )):  # fmt: skip
        assert prunus("deploy", "triton", path, "-o", tmp_path / f"r{k}").code == 0
        [read] = [c for c in _configs(tmp_path / f"r{k}", parsed).values() if c.backend == "python"]
        assert read.max_batch_size == most and read.HasField("dynamic_batching") == (most > 1)


def test_instances_on_gpus(prunus, tmp_path, parsed):
    words = ("segmentation", "-o", tmp_path / "r", "--instances", 3, "--device", "cuda:1")
    assert prunus("deploy", "triton", *words).code == 0
    for read in _configs(tmp_path / "r", parsed).values():
        [group] = read.instance_group
        assert group.Kind.Name(group.kind) == "KIND_GPU"
        assert (group.count, list(group.gpus)) == (3, [1])


def _engine(folder, flavour="tensorrt", plugin=""):
    path = folder / "net.engine"
    path.write_bytes(b"plan")
    card = read_card(find_model("selfie"))
    EngineSidecar(card, "a", sha256_of(path), flavour, "10.3", "8.7", plugin, (), 1.0, 1.0).write(
        path
    )
    return path


def test_an_engine_is_a_plan(prunus, tmp_path, parsed):
    ran = prunus("deploy", "triton", _engine(tmp_path), "-o", tmp_path / "r")
    assert ran.code == 0, ran.err
    read = _configs(tmp_path / "r", parsed)
    assert read["net-graph"].backend == "tensorrt"
    assert {p.name for p in (tmp_path / "r" / "net-graph" / "1").iterdir()} == {"model.plan"}
    beside = {p.name for p in (tmp_path / "r" / "net" / "1").iterdir()}
    assert beside == {"model.py", "model.engine", "model.engine.json"}
    assert all(len(one.instance_group[0].gpus) == 1 for one in read.values())


def test_weights_in_other_files_come_along(prunus, tmp_path, onnx_file, parsed):
    shape = ("float32", [1, 512])
    path = onnx_file("net", [("Mul", "x w", "y")], {"x": shape}, {"y": shape},
                     {"w": np.ones((1, 512), np.float32)})  # fmt: skip
    (tmp_path / "split").mkdir()
    split = tmp_path / "split" / "net.onnx"
    onnx.save_model(onnx.load(path), split, save_as_external_data=True, location="net.bin",
                    size_threshold=0)  # fmt: skip
    assert prunus("deploy", "triton", split, "-o", tmp_path / "r").code == 0
    for name in ("net", "net-graph"):
        copied = (tmp_path / "r" / name / "1" / "net.bin").read_bytes()
        assert copied == (tmp_path / "split" / "net.bin").read_bytes()


def _loose(onnx_file):
    shape = ("float32", ["batch", 3])
    return onnx_file("loose", [("Relu", "x", "y")], {"x": shape}, {"y": shape})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "no shipped model 'nothing'"),
        (["nothing.onnx"], "not found: nothing.onnx"),
        (["LOOSE"], "no fixed size: x [batch, 3]"),
        (["pose", "LOOSE"], "no fixed size"),
        (["pose", "--batch", "4"], "Got --batch 4; movenet"),
        (["BATCHED", "--batch", "5"], "was exported for 4"),
        (["codec", "--batch", "2"], "streams run one by one"),
        (["dolphin_nano_lips"], "separates whole clips"),
        (["VOICE"], "sends the voice"),
        (["pose", "--device", "GPU.1"], "Triton places models on cpu or cuda:0"),
        (["pose", "pose"], "two models named pose"),
        (["RTX"], "tensorrt_rtx"),
        (["PLUGIN"], "with a plugin"),
        (["pose", "--instances", "0"], "--instances"),
        (["selfie", "--backend", "onnxruntim"], "did you mean 'onnxruntime'"),
        (["selfie", "--backend", "tensorrt"], "TensorRT opens .engine and .plan files"),
        (["codec", "--backend", "tensorrt"], "TensorRT opens .engine and .plan files"),
        (["selfie", "--backend", "onnxruntime", "--arithmetic", "bf16"], "no bf16 switch"),
        (["selfie", "--backend", "openvino", "--device", "cuda"], "has no device 'cuda'"),
    ],
)
def test_what_cannot_be_served_is_one_error_and_no_file(
    prunus, tmp_path, onnx_file, batched, tiny_codec, words, said
):
    (tmp_path / "engines").mkdir()
    files = {
        "LOOSE": lambda: _loose(onnx_file),
        "BATCHED": lambda: batched,
        "VOICE": lambda: f"{tiny_codec('freecodec')}-encoder.onnx",
        "RTX": lambda: _engine(tmp_path / "engines", "tensorrt_rtx"),
        "PLUGIN": lambda: _engine(tmp_path / "engines", plugin="lga 1 abc"),
    }
    place = tmp_path / "place"
    place.mkdir()
    ran = prunus(
        "deploy", "triton", *[files[w]() if w in files else w for w in words], "-o", place / "r"
    )
    assert ran.code == 2 and said in ran.err and not ran.out, ran.err
    assert "Traceback" not in ran.err and not list(place.iterdir())


def test_sizes_can_be_fixed_on_the_way(prunus, tmp_path, onnx_file, parsed):
    words = (_loose(onnx_file), "--shape", "x:2x3", "-o", tmp_path / "r")
    assert prunus("deploy", "triton", *words).code == 0
    assert list(_configs(tmp_path / "r", parsed)["loose-graph"].input[0].dims) == [2, 3]


def test_another_model_is_replaced_on_demand_alone(prunus, tmp_path, onnx_file, batched, parsed):
    target = tmp_path / "r"
    assert prunus("deploy", "triton", batched, "-o", target).code == 0
    (target / "other").mkdir()
    (target / "other" / "config.pbtxt").write_text('name: "other"\n')
    again = prunus("deploy", "triton", batched, "-o", target, "--instances", 2)
    assert again.code == 0  # the same model: its settings may change
    assert _configs(target, parsed)["batched"].instance_group[0].count == 2
    before = _everything(target)
    other = tmp_path / "new" / "batched.onnx"
    other.parent.mkdir()
    model = onnx.load(batched)
    model.graph.node[0].op_type = "Add"
    onnx.save(model, other)
    refused = prunus("deploy", "triton", other, "-o", target)
    assert refused.code == 2 and "holds another model" in refused.err
    assert "--overwrite" in refused.err and _everything(target) == before
    assert prunus("deploy", "triton", other, "-o", target, "--overwrite").code == 0
    assert sha256_of(target / "batched" / "1" / "model.onnx") == sha256_of(other)
    assert (target / "other" / "config.pbtxt").is_file()


def test_a_folder_of_somebody_else_is_refused(prunus, tmp_path, batched):
    (tmp_path / "r" / "batched").mkdir(parents=True)
    (tmp_path / "r" / "batched" / "notes.txt").write_text("mine")
    ran = prunus("deploy", "triton", batched, "-o", tmp_path / "r")
    assert ran.code == 2 and "holds another model" in ran.err
    assert (tmp_path / "r" / "batched" / "notes.txt").read_text() == "mine"
    assert not (tmp_path / "r" / "batched-graph").exists()


@pytest.mark.parametrize("place", ["no/such/folder/r", "file", "/proc/r"])
def test_a_place_that_cannot_be_written_is_named(prunus, tmp_path, batched, place):
    (tmp_path / "file").write_text("kept")
    ran = prunus("deploy", "triton", batched, "-o", tmp_path / place)
    assert ran.code == 2 and ("does not exist" in ran.err or "Cannot write" in ran.err)
    assert "Traceback" not in ran.err and (tmp_path / "file").read_text() == "kept"
    assert {p.name for p in tmp_path.iterdir() if p.name.startswith(".")} == set()


@pytest.mark.parametrize("existing", [True, False])
def test_a_failure_half_way_leaves_what_was_there(prunus, tmp_path, batched, monkeypatch, existing):
    target = tmp_path / "r"
    if existing:
        assert prunus("deploy", "triton", batched, "-o", target).code == 0
    before = _everything(tmp_path)
    rename, failed = Path.rename, []

    def fails(self, other):
        if Path(other) == target / "batched-graph" and not failed:
            failed.append(other)
            raise OSError(28, os.strerror(28), str(other))
        return rename(self, other)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fails)
        ran = prunus("deploy", "triton", batched, "-o", target)
    assert failed and ran.code == 3 and "No space left" in ran.err
    assert _everything(tmp_path) == before and target.exists() == existing


@pytest.mark.parametrize("folder", ["batched", "batched-graph"])
@pytest.mark.parametrize("step", ["old", "new"])
def test_a_stop_between_two_steps_leaves_what_was_there(
    prunus, tmp_path, batched, monkeypatch, folder, step
):
    """Ctrl-C right after a rename: the folder that was there is in neither place by its name."""
    target = tmp_path / "r"
    assert prunus("deploy", "triton", batched, "-o", target).code == 0
    before = _everything(tmp_path)
    rename, stopped = Path.rename, []

    def stops(self, other):
        rename(self, other)
        away = Path(other).parent.name == "old"
        if Path(other).name == folder and away == (step == "old") and not stopped:
            stopped.append(other)
            raise KeyboardInterrupt
        return Path(other)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stops)
        ran = prunus("deploy", "triton", batched, "-o", target)
    assert stopped and ran.code == 130
    assert _everything(tmp_path) == before
