"""Cut people out of a real clip and label them with MoveNet Thunder.

``python -m prunus.models.training.teachers.crops --vtest vtest.avi --thunder thunder.onnx
--multipose multipose.onnx --out .cache/training/street``

The clip is OpenCV's ``vtest.avi`` (Debian package ``opencv-doc``). Frames 0-599 are for training,
650-794 for evaluation; the gap keeps the two apart in time.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from prunus.models.training.pictures import encode
from prunus.models.training.pose.shards import PeopleShard, write_shard
from prunus.models.training.rendering.body_renderer import HEIGHT, WIDTH
from prunus.models.training.teachers.movenet import MultiPose, SinglePose
from prunus.runtime.errors import SourceError

TRAIN_FRAMES = (0, 600)
HELD_OUT_FRAMES = (650, 795)
_SURE = 0.2


def box_of_joints(joints: np.ndarray, score: np.ndarray | None = None) -> np.ndarray:
    """Return the person's box xyxy (4,) from joints (J,2): room for the crown, hands and feet."""
    points = joints if score is None or (score > _SURE).sum() < 4 else joints[score > _SURE]
    low, high = points.min(0), points.max(0)
    height = max(float(high[1] - low[1]), 1.0)
    margin = np.array([0.06, 0.09, 0.06, 0.07]) * height * np.array([-1, -1, 1, 1])
    return np.asarray(np.concatenate([low, high]) + margin)


def read_frames(video: Path, first: int, last: int, step: int) -> Iterator[np.ndarray]:
    """Yield RGB frames first, first + step, ... below last.

    Raises:
        SourceError: the video cannot be opened.
    """
    import cv2

    capture = cv2.VideoCapture(str(video))
    if not capture.isOpened():
        raise SourceError(
            f"cannot open the clip {video}", "install opencv-doc, or name vtest.avi with --vtest"
        )
    for index in range(last):
        done, frame = capture.read()
        if not done:
            break
        if index >= first and (index - first) % step == 0:
            yield np.ascontiguousarray(frame[..., ::-1])
    capture.release()


def label_frame(image: np.ndarray, finder: MultiPose, teacher: SinglePose) -> list[np.ndarray]:
    """Return trusted joints (17,3) x, y, score of every person of a frame.

    A reading is trusted when it is confident, agrees with the finder on where the person is, and
    is not a second reading of a person already taken.
    """
    taken: list[np.ndarray] = []
    for coarse in finder.find(image):
        box = box_of_joints(coarse)
        joints = teacher.read_person(image, box)
        height = float(box[3] - box[1])
        if height < 25 or np.sort(joints[:, 2])[-8:].mean() < 0.3:
            continue
        far = np.linalg.norm(joints[5:, :2] - coarse[5:], axis=1).mean()
        if far > 0.15 * height:
            continue
        if any(
            np.linalg.norm(o[5:, :2] - joints[5:, :2], axis=1).mean() < 0.08 * height for o in taken
        ):
            continue
        taken.append(joints)
    return taken


def cut_person(image: np.ndarray, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the canvas RGB (HEIGHT,WIDTH,3), and joints and box moved into it.

    The person's box, widened to 3:4, becomes 69 % of the canvas's height as in rendered pictures.
    """
    import cv2

    box = box_of_joints(joints[:, :2], joints[:, 2])
    centre = (box[:2] + box[2:]) / 2
    tall = max(box[3] - box[1], (box[2] - box[0]) * 4 / 3)
    scale = 0.69 * HEIGHT / tall
    shift = np.array([(WIDTH - 1) / 2, (HEIGHT - 1) / 2]) - scale * centre
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
    canvas = cv2.warpAffine(image, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)
    moved = joints.copy()
    moved[:, :2] = joints[:, :2] * scale + shift
    moved[:, 2] = np.where(joints[:, 2] < 0.1, 0.0, joints[:, 2])
    return np.asarray(canvas), moved, box * scale + np.tile(shift, 2)


def label_clip(
    video: Path, finder: MultiPose, teacher: SinglePose, frames: tuple[int, int], step: int
) -> PeopleShard:
    """Label every ``step``-th frame of a range and return the crops."""
    jpegs, joints, boxes = [], [], []
    for image in read_frames(video, *frames, step):
        for person in label_frame(image, finder, teacher):
            canvas, moved, box = cut_person(image, person)
            jpegs.append(encode(canvas, quality=95))
            joints.append(moved)
            boxes.append(box)
    return PeopleShard(
        jpegs,
        np.array(joints, np.float32).reshape(-1, 17, 3),
        np.array(boxes, np.float32).reshape(-1, 4),
    )


def main() -> None:
    """Parse the command line and label the clip."""
    parser = argparse.ArgumentParser(description="Label people of a real clip with MoveNet.")
    parser.add_argument("--vtest", type=Path, required=True)
    parser.add_argument("--thunder", type=Path, required=True)
    parser.add_argument("--multipose", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(".cache/training/street"))
    parser.add_argument("--held-out", type=Path, default=Path(".cache/training/street_held_out"))
    parser.add_argument("--step", type=int, default=2, help="label every n-th training frame")
    args = parser.parse_args()
    finder, teacher = MultiPose(args.multipose), SinglePose(args.thunder)
    held = label_clip(args.vtest, finder, teacher, HELD_OUT_FRAMES, 5)
    write_shard(args.held_out / "street-held-out.npz", held)
    chunk = 50
    for first in range(*TRAIN_FRAMES, chunk):
        path = args.out / f"street-{first:04d}.npz"
        if not path.exists():
            part = label_clip(args.vtest, finder, teacher, (first, first + chunk), args.step)
            write_shard(path, part)


if __name__ == "__main__":
    main()
