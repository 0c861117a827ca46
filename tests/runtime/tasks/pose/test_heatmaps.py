"""Joints of heatmaps outside the graph: the numbers of the decode inside ours."""

import numpy as np
import pytest
import torch

from prunus.models.pose.decode import udp_dark_decode
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.tasks.pose.card import ImagePreprocess, KeypointPostprocess
from prunus.runtime.tasks.pose.estimator import PoseEstimator
from prunus.runtime.tasks.pose.heatmaps import SMALLEST, joints_of_heatmaps
from prunus.runtime.tasks.pose.metric import PoseMetric

HEIGHT, WIDTH = 256, 192


def gaussians(centres, size=(64, 48), sigma=2.0):
    """Return (people, joints, *size) maps with their maxima at centres of y, x in map pixels."""
    rows, columns = np.mgrid[: size[0], : size[1]]
    y, x = (np.asarray(centres)[..., k, None, None] for k in (0, 1))
    return np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2)).astype(np.float32)


def inside(maps):
    """Decode as our graphs do, to pixels of the crop."""
    joints = udp_dark_decode(torch.from_numpy(maps)).numpy()
    rows, columns = maps.shape[2:]
    return joints * np.float32([(WIDTH - 1) / (columns - 1), (HEIGHT - 1) / (rows - 1), 1])


@pytest.mark.parametrize("size", [(64, 48), (SMALLEST, SMALLEST), (16, 12)])
def test_equal_to_the_decode_inside_graphs(size) -> None:
    rng = np.random.default_rng(0)
    centres = rng.uniform(-1, 1, (6, 17, 2)) * 0.6 * np.array(size) + np.array(size) / 2
    maps = gaussians(centres, size) * rng.uniform(0.2, 1, (6, 17, 1, 1)).astype(np.float32)
    np.testing.assert_allclose(
        joints_of_heatmaps(maps, HEIGHT, WIDTH), inside(maps), rtol=0, atol=2e-3
    )


@pytest.mark.parametrize("height", [105.0, 102.0, 200.0, 0.002, 0.0005])
def test_maps_of_any_height_are_cut_off_where_those_inside_graphs_are(height) -> None:
    maps = gaussians(np.random.default_rng(2).uniform(8, 40, (2, 5, 2))) * np.float32(height)
    np.testing.assert_allclose(
        joints_of_heatmaps(maps, HEIGHT, WIDTH)[..., :2], inside(maps)[..., :2], atol=2e-3
    )


def test_the_centre_of_a_clear_maximum_is_found_below_a_pixel() -> None:
    found = joints_of_heatmaps(gaussians([[[30.3, 20.6]]]), HEIGHT, WIDTH)
    expected = [20.6 * 191 / 47, 30.3 * 255 / 63]
    np.testing.assert_allclose(found[0, 0, :2], expected, atol=0.02)
    assert 0.9 < found[0, 0, 2] <= 1


def _card() -> ModelCard:
    return ModelCard(
        "pose", "theirs", "foreign", "", "", "", Weights("", "", "", True),
        (TensorSpec("x", "float32", (1, 3, HEIGHT, WIDTH), ("n", "c", "h", "w")),),
        (TensorSpec("maps", "float32", (1, 1, 64, 48), ("n", "j", "h", "w")),),
        ImagePreprocess(HEIGHT, WIDTH, "udp_affine", mean=(0, 0, 0), std=(255, 255, 255),
                        normalised_in_graph=False),
        KeypointPostprocess("heatmaps", "own", ("dot",), (), (), ()),
    )  # fmt: skip


class SpotSession:
    """Return as the map of one joint the red channel, averaged over 4 x 4 pixels."""

    backend = description = "test"
    choice = ()

    def __init__(self) -> None:
        self.card = _card()

    def run(self, inputs):
        image = inputs["x"]
        assert image.dtype == np.float32 and image.shape == (1, 3, HEIGHT, WIDTH)
        return {"maps": image[:, :1].reshape(1, 1, 64, 4, 48, 4).mean((3, 5))}

    def close(self) -> None:
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_the_estimator_feeds_floats_and_reads_maps() -> None:
    frame = np.zeros((400, 300, 3), np.uint8)
    rows, columns = np.mgrid[:400, :300]
    frame[..., 2] = 255 * np.exp(-((rows - 210) ** 2 + (columns - 130) ** 2) / 200)  # red in BGR
    (pose,) = PoseEstimator(SpotSession())(frame, np.array([[50, 50, 250, 350]]))
    np.testing.assert_allclose(pose.keypoints[0, :2], [130, 210], atol=2.5)
    assert pose.keypoints[0, 2] > 0.8


def test_the_metric_judges_joints_in_pixels() -> None:
    # Eleven samples: a percentile of fewer joints says nothing.
    centres = np.random.default_rng(0).uniform(15, 35, (11, 1, 2))
    card, metric = _card(), PoseMetric()
    same = metric.measure({"maps": gaussians(centres)}, {"maps": gaussians(centres)}, card)
    assert same.values["max_px"] == 0 and same.values["judged_joints"] == 11
    moved = metric.measure({"maps": gaussians(centres)}, {"maps": gaussians(centres + 1)}, card)
    step = np.hypot(191 / 47, 255 / 63)
    assert moved.values["mean_px"] == pytest.approx(step, rel=0.01)
    assert all(limit.quantity in moved.values for limit in metric.limits(card, "fp32"))
