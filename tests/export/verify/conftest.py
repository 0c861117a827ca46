"""A small pruned pose network, exported once: the checks need nodes and scopes, not accuracy."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from prunus.export.graph.simplify import simplify
from prunus.export.graph.trace import trace
from prunus.runtime.card.card import CARD_KEY, ModelCard, Weights
from prunus.runtime.card.precision import PrecisionSpec
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.card.tokens import TokenPlan
from prunus.runtime.tasks.pose.card import ImagePreprocess, KeypointPostprocess

JOINTS, DIM, HEIGHT, WIDTH, PATCH = 4, 32, 64, 48, 8
GRID = (HEIGHT // PATCH, WIDTH // PATCH)


class Block(nn.Module):
    def __init__(self, keep: int | None) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(DIM)
        self.query, self.key = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
        # OpenVINO 2026.4 crashes on attention that enters the residual without a projection.
        self.value, self.project = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
        self.mlp = nn.Sequential(nn.LayerNorm(DIM), nn.Linear(DIM, 2 * DIM), nn.GELU())
        self.out = nn.Linear(2 * DIM, DIM)
        self.keep = keep

    def forward(self, x: torch.Tensor, where: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.norm(x)
        weights = (self.query(y) @ self.key(y).transpose(1, 2) / DIM**0.5).softmax(-1)
        x = x + self.project(weights @ self.value(y))
        if self.keep is not None:
            chosen = torch.topk(weights.sum(1), self.keep, dim=1, sorted=True).indices
            x = x.gather(1, chosen[..., None].expand(-1, -1, DIM))
            where = where.gather(1, chosen)
        return x + self.out(self.mlp(x)), where


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, DIM, PATCH, PATCH)
        self.position = nn.Parameter(torch.randn(1, GRID[0] * GRID[1], DIM))
        self.blocks = nn.ModuleList(Block(keep) for keep in (None, 24, None, 12, None, None))
        self.head = nn.ConvTranspose2d(DIM, JOINTS, 4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch = x.shape[0]
        x = self.embed(x).flatten(2).transpose(1, 2) + self.position
        grid = x
        where = torch.arange(GRID[0] * GRID[1]).expand(batch, -1)
        for block in self.blocks:
            x, where = block(x, where)
        grid = grid.scatter(1, where[..., None].expand(-1, -1, DIM), x)
        heat: torch.Tensor = self.head(grid.transpose(1, 2).reshape(batch, DIM, *GRID))
        return heat


class Deployed(nn.Module):
    """Pixels in, keypoints out; the maximum of a map is its joint."""

    def __init__(self, heatmaps: bool) -> None:
        super().__init__()
        self.network, self.heatmaps = Network(), heatmaps

    def forward(self, image: torch.Tensor):
        x = image.float().permute(0, 3, 1, 2) / 255.0 - 0.5
        heat = self.network(x).float()
        flat = heat.flatten(2)
        score, place = flat.max(-1).values, flat.argmax(-1)
        wide = heat.shape[-1]
        keypoints = torch.stack([(place % wide) * 4.0, (place // wide) * 4.0, score], -1)
        return (keypoints, heat) if self.heatmaps else keypoints


def make_card(batch: int, heatmaps: bool, trained: bool, precision: str = "fp32") -> ModelCard:
    outputs = [TensorSpec("keypoints", "float32", (batch, JOINTS, 3), ("batch", "joint", "xys"))]
    if heatmaps:
        shape = (batch, JOINTS, HEIGHT // 4, WIDTH // 4)
        outputs.append(TensorSpec("heatmaps", "float32", shape, ("batch", "joint", "y", "x")))
    return ModelCard(
        task="pose",
        model="standin",
        variant="tiny",
        paper="none",
        licence="Apache-2.0",
        exporter="tests",
        weights=Weights("random numbers", "random:0", "Apache-2.0", trained),
        inputs=(
            TensorSpec(
                "image", "uint8", (batch, HEIGHT, WIDTH, 3), ("batch", "height", "width", "rgb")
            ),
        ),
        outputs=tuple(outputs),
        preprocess=ImagePreprocess(HEIGHT, WIDTH, "udp_affine"),
        postprocess=KeypointPostprocess(
            "udp_dark", "four", ("head", "hand", "hip", "foot"), (), (), (0.05,) * 4
        ),
        tokens=TokenPlan("custom", (1, 3), (24, 12), 48, 0, "sum", "carry", 1, 2),
        precision=PrecisionSpec(precision),
    )


@dataclass(frozen=True)
class StandIn:
    module: Deployed
    card: ModelCard
    path: Path

    def model(self) -> onnx.ModelProto:
        return onnx.load(str(self.path))

    def write(self, model: onnx.ModelProto, path: Path, **changes) -> Path:
        """Write a changed copy of the artifact; `changes` replace fields of its card's JSON."""
        raw = json.loads(self.card.to_json()) | changes
        del model.metadata_props[:]
        entry = model.metadata_props.add()
        entry.key, entry.value = CARD_KEY, json.dumps(raw)
        onnx.save(model, str(path))
        return path


def build(folder: Path, batch: int, heatmaps: bool, trained: bool) -> StandIn:
    torch.manual_seed(3)
    module = Deployed(heatmaps).eval()
    card = make_card(batch, heatmaps, trained)
    example = torch.zeros(card.inputs[0].shape, dtype=torch.uint8)
    model = simplify(trace(module, [example], ["image"], [o.name for o in card.outputs]))
    made = StandIn(module, card, folder / f"b{batch}h{int(heatmaps)}t{int(trained)}.onnx")
    made.write(model, made.path)
    return made


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("standin")


@pytest.fixture(scope="session")
def trained(folder: Path) -> StandIn:
    """Pretends to be trained, so that pixels are judged; batch 2."""
    return build(folder, 2, heatmaps=False, trained=True)


@pytest.fixture(scope="session")
def untrained(folder: Path) -> StandIn:
    """Random weights, said so, with no heatmap output; batch 1."""
    return build(folder, 1, heatmaps=False, trained=False)


@pytest.fixture(scope="session")
def crops() -> np.ndarray:
    """(5, H, W, 3) uint8: smooth pictures, so that maps have one clear maximum."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (5, 3, 6, 5))).float()
    smooth = nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic")
    return smooth.clamp(0, 255).byte().permute(0, 2, 3, 1).contiguous().numpy()
