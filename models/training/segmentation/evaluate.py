"""Measure person segmentation on pictures held out of the training, MediaPipe's network beside it.

``python -m prunus.models.training.segmentation.evaluate --model person.onnx --opencv-data DIR``

The sets: renders (exact masks), frames of the clip after the training part (labelled where selfie
network and motion agree, so the peer is judge and party there), and pictures outlined by hand, of
the clip and portraits. Files are run as an app would run them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from prunus.models.training.segmentation.hand_masks import hand_masks
from prunus.models.training.segmentation.shards import IGNORE, PERSON, MaskImage, read_masks

Predictor = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class MaskScores:
    """Hold the scores of one model on one set.

    Attributes:
        pictures: How many.
        person_iou: Intersection over union of people, all pixels of the set together.
        miou: Mean of that and the same for the background.
        picture_iou: Mean over pictures with people of the picture's own person IoU.
        accuracy: Share of known pixels that are right.
    """

    pictures: int
    person_iou: float
    miou: float
    picture_iou: float
    accuracy: float


def score_masks(predict: Predictor, shots: list[MaskImage]) -> MaskScores:
    """Score a predictor that maps RGB uint8 (H,W,3) to bool (H,W)."""
    counts, own = np.zeros((2, 2), np.int64), []
    for shot in shots:
        known = shot.labels != IGNORE
        truth, found = (shot.labels == PERSON)[known], predict(shot.image)[known]
        table = np.bincount(2 * truth + found, minlength=4).reshape(2, 2)
        counts += table
        if truth.any():
            own.append(table[1, 1] / (table.sum() - table[0, 0]))
    total = counts.sum()
    person = counts[1, 1] / max(total - counts[0, 0], 1)
    background = counts[0, 0] / max(total - counts[1, 1], 1)
    return MaskScores(
        len(shots),
        float(person),
        float(person + background) / 2,
        float(np.mean(own)) if own else float("nan"),
        float(np.trace(counts) / max(total, 1)),
    )


def file_predictor(path: Path) -> Predictor:
    """Return a predictor that runs a model file."""
    from prunus.runtime.tasks.segmentation.segmenter import Segmenter

    segmenter = Segmenter.open(path, "onnxruntime", threads=1)
    kept = segmenter.postprocess.foreground

    def predict(image: np.ndarray) -> np.ndarray:
        mask = segmenter(np.ascontiguousarray(image[..., ::-1]))
        return np.asarray(mask.classes == kept)

    return predict


def held_out(
    cache: Path, folders: list[Path], limit: int | None = None
) -> dict[str, list[MaskImage]]:
    """Return every held-out set that the cache and the named folders allow.

    Args:
        cache: Folder of shards.
        folders: Where the outlined pictures lie.
        limit: Use this many pictures of each cached set, spread evenly; None uses all.
    """
    sets: dict[str, list[MaskImage]] = {}
    for name, folder in (("rendered", "synthetic_held_out"), ("clip", "real_held_out")):
        path = cache / folder
        if path.is_dir() and any(path.glob("*.npz")):
            shard = read_masks(path)
            count = len(shard) if limit is None else min(limit, len(shard))
            chosen = np.linspace(0, len(shard) - 1, count).astype(int)
            sets[name] = [shard[i] for i in chosen]
    drawn = hand_masks(folders)
    for name, pick in (("by hand, clip", True), ("by hand, portraits", False)):
        some = [h.shot for h in drawn if (h.source == "vtest.avi") == pick]
        if some:
            sets[name] = some
    return sets


def main() -> None:
    """Parse the command line, print a table of JSON lines, and record it when asked to."""
    parser = argparse.ArgumentParser(description="Measure person segmentation models.")
    parser.add_argument("--model", type=Path, action="append", default=[], help="file; repeatable")
    parser.add_argument("--data", type=Path, default=Path(".cache/segmentation"))
    parser.add_argument("--opencv-data", type=Path, action="append", default=[],
                        help="folder with vtest.avi or outlined pictures; repeatable")  # fmt: skip
    parser.add_argument("--limit", type=int, help="pictures of each cached set, default all")
    parser.add_argument("--record", type=Path, help="write the figures into this JSON file")
    args = parser.parse_args()
    from prunus.models import zoo

    sets = held_out(args.data, args.opencv_data, args.limit)
    models = {"selfie": zoo.model_path("selfie")} | {p.stem: p for p in args.model}
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for model, path in models.items():
        predict = file_predictor(path)
        for name, shots in sets.items():
            scores = {k: round(v, 4) for k, v in asdict(score_masks(predict, shots)).items()}
            figures.setdefault(name, {})[model] = scores
            print(json.dumps({"set": name, "model": model, **scores}))
    if args.record is not None:
        record = json.loads(args.record.read_text(encoding="utf-8"))
        record["evaluation"] = figures
        args.record.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
