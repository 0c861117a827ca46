"""Stick figures: a training set that needs neither a renderer nor a download."""

from pathlib import Path

import numpy as np
import pytest
import torch

from prunus.models.pose.skeleton import COCO17
from prunus.models.training.pictures import encode
from prunus.models.training.pose.shards import PeopleShard, write_shard


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


STANDING = np.array(
    [
        (0, 10), (4, 6), (-4, 6), (9, 8), (-9, 8), (24, 45), (-24, 45), (32, 85), (-32, 85),
        (34, 120), (-34, 120), (14, 125), (-14, 125), (16, 170), (-16, 170), (17, 215), (-17, 215),
    ],
    np.float32,
)  # fmt: skip


def draw_figure(rng, height=320, width=288):
    """Return an RGB picture, joints (17,3) and box of a jittered figure with a bright skeleton."""
    import cv2

    points = STANDING + rng.normal(0, 4, STANDING.shape) + [width / 2, 50]
    points = (points + rng.uniform(-15, 15, 2)).astype(np.float32)
    image = np.full((height, width, 3), rng.integers(0, 90, 3), np.uint8)
    for n, (a, b) in enumerate(COCO17.limbs):
        ends = [tuple(np.rint(points[i]).astype(int).tolist()) for i in (a, b)]
        cv2.line(image, *ends, (255 - 10 * n, 120 + 8 * n, 40 + 12 * n), 7)
    joints = np.concatenate([points, np.ones((17, 1), np.float32)], 1)
    box = np.concatenate([points.min(0) - 12, points.max(0) + 12]).astype(np.float32)
    return image, joints, box


def figure_shard(count, seed):
    rng = np.random.default_rng(seed)
    figures = [draw_figure(rng) for _ in range(count)]
    return PeopleShard(
        [encode(f[0]) for f in figures],
        np.stack([f[1] for f in figures]),
        np.stack([f[2] for f in figures]),
    )


@pytest.fixture(scope="session")
def figure_cache(tmp_path_factory) -> Path:
    """A cache folder laid out as the real one: synthetic, street, and both held-out sets."""
    root = tmp_path_factory.mktemp("cache")
    for number, name in enumerate(("synthetic", "street", "synthetic_held_out", "street_held_out")):
        write_shard(root / name / "figures.npz", figure_shard(12, number))
    return root
