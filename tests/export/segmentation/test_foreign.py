"""Segmentation networks of other exporters: three kinds of outputs, all others refused."""

import cv2
import numpy as np
import pytest

from prunus.export.foreign.add import About, add_card
from prunus.runtime.errors import ArtifactError
from prunus.runtime.tasks.segmentation.segmenter import Segmenter

SAID = {"colour": "rgb", "mean": [0, 0, 0], "std": [255, 255, 255], "fit": "stretch"}
SIZE = (64, 96)
NAMES = ["dark", "red", "green"]


@pytest.fixture
def colours(onnx_file):
    """Return a writer of networks that see colours: red is class 1, green class 2, else 0."""

    def write(kind, rows=16, columns=24):
        weight = np.zeros((3, 3, 1, 1), np.float32)
        weight[1, 0] = weight[2, 1] = 1
        bias = np.float32([0.5, 0, 0])
        nodes = [
            ("Conv", "x w b", "c"),
            ("AveragePool", "c", "pooled", {"kernel_shape": [4, 4], "strides": [4, 4]}),
        ]
        if kind == "logits":
            nodes[1] = (*nodes[1][:2], "y", nodes[1][3])
            outputs = {"y": ("float32", [1, 3, rows, columns])}
        elif kind == "class_ids":
            nodes[1:] = [("ArgMax", "c", "y", {"axis": 1, "keepdims": 0})]
            outputs = {"y": ("int64", [1, *SIZE])}
        else:
            nodes.append(("Gather", "pooled one", "y", {"axis": 1}))
            outputs = {"y": ("float32", [1, 1, rows, columns])}
        return onnx_file(
            kind, nodes, {"x": ("float32", [1, 3, *SIZE])}, outputs,
            {"w": weight, "b": bias, "one": np.array([1])},
        )  # fmt: skip

    return write


def picture():
    """Left red, right green."""
    frame = np.zeros((128, 192, 3), np.uint8)
    frame[:, :96, 2], frame[:, 96:, 1] = 255, 255
    return frame


@pytest.mark.parametrize("kind", ["logits", "class_ids"])
def test_classes_come_out_in_the_picture(tmp_path, colours, kind) -> None:
    out = tmp_path / "out.onnx"
    after = {"classes": NAMES, "foreground": "green"}
    card, _ = add_card(colours(kind), out, About("segmentation", before=SAID, after=after))
    assert card.postprocess.decoder == kind
    assert card.postprocess.stride == (4 if kind == "logits" else 1)
    assert card.postprocess.foreground == 2 and len(set(card.postprocess.palette)) == 3
    with Segmenter.open(out) as segmenter:
        mask = segmenter(picture())
    assert mask.classes.dtype == np.uint8
    assert (mask.classes[:, :90] == 1).all() and (mask.classes[:, 102:] == 2).all()
    assert (mask.foreground == (mask.classes == 2)).all()


def test_one_channel_is_a_probability_when_that_is_said(tmp_path, colours) -> None:
    path, out = colours("probability"), tmp_path / "out.onnx"
    after = {"classes": ["other", "red"], "foreground": 1}
    with pytest.raises(ArtifactError, match="nothing says that it is a probability") as caught:
        add_card(path, out, About("segmentation", before=SAID, after=after))
    assert "decoder=probability" in caught.value.hint
    after["decoder"] = "probability"
    add_card(path, out, About("segmentation", before=SAID, after=after))
    with Segmenter.open(out) as segmenter:
        mask = segmenter(picture())
    assert mask.foreground[:, :90].min() > 0.99 and mask.foreground[:, 102:].max() < 0.01


def test_the_carded_file_runs_as_an_app(tmp_path, colours) -> None:
    import json

    from prunus.apps.cli.main import main

    out, shown = tmp_path / "out.onnx", tmp_path / "two.png"
    add_card(colours("logits"), out, About("segmentation", before=SAID, after={"classes": NAMES}))
    cv2.imwrite(str(shown), picture())
    told = tmp_path / "shares.json"
    code = main(["run", "segmentation", "--model", str(out), "--source", str(shown),
                 "--json-out", str(told), "--quiet"])  # fmt: skip
    (row,) = json.loads(told.read_text())
    assert code == 0 and row["classes"]["red"] > 0.45 and row["classes"]["green"] > 0.45


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({}, "Nothing names the classes of logits: 3 are wanted, got none"),
        ({"classes": ["a", "b"]}, "3 are wanted, got 2"),
        ({"classes": NAMES, "foreground": "blue"}, "no class 'blue'"),
        ({"classes": NAMES, "foreground": 7}, "foreground class 7"),
        ({"classes": NAMES, "decoder": "class_ids"}, "is read as logits"),
        ({"classes": NAMES, "colours": []}, r"'colours'"),
    ],
)
def test_words_that_do_not_fit(tmp_path, colours, after, said) -> None:
    with pytest.raises(ArtifactError, match=said) as caught:
        add_card(colours("logits"), tmp_path / "o.onnx",
                 About("segmentation", before=SAID, after=after))  # fmt: skip
    assert caught.value.hint or "foreground" in said
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize("shape", [[1, 3], [1, 3, 5, 7], [1, 3, 128, 192], [1, 3, 16, 48]])
def test_outputs_that_are_no_maps(tmp_path, onnx_file, shape) -> None:
    count = int(np.prod(shape))
    path = onnx_file(
        "odd", [("ReduceSum", "x", "s", {"keepdims": 0}), ("Expand", "s shape", "y")],
        {"x": ("float32", [1, 3, *SIZE])}, {"y": ("float32", shape)}, {"shape": np.array(shape)},
    )  # fmt: skip
    assert count
    with pytest.raises(ArtifactError, match="The first output of a segmentation network is"):
        add_card(path, tmp_path / "o.onnx",
                 About("segmentation", before=SAID, after={"classes": NAMES}))  # fmt: skip


def test_several_inputs_are_refused(tmp_path, onnx_file) -> None:
    spec = ("float32", [1, 3, *SIZE])
    path = onnx_file("two", [("Add", "x z", "y")], {"x": spec, "z": ("float32", [1])}, {"y": spec})
    with pytest.raises(ArtifactError, match="takes one picture; two takes x float32"):
        add_card(path, tmp_path / "o.onnx",
                 About("segmentation", before=SAID, after={"classes": NAMES}))  # fmt: skip
