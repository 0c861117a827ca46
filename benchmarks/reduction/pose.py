"""People on a street for `methods`: DINOv2-S with a linear read-out, and EViTPose-Tiny."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from benchmarks.reduction import networks
from benchmarks.reduction.cases import Array, Case, Entry, Scores, cut, described, plain
from prunus.export.common.samples import Samples
from prunus.export.planning.candidates import first_blocks
from prunus.export.planning.points import Candidate
from prunus.models.pose.decode import udp_dark_decode
from prunus.models.pose.evitpose import evitpose_config
from prunus.models.pose.levels import evitpose_plan
from prunus.models.tokens.plan import read_plan
from prunus.models.tokens.reducer import Restore
from prunus.models.training.pose.augment import box_to_centre_size, udp_matrix
from prunus.models.training.pose.evaluate import crop_people, to_picture
from prunus.models.training.pose.evaluation_sets import HeldOut, read_held_out
from prunus.models.training.pose.scores import COCO_SIGMAS, MASK_SHARE
from prunus.models.zoo import load_checkpoint
from prunus.runtime.errors import SourceError
from prunus.runtime.tasks.pose.accuracy import oks

SURE = 0.3  # least score of a joint that the teacher labelled, as in the evaluation of EViTPose
PEOPLE_HINT = (
    "Make them as docs/training-pose.md says: the teachers, then python -m "
    "prunus.models.training.teachers.crops --step 10, and name their folder with --people."
)


def read_people(folder: Path, name: str, limit: int) -> HeldOut:
    """Return people whom MoveNet Thunder labelled, spread evenly over the set.

    Raises:
        SourceError: none are there.
    """
    if not any((folder / name).glob("*.npz")):
        raise SourceError(f"No labelled people in {folder / name}.", PEOPLE_HINT)
    return read_held_out(folder / name, name, "MoveNet Thunder", SURE, limit)


def person_scores(joints: Array, people: HeldOut) -> Scores:
    """Return the object keypoint similarity of joints (n, 17, 2) in the pictures' pixels."""
    area = np.prod(people.boxes[:, 2:] - people.boxes[:, :2], axis=1) * MASK_SHARE
    each = oks(joints, people.joints, people.labelled, area, COCO_SIGMAS)
    known = ~np.isnan(each)
    return Scores(np.where(known, each, 0.0), known.astype(float))


@dataclass(frozen=True)
class LinearReadOut:
    """Joints by one linear layer per patch, fitted in closed form on each network's own features.

    A patch tells 4 x 4 points of each joint's heatmap. Features on a coarser grid are enlarged
    bilinearly; a crop's are put where it was cut. Ridge regression, its weight chosen on a fifth of
    the people who train it.

    Attributes:
        train: People whose features come first.
        test: People whose features come after them.
        side: Pixels of a side of the square crop.
        special: Tokens in front of the patches.
    """

    train: HeldOut
    test: HeldOut
    side: int
    special: int = 1
    fine: int = 4
    spread: float = 1.5  # of a Gaussian target, in points of the heatmap

    def __call__(self, features: Array, grid: tuple[int, int], whole: tuple[int, int]) -> Scores:
        """Fit on the first features, judge on the rest.

        Args:
            features: (n, special + rows * columns, C).
            grid: Rows and columns of the patches.
            whole: Rows and columns that this grid takes of the crop's patches: fewer in a crop.
        """
        patches = self.on_grid(features[:, self.special :], grid, whole)
        count = len(self.train.images)
        rows = patches.reshape(-1, patches.shape[-1])
        mean, spread = rows.mean(0), rows.std(0) + 1e-6
        patches = (patches - mean) / spread
        patches = np.concatenate((patches, np.ones_like(patches[..., :1])), -1)
        wanted = self._targets()
        weights = self._fit(patches[:count], wanted)
        maps = self._maps(patches[count:] @ weights)
        found = udp_dark_decode(torch.from_numpy(maps).clamp_min(1e-4)).numpy()
        found[..., :2] *= (self.side - 1) / (maps.shape[-1] - 1)
        return person_scores(to_picture(found, self._matrices(self.test))[..., :2], self.test)

    @property
    def cells(self) -> int:
        """Patches on a side of the crop."""
        return self.side // networks.PATCH

    def on_grid(self, patches: Array, grid: tuple[int, int], whole: tuple[int, int]) -> Array:
        """Return (n, cells, cells, C): enlarged to `whole`, then put in the middle of zeros."""
        tensor = torch.from_numpy(np.ascontiguousarray(patches)).float()
        image = tensor.transpose(1, 2).unflatten(2, grid)
        if grid != whole:
            image = nn.functional.interpolate(image, whole, mode="bilinear", align_corners=False)
        down, right = self.cells - whole[0], self.cells - whole[1]
        borders = (right // 2, right - right // 2, down // 2, down - down // 2)
        return nn.functional.pad(image, borders).permute(0, 2, 3, 1).numpy()

    def _matrices(self, people: HeldOut) -> Array:
        size = (self.side, self.side)
        return np.stack([
            udp_matrix(*box_to_centre_size(box, 1.0), 0.0, size) for box in people.boxes
        ])  # fmt: skip

    def _targets(self) -> Array:
        """Return (n, cells, cells, 17 * fine * fine): Gaussians, flat where nothing is labelled."""
        points = self.cells * self.fine
        matrices = self._matrices(self.train)
        turned = np.einsum("nij,nkj->nki", matrices[:, :, :2], self.train.joints)
        at = (turned + matrices[:, None, :, 2]) * (points - 1) / (self.side - 1)
        axis = np.arange(points)
        falls = [np.exp(-((axis - at[..., k, None]) ** 2) / (2 * self.spread**2)) for k in (0, 1)]
        known = self.train.labelled[..., None, None]
        maps = falls[1][..., :, None] * falls[0][..., None, :] * known
        count, cells, fine = len(maps), self.cells, self.fine
        split = maps.reshape(count, -1, cells, fine, cells, fine).transpose(0, 2, 4, 1, 3, 5)
        return np.asarray(split.reshape(count, cells, cells, -1), np.float32)

    def _maps(self, told: Array) -> Array:
        count, cells, fine = len(told), self.cells, self.fine
        split = told.reshape(count, cells, cells, -1, fine, fine).transpose(0, 3, 1, 4, 2, 5)
        side = cells * fine
        return np.ascontiguousarray(split.reshape(count, -1, side, side), np.float32)

    def _fit(self, patches: Array, wanted: Array) -> Array:
        """Return the weights (C + 1, outputs) of the ridge that errs least on the last fifth."""
        x, y = (a.reshape(-1, a.shape[-1]).astype(np.float64) for a in (patches, wanted))
        held = len(patches) // 5 * patches.shape[1] * patches.shape[2]
        fit, rest = (slice(None, -held), slice(-held, None))
        first, last = ((x[part].T @ x[part], x[part].T @ y[part]) for part in (fit, rest))

        def solve(products: tuple[Array, Array], ridge: float) -> Array:
            return np.asarray(
                np.linalg.solve(products[0] + ridge * np.eye(len(first[0])), products[1])
            )

        def error(ridge: float) -> float:
            """Return the squared error on the rest, less what no weights change."""
            weights = solve(first, ridge)
            return float((weights * (last[0] @ weights - 2 * last[1])).sum())

        best = min((10.0**k for k in range(5)), key=error)
        return solve((first[0] + last[0], first[1] + last[1]), best).astype(np.float32)


def dinov2(packages: Path, people: Path, train: int, test: int) -> Case:
    """Return DINOv2-S frozen, judged by the joints that a linear layer reads off its patches."""
    side, depth = 224, 12
    tensors = networks.dinov2_tensors(packages)

    def trunk(
        size: tuple[int, int] = (side, side), crop: bool = False, blocks: int = depth
    ) -> nn.Module:
        network = networks.DinoTrunk(tensors, size, crop=crop).eval()
        return network if blocks == depth else first_blocks(network, blocks)

    tokens = (side // networks.PATCH) ** 2
    example = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    plans: list[tuple[str, Restore]] = [
        ("evit:0.5@4", "scatter"), ("random:0.5@4", "scatter"), ("tome:0.5@4", "transpose"),
        ("checkerboard:0.5@4", "scatter"), ("vscan:0.5@4", "delta"),
        ("token_transforming:0.5@4", "delta"), ("average_pool:0.5@4", "delta"),
        ("hiprune:0.5@4", "scatter"), ("evit:0.7@4", "scatter"), ("tome:0.7@4", "transpose"),
        ("dart:0.5@4", "scatter"), ("bat:0.5@4", "delta"),
    ]  # fmt: skip
    entries = [plain("dense", "dense", trunk)]
    entries += [
        plain(f"input of {s} x {s}", "rival", partial(trunk, (s, s))) for s in (168, 140, 112)
    ]
    entries += [
        plain("crop of 224 x 112", "rival", partial(trunk, (224, 112), True)),
        plain("crop of 224 x 112, first 6 blocks", "rival", partial(trunk, (224, 112), True, 6)),
    ]
    entries += [plain(f"first {k} blocks", "blocks", partial(trunk, blocks=k)) for k in (8, 6)]
    entries += [cut(trunk, words, tokens, example, how) for words, how in plans]

    @cache
    def read_out() -> LinearReadOut:
        return LinearReadOut(read_people(people, "street", train),
                             read_people(people, "street_held_out", test), side)  # fmt: skip

    def samples() -> Samples:
        told = read_out()
        crops = [crop_people(p, (side, side))[0] for p in (told.train, told.test)]
        pixels = np.concatenate(crops).astype(np.float32).transpose(0, 3, 1, 2)
        mean, spread = (np.float32(v).reshape(1, 3, 1, 1) for v in (
            (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))  # fmt: skip
        return Samples({"pixels": (pixels - mean) / spread}, "street crops")

    def score(features: Array) -> Scores:
        whole = (side // networks.PATCH,) * 2
        grids = {rows * columns: (rows, columns) for rows, columns in (
            (16, 16), (14, 14), (12, 12), (10, 10), (8, 8), (16, 8))}  # fmt: skip
        grid = grids[features.shape[1] - 1]
        return read_out()(features, grid, grid if grid[1] < grid[0] else whole)

    about = (
        "Frozen trunk. A linear layer a patch, fitted in closed form on each network's own "
        "features of street crops, tells the joints of as many others, later in the same clip. "
        "Labels are MoveNet Thunder's: the OKS is agreement with it. *scatter* gives back the "
        "features that dropped patches had after block 4; the first blocks alone are the control "
        "for that. *delta* and *transpose* are those of TokenReducer.restore."
    )
    return Case("DINOv2 ViT-S/14, trained, 224 x 224, 256 patches", about,
                f"pixels:1x3x{side}x{side}", entries, samples, score, "OKS")  # fmt: skip


def evitpose(people: Path, test: int) -> Case:
    """Return EViTPose-Tiny with its shipped weights, which were trained with its own cuts."""
    config = evitpose_config("tiny")
    state = load_checkpoint("evitpose_tiny_coco17")
    size = (config.height, config.width)

    def network(
        plan: str = "dense", shape: tuple[int, int] = size, crop: bool = False
    ) -> nn.Module:
        own = replace(config, height=shape[0], width=shape[1])
        if re.fullmatch(r"L\d", plan):
            cuts = evitpose_plan(plan, config.joints, config.depth)
        else:
            cuts = read_plan(plan, own.patches)
        return networks.Joints(own, state, size, cuts, crop=crop).eval()

    def shorter(depth: int) -> nn.Module:
        return first_blocks(network(), depth)

    levels = []
    for level in ("L1", "L2", "L3"):
        plan = evitpose_plan(level, config.joints, config.depth)
        counts, places = ("/".join(map(str, v)) for v in (plan.keep, plan.blocks))
        told = Candidate(f"joint:{counts}@{places} ({level}, trained with it)", "pruned", 0, level,
                         "joint", plan.blocks, plan.keep)  # fmt: skip
        levels.append(Entry(told, partial(network, level), "carry"))
    words = (
        "joint:0.7@3", "joint:0.5@3", "top(by=received):0.5@3", "btp:0.5@3",
        "random:0.5@3", "strided:0.5@3", "checkerboard:0.5@3", "centre:0.5@3",
    )  # fmt: skip
    entries = [plain("dense", "dense", network), *levels]
    entries += [
        replace(Entry(described(w, config.patches), partial(network, w)), restore="carry")
        for w in words
    ]
    entries += [
        plain(f"input of {h} x {w}", "rival", partial(network, "dense", (h, w)))
        for h, w in ((224, 160), (192, 144), (160, 128))
    ]
    entries += [
        plain(f"crop of 256 x {w}", "rival", partial(network, "dense", (256, w), True))
        for w in (128, 96)
    ]
    entries += [plain(f"first {k} blocks", "blocks", partial(shorter, k)) for k in (10, 8)]

    @cache
    def held_out() -> HeldOut:
        return read_people(people, "street_held_out", test)

    def samples() -> Samples:
        return Samples({"image": crop_people(held_out(), size)[0]}, "street crops")

    def score(joints: Array) -> Scores:
        matrices = crop_people(held_out(), size)[1]
        return person_scores(to_picture(joints, matrices)[..., :2], held_out())

    about = (
        "Shipped weights, judged on the held-out street crops of docs/training-pose.md; labels "
        "are MoveNet Thunder's. The weights were trained with the cuts of L1 to L3. Nothing is "
        "trained for the other rows: not the smaller inputs (the first half of the training was at "
        "128 x 96), and not the head behind fewer blocks. Dropped patches come back with the "
        "features that they had."
    )
    return Case("EViTPose-Tiny, trained, 256 x 192, 192 patches", about,
                f"image:1x{size[0]}x{size[1]}x3:uint8", entries, samples, score, "OKS")  # fmt: skip
