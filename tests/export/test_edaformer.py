"""EDAFormer from the command line to a file: settings, refusals, what the graph holds."""

import dataclasses

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from prunus.apps.cli.main import main
from prunus.export.common.options import parse_size
from prunus.export.edaformer import export_edaformer, isr_plan, reference_module
from prunus.export.precision.calibration import bundled_media
from prunus.export.segmentation.samples import load_scenes
from prunus.export.segmentation.weights import find_weights
from prunus.export.verify.check import check_artifact
from prunus.models.segmentation.edaformer import EDAFormer, edaformer_config
from prunus.models.segmentation.isr import parse_isr
from prunus.runtime.card.artifact import read_card
from prunus.runtime.errors import ArtifactError, CheckFailedError, SourceError, UsageError
from prunus.runtime.session.base import open as open_session
from prunus.runtime.tasks.segmentation.card import ScenePreprocess
from prunus.runtime.tasks.segmentation.segmenter import Segmenter

SMALL = {"size": "64x128", "classes": 19, "seed": 1}


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """T with the published ISR at 64x128, fp32."""
    path = tmp_path_factory.mktemp("edaformer") / "t.onnx"
    return export_edaformer("t", isr="published", output=path, **SMALL)


def test_the_card_tells_everything(published) -> None:
    card = read_card(published)
    assert (card.task, card.model, card.variant) == ("segmentation", "edaformer", "t")
    assert card.inputs[0].shape == (1, 64, 128, 3) and card.inputs[0].dtype == "uint8"
    assert card.outputs[0].shape == (1, 64, 128) and card.outputs[0].dtype == "uint8"
    assert card.postprocess.classes[card.postprocess.foreground] == "person"
    assert card.tokens.level == "2211-222"
    assert card.tokens.keep == (2, 2, 8, 8, 2, 2, 2)
    assert card.tokens.macs < card.tokens.macs_dense
    assert not card.weights.trained


def test_the_graph_is_rewritten_and_static(published) -> None:
    graph = onnx.load(published).graph
    kinds = [node.op_type for node in graph.node]
    attention = [n for n in graph.node if n.domain == "prunus"]
    assert len(attention) == 2 + 2 + 10 + 2 + 6  # one node per block
    for node in attention:  # keys and values are one tensor
        assert node.input[6] == node.input[7]
    kernels = [
        tuple(a.ints)
        for n in graph.node
        for a in n.attribute
        if n.op_type == "AveragePool" and a.name == "kernel_shape"
    ]
    assert (1, 1) not in kernels and (16, 16) in kernels
    # Stage 4 is not pooled by this setting, so its two blocks have none.
    assert len(kernels) == len(attention) - 2
    assert "ArgMax" in kinds and "Concat" not in kinds
    # Tokens become maps on their grid: runtimes drop this transpose, not that of a list.
    turns = [tuple(n.attribute[0].ints) for n in graph.node if n.op_type == "Transpose"]
    assert {(0, 3, 1, 2), (0, 2, 3, 1)} == set(turns)
    assert not any("conv_seg" in t.name for t in graph.initializer)


def test_the_file_computes_what_the_published_form_computes(published) -> None:
    report = check_artifact(published, limit=3, backends=("onnxruntime", "openvino"))
    assert report.passed
    assert len(report.comparisons) == 2
    for comparison in report.comparisons:
        assert comparison.effect["pixels_equal"] >= 0.9999
        assert comparison.effect["miou"] > 0.99
        assert comparison.effect["logit_max_relative"] < 1e-4


def test_a_frame_goes_through(published) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 90, 3), dtype=np.uint8)
    with Segmenter.open(published, "onnxruntime", 1) as segment:
        mask = segment(frame)
    assert mask.classes.shape == (48, 90) and len(np.unique(mask.classes)) > 1
    assert mask.foreground.shape == (48, 90)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_number_formats_stay_within_budget(tmp_path, precision) -> None:
    path = export_edaformer(
        "t", isr="published", precision=precision, output=tmp_path / "t.onnx", **SMALL
    )
    assert check_artifact(path, limit=3).passed
    assert read_card(path).precision.precision == precision


@pytest.mark.slow
def test_candidates_are_compared_in_float32(tmp_path) -> None:
    """150 classes: the best are found among candidates; no product there, no rounding."""
    path = export_edaformer("t", size="64x128", precision="int8", output=tmp_path / "t.onnx")
    assert check_artifact(path, limit=3).passed
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    types = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    nodes = [n for n in model.graph.node if n.name.startswith("best/")]
    kinds = {n.op_type for n in nodes}
    assert {"TopK", "ArgMax"} <= kinds and not kinds & {"MatMul", "Gemm", "QuantizeLinear"}
    means = [n.output[0] for n in nodes if n.op_type in ("Add", "Mul", "Sub")]
    assert means and onnx.TensorProto.FLOAT16 not in {types.get(name) for name in means}
    # The layer that gives the logits stays in float, as the last one.
    rounded = {o for n in model.graph.node if "Linear" in n.op_type for o in n.output}
    (classify,) = [n for n in model.graph.node if n.name.startswith("network.classify/Conv")]
    assert not rounded & set(classify.input)


@pytest.mark.slow
def test_candidates_replace_the_full_comparison_of_many_classes(tmp_path) -> None:
    fast, full = tmp_path / "fast.onnx", tmp_path / "full.onnx"
    export_edaformer("t", size="64x64", seed=3, output=fast)
    export_edaformer("t", size="64x64", seed=3, full_argmax=True, output=full)
    assert "TopK" in {n.op_type for n in onnx.load(fast).graph.node}
    assert "TopK" not in {n.op_type for n in onnx.load(full).graph.node}
    image = load_scenes(None, read_card(fast).preprocess, 1)["image"]
    with open_session(fast, "onnxruntime") as one, open_session(full, "onnxruntime") as two:
        got, expected = one.run({"image": image})["classes"], two.run({"image": image})["classes"]
    assert len(np.unique(expected)) > 3
    np.testing.assert_array_equal(got, expected)


@pytest.mark.slow
def test_the_logits_graph_and_the_literal_form_agree(published, tmp_path) -> None:
    path = export_edaformer(
        "t", isr="published", logits=True, literal=True, output=tmp_path / "l.onnx", **SMALL
    )
    assert "LocalGlobalAttention" not in {n.op_type for n in onnx.load(path).graph.node}
    image = load_scenes(None, read_card(path).preprocess, 2)["image"][:1]
    with open_session(published, "onnxruntime") as one, open_session(path, "onnxruntime") as two:
        numbers = one.run({"image": image})["classes"]
        logits = two.run({"image": image})["logits"]
    assert logits.shape == (1, 19, 8, 16)
    full = torch.nn.functional.interpolate(
        torch.from_numpy(np.array(logits)), size=(64, 128), mode="bilinear"
    )
    assert (full.argmax(1).numpy() == numbers).mean() > 0.999


@pytest.mark.slow
def test_sizes_that_drop_keys_export_when_allowed(tmp_path) -> None:
    path = export_edaformer(
        "t", isr="published", size="96x160", drop_remainder=True, classes=4,
        output=tmp_path / "t.onnx",
    )  # fmt: skip
    assert check_artifact(path, limit=2).passed


@pytest.mark.slow
def test_more_classes_than_a_byte_holds_come_out_wider(tmp_path) -> None:
    path = export_edaformer("t", size="64x64", classes=300, output=tmp_path / "t.onnx")
    assert read_card(path).outputs[0].dtype == "int32"
    assert check_artifact(path, limit=2).passed


def test_a_fault_in_the_graph_is_found(published, tmp_path) -> None:
    model = onnx.load(published)
    tensor = next(t for t in model.graph.initializer if t.name.endswith("join.at16.weight"))
    values = onnx.numpy_helper.to_array(tensor) * 1.05
    tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), tensor.name))
    broken = tmp_path / "broken.onnx"
    onnx.save(model, broken)
    report = check_artifact(broken, limit=2)
    assert not report.passed
    with pytest.raises(CheckFailedError, match="left its fp32 budget"):
        report.raise_if_failed()


@pytest.mark.parametrize(
    ("name", "gmac"),
    [("off", 5.593), ("decoder", 5.271), ("published", 4.665), ("maximum", 4.055)],
)
def test_the_plan_counts_what_is_published(name, gmac) -> None:
    plan = isr_plan(edaformer_config("t", isr=parse_isr(name)), 512, 512)
    assert plan.macs / 1e9 == pytest.approx(gmac, rel=0.005)
    assert plan.macs_dense / 1e9 == pytest.approx(5.593, rel=0.005)
    if name == "published":
        assert plan.keep == (64, 64, 256, 256, 64, 64, 64)


def test_what_cannot_be_is_refused_before_any_work(tmp_path, capsys) -> None:
    words = ["export", "edaformer", "-o", str(tmp_path / "x.onnx")]
    assert main([*words, "--isr", "published", "--size", "500x333"]) == 2
    err = capsys.readouterr().err
    assert "multiples of 64" in err and "448x320 or 512x384" in err
    assert main([*words, "--size", "wide"]) == 2
    assert main([*words, "--isr", "22"]) == 2
    assert main([*words, "--fit", "leterbox"]) == 2
    assert "did you mean 'letterbox'" in capsys.readouterr().err
    assert main([*words, "--fit", "cityscapes", "--size", "64x64"]) == 2
    assert "--logits" in capsys.readouterr().err
    assert main([*words, "--checkpoint", str(tmp_path / "none.pth")]) == 2
    capsys.readouterr()
    assert main([*words, "--weights", str(tmp_path / "none.pth")]) == 2
    assert capsys.readouterr().err.startswith("note: --weights is now --checkpoint\nerror: ")
    assert main([*words, "--precision", "fp8"]) == 2
    assert not list(tmp_path.iterdir())


def test_sizes_read() -> None:
    assert parse_size("512x1024") == (512, 1024) and parse_size("512") == (512, 512)
    for text in ("", "x", "0x5", "axb", "5x-5"):
        with pytest.raises(UsageError, match="HEIGHTxWIDTH"):
            parse_size(text)


def test_the_reference_needs_the_weights_that_were_exported(published, tmp_path) -> None:
    card = read_card(published)
    trained = dataclasses.replace(card.weights, sha256="ab" * 32, trained=True)
    with pytest.raises(ArtifactError, match="not shipped"):
        reference_module(dataclasses.replace(card, weights=trained))
    state = EDAFormer(edaformer_config("t", classes=19)).state_dict()
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(ArtifactError, match="was exported from"):
        reference_module(dataclasses.replace(card, weights=trained), tmp_path / "other.safetensors")
    with pytest.raises(ArtifactError, match="expected an EDAFormer"):
        reference_module(dataclasses.replace(card, model="evitpose"))


def test_imported_weights_bring_their_names(tmp_path) -> None:
    source, target = tmp_path / "city.pth", tmp_path / "city.safetensors"
    state = EDAFormer(edaformer_config("t", classes=3)).state_dict()
    meta = {"CLASSES": ["sea", "land", "person"], "PALETTE": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}
    torch.save({"state_dict": state, "meta": meta}, source)
    words = ["models", "import", str(source), "--model", "edaformer", "-o", str(target)]
    assert main([*words, "--quiet"]) == 0
    for file in (source, target):
        found = find_weights(file)
        assert found.classes == ("sea", "land", "person") and found.palette[2] == (7, 8, 9)
        assert found.spec.trained and found.variant == "t"
        network = found.build(parse_isr("off"))
        assert torch.equal(
            network.state_dict()["backbone.norm1.bias"], state["backbone.norm1.bias"]
        )


def test_formats_are_judged_on_photographs() -> None:
    assert [p.name for p in bundled_media()] == ["pedestrians.mp4", "portrait.jpg"]


def test_scenes_come_from_pictures_folders_and_arrays(tmp_path) -> None:
    cv2 = pytest.importorskip("cv2")
    spec = ScenePreprocess(64, 96)
    with pytest.raises(SourceError, match="holds no pictures"):
        load_scenes(tmp_path, spec)
    for k in range(3):
        cv2.imwrite(str(tmp_path / f"{k}.png"), np.full((30, 60, 3), 50 * k, np.uint8))
    images = load_scenes(tmp_path, spec, 2)["image"]
    assert images.shape == (2, 64, 96, 3) and images[1].max() == 114  # the last one is padded
    np.savez(tmp_path / "a.npz", images=images)
    assert len(load_scenes(tmp_path / "a.npz", spec)) == 2
    np.savez(tmp_path / "b.npz", images=images[:, :32])
    with pytest.raises(UsageError, match="64, 96, 3"):
        load_scenes(tmp_path / "b.npz", spec)
    with pytest.raises(SourceError, match="expected a picture"):
        load_scenes(tmp_path / "a.txt", spec)
    window = ScenePreprocess(64, 64, "sliding", longest=128, shortest=64, stride=(48, 48))
    assert load_scenes(tmp_path, window, 1)["image"].shape == (1, 64, 64, 3)
