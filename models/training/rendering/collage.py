"""Put real people, cut out of their pictures, before other scenes: masks exact as pasted.

The cut follows the teacher, so that a wrong outline cuts the person wrongly, and the label is right
all the same. A side on which the person left the old picture leaves the new one too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from prunus.models.training.pictures import softened
from prunus.models.training.rendering.backgrounds import Backgrounds
from prunus.models.training.rendering.mask_studio import SIZE, add_clutter, occlude
from prunus.models.training.rendering.synthetic_people import degrade
from prunus.models.training.segmentation.shards import BACKGROUND, PERSON, MaskImage

_FIRM = (0.3, 0.7)  # probabilities between which a cut fades
_PEOPLE = (0.08, 0.68, 0.24)  # nobody, one, two


@dataclass(frozen=True)
class Cutout:
    """Hold RGB uint8 (H,W,3) and coverage float32 (H,W) in 0..1."""

    image: np.ndarray
    alpha: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray, probability: np.ndarray) -> Cutout:
        """Cut along a teacher's probability (H,W)."""
        low, high = _FIRM
        return cls(image, np.clip((probability - low) / (high - low), 0, 1).astype(np.float32))

    def box(self) -> tuple[int, int, int, int]:
        """Return left, top, right, bottom of what is covered."""
        rows, columns = (np.flatnonzero((self.alpha >= 0.5).any(axis)) for axis in (1, 0))
        return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def place(rng: np.random.Generator, cut: Cutout) -> np.ndarray:
    """Return the matrix (2,3) that takes a cutout into a picture of SIZE, mirrored or not."""
    height, width = cut.alpha.shape
    left, top, right, bottom = cut.box()
    leaves = np.array([[left <= 2, right >= width - 2], [top <= 2, bottom >= height - 2]])
    whole = np.array([width, height], np.float64)
    tall = rng.uniform(0.55, 1.3) if leaves.any() else rng.uniform(0.25, 1.0)
    scale = SIZE * tall / (bottom - top)
    for axis in (0, 1):  # a person cut on both sides has to fill the picture
        if leaves[axis].all():
            scale = max(scale, SIZE / whole[axis])
    corner = np.empty(2)
    for axis, (low, high) in enumerate(((left, right), (top, bottom))):
        middle = rng.uniform(0.25, 0.75) * SIZE - scale * (low + high) / 2
        if leaves[axis, 1]:
            middle = SIZE * rng.uniform(1.0, 1.1) - scale * whole[axis]
        if leaves[axis, 0]:
            middle = min(middle, 0.0) if leaves[axis, 1] else -SIZE * rng.uniform(0, 0.1)
        corner[axis] = middle
    matrix = np.array([[scale, 0, corner[0]], [0, scale, corner[1]]])
    if rng.random() < 0.5:
        matrix[0] = -matrix[0] + [0, 0, SIZE - 1]
    return matrix


def lay(rng: np.random.Generator, cut: Cutout, scene: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lay a person over a scene float32 (SIZE,SIZE,3); return picture and coverage (SIZE,SIZE)."""
    import cv2

    matrix = place(rng, cut)
    soft = softened(cut.image, abs(float(matrix[0, 0])))
    size = (SIZE, SIZE)
    figure = cv2.warpAffine(soft, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    cover = cv2.warpAffine(cut.alpha, matrix, size)
    cover = cv2.GaussianBlur(cover, (0, 0), float(rng.uniform(0.3, 1.0)))
    gain = np.full(3, rng.uniform(0.7, 1.2))
    if rng.random() < 0.5:  # the light of the scene
        tint = np.clip(scene.mean((0, 1)) / max(float(scene.mean()), 10.0), 0.6, 1.5)
        gain = gain * (0.5 + 0.5 * tint)
    person = np.clip(figure * gain + rng.uniform(-10, 15), 0, 255)
    return scene * (1 - cover[..., None]) + person * cover[..., None], cover


def hang_cloths(rng: np.random.Generator, scene: np.ndarray) -> np.ndarray:
    """Hang curtains or flags into a scene float32 (SIZE,SIZE,3): folds, bands, dots."""
    import cv2

    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) / SIZE
    for _ in range(int(rng.integers(1, 4))):
        width, left, low = rng.uniform(0.12, 0.7), rng.uniform(-0.3, 0.9), rng.uniform(0.4, 1.6)
        sway = rng.uniform(0, 0.06) * np.sin(rng.uniform(2, 9) * y + rng.uniform(0, 6))
        across = (x - left - sway) / width
        inside = ((across > 0) & (across < 1) & (y < low)).astype(np.float32)
        colours = rng.uniform(0, 255, (int(rng.integers(1, 4)), 3))
        angle, count = rng.choice([0.0, np.pi / 2, 0.8]), rng.integers(1, 14)
        band = np.floor((across * np.cos(angle) + y * np.sin(angle)) * count).astype(int)
        cloth = colours[band % len(colours)]
        if rng.random() < 0.3:  # stars
            pitch = rng.uniform(0.05, 0.15)
            dots = np.hypot((x / pitch) % 1 - 0.5, (y / pitch) % 1 - 0.5) < rng.uniform(0.15, 0.35)
            cloth = np.where((dots & (across < rng.uniform(0.4, 1.2)))[..., None], 240.0, cloth)
        phase = rng.uniform(1, 9) * across + rng.uniform(0, 1) * np.sin(5 * across) + 0.4 * y
        cloth = cloth * (1 + rng.uniform(0.1, 0.5) * np.sin(2 * np.pi * phase))[..., None]
        cover = cv2.GaussianBlur(inside, (0, 0), float(rng.uniform(0.4, 2.0)))[..., None]
        scene = scene * (1 - cover) + np.clip(cloth, 0, 255) * rng.uniform(0.5, 1.1) * cover
    return np.asarray(scene, np.float32)


def collage(
    rng: np.random.Generator,
    cutouts: Sequence[Cutout],
    backs: Backgrounds,
    *,
    empty: float = _PEOPLE[0],
    cloths: float = 0.0,
) -> MaskImage:
    """Return a new picture, RGB uint8 (SIZE,SIZE,3), with none to two of the people before it.

    Args:
        rng: Source of every random choice.
        cutouts: The people.
        backs: What is behind them.
        empty: Share of pictures without anybody.
        cloths: Share of pictures with curtains or flags behind the people.
    """
    import cv2

    scene = backs.photograph(rng, SIZE, SIZE)
    if rng.random() < 0.4:  # out of focus
        scene = cv2.GaussianBlur(scene, (0, 0), float(rng.uniform(1, 5)))
    scene = scene.astype(np.float32) * rng.uniform(0.5, 1.2) + rng.uniform(-15, 25)
    scene = add_clutter(rng, scene, backs) if rng.random() < 0.5 else scene
    if cloths and rng.random() < cloths:
        scene = hang_cloths(rng, scene)
    alpha = np.zeros((SIZE, SIZE), np.float32)
    shares = np.array([empty, *(p * (1 - empty) / (1 - _PEOPLE[0]) for p in _PEOPLE[1:])])
    for _ in range(int(rng.choice(len(_PEOPLE), p=shares))):
        scene, cover = lay(rng, cutouts[int(rng.integers(len(cutouts)))], scene)
        alpha = np.maximum(alpha, cover)
    scene, alpha = occlude(rng, scene, alpha, backs)
    rows = SIZE * float(np.exp(rng.uniform(np.log(0.4), np.log(1.6))))
    image = degrade(rng, np.clip(scene, 0, 255).astype(np.uint8), rows * 220 / SIZE)
    return MaskImage(image, np.where(alpha >= 0.5, PERSON, BACKGROUND).astype(np.uint8))
