"""Dolphin from the command line to two files: shapes, cards, forbidden operators, refusals."""

import dataclasses
from collections import Counter

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.torch import save_file

from prunus.apps.cli.main import main
from prunus.export.dolphin import (
    approximations,
    build_card,
    config_of,
    export_dolphin,
    frames_of,
    load_samples,
    path_of,
    reference_module,
)
from prunus.export.graph import compact
from prunus.export.graph.audit import require_clean
from prunus.export.separation.samples import draw_mouths, separation_samples
from prunus.export.separation.weights import find_weights, weights_of
from prunus.export.verify.check import check_artifact
from prunus.models.checkpoints.compact import on_grid
from prunus.models.checkpoints.dolphin_nano import OwnDolphin
from prunus.models.separation.config import dolphin_config
from prunus.models.separation.dolphin import build_dolphin
from prunus.runtime.card.artifact import read_card
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import ArtifactError, CheckFailedError, SourceError, UsageError
from prunus.runtime.session.base import open as open_session

SMALL = {"seconds": 0.4, "checkpoint": "random"}


def _file(name, part):
    return f"{name}-{part}.onnx"


@pytest.fixture
def lips_file(tiny_separator):
    return _file(tiny_separator, "lips")


@pytest.fixture
def voice_file(tiny_separator):
    return _file(tiny_separator, "voice")


def test_the_cards_tell_everything_and_come_back_the_same(lips_file, voice_file) -> None:
    lips, voice = read_card(lips_file), read_card(voice_file)
    for card in (lips, voice):
        assert (card.task, card.model) == ("separation", "dolphin")
        assert not card.weights.trained and "random numbers" in card.weights.origin
        assert ModelCard.from_json(card.to_json()) == card
    assert lips.inputs[0].shape == (1, 35, 88, 88) and lips.inputs[0].dtype == "uint8"
    assert [s.shape for s in lips.outputs] == [(1, 4, 35), (1, 35)]
    assert [s.shape for s in voice.inputs] == [(1, 6400), (1, 4, 10)]
    assert voice.outputs[0].shape == (1, 6400)
    assert voice.preprocess.samples_per_frame == 640
    post = voice.postprocess
    assert post.heat_radius == 8 and 0 < post.heat_gain_error < 0.1
    assert 20 < post.heat_snr_db < 150 and post.token_step == 1


def test_graphs_are_static_and_free_of_what_engines_refuse(lips_file, voice_file) -> None:
    for file in (lips_file, voice_file):
        model = onnx.load(file)
        require_clean(model)
        kinds = Counter(node.op_type for node in model.graph.node)
        assert not {"DFT", "STFT", "NonZero", "Loop", "If", "Einsum", "Resize"} & set(kinds)
        for value in (*model.graph.value_info, *model.graph.output):
            dims = value.type.tensor_type.shape.dim
            assert all(d.dim_value > 0 for d in dims), value.name
    kinds = Counter(n.op_type for n in onnx.load(lips_file).graph.node)
    assert kinds["ArgMin"] == 1 and not kinds["GatherElements"]
    # No cosine table and no table of token pairs: nothing is as large as two lengths multiplied.
    largest = max(np.prod(t.dims) for t in onnx.load(voice_file).graph.initializer)
    assert largest <= 16 * 32 * 2


def test_silence_gives_silence_not_nan(voice_file) -> None:
    card = read_card(voice_file)
    zeros = {s.name: np.zeros(s.shape, np.float32) for s in card.inputs}
    with open_session(voice_file, "onnxruntime") as session:
        assert np.isfinite(session.run(zeros)["voice"]).all()


@pytest.mark.usefixtures("small_dolphin")
def test_check_judges_in_decibels(lips_file, voice_file) -> None:
    for file in (lips_file, voice_file):
        report = check_artifact(file, limit=2, backends=("onnxruntime",))
        assert report.passed
    effect = report.comparisons[0].effect
    assert effect["snr_db"] > 90 and effect["si_sdr_loss_db"] < 1e-6


@pytest.mark.usefixtures("small_dolphin")
def test_a_fault_in_the_graph_is_found(voice_file, tmp_path) -> None:
    model = onnx.load(voice_file)
    tensors = model.graph.initializer
    tensor = next(t for t in tensors if t.name.endswith("modalfuse.resize.conv.weight"))
    values = numpy_helper.to_array(tensor).copy()
    values[0] *= 1.02
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "broken.onnx")
    report = check_artifact(tmp_path / "broken.onnx", limit=1, backends=("onnxruntime",))
    with pytest.raises(CheckFailedError, match="left its fp32 budget"):
        report.raise_if_failed()


@pytest.mark.slow
@pytest.mark.usefixtures("small_dolphin")
def test_coarser_tokens_tell_what_they_cost_and_twice_gives_the_same_bytes(tmp_path) -> None:
    files = [
        export_dolphin(
            "nano", parts=["voice"], token_step=2, heat_radius=4, output=tmp_path / name, **SMALL
        )[0]
        for name in ("a", "b")
    ]
    assert files[0].read_bytes() == files[1].read_bytes()
    post = read_card(files[0]).postprocess
    assert post.token_step == 2 and -20 < post.token_snr_db < 60
    lines = approximations(files[:1])
    assert "radius 4" in lines[0] and "UNTRAINED" in lines[1]
    config, part = config_of(read_card(files[0]))
    assert (config.token_step, config.heat_radius, part) == (2, 4, "voice")


@pytest.mark.slow
@pytest.mark.usefixtures("small_dolphin")
def test_half_precision_keeps_codes_and_norms_in_float32(tmp_path) -> None:
    lips, voice = export_dolphin("nano", precision="fp16", output=tmp_path / "half", **SMALL)
    for path in (lips, voice):
        assert read_card(path).precision.precision == "fp16"
        half = [
            t for t in onnx.load(path).graph.initializer if t.data_type == onnx.TensorProto.FLOAT16
        ]
        assert half
    graph = onnx.load(lips).graph
    types = {v.name: v.type.tensor_type.elem_type for v in graph.value_info}
    search = next(n for n in graph.node if n.op_type == "ArgMin")
    assert types[search.input[0]] == onnx.TensorProto.FLOAT


def test_windows_that_cannot_be_are_refused_before_any_work(tmp_path, capsys) -> None:
    words = ["export", "dolphin", "-o", str(tmp_path / "x")]
    assert main([*words, "--seconds", "2.01"]) == 2
    assert "steps of 0.04 s" in capsys.readouterr().err
    assert main([*words, "--seconds", "60"]) == 2
    assert main([*words, "--variant", "nanno"]) == 2
    assert "did you mean 'nano'" in capsys.readouterr().err
    assert main([*words, "--heat-radius", "0"]) == 2
    assert main([*words, "--token-step", "3"]) == 2
    assert main([*words, "--precision", "fp8"]) == 2
    assert main([*words, "--part", "lip"]) == 2
    assert "did you mean 'lips'" in capsys.readouterr().err
    assert main([*words, "--seed", "-1"]) == 2
    assert main([*words, "--checkpoint", str(tmp_path / "none.safetensors")]) == 2
    assert main(["export", "dolphin", "-o", str(tmp_path / "no" / "x")]) == 2
    assert not list(tmp_path.iterdir())


def test_names_say_what_is_inside() -> None:
    config = dataclasses.replace(dolphin_config("base"), token_step=2)
    assert path_of(None, config, 2.0, "fp16", "lips").name == "dolphin-base-2s-T2-fp16-lips.onnx"
    assert path_of("a.onnx", config, 2.0, "fp16", "voice").name == "a-voice.onnx"
    assert frames_of(1.92, config) == 48


@pytest.mark.usefixtures("small_dolphin")
def test_the_reference_needs_the_weights_that_were_exported(voice_file) -> None:
    card = read_card(voice_file)
    trained = dataclasses.replace(card.weights, sha256="ab" * 32, trained=True)
    with pytest.raises(ArtifactError, match="not shipped"):
        reference_module(dataclasses.replace(card, weights=trained))
    with pytest.raises(ArtifactError, match="expected a Dolphin"):
        reference_module(dataclasses.replace(card, model="evitpose"))
    module = reference_module(card)
    with torch.no_grad():
        assert module(torch.zeros(1, 6400), torch.zeros(1, 4, 10)).shape == (1, 6400)


def test_samples_come_from_recordings_arrays_and_drawings(lips_file, voice_file, tmp_path) -> None:
    lips, voice = read_card(lips_file), read_card(voice_file)
    drawn = load_samples(lips, None, 2)["mouth"]
    assert drawn.shape == (2, 35, 88, 88) and drawn.dtype == np.uint8
    assert not np.array_equal(drawn[0, 0], drawn[0, 5])
    mixtures = load_samples(voice, None, 2)
    assert mixtures["mixture"].shape == (2, 6400) and mixtures["lips"].shape == (2, 4, 10)
    np.savez(tmp_path / "a.npz", mouth=drawn, mixture=mixtures["mixture"])
    assert len(separation_samples(lips, tmp_path / "a.npz", 1)) == 1
    assert len(separation_samples(voice, tmp_path / "a.npz", 2)) == 2
    np.savez(tmp_path / "b.npz", mouth=draw_mouths(10, 64)[None])
    with pytest.raises(UsageError, match="35, 88, 88"):
        separation_samples(lips, tmp_path / "b.npz")
    with pytest.raises(SourceError, match="expected 'mixture'"):
        separation_samples(voice, tmp_path / "b.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[:-30])
    for card in (lips, voice):
        with pytest.raises(SourceError, match=r"a\.npz is not a complete .* mouth=\.\.\."):
            separation_samples(card, tmp_path / "a.npz")


@pytest.mark.slow
def test_int8_takes_the_last_feed_forward_parts_and_stays_in_budget(tmp_path) -> None:
    path = export_dolphin(
        "nano", seconds=0.4, parts=["voice"], precision="int8", output=tmp_path / "nano"
    )[0]
    read_by = [n for n in onnx.load(path).graph.node if n.op_type == "QuantizeLinear"]
    assert read_by and all("dec_stages.3" in n.name or not n.name for n in read_by)
    assert check_artifact(path, limit=2, backends=("onnxruntime",)).passed


@pytest.mark.slow
@pytest.mark.usefixtures("small_dolphin")
def test_bisecting_names_the_faulty_layer(voice_file, tmp_path) -> None:
    model = onnx.load(voice_file)
    tensors = model.graph.initializer
    tensor = next(t for t in tensors if t.name.endswith("modalfuse.resize.conv.weight"))
    values = numpy_helper.to_array(tensor) * np.float32(1.3)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, tmp_path / "broken.onnx")
    report = check_artifact(
        tmp_path / "broken.onnx", limit=1, backends=("onnxruntime",), bisect=True
    )
    assert "modalfuse.resize" in report.to_text()


def test_released_weights_are_the_users_and_the_card_says_so(tmp_path) -> None:
    config = dolphin_config("base")
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        save_file(build_dolphin(config, seed).state_dict(), folder / "model.safetensors")
    found = find_weights(config, tmp_path / "0")
    card = build_card(config, found, "voice", 50)
    assert card.weights.trained and "supplied by the user" in card.weights.origin
    assert "not cleared for commercial use" in card.weights.licence
    again = weights_of(card.weights, config, tmp_path / "0" / "model.safetensors")
    assert torch.equal(again.state["audio_encoder.conv1d.weight"],
                       found.state["audio_encoder.conv1d.weight"])  # fmt: skip
    with pytest.raises(ArtifactError, match="was exported from"):
        weights_of(card.weights, config, tmp_path / "1")
    with pytest.raises(UsageError, match="does not fit Dolphin-nano"):
        find_weights(dolphin_config("nano"), tmp_path / "0")


@pytest.mark.slow
@pytest.mark.usefixtures("small_dolphin")
def test_small_files_hold_the_same_numbers(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(compact, "_SMALLEST", 64)  # this network has no larger matrices
    weights = tmp_path / "rounded.safetensors"
    state = build_dolphin(dolphin_config("nano")).state_dict()
    rounded = {n: on_grid(v) if v.is_floating_point() and v.dim() > 1 else v
               for n, v in state.items()}  # fmt: skip
    about = OwnDolphin("nano", "a test", "Apache-2.0")
    save_file(rounded, weights, metadata=about.header())
    options = {**SMALL, "checkpoint": weights, "parts": ["voice"]}
    plain = export_dolphin("nano", output=tmp_path / "plain", **options)[0]
    small = export_dolphin("nano", output=tmp_path / "small", small=True, **options)[0]
    assert read_card(small).weights == read_card(plain).weights
    kinds = {t.data_type for t in onnx.load(small).graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    feeds = {spec.name: np.random.default_rng(3).standard_normal(spec.shape).astype(np.float32)
             for spec in read_card(plain).inputs}  # fmt: skip
    outputs = []
    for path in (plain, small):
        with open_session(path, "onnxruntime", threads=1) as session:
            outputs.append(session.run(feeds)["voice"].copy())
    assert np.array_equal(*outputs)
    with pytest.raises(UsageError, match="expected fp32"):
        export_dolphin("nano", precision="fp16", small=True, output=tmp_path / "x", **options)
