"""Which tokens of a picture survive each cut of a file: read from the graph, drawn on the picture.

A file says so itself where it was exported with ``--show-tokens``. Otherwise the indices that a
selecting cut sorts are read from inside the graph; a cut that merges leaves none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from prunus.models.tokens.reducer import Reduced
from prunus.models.tokens.report import DROPPED, token_maps
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.tokens import token_output
from prunus.runtime.errors import UsageError

Map = npt.NDArray[np.int32]
_DIM, _GAP, _TITLE = 0.22, 8, 22
_LEAST = 400  # pixels of height of a panel, so that its title fits


@dataclass(frozen=True, slots=True)
class Survivors:
    """What a file did to the tokens of one picture.

    Attributes:
        picture: uint8 (height, width, 3) BGR, as the network saw it.
        grid: Rows and columns of the tokens that entered.
        maps: Block -> (N,) token that stands for each patch after its cut, -1 where it is gone.
    """

    picture: npt.NDArray[np.uint8]
    grid: tuple[int, int]
    maps: Mapping[int, Map]

    @property
    def counts(self) -> dict[int, int]:
        """Tokens after each cut, by block."""
        return {b: len(set(chart.tolist()) - {DROPPED}) for b, chart in self.maps.items()}


def find_survivors(path: str | Path, picture: str | Path) -> Survivors:
    """Run a file on a picture and return what its cuts did.

    Args:
        path: ONNX file with a token plan.
        picture: A picture; networks of people see the first person in it, or all of it when
            nobody is found.

    Raises:
        UsageError: the file drops no tokens, merges them without telling, or takes no picture.
        SourceError: the picture cannot be read.
    """
    from prunus.export.common.sessions import graph_card
    from prunus.export.verify.expose import load_model, with_outputs
    from prunus.runtime.card.artifact import read_card
    from prunus.runtime.session.base import open as open_session

    card = read_card(path)
    plan = card.tokens
    if plan is None or not plan.blocks or any(k > plan.tokens for k in plan.keep):
        raise UsageError(
            f"{card.name} drops no tokens; expected a file with a token plan.",
            "Export one: prunus export evitpose --level L2",
        )
    model = load_model(str(path))
    told = {block: token_output(block) for block in plan.blocks}
    own = {spec.name for spec in card.outputs}
    inside = {} if set(told.values()) <= own else _sorted_indices(model, plan.blocks)
    if inside:
        model = with_outputs(model, list(inside.values()))
    feed, shown = _fed(card, Path(picture))
    with open_session(
        model.SerializeToString(), "onnxruntime", card=graph_card(model, card)
    ) as session:
        out = session.run(feed)
    maps = (
        _chain({block: out[name][0] for block, name in inside.items()}, plan.tokens)
        if inside
        else {block: out[name][0] for block, name in told.items()}
    )
    return Survivors(shown, _grid(card, shown.shape[:2]), maps)


def _sorted_indices(model: Any, blocks: tuple[int, ...]) -> dict[int, str]:
    """Return the tensors that hold the indices kept at each block."""
    import onnx

    found: dict[int, str] = {}
    for node in model.graph.node:
        place = re.search(r"(?:^|\.)cuts\.(\d+)(?:[./]|$)", node.name)
        ascending = any(a.name == "largest" and a.i == 0 for a in node.attribute)
        if node.op_type == "TopK" and place and ascending:
            found[int(place[1])] = node.output[0]
    missing = [block for block in blocks if block not in found]
    if missing:
        raise UsageError(
            f"The cuts at the blocks {missing} merge tokens; the file does not tell which.",
            "Export it with: prunus export module ... --show-tokens",
        )
    kinds = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    assert all(
        kinds.get(name, onnx.TensorProto.INT32) == onnx.TensorProto.INT32 for name in found.values()
    ), "the last sort of a cut is one of indices"
    return {block: found[block] for block in blocks}


def _chain(kept: Mapping[int, npt.NDArray[Any]], tokens: int) -> dict[int, Map]:
    """Return block -> (tokens,) map from the indices (K,) that each cut keeps of what enters it."""
    nothing = torch.empty(0)  # the tokens themselves are not asked for
    seen = {block: Reduced(nothing, torch.from_numpy(k)[None].long()) for block, k in kept.items()}
    return {block: chart[0].numpy() for block, chart in token_maps(seen, tokens).items()}


def _fed(card: ModelCard, path: Path) -> tuple[dict[str, Any], npt.NDArray[np.uint8]]:
    """Return the inputs of a picture, and what the network sees of it, BGR."""
    from prunus.export.precision.calibration import find_people, whole_crop
    from prunus.runtime.errors import SourceError
    from prunus.runtime.pictures.files import read_picture
    from prunus.runtime.tasks.generic.feed import picture_feed
    from prunus.runtime.tasks.pose.card import ImagePreprocess

    picture = read_picture(path)
    if not isinstance(card.preprocess, ImagePreprocess):
        feed = picture_feed(card, picture)
        return feed, _seen(card, next(iter(feed.values()))[0])
    try:
        crop = find_people(path, card.preprocess, 1)[0]
    except SourceError:  # nobody in it
        crop = whole_crop(picture, card.preprocess)
    spec = card.inputs[0]
    batch = np.repeat(crop[None], spec.shape[0], axis=0)
    return {spec.name: batch}, np.ascontiguousarray(crop[..., ::-1])


def _seen(card: ModelCard, values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Return an input (3, h, w) or (h, w, 3) as a picture, its range stretched to 0..255."""
    image = values if values.shape[-1] == 3 else np.moveaxis(values, 0, -1)
    low, high = float(image.min()), float(image.max())
    image = (image - low) * (255.0 / max(high - low, 1e-9))
    colour = getattr(card.preprocess, "colour", "rgb")
    return np.ascontiguousarray((image[..., ::-1] if colour == "rgb" else image).astype(np.uint8))


def _grid(card: ModelCard, size: tuple[int, ...]) -> tuple[int, int]:
    plan = card.tokens
    assert plan is not None, "files without a plan were refused"
    if plan.grid is not None:
        return plan.grid
    side = math.sqrt(size[0] * size[1] / plan.tokens)
    rows, columns = round(size[0] / side), round(size[1] / side)
    if rows * columns != plan.tokens:
        raise UsageError(
            f"The {plan.tokens} tokens of {card.name} form no grid over {size[0]}x{size[1]}.",
            "Export it with: --grid ROWSxCOLUMNS",
        )
    return rows, columns


def draw(found: Survivors) -> npt.NDArray[np.uint8]:
    """Return one panel per cut side by side, uint8 (h, w, 3) BGR.

    Patches that are gone are dimmed; patches that became one token share a colour.
    """
    from prunus.runtime.pictures.opencv import load_cv2

    cv2 = load_cv2()
    zoom = max(1, -(-_LEAST // found.picture.shape[0]))
    height, width = (zoom * n for n in found.picture.shape[:2])
    large = cv2.resize(found.picture, (width, height), interpolation=cv2.INTER_LINEAR)
    panels = []
    for block, chart in found.maps.items():
        cells = chart.reshape(found.grid)
        enlarged = cv2.resize(
            cells.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST
        ).astype(np.int32)
        panel = np.where((enlarged == DROPPED)[..., None], large * _DIM, large)
        panel = _tinted(panel, enlarged, chart).astype(np.uint8)
        head = np.full((_TITLE, width, 3), 255, np.uint8)
        cv2.putText(
            head, f"block {block}: {found.counts[block]} of {chart.size}", (4, 16),
            cv2.FONT_HERSHEY_SIMPLEX, 0.48, (30, 30, 30), 1, cv2.LINE_AA,
        )  # fmt: skip
        panels += [np.vstack((head, panel)), np.full((height + _TITLE, _GAP, 3), 255, np.uint8)]
    return np.hstack(panels[:-1])


def _tinted(panel: npt.NDArray[Any], cells: Map, chart: Map) -> npt.NDArray[Any]:
    """Give patches that share a token one colour, patches of their own none."""
    alive = chart[chart != DROPPED]
    counts = np.bincount(alive, minlength=int(chart.max()) + 1)
    colours = np.random.default_rng(0).integers(40, 255, (len(counts), 3))
    shared = (cells != DROPPED) & (counts[np.maximum(cells, 0)] > 1)
    tint = colours[np.maximum(cells, 0)]
    return np.where(shared[..., None], 0.55 * panel + 0.45 * tint, panel)
