"""`prunus eval segmentation`: mean IoU and pixel accuracy on any folder of pictures and masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prunus.apps.segmentation.label_maps import Labels, label_pairs, layout_of, read_labels
from prunus.runtime.card.artifact import write_whole
from prunus.runtime.errors import SourceError, TensorError, UsageError
from prunus.runtime.json_text import json_text
from prunus.runtime.pictures.files import read_picture
from prunus.runtime.progress import Progress, Silent
from prunus.runtime.tasks.segmentation.accuracy import IGNORED, ConfusionMatrix, MaskScores

if TYPE_CHECKING:
    from prunus.runtime.tasks.segmentation.segmenter import Segmenter


_NAMED = 12  # classes that a line may name


@dataclass(frozen=True, slots=True, eq=False)
class SegmentationEvaluation:
    """Accuracy of one model on one folder.

    Attributes:
        model: Short name from the card.
        weights_sha256: Hash of its weights.
        layout: How the data set names and numbers its labels.
        pictures: Pictures that were judged.
        classes: Class names.
        scores: The figures.
        skipped: Pictures that could not be judged, with the reason.
    """

    model: str
    weights_sha256: str
    layout: str
    pictures: int
    classes: tuple[str, ...]
    scores: MaskScores
    skipped: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything, ready for JSON; null where a class does not occur."""
        s = self.scores
        return {
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "layout": self.layout,
            "pictures": self.pictures,
            "mean_iou": _plain(s.mean_iou),
            "mean_accuracy": _plain(s.mean_accuracy),
            "pixel_accuracy": _plain(s.pixel_accuracy),
            "judged_pixels": s.judged,
            "classes": [
                {
                    "class": k,
                    "name": name,
                    "iou": _plain(s.iou[k]),
                    "accuracy": _plain(s.accuracy[k]),
                    "pixels": int(s.labelled[k]),
                }
                for k, name in enumerate(self.classes)
            ],
            "skipped": list(self.skipped),
        }

    def to_text(self) -> str:
        """Return a table, figures in percent; classes that do not occur are left out."""
        s = self.scores
        shown = [k for k in range(len(self.classes)) if not math.isnan(s.iou[k])]
        width = max([len(self.classes[k]) for k in shown] + [len("class")])
        never = [name for k, name in enumerate(self.classes) if not s.labelled[k]]
        lines = [
            f"{self.model}: {self.pictures} pictures, {s.judged / 1e6:.2f} million judged pixels",
            f"mIoU {_percent(s.mean_iou)}  mAcc {_percent(s.mean_accuracy)}  "
            f"pixel accuracy {_percent(s.pixel_accuracy)}  "
            f"({len(shown)} of {len(self.classes)} classes occur)",
            f"  {'class':<{width}}  {'IoU':>6}  {'acc':>6}  {'pixels':>11}  {'share':>7}",
        ]
        lines += [
            f"  {self.classes[k]:<{width}}  {_percent(s.iou[k]):>6}  {_percent(s.accuracy[k]):>6}  "
            f"{s.labelled[k]:>11}  {100 * s.labelled[k] / s.judged:>6.2f}%"
            for k in shown
        ]
        if never:
            more = ", ..." if len(never) > _NAMED else ""
            lines.append(f"never judged, {len(never)}: {', '.join(never[:_NAMED])}{more}")
        return "\n".join([*lines, *(f"warning: skipped: {line}" for line in self.skipped)])

    def save(self, path: str | Path) -> None:
        """Write `to_dict` as JSON, atomically."""
        write_whole(path, json_text(self.to_dict(), indent=1) + "\n")


def evaluate_segmentation_folder(
    segmenter: Segmenter,
    pictures: str | Path,
    masks: str | Path,
    *,
    layout: str = "plain",
    ignored: int = IGNORED,
    positive: Sequence[int] = (),
    limit: int | None = None,
    progress: Progress | None = None,
) -> SegmentationEvaluation:
    """Run a segmentation model over labelled pictures and score it at the labels' resolution.

    Args:
        segmenter: The model, without smoothing.
        pictures: Folder of pictures; folders within it are searched too.
        masks: Folder of label PNGs in the same arrangement.
        layout: ``plain``, ``ade20k``, ``cityscapes`` or ``cocostuff``.
        ignored: Label whose pixels are not judged.
        positive: For a model of background and one class: the label numbers (after the layout's
            renumbering) that are this class; all others are background.
        limit: At most this many pictures, spread evenly.
        progress: Told about each picture.

    Raises:
        SourceError: the folders do not fit together, or no picture could be judged.
        UsageError: labels that the model does not know, an unknown layout, or labels that leave
            less than two classes to judge.
    """
    report, names = progress or Silent(), segmenter.postprocess.classes
    rules = layout_of(layout)
    if positive and len(names) != 2:
        raise UsageError(
            f"Got --positive for a model of {len(names)} classes; expected two classes.",
            "Leave it out: the labels' numbers are the model's.",
        )
    pairs = _spread(label_pairs(Path(pictures), Path(masks), rules), limit)
    matrix, skipped, unjudged = ConfusionMatrix(len(names)), [], 0
    for done, (path, label) in enumerate(pairs):
        report.update(done, len(pairs), path.name)
        try:
            truth = read_labels(label, rules)
            found = segmenter(_of_size(read_picture(path), truth, path)).classes
        except TensorError:
            raise  # the model's fault, not this picture's
        except (SourceError, UsageError) as error:
            skipped.append(f"{path}: {error.message}")
            continue
        try:
            truth = _two_classes(truth, positive, ignored)
            marker = IGNORED if positive else ignored
            matrix.add(found, truth, marker)
            unjudged += int((truth == marker).sum())
        except UsageError as error:
            raise UsageError(f"{label}: {error.message}", error.hint) from None
    report.update(len(pairs), len(pairs))
    if len(skipped) == len(pairs):
        raise SourceError(f"No picture could be judged; the first: {skipped[0]}", "See above.")
    scores = matrix.scores()
    _check_judged(scores, names, ignored, unjudged)
    return SegmentationEvaluation(
        model=segmenter.card.name,
        weights_sha256=segmenter.card.weights.sha256,
        layout=layout,
        pictures=len(pairs) - len(skipped),
        classes=names,
        scores=scores,
        skipped=tuple(skipped),
    )


def parse_numbers(text: str | None) -> tuple[int, ...]:
    """Return the numbers of ``11,12``; raises UsageError for another form."""
    if text is None:
        return ()
    words = text.split(",")
    if not all(word.strip().isdecimal() for word in words):
        raise UsageError(
            f"Got --positive {text}; expected numbers, e.g. 11,12.",
            "Give the label numbers of people, as the --layout counts them.",
        )
    return tuple(int(word) for word in words)


def _spread(pairs: list[tuple[Path, Path]], limit: int | None) -> list[tuple[Path, Path]]:
    if limit is None or limit >= len(pairs):
        return pairs
    chosen = np.linspace(0, len(pairs) - 1, limit).round().astype(int)
    return [pairs[k] for k in chosen]


def _two_classes(truth: Labels, positive: Sequence[int], ignored: int) -> Labels:
    """Return labels of 0, 1 and `IGNORED`; a label that is asked for as the class is judged."""
    if not positive:
        return truth
    chosen = np.isin(truth, positive)
    return np.where((truth == ignored) & ~chosen, IGNORED, chosen.astype(truth.dtype))


def _check_judged(scores: MaskScores, names: Sequence[str], ignored: int, unjudged: int) -> None:
    """Refuse a figure over one class: of two, both must be labelled; of many, some may lack.

    Masks of 0 and 255 are the usual case: 255 is judged only when it is asked for.
    """
    judged = [name for k, name in enumerate(names) if scores.labelled[k]]
    if len(judged) > 1:
        return
    lacking = [name for name in names if name not in judged]
    hint = "Give labels that hold it, or other numbers to --positive."
    if unjudged:
        hint = f"Where {ignored} is the class, as in masks of 0 and {ignored}: --positive {ignored}"
    raise UsageError(
        f"The labels hold no judged pixel of {', '.join(lacking[:_NAMED])}: {scores.judged} pixels "
        f"of {', '.join(judged) or 'no class'} are judged, {unjudged} of the label {ignored} not.",
        hint,
    )


def _of_size(frame: Any, truth: Labels, path: Path) -> Any:
    if frame.shape[:2] != truth.shape:
        (height, width), (rows, columns) = frame.shape[:2], truth.shape
        raise SourceError(
            f"{path} has {width}x{height} pixels and {columns}x{rows} labels.",
            "Give labels of the picture's own size.",
        )
    return frame


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.2f}"
