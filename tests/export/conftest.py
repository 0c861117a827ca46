"""A pose network small enough to export in a few seconds, with weights that make peaks."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture(scope="session")
def small_pose():
    """DeployedPose of 3 blocks, 32 channels, one cut from 192 to 100 patches; with heatmaps."""
    torch = pytest.importorskip("torch")
    from prunus.models.pose.deployed import DeployedPose
    from prunus.models.pose.evitpose import EViTPose, EViTPoseConfig
    from prunus.models.tokens.plan import PruningPlan

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        plan = PruningPlan("custom", (1,), (100,))
        config = EViTPoseConfig("tiny", 32, 2, plan, "subpixel", depth=3)
        network = EViTPose(config)
        for name, parameter in network.named_parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=0.2 if "head" in name else 0.1)
            else:
                torch.nn.init.uniform_(parameter, -0.2, 0.2)
        for name, buffer in network.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2.0)
            elif name.endswith("running_mean"):
                buffer.uniform_(-0.5, 0.5)
    return DeployedPose(network, heatmaps=True).eval()


@pytest.fixture(scope="session")
def noise_crops():
    """uint8 (6, 256, 192, 3): noise with a coarse pattern, so that patches differ."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 200, (6, 16, 12, 3))
    fine = rng.integers(0, 56, (6, 256, 192, 3))
    return (coarse.repeat(16, axis=1).repeat(16, axis=2) + fine).astype(np.uint8)


@pytest.fixture(scope="session")
def _pose_graphs(small_pose, noise_crops, made_once):
    """A folder with the traced and the simplified graph."""
    import onnx
    import torch

    from prunus.export.graph.simplify import simplify
    from prunus.export.graph.trace import trace

    def fill(folder):
        example = torch.from_numpy(noise_crops[:1])
        traced = trace(small_pose, (example,), ["image"], ["keypoints", "heatmaps"])
        onnx.save(traced, folder / "traced.onnx")
        onnx.save(simplify(traced), folder / "simple.onnx")

    return made_once("pose", fill)


@pytest.fixture(scope="session")
def traced_pose(_pose_graphs):
    """The traced graph; copy before editing."""
    import onnx

    return onnx.load(_pose_graphs / "traced.onnx")


@pytest.fixture(scope="session")
def pose_graph(_pose_graphs):
    """The simplified graph; copy before editing."""
    import onnx

    return onnx.load(_pose_graphs / "simple.onnx")
