"""Turn a stored person crop into a network input: UDP affine, flip, half body, colour, blur, holes.

Coordinates follow unbiased data processing (Huang et al., "The Devil is in the Details: Delving
into Unbiased Data Processing for Human Pose Estimation", CVPR 2020): sizes are distances between
the centres of the first and last pixel, so that flips and resizes are exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FLIP_PAIRS = ((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))
UPPER, LOWER = tuple(range(11)), tuple(range(11, 17))
PADDING = 1.25


@dataclass(frozen=True)
class AugmentConfig:
    """Hold the strengths of the augmentation.

    Args:
        rotation: Standard deviation in degrees; draws are cut at twice this, and applied to 60 %.
        scale: Standard deviation of the relative scale, cut at twice this.
        shift: Largest shift of the box, as a share of its size.
        half_body: Probability of showing only the upper or lower body.
        flip: Probability of mirroring.
        colour: Overall strength of the colour changes, 0 turns them off.
        holes: Probability of covering a random rectangle.
        border: Probability of a black band, as where a box leaves the camera's picture.
        channels: Probability of another order of the colours, so that no joint hangs on a hue.
    """

    rotation: float = 20.0
    scale: float = 0.2
    shift: float = 0.07
    half_body: float = 0.15
    flip: float = 0.5
    colour: float = 1.0
    holes: float = 0.3
    border: float = 0.1
    channels: float = 0.0


GENTLE = AugmentConfig(
    rotation=10.0, scale=0.13, shift=0.04, half_body=0.05, colour=0.7, holes=0.15, border=0.08
)
NONE = AugmentConfig(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)


def box_to_centre_size(box: np.ndarray, aspect: float) -> tuple[np.ndarray, np.ndarray]:
    """Return centre (2,) and size (2,) of a box xyxy widened to width/height ``aspect``, padded."""
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    height = max(float(size[1]), float(size[0]) / aspect, 1.0) * PADDING
    return centre, np.array([height * aspect, height])


def udp_matrix(
    centre: np.ndarray, size: np.ndarray, degrees: float, output: tuple[int, int]
) -> np.ndarray:
    """Return the 2x3 matrix that maps picture pixels to the pixels of an (height, width) output."""
    height, width = output
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    scale = np.array([(width - 1) / size[0], (height - 1) / size[1]])
    linear = np.diag(scale) @ np.array([[cos, sin], [-sin, cos]])
    offset = np.array([(width - 1) / 2, (height - 1) / 2]) - linear @ centre
    return np.concatenate([linear, offset[:, None]], 1)


def flip_joints(joints: np.ndarray, width: int) -> np.ndarray:
    """Mirror joints (J,3) of a picture ``width`` pixels wide, left and right joints swapped."""
    mirrored = joints.copy()
    mirrored[:, 0] = width - 1 - mirrored[:, 0]
    for left, right in FLIP_PAIRS:
        mirrored[[left, right]] = mirrored[[right, left]]
    return mirrored


def augment(
    image: np.ndarray,
    joints: np.ndarray,
    box: np.ndarray,
    output: tuple[int, int],
    *,
    config: AugmentConfig,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Cut and change one sample.

    Args:
        image: RGB uint8 (H,W,3).
        joints: float32 (17,3): x, y in pixels of ``image``, weight 0..1.
        box: Person box xyxy.
        output: Height and width of the result.
        config: Strengths.
        rng: Source of every random choice.

    Returns:
        RGB uint8 (height,width,3) and joints (17,3) in its pixels; joints outside weigh 0.
    """
    import cv2

    if rng.random() < config.half_body:
        box = _half_body_box(joints, box, rng)
    centre, size = box_to_centre_size(box, output[1] / output[0])
    centre = centre + rng.uniform(-1, 1, 2) * config.shift * size
    size = size * float(
        np.clip(1 + rng.normal() * config.scale, 1 - 1.6 * config.scale, 1 + 2 * config.scale)
    )
    degrees = 0.0
    if rng.random() < 0.6:
        degrees = float(np.clip(rng.normal(), -2, 2)) * config.rotation
    matrix = udp_matrix(centre, size, degrees, output)
    moved = joints.copy()
    if rng.random() < config.border:
        image, moved = _black_band(image, moved, rng)
    crop = cv2.warpAffine(image, matrix, (output[1], output[0]), flags=cv2.INTER_LINEAR)
    moved[:, :2] = joints[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    if rng.random() < config.flip:
        crop, moved = crop[:, ::-1], flip_joints(moved, output[1])
    limit = np.array([output[1] - 1, output[0] - 1])
    moved[:, 2] *= np.all((moved[:, :2] >= 0) & (moved[:, :2] <= limit), 1)
    crop = _cover(np.ascontiguousarray(crop), rng) if rng.random() < config.holes else crop
    crop = recolour(crop, config.colour, rng)
    if config.channels and rng.random() < config.channels:
        crop = crop[..., rng.permutation(3)]
    return np.ascontiguousarray(crop), moved


def _half_body_box(joints: np.ndarray, box: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    part = UPPER if rng.random() < 0.75 else LOWER
    points = joints[list(part)]
    points = points[points[:, 2] > 0, :2]
    if len(points) < 4:
        return box
    low, high = points.min(0), points.max(0)
    room = 0.12 * max(float((high - low).max()), 8.0)
    return np.concatenate([low - room, high + room])


def _black_band(
    image: np.ndarray, joints: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Black out one side, as a crop that reaches over the edge of a camera's picture."""
    out, moved = image.copy(), joints.copy()
    axis, far = int(rng.integers(2)), bool(rng.integers(2))
    extent = image.shape[axis]
    depth = int(rng.uniform(0.1, 0.35) * extent)
    band = slice(extent - depth, extent) if far else slice(0, depth)
    out[(band,) if axis == 0 else (slice(None), band)] = 0
    along = moved[:, 1 - axis]
    moved[(along >= band.start) & (along < band.stop), 2] = 0
    return out, moved


def _cover(crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    height, width = crop.shape[:2]
    h, w = int(height * rng.uniform(0.08, 0.3)), int(width * rng.uniform(0.08, 0.35))
    y, x = int(rng.integers(height - h)), int(rng.integers(width - w))
    crop[y : y + h, x : x + w] = rng.integers(0, 256, 3) if rng.random() < 0.6 else crop[y, x]
    return crop


def recolour(crop: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Change gain, offset, gamma, saturation, sharpness, noise."""
    import cv2

    if strength == 0:
        return crop
    if rng.random() < 0.15 * strength:
        crop = cv2.GaussianBlur(crop, (0, 0), float(rng.uniform(0.5, 1.8)))
    gain = 1 + strength * rng.uniform(-0.35, 0.35) + strength * rng.normal(0, 0.06, 3)
    lift = strength * rng.uniform(-30, 30)
    gamma = float(np.exp(strength * rng.normal(0, 0.25)))
    levels = 255 * (np.arange(256) / 255) ** gamma
    table = np.clip(levels[:, None] * gain + lift, 0, 255).astype(np.uint8)
    out = cv2.LUT(crop, table[None])
    if rng.random() < 0.3 * strength:
        grey = cv2.cvtColor(out, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, 2)
        out = cv2.addWeighted(out, keep := float(rng.uniform(0, 0.8)), grey, 1 - keep, 0)
    if rng.random() < 0.2 * strength:
        cv2.setRNGSeed(int(rng.integers(2**31)))  # OpenCV's own generator knows no other source
        noise = np.empty(out.shape, np.int16)
        cv2.randn(noise, 0, float(rng.uniform(1, 10)))
        out = np.clip(out.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    return np.asarray(out)
