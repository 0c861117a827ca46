"""Accuracy of class maps against labelled ones, in numpy: intersection over union, accuracy.

Counts are summed over all pictures before any ratio is taken, as the benchmarks of ADE20K,
Cityscapes and COCO-Stuff do (mmsegmentation's mIoU, mAcc and aAcc).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import TensorError, UsageError

Classes = npt.NDArray[np.integer[Any]]
Floats = npt.NDArray[np.float64]
IGNORED = 255  # the label that most data sets give to pixels that nobody judges


@dataclass(frozen=True, slots=True, eq=False)  # arrays have no single truth: identity it is
class MaskScores:
    """Scores of one set of pictures.

    Attributes:
        iou: (classes,) intersection over union, NaN for a class that neither map shows.
        accuracy: (classes,) share of a class's labelled pixels that are found, NaN without any.
        labelled: (classes,) int64 labelled pixels of each class.
        mean_iou: Mean of `iou` over the classes that are shown, NaN without any.
        mean_accuracy: Mean of `accuracy` over the classes that are labelled.
        pixel_accuracy: Share of all judged pixels that are right.
        judged: Judged pixels.
    """

    iou: Floats
    accuracy: Floats
    labelled: npt.NDArray[np.int64]
    mean_iou: float
    mean_accuracy: float
    pixel_accuracy: float
    judged: int


class ConfusionMatrix:
    """Counts of labelled against found classes.

    Args:
        classes: How many there are.

    Attributes:
        counts: (classes, classes) int64; row: labelled, column: found.

    Example:
        >>> matrix = ConfusionMatrix(2)
        >>> matrix.add(np.array([[0, 1]]), np.array([[0, 0]]))
        >>> matrix.scores().pixel_accuracy
        0.5
    """

    def __init__(self, classes: int) -> None:
        if classes < 1:
            raise UsageError(f"Got {classes} classes; expected at least one.")
        self.classes = classes
        self.counts = np.zeros((classes, classes), np.int64)

    def add(self, found: Classes, labelled: Classes, ignored: int = IGNORED) -> None:
        """Count one picture.

        Args:
            found: (h, w) class numbers of the model.
            labelled: (h, w) class numbers of the truth.
            ignored: Labelled number whose pixels are not judged.

        Raises:
            TensorError: the maps differ in size.
            UsageError: a number that is no class.
        """
        if found.shape != labelled.shape:
            raise TensorError(
                f"Got {list(found.shape)} class numbers for {list(labelled.shape)} labelled ones.",
                "Give labels of the picture's own size.",
            )
        judged = labelled != ignored
        truth, guess = labelled[judged].astype(np.int64), found[judged].astype(np.int64)
        for name, numbers in (("labels", truth), ("model", guess)):
            if numbers.size and (numbers.min() < 0 or numbers.max() >= self.classes):
                worst = int(numbers.max() if numbers.max() >= self.classes else numbers.min())
                raise UsageError(
                    f"The {name} hold the class number {worst}; expected 0 to {self.classes - 1}"
                    f" (and {ignored} for pixels that are not judged).",
                    "Choose the --layout of the data set, or a model with its classes.",
                )
        joint = np.bincount(truth * self.classes + guess, minlength=self.classes**2)
        self.counts += joint.reshape(self.classes, self.classes)

    def scores(self) -> MaskScores:
        """Return the scores of everything that was added."""
        hit = np.diag(self.counts).astype(np.float64)
        labelled, found = self.counts.sum(axis=1), self.counts.sum(axis=0)
        judged = int(labelled.sum())
        iou = _ratio(hit, labelled + found - hit)
        accuracy = _ratio(hit, labelled)
        return MaskScores(
            iou=iou,
            accuracy=accuracy,
            labelled=labelled,
            mean_iou=_mean(iou),
            mean_accuracy=_mean(accuracy),
            pixel_accuracy=float(hit.sum() / judged) if judged else float("nan"),
            judged=judged,
        )


def _ratio(part: Floats, whole: npt.NDArray[Any]) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: Floats = np.where(whole > 0, part / whole, np.nan)
    return ratio


def _mean(values: Floats) -> float:
    seen = values[~np.isnan(values)]
    return float(seen.mean()) if seen.size else float("nan")
