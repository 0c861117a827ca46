"""`prunus eval pose`: COCO AP, OKS and PCK of a pose model on any COCO-format folder.

Top-down: people's boxes come from the ground truth or from a detector's result file. The flip test
(the mean of a picture and its mirror image) is off unless asked for, because exported models run
once per person; published figures often have it on, so the result says which it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunus.apps.pose.coco import CocoPeople, ImageId, Person
from prunus.apps.pose.coco_results import Boxes, read_boxes
from prunus.runtime.card.artifact import write_whole
from prunus.runtime.errors import MissingDependencyError, SourceError, UsageError
from prunus.runtime.json_text import json_text
from prunus.runtime.pictures.files import read_picture
from prunus.runtime.progress import Progress, Silent
from prunus.runtime.tasks.pose.accuracy import (
    box_length,
    mean_over_people,
    oks,
    pck,
    rescored,
    suppress_doubles,
)
from prunus.runtime.tasks.pose.card import KeypointPostprocess

if TYPE_CHECKING:
    from prunus.runtime.tasks.pose.estimator import Pose, PoseEstimator

Floats = npt.NDArray[np.floating[Any]]
Estimate = Callable[[npt.NDArray[np.uint8], npt.NDArray[np.float64]], "list[Pose]"]

PCK_ALPHAS = (0.05, 0.1, 0.2)
# Order of the evaluator's summary for keypoints.
_AP_NAMES = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")


@dataclass(frozen=True, slots=True)
class PoseEvaluation:
    """Accuracy of one model on one folder.

    Attributes:
        model: Short name from the card.
        weights_sha256: Hash of its weights.
        images: Pictures that were judged; with a detector's boxes also those of nobody.
        people: Labelled people in them.
        boxes: ``ground truth`` or ``detections``.
        flip_test: Whether each answer is the mean over a picture and its mirror image.
        ap: COCO summary, 0..1; -1 where no person falls into the class (as the evaluator has it).
        oks: Mean object keypoint similarity over labelled people, 0..1.
        pck: Share of correct joints at each alpha of the box's larger side, 0..1.
        results: One entry per estimated person, in COCO's result format.
        skipped: Pictures that could not be judged, with the reason.
        notes: What the labels leave open and how they were read.
    """

    model: str
    weights_sha256: str
    images: int
    people: int
    boxes: str
    flip_test: bool
    ap: Mapping[str, float]
    oks: float
    pck: Mapping[float, float]
    results: Sequence[Mapping[str, Any]] = field(repr=False)
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the single results, ready for JSON."""
        return {
            "model": self.model,
            "weights_sha256": self.weights_sha256,
            "images": self.images,
            "people": self.people,
            "boxes": self.boxes,
            "flip_test": self.flip_test,
            "ap": dict(self.ap),
            "oks": None if np.isnan(self.oks) else self.oks,
            "pck": {f"{a:g}": None if np.isnan(v) else v for a, v in self.pck.items()},
            "skipped": list(self.skipped),
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """Return a short table, scores in percent."""
        flip = "on" if self.flip_test else "off"
        lines = [
            f"{self.model}: {self.people} people in {self.images} pictures, "
            f"boxes from {self.boxes}, flip test {flip}"
        ]
        rows = [*self.ap.items(), ("OKS", self.oks)]
        rows += [(f"PCK@{alpha:g} of box", value) for alpha, value in self.pck.items()]
        lines += [
            f"  {name:<16}{'-' if value < 0 else f'{100 * value:.1f}':>7}" for name, value in rows
        ]
        lines += [f"note: {line}" for line in self.notes]
        lines += [f"warning: skipped: {line}" for line in self.skipped]
        return "\n".join(lines) + "\n"

    def save_results(self, path: str | Path) -> None:
        """Write the single results as a COCO result file, atomically."""
        write_whole(path, json_text(list(self.results)) + "\n")


def evaluate_pose_folder(
    estimator: PoseEstimator,
    images_dir: str | Path,
    annotations_json: str | Path,
    boxes: str | Path | None = None,
    *,
    flip_test: bool = False,
    progress: Progress | None = None,
) -> PoseEvaluation:
    """Run a pose model over labelled pictures and score it.

    Args:
        estimator: The model; its joints are matched with the labels by name.
        images_dir: Folder of the pictures.
        annotations_json: COCO ``person_keypoints`` file.
        boxes: COCO detection results (JSON); None takes the ground-truth boxes. Then every listed
            picture counts, as false alarms in pictures of nobody do.
        flip_test: Average with the mirror image.
        progress: Told about each picture.

    Raises:
        UsageError: the files do not fit together, or no person is labelled.
        SourceError: a picture is missing, or not one can be read. Single damaged ones are skipped.
        MissingDependencyError: the evaluator or OpenCV is not installed.
    """
    report = progress or Silent()
    post = estimator.postprocess
    truth = CocoPeople.read(annotations_json)
    order = joint_order(post.joints, truth.joints)
    sigmas = np.asarray(post.sigmas, np.float64)[order]
    given = _boxes_of(truth, boxes)
    estimate = _flipped(estimator, post) if flip_test else estimator
    scores = _Scores(sigmas)
    # Without a detector nothing is looked for where nobody is labelled.
    judged = [i for i in truth.images if boxes is not None or i in truth.people]
    skipped: dict[ImageId, str] = {}
    for done, image in enumerate(judged):
        report.update(done, len(judged), truth.images[image])
        corners, ranks = given.get(image, (np.zeros((0, 4)), np.zeros(0)))
        poses: list[Pose] = []
        if len(corners):
            try:
                poses = estimate(_read(Path(images_dir) / truth.images[image]), corners)
            except _DamagedError as error:
                skipped[image] = error.message
                continue
        found = np.array([p.keypoints[order] for p in poses]).reshape(len(poses), len(order), 3)
        named = {"image_id": image, "category_id": truth.category, "file_name": truth.images[image]}
        people = truth.people.get(image, ())
        scores.add(named, people, found, corners, ranks, paired=boxes is None)
    report.update(len(judged), len(judged))
    judged = [i for i in judged if i not in skipped]
    if not any(i in truth.people for i in judged):
        first = next(iter(skipped.values()))
        raise SourceError(f"No picture could be judged; the first: {first}", "Copy them again.")
    return PoseEvaluation(
        model=estimator.card.name,
        weights_sha256=estimator.card.weights.sha256,
        images=len(judged),
        people=sum(len(truth.people.get(i, ())) for i in judged),
        boxes="ground truth" if boxes is None else "detections",
        flip_test=flip_test,
        ap=average_precision(truth, scores.results, sigmas, judged),
        oks=mean_over_people(scores.oks),
        pck={a: mean_over_people(scores.pck[a]) for a in PCK_ALPHAS},
        results=scores.results,
        skipped=tuple(skipped.values()),
        notes=truth.notes,
    )


def joint_order(model: Sequence[str], labels: Sequence[str]) -> list[int]:
    """Return for each labelled joint its place in the model; raises UsageError when one lacks."""
    missing = [name for name in labels if name not in model]
    if missing:
        raise UsageError(
            f"The labels have joints that the model does not: {', '.join(missing)}.",
            "Evaluate a model whose skeleton holds all labelled joints: prunus inspect MODEL.onnx",
        )
    return [model.index(name) for name in labels]


def average_precision(
    truth: CocoPeople,
    results: Sequence[Mapping[str, Any]],
    sigmas: Floats,
    images: Sequence[ImageId],
) -> dict[str, float]:
    """Return COCO's summary of keypoint precision and recall.

    Args:
        truth: The labels.
        results: COCO results of these images.
        sigmas: (J,) OKS constants.
        images: Ids of the pictures to judge, in the order of `CocoPeople.images`.

    Raises:
        MissingDependencyError: faster-coco-eval is not installed.
    """
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise MissingDependencyError("faster_coco_eval", "eval", "COCO evaluation") from None
    numbers = {image: number for number, image in enumerate(images, 1)}
    labels = COCO(truth.as_coco(numbers))
    # Copies: the evaluator writes into what it gets.
    rows = [{**r, "image_id": numbers[r["image_id"]], "category_id": 1} for r in results]
    judge = COCOeval_faster(
        labels, labels.loadRes(rows), "keypoints", kpt_oks_sigmas=sigmas.tolist()
    )
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return {name: float(v) for name, v in zip(_AP_NAMES, judge.stats, strict=True)}


class _Scores:
    """Collects what every picture adds."""

    def __init__(self, sigmas: Floats) -> None:
        self.sigmas = sigmas
        self.results: list[dict[str, Any]] = []
        self.oks: list[float] = []
        self.pck: dict[float, list[float]] = {a: [] for a in PCK_ALPHAS}

    def add(
        self,
        named: Mapping[str, Any],
        labelled: Sequence[Person],
        found: Floats,
        corners: Floats,
        ranks: Floats,
        *,
        paired: bool,
    ) -> None:
        """Add one picture.

        Args:
            named: What each of its results says about the picture.
            labelled: Its labelled people.
            found: (P, J, 3) joints.
            corners: (P, 4) boxes that they were made from.
            ranks: (P,) scores of the boxes.
            paired: found[i] was made from the box of labelled[i].
        """
        kept: Sequence[int] = range(len(found))
        people = np.array([rescored(float(r), f[:, 2]) for r, f in zip(ranks, found, strict=True)])
        if not paired and len(found):
            sides = corners[:, 2:] - corners[:, :2]
            kept = suppress_doubles(found[..., :2], people, sides.prod(1), self.sigmas)
        for i in kept:
            self.results.append(
                {
                    **named,
                    "keypoints": [round(float(v), 3) for v in found[i].ravel()],
                    "score": float(people[i]),
                }
            )
        for k, person in enumerate(labelled):
            self._compare(person, found[[k]] if paired else found[list(kept)])

    def _compare(self, person: Person, candidates: Floats) -> None:
        """Score one labelled person by the candidate most like it; nobody there scores 0."""
        if not len(candidates):
            self.oks.append(0.0)
            for values in self.pck.values():
                values.append(0.0)
            return
        shape = (len(candidates), *person.joints.shape)
        truth = np.broadcast_to(person.joints, shape)
        seen = np.broadcast_to(person.visible, shape[:2])
        guess = candidates[..., :2]
        alike = oks(guess, truth, seen, np.full(len(guess), person.area), self.sigmas)
        best = int(np.argmax(alike))
        self.oks.append(float(alike[best]))
        length = box_length(person.box[None])
        for alpha, values in self.pck.items():
            one = slice(best, best + 1)
            values.append(float(pck(guess[one], truth[one], seen[one], length, alpha)[0]))


def _boxes_of(truth: CocoPeople, path: str | Path | None) -> Mapping[ImageId, Boxes]:
    """Return a detector's boxes of each picture, or without one those of the labelled people."""
    if path is not None:
        return read_boxes(path, truth.images, truth.category)
    return {
        i: (np.array([p.box for p in people]), np.ones(len(people)))
        for i, people in truth.people.items()
    }


class _DamagedError(SourceError):
    """A picture is there but cannot be read whole."""


def _read(path: Path) -> npt.NDArray[np.uint8]:
    if not path.is_file():
        raise SourceError(f"Picture not found: {path}.", "Give the folder that the labels name.")
    try:
        return read_picture(path)
    except SourceError as error:
        raise _DamagedError(error.message, error.hint) from None


def _flipped(estimator: Estimate, post: KeypointPostprocess) -> Estimate:
    """Wrap an estimator: mean of the joints in a picture and in its mirror image.

    Published flip tests average heatmaps; deployed graphs return joints, so these are averaged.
    """
    swap = np.arange(len(post.joints))
    for a, b in post.flip_pairs:
        swap[[a, b]] = b, a

    def estimate(frame: npt.NDArray[np.uint8], corners: npt.NDArray[np.float64]) -> list[Pose]:
        from dataclasses import replace

        last = frame.shape[1] - 1
        mirrored = corners.copy()
        mirrored[:, [0, 2]] = last - corners[:, [2, 0]]
        plain = estimator(frame, corners)
        turned = estimator(np.ascontiguousarray(frame[:, ::-1]), mirrored)
        poses = []
        for a, b in zip(plain, turned, strict=True):
            back = b.keypoints[swap].copy()
            back[:, 0] = last - back[:, 0]
            poses.append(replace(a, keypoints=((a.keypoints + back) / 2).astype(np.float32)))
        return poses

    return estimate
