"""Label people of real pictures with masks that two teachers agree on.

``python -m prunus.models.training.teachers.masks --opencv-data DIR --out .cache/segmentation/real``

On the clip (OpenCV's ``vtest.avi``, a camera that does not move) one teacher is MediaPipe's selfie
network, looking at one person at a time; the other is the difference to the empty scene. A pixel
is a person where both say so, background where both say so, and unknown elsewhere: shadows, coats
of the colour of the ground, edges. Frames 0-599 are for training, 650-794 for evaluation.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from prunus.models import zoo
from prunus.models.training.rendering.backgrounds import median_frame
from prunus.models.training.rendering.mask_studio import SIZE
from prunus.models.training.segmentation.shards import (
    BACKGROUND,
    IGNORE,
    PERSON,
    MaskImage,
    MaskShard,
    pack,
    write_masks,
)
from prunus.models.training.teachers.crops import (
    HELD_OUT_FRAMES,
    TRAIN_FRAMES,
    box_of_joints,
    read_frames,
)
from prunus.models.training.teachers.movenet import MultiPose
from prunus.runtime.errors import SourceError
from prunus.runtime.tasks.segmentation.segmenter import Segmenter

MOVED, STILL = 22.0, 12.0  # grey levels: above it something is there, below it nothing is
_LOOK = 1.35  # side of the teacher's view, as a multiple of the person's height


class SelfieTeacher:
    """Give the probability of a person for every pixel of a region."""

    def __init__(self, path: Path | None = None) -> None:
        path = path or zoo.model_path("selfie")
        self._segmenter = Segmenter.open(path, "onnxruntime", threads=1)

    def look(self, image: np.ndarray) -> np.ndarray:
        """Return probabilities float32 (H,W) of RGB uint8 (H,W,3), both mirrored ways averaged."""
        bgr = image[..., ::-1]
        plain = self._probability(np.ascontiguousarray(bgr))
        mirrored = self._probability(np.ascontiguousarray(bgr[:, ::-1]))[:, ::-1]
        return np.asarray((plain + mirrored) / 2, np.float32)

    def _probability(self, bgr: np.ndarray) -> np.ndarray:
        found = self._segmenter(bgr).foreground
        assert found is not None  # the card has a foreground class
        return found

    def look_at_people(self, image: np.ndarray, boxes: list[np.ndarray]) -> np.ndarray:
        """Return probabilities (H,W) of a scene, looked at person by person; 0 elsewhere."""
        import cv2

        height, width = image.shape[:2]
        total = np.zeros((height, width), np.float32)
        for box in boxes:
            centre = (box[:2] + box[2:]) / 2
            side = _LOOK * max(float(box[3] - box[1]), 1.4 * float(box[2] - box[0]), 16.0)
            corner = centre - side / 2
            scale = SIZE / side
            matrix = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])
            crop = cv2.warpAffine(
                image, matrix, (SIZE, SIZE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
            )
            seen = self.look(crop)
            back = cv2.invertAffineTransform(matrix)
            moved = cv2.warpAffine(seen, back, (width, height), flags=cv2.INTER_AREA)
            total = np.maximum(total, moved)
        return total


def agree(selfie: np.ndarray, difference: np.ndarray) -> np.ndarray:
    """Return labels uint8 (H,W) where both teachers say the same.

    Args:
        selfie: Probability of a person (H,W), 0..1.
        difference: Grey levels (H,W) between the frame and the empty scene.
    """
    labels = np.full(selfie.shape, IGNORE, np.uint8)
    labels[(selfie >= 0.5) & (difference >= MOVED)] = PERSON
    labels[(selfie < 0.5) & (difference < STILL)] = BACKGROUND
    return labels


def label_frame(
    image: np.ndarray, empty: np.ndarray, finder: MultiPose, teacher: SelfieTeacher
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return labels (H,W) of a frame of the clip and the boxes xyxy of its people."""
    import cv2

    boxes = [box_of_joints(joints) for joints in finder.find(image)]
    boxes = [b for b in boxes if 30 < b[3] - b[1] < 0.6 * image.shape[0]]
    gap = np.abs(image.astype(np.float32) - empty).max(2)
    difference = cv2.GaussianBlur(gap, (0, 0), 1.0)
    return agree(teacher.look_at_people(image, boxes), difference), boxes


def cut(image: np.ndarray, labels: np.ndarray, centre: np.ndarray, side: float) -> MaskImage:
    """Return a square region at SIZE; what lies outside the picture is unknown."""
    import cv2

    scale = SIZE / side
    shift = SIZE / 2 - scale * centre
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    crop = cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=mode)
    known = cv2.warpAffine(
        labels, matrix, (SIZE, SIZE), flags=cv2.INTER_NEAREST, borderValue=IGNORE
    )
    return MaskImage(np.asarray(crop), np.asarray(known))


def label_clip(
    video: Path, frames: tuple[int, int], step: int, finder: MultiPose, teacher: SelfieTeacher
) -> MaskShard:
    """Label every `step`-th frame of a range; one crop for each person, from near to far.

    Raises:
        SourceError: the clip cannot be read.
    """
    empty = median_frame(video)
    if empty is None:
        raise SourceError(f"Cannot read the clip {video}.", "Install opencv-doc.")
    rng = np.random.default_rng(frames[0])
    found = []
    for image in read_frames(video, *frames, step):
        labels, boxes = label_frame(image, empty.astype(np.float32), finder, teacher)
        for box in boxes:
            tall = float(box[3] - box[1])
            side = tall * float(np.exp(rng.uniform(np.log(1.1), np.log(4.5))))
            centre = (box[:2] + box[2:]) / 2 + rng.uniform(-0.3, 0.3, 2) * (side - tall)
            shot = cut(image, labels, centre, side)
            if (shot.labels == PERSON).mean() > 0.005:
                found.append(shot)
    return pack(found, 95)


def main() -> None:
    """Parse the command line and label."""
    parser = argparse.ArgumentParser(description="Label people of real pictures with masks.")
    parser.add_argument("--opencv-data", type=Path, required=True, help="holds vtest.avi")
    parser.add_argument("--out", type=Path, default=Path(".cache/segmentation/real"))
    parser.add_argument("--held-out", type=Path, default=Path(".cache/segmentation/real_held_out"))
    parser.add_argument("--step", type=int, default=5, help="label every n-th frame")
    args = parser.parse_args()
    finder, teacher = MultiPose(zoo.model_path("movenet_multipose")), SelfieTeacher()
    video = args.opencv_data / "vtest.avi"
    held = label_clip(video, HELD_OUT_FRAMES, 12, finder, teacher)
    write_masks(args.held_out / "clip-held-out.npz", held)
    for first in range(*TRAIN_FRAMES, 100):
        path = args.out / f"clip-{first:04d}.npz"
        if not path.exists():
            frames = (first, first + 100)
            write_masks(path, label_clip(video, frames, args.step, finder, teacher))


if __name__ == "__main__":
    main()
