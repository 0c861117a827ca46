"""Label real people seen from close by, and put them before other scenes.

``python -m prunus.models.training.teachers.portraits --packages DIR --opencv-data DIR
--panoramas package``

The pictures are those of `package_pictures.json`. The teacher, MediaPipe's selfie network, looks at
the whole picture and at the people in it, each at both mirror images; a pixel is known where both
looks say the same. Half of what is written are such pictures as they are, moved and cut; the other
half are collages.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prunus.models.training.pictures import fill, softened
from prunus.models.training.rendering.backgrounds import Backgrounds
from prunus.models.training.rendering.collage import Cutout, collage
from prunus.models.training.rendering.mask_studio import SIZE
from prunus.models.training.rendering.panoramas import read_panoramas
from prunus.models.training.segmentation.shards import (
    BACKGROUND,
    IGNORE,
    PERSON,
    MaskImage,
    pack,
    write_masks,
)
from prunus.models.training.teachers.masks import SelfieTeacher
from prunus.models.training.teachers.package_pictures import (
    CLIPS,
    PEOPLE,
    SCENES,
    PackagePicture,
    read_packages,
)
from prunus.runtime.errors import SourceError

_HARD = {"empty": 0.3, "cloths": 0.65}  # of collages that show what is no person
_PAD = 114  # what deployed models see beside a picture that is not square
_COLLAGES = 0.6
_USABLE, _AGREED = 0.7, 0.9  # overlap of the two looks: to learn from at all, to be cut out


@dataclass(frozen=True)
class Portrait:
    """Hold a picture RGB uint8 (H,W,3), labels (H,W) and the teacher's probability (H,W)."""

    image: np.ndarray
    labels: np.ndarray
    probability: np.ndarray

    def agreement(self) -> float:
        """Return the overlap of the two looks: 1 where they say the same everywhere."""
        person, unsure = (int((self.labels == v).sum()) for v in (PERSON, IGNORE))
        return person / max(person + unsure, 1)


def label_portrait(image: np.ndarray, teacher: SelfieTeacher) -> Portrait:
    """Label one picture where the look at all of it and the one at its people agree.

    Args:
        image: RGB uint8 (H,W,3).
        teacher: The network.
    """
    whole = teacher.look(image)
    near = whole
    if (whole >= 0.5).any():
        rows, columns = (np.flatnonzero((whole >= 0.5).any(axis)) for axis in (1, 0))
        box = np.array([columns[0], rows[0], columns[-1], rows[-1]], np.float64)
        near = teacher.look_at_people(image, [box])
    labels = np.full(whole.shape, IGNORE, np.uint8)
    labels[(whole >= 0.5) & (near >= 0.5)] = PERSON
    labels[(whole < 0.5) & (near < 0.5)] = BACKGROUND
    return Portrait(image, labels, (whole + near) / 2)


def reframe(rng: np.random.Generator, portrait: Portrait) -> MaskImage:
    """Return a window of a portrait at SIZE; what lies outside is unknown.

    One in five is the whole picture as deployed models see it: at the upper left, grey beside it.
    """
    import cv2

    height, width = portrait.labels.shape
    longest = max(height, width)
    if rng.random() < 0.2:
        side, corner = float(longest), np.zeros(2)
    else:
        side = min(height, width) * float(np.exp(rng.uniform(np.log(0.5), np.log(1.0))))
        corner = rng.uniform(0, 1, 2) * (np.array([width, height]) - side)
    scale = SIZE / side
    matrix = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])
    out, grey = (SIZE, SIZE), (_PAD, _PAD, _PAD)
    mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    soft = softened(portrait.image, scale)
    image = cv2.warpAffine(soft, matrix, out, flags=mode, borderValue=grey)
    nearest = cv2.INTER_NEAREST
    labels = cv2.warpAffine(portrait.labels, matrix, out, flags=nearest, borderValue=IGNORE)
    return MaskImage(np.asarray(image), np.asarray(labels))


def write_portraits(
    out: Path,
    portraits: list[Portrait],
    backs: Backgrounds,
    *,
    count: int,
    seed: int,
    hard: bool = False,
) -> None:
    """Write pictures until the folder holds ``count`` of this seed.

    Args:
        out: The folder.
        portraits: Labelled pictures of people.
        backs: What to put behind them.
        count: Pictures in all.
        seed: Seed of the set.
        hard: Write collages alone, many without people, many with cloths behind them.

    Raises:
        SourceError: the teacher is sure of nobody.
    """
    cutouts = [Cutout.of(p.image, p.probability) for p in portraits if p.agreement() >= _AGREED]
    if not cutouts:
        raise SourceError("The teacher is sure of nobody in these pictures.", "Bring others.")

    def write(path: Path, own_seed: int, number: int) -> None:
        rng = np.random.default_rng(own_seed)
        shots = [
            collage(rng, cutouts, backs, **(_HARD if hard else {}))
            if hard or rng.random() < _COLLAGES
            else reframe(rng, portraits[int(rng.integers(len(portraits)))])
            for _ in range(number)
        ]
        write_masks(path, pack(shots))

    fill(out, "portraits", write, count=count, seed=seed, shard=250)


def read_people(folder: Path) -> list[PackagePicture]:
    """Return stills, and frames of clips, of the packages' people."""
    return [*read_packages(folder, PEOPLE), *read_packages(folder, CLIPS)]


def main() -> None:
    """Parse the command line and label."""
    parser = argparse.ArgumentParser(description="Label real people seen from close by.")
    add = parser.add_argument
    add("--packages", type=Path, required=True, help="holds the archives of `npm pack`")
    add("--opencv-data", type=Path, help="sample data of the Debian package opencv-doc")
    add("--panoramas", type=Path, help="unpacked npm package @pmndrs/assets 1.7.0 (CC0)")
    add("--out", type=Path, default=Path(".cache/segmentation/real"))
    add("--count", type=int, default=3_000)
    add("--seed", type=int, default=1)
    add("--hard", action="store_true", help="collages alone: nobody, curtains, flags")
    args = parser.parse_args()
    teacher = SelfieTeacher()
    portraits = [label_portrait(p.image, teacher) for p in read_people(args.packages)]
    portraits = [p for p in portraits if p.agreement() >= _USABLE]
    more = [p.image for p in read_packages(args.packages, SCENES)]
    more += read_panoramas(args.panoramas) if args.panoramas else []
    backs = Backgrounds(args.opencv_data, more)
    chosen = {"count": args.count, "seed": args.seed, "hard": args.hard}
    write_portraits(args.out, portraits, backs, **chosen)


if __name__ == "__main__":
    main()
