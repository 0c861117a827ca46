"""Pose networks of other exporters: heatmaps and rows of joints."""

import numpy as np
import pytest

from prunus.export.foreign.add import About, add_card
from prunus.runtime.errors import ArtifactError
from prunus.runtime.tasks.pose.estimator import PoseEstimator

SAID = {"colour": "rgb", "mean": [0, 0, 0], "std": [255, 255, 255]}
X = {"x": ("float32", [1, 3, 64, 48])}
POOL = {"kernel_shape": [4, 4], "strides": [4, 4]}


@pytest.fixture
def spots(onnx_file):
    """Joint 0 is the red spot, joint 1 the green one, as heatmaps at a quarter of the size."""
    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight[0, 0] = weight[1, 1] = 1
    return onnx_file("spots", [("Conv", "x w", "c"), ("AveragePool", "c", "maps", POOL)], X,
                     {"maps": ("float32", [1, 2, 16, 12])}, {"w": weight})  # fmt: skip


@pytest.fixture
def rows(onnx_file):
    made = np.float32([[[10, 20, 0.9], [30, 40, 0.8]]])
    return onnx_file(
        "rows", [("ReduceMin", "x", "m", {"keepdims": 0}), ("Mul", "m zero", "z"),
                 ("Add", "joints z", "y")],
        X, {"y": ("float32", [1, 2, 3])}, {"joints": made, "zero": np.float32(0)},
    )  # fmt: skip


def test_heatmaps_become_joints_in_the_picture(tmp_path, spots) -> None:
    out = tmp_path / "out.onnx"
    about = About("pose", before=SAID, after={"joints": ["red", "green"]})
    card, _ = add_card(spots, out, about)
    assert card.postprocess.decoder == "heatmaps" and card.preprocess.fit == "udp_affine"
    frame = np.zeros((300, 300, 3), np.uint8)
    y, x = np.mgrid[:300, :300]
    for channel, (row, column) in ((2, (120, 130)), (1, (180, 160))):
        spot = np.exp(-((y - row) ** 2 + (x - column) ** 2) / 300)
        frame[..., channel] = (255 * spot).astype(np.uint8)
    with PoseEstimator.open(out) as estimator:
        (pose,) = estimator(frame, np.array([[60, 40, 240, 280]]))
    np.testing.assert_allclose(pose.keypoints[:, :2], [[130, 120], [160, 180]], atol=4)


@pytest.mark.parametrize(
    ("decoder", "expected"), [("regression", [10, 20]), ("movenet", [20 * 48, 10 * 64])]
)
def test_rows_are_what_is_said(tmp_path, rows, decoder, expected) -> None:
    out = tmp_path / "out.onnx"
    after = {"joints": ["a", "b"], "decoder": decoder}
    add_card(rows, out, About("pose", before={**SAID, "box_padding": 1}, after=after))
    with PoseEstimator.open(out) as estimator:
        (pose,) = estimator(np.zeros((64, 48, 3), np.uint8), np.array([[0, 0, 47, 63]]))
    np.testing.assert_allclose(pose.keypoints[0, :2], expected, rtol=0.03)


@pytest.mark.parametrize(
    ("file", "before", "after", "said"),
    [
        ("spots", {}, {}, "Nothing names the joints"),
        ("spots", {}, {"skeleton": "coco71"}, r"did you mean 'coco17'\?"),
        ("spots", {}, {"skeleton": "coco17"}, "Got 17 joints .*has|Got 17 joints"),
        ("spots", {}, {"joints": ["a", "b"], "decoder": "movenet"}, "is read as heatmaps"),
        ("spots", {}, {"joints": ["a", "b"], "limbs": [[0, 9]]}, "limbs hold"),
        ("spots", {"fit": "stretch"}, {"joints": ["a", "b"]}, "fit=stretch"),
        ("rows", {}, {"joints": ["a", "b"]}, "Nothing says what the rows of y"),
        ("rows", {}, {"joints": ["a", "b"], "decoder": "heatmaps"}, "Nothing says what the rows"),
    ],
)
def test_words_that_do_not_fit(tmp_path, request, file, before, after, said) -> None:
    path, out = request.getfixturevalue(file), tmp_path / "o.onnx"
    with pytest.raises(ArtifactError, match=said):
        add_card(path, out, About("pose", before={**SAID, **before}, after=after))
    assert not out.exists()


@pytest.mark.parametrize("shape", [[1, 17], [1, 17, 4], [2, 17, 16, 12], [1, 17, 5, 5]])
def test_outputs_that_hold_no_joints(tmp_path, onnx_file, shape) -> None:
    path = onnx_file(
        "odd", [("ReduceSum", "x", "s", {"keepdims": 0}), ("Expand", "s shape", "y")], X,
        {"y": ("float32", shape)}, {"shape": np.array(shape)},
    )  # fmt: skip
    with pytest.raises(ArtifactError, match="The first output of a pose network is heatmaps"):
        add_card(path, tmp_path / "o.onnx",
                 About("pose", before=SAID, after={"skeleton": "coco17"}))  # fmt: skip
