"""Serve pictures and masks to the training: drawn, moved, recoloured, put into one another."""

from __future__ import annotations

import numpy as np

from prunus.models.training.pictures import Pools, StepBatches, softened
from prunus.models.training.pose.augment import recolour
from prunus.models.training.schedule import Stage
from prunus.models.training.segmentation.shards import IGNORE, PERSON, MaskImage, MaskShard

_SEAM = 5  # side in pixels of the unknown border around somebody pasted from a real picture


def mask_batches(
    pools: Pools[MaskShard],
    stage: Stage,
    seed: int,
    *,
    paste_share: float = 0.4,
    colour: float = 1.0,
) -> StepBatches:
    """Return batches of a stage: images uint8 (B,3,H,W) RGB and labels uint8 (B,H,W).

    Args:
        pools: Rendered people with exact masks, real people with teachers' masks.
        stage: Size and number of the samples, share of real pictures.
        seed: Seed of the run.
        paste_share: Probability that real people are put into another picture.
        colour: Strength of the colour changes.
    """

    def sample(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if pools.real is not None and rng.random() < stage.real:
            shot = move(rng, _any(rng, pools.real), stage.size)
            if rng.random() < paste_share:
                pool = pools.synthetic if rng.random() < 0.7 else pools.real
                shot = paste(shot, move(rng, _any(rng, pool), stage.size))
        else:
            shot = move(rng, _any(rng, pools.synthetic), stage.size)
        image = recolour(shot.image, colour, rng)
        if rng.random() < 0.08 * colour:
            image = image.mean(2, keepdims=True).astype(np.uint8).repeat(3, 2)
        return image, shot.labels

    return StepBatches(sample, stage.batch, seed)


def _any(rng: np.random.Generator, pool: MaskShard) -> MaskImage:
    return pool[int(rng.integers(len(pool)))]


def move(rng: np.random.Generator, shot: MaskImage, size: tuple[int, int]) -> MaskImage:
    """Scale, turn, shift, mirror; what comes in from outside is the picture's mirror image."""
    import cv2

    height, width = shot.labels.shape
    scale = size[0] / height * float(np.exp(rng.uniform(np.log(0.85), np.log(1.6))))
    stretch = float(np.exp(rng.normal(0, 0.08)))
    angle = np.deg2rad(float(np.clip(rng.normal(0, 8), -20, 20))) if rng.random() < 0.5 else 0.0
    cos, sin = np.cos(angle), np.sin(angle)
    turn = scale * np.array([[cos * stretch, -sin * stretch], [sin / stretch, cos / stretch]])
    if rng.random() < 0.5:
        turn[:, 0] *= -1
    room = np.maximum(scale * np.array([width, height]) - np.array(size[::-1]), 0) / 2
    middle = np.array(size[::-1]) / 2 + rng.uniform(-1, 1, 2) * room
    matrix = np.concatenate([turn, (middle - turn @ [width / 2, height / 2])[:, None]], 1)
    out, soft = (size[1], size[0]), softened(shot.image, scale)
    border = cv2.BORDER_REFLECT_101
    image = cv2.warpAffine(soft, matrix, out, flags=cv2.INTER_LINEAR, borderMode=border)
    labels = cv2.warpAffine(shot.labels, matrix, out, flags=cv2.INTER_NEAREST, borderMode=border)
    return MaskImage(np.asarray(image), np.asarray(labels))


def paste(person: MaskImage, scene: MaskImage) -> MaskImage:
    """Put the known people of one picture into another of the same size.

    The seam, and what was unknown close to it, stays unknown.
    """
    import cv2

    sure = (person.labels == PERSON).astype(np.uint8)
    kernel = np.ones((_SEAM, _SEAM), np.uint8)
    near = cv2.dilate(sure, kernel) > 0
    alpha = cv2.GaussianBlur(sure.astype(np.float32), (0, 0), 0.8)[..., None]
    image = person.image * alpha + scene.image * (1 - alpha)
    labels = scene.labels.copy()
    labels[near & (person.labels == IGNORE)] = IGNORE
    labels[sure > 0] = PERSON
    return MaskImage(image.astype(np.uint8), labels)
