"""Compose pictures of rendered people with exact COCO-17 joints, as a camera would see them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunus.models.training.pictures import decode, encode
from prunus.models.training.rendering.backgrounds import Backgrounds
from prunus.models.training.rendering.body_renderer import (
    HEIGHT,
    WIDTH,
    Actor,
    Bodies,
    BodyModel,
    SceneRenderer,
)

_BATCH = 24


@dataclass(frozen=True)
class Shot:
    """Describe one camera: world-to-clip matrix, and how coarse the picture is."""

    matrix: np.ndarray
    street: bool
    person_pixels: float


@dataclass(frozen=True)
class PersonImage:
    """Hold RGB uint8 (H,W,3), keypoints (17,3) float32 x, y, weight and the person's box xyxy."""

    image: np.ndarray
    keypoints: np.ndarray
    box: np.ndarray


def project(points: np.ndarray, matrix: np.ndarray, height: int, width: int) -> np.ndarray:
    """Project world points (N,3) with a world-to-clip matrix to pixel centres (N,2)."""
    clip = np.concatenate([points, np.ones((len(points), 1))], 1) @ matrix.T
    ndc = clip[:, :2] / clip[:, 3:4]
    x = (ndc[:, 0] * 0.5 + 0.5) * width - 0.5
    y = (0.5 - ndc[:, 1] * 0.5) * height - 0.5
    return np.stack([x, y], 1)


def look_at(target: np.ndarray, elevation: float, distance: float) -> np.ndarray:
    """Return the 4x4 world-to-camera matrix of a camera in front (-y), looking at ``target``."""
    sin, cos = np.sin(np.deg2rad(elevation)), np.cos(np.deg2rad(elevation))
    eye = target + distance * np.array([0.0, -cos, sin])
    forward = (target - eye) / distance
    right = np.array([1.0, 0.0, 0.0])
    up = np.cross(right, forward)
    view = np.eye(4)
    view[:3, :3] = np.stack([right, up, -forward])
    view[:3, 3] = -view[:3, :3] @ eye
    return view


def frame_points(
    points: np.ndarray, view: np.ndarray, fill: float, shift: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Return the world-to-clip matrix that makes ``points`` fill a share of the picture.

    The box of the points, widened to 3:4, becomes ``fill`` of the picture's height, and its
    centre lies ``shift`` pixels from the picture's centre: an off-axis pinhole camera.
    """
    height, width = size
    seen = points @ view[:3, :3].T + view[:3, 3]
    plane = seen[:, :2] / -seen[:, 2:3]
    low, high = plane.min(0), plane.max(0)
    tall = max(high[1] - low[1], (high[0] - low[0]) * 4 / 3)
    scale = 2 * fill / tall
    middle = (low + high) / 2
    near, far = 0.05, 60.0
    lens = np.zeros((4, 4))
    lens[0, 0], lens[1, 1] = scale * height / width, scale
    # Column 2 meets z = -depth, so the sign turns into a plain shift after the division.
    lens[0, 2] = lens[0, 0] * middle[0] - 2 * shift[0] / width
    lens[1, 2] = lens[1, 1] * middle[1] + 2 * shift[1] / height
    lens[2, 2], lens[2, 3] = -(far + near) / (far - near), -2 * far * near / (far - near)
    lens[3, 2] = -1
    return np.asarray(lens @ view)


class PeopleStudio:
    """Make an endless, seeded stream of person pictures."""

    def __init__(self, seed: int, backgrounds: Backgrounds) -> None:
        self._rng = np.random.default_rng(seed)
        self._model = BodyModel()
        self._renderer = SceneRenderer(self._model)
        self._backgrounds = backgrounds
        self._bodies: Bodies | None = None
        self._next = 0

    def _actor(self) -> Actor:
        if self._bodies is None or self._next == _BATCH:
            self._bodies, self._next = self._model.sample(self._rng, _BATCH), 0
        bodies, b = self._bodies, self._next
        self._next += 1
        vertices, look = self._model.dress(self._rng, bodies.vertices[b], bodies.normals[b])
        return Actor(vertices, bodies.normals[b], bodies.joints[b], look)

    def shoot(self) -> PersonImage:
        """Return the next picture."""
        rng = self._rng
        actor = self._actor()
        shot = self._shot(actor)
        actors = [actor, *self._others(actor, shot)]
        light = rng.normal(size=3) * np.array([1, 0.6, 0.5]) + np.array([0, -0.8, 0.8])
        rgba = self._renderer.draw(
            actors, shot.matrix, light / np.linalg.norm(light), float(rng.uniform(0.35, 0.85))
        )
        if shot.street:
            rows = shot.person_pixels * HEIGHT / 220
            back = self._backgrounds.street_patch(rng, HEIGHT, WIDTH, rows)
        else:
            back = self._backgrounds.photograph(rng, HEIGHT, WIDTH)
        points = project(actor.joints, shot.matrix, HEIGHT, WIDTH)
        body = project(actor.vertices, shot.matrix, HEIGHT, WIDTH)
        image = _composite(rng, rgba, back, body)
        image = _occlude(rng, image, body, self._backgrounds)
        image = degrade(rng, image, shot.person_pixels)
        limit = np.array([WIDTH - 1, HEIGHT - 1])
        low, high = np.clip(body.min(0), 0, limit), np.clip(body.max(0), 0, limit)
        inside = np.all((points >= 0) & (points <= limit), 1)
        keypoints = np.concatenate([points, inside[:, None]], 1).astype(np.float32)
        return PersonImage(image, keypoints, np.concatenate([low, high]).astype(np.float32))

    def _shot(self, actor: Actor) -> Shot:
        """Choose the kind of camera: street surveillance, eye level, or a half-body close-up."""
        rng = self._rng
        kind = rng.random()
        points = actor.vertices
        if kind < 0.42:
            elevation, distance = rng.uniform(8, 35), rng.uniform(6, 18)
            pixels, street = rng.uniform(38, 130), True
        elif kind < 0.72:
            elevation, distance = rng.normal(3, 8), rng.uniform(2.2, 7)
            pixels, street = float(np.exp(rng.uniform(np.log(50), np.log(260)))), False
        else:  # keep what lies above a cut between the chest and the shins
            elevation, distance = rng.normal(3, 8), rng.uniform(1.3, 4)
            pixels, street = float(np.exp(rng.uniform(np.log(80), np.log(260)))), False
            head, low = actor.joints[0, 2], actor.vertices[:, 2].min()
            cut = head - (head - low) * rng.uniform(0.28, 0.8)
            points = points[points[:, 2] > cut]
        view = look_at(actor.joints.mean(0), float(elevation), float(distance))
        shift = rng.normal(0, 6, 2)
        fill = float(rng.uniform(0.6, 0.78))
        matrix = frame_points(points, view, fill, shift, (HEIGHT, WIDTH))
        return Shot(matrix, street, float(pixels))

    def _others(self, actor: Actor, shot: Shot) -> list[Actor]:
        """Add passers-by beside, behind or slightly before the person."""
        rng = self._rng
        others = []
        for _ in range(int(rng.choice([0, 1, 2], p=[0.62, 0.28, 0.1]))):
            other = self._actor()
            side = rng.uniform(0.45, 1.5) * rng.choice([-1, 1])
            depth = rng.uniform(-0.5, 2.5)
            floor = actor.vertices[:, 2].min() - other.vertices[:, 2].min()
            other.offset = np.array([side, depth, floor])
            others.append(other)
        return others


def _composite(
    rng: np.random.Generator, rgba: np.ndarray, back: np.ndarray, body: np.ndarray
) -> np.ndarray:
    """Lay the premultiplied figure over the background, with a soft shadow at the feet."""
    import cv2

    scene: np.ndarray = back.astype(np.float32)
    if rng.random() < 0.5:
        shadow = np.zeros(back.shape[:2], np.float32)
        foot = body[body[:, 1] > np.quantile(body[:, 1], 0.97)].mean(0)
        span = max(6.0, float(np.ptp(body[:, 0])) * 0.4)
        axes = (int(span), int(span * rng.uniform(0.15, 0.5)))
        centre = (int(np.clip(foot[0], -999, 999)), int(np.clip(foot[1], -999, 999)))
        cv2.ellipse(shadow, centre, axes, float(rng.normal(0, 15)), 0, 360, 1.0, -1)
        shadow = cv2.GaussianBlur(shadow, (0, 0), 5)
        scene *= 1 - (rng.uniform(0.2, 0.6) * shadow)[..., None]
    figure = rgba[..., :3].astype(np.float32) * rng.uniform(0.6, 1.15) + rng.uniform(-10, 25)
    alpha = rgba[..., 3:].astype(np.float32) / 255
    if rng.random() < 0.7:  # hide the hard edge that no camera shows
        soft = cv2.GaussianBlur(np.concatenate([figure, alpha], 2), (0, 0), rng.uniform(0.4, 0.9))
        figure, alpha = soft[..., :3], soft[..., 3:]
    scene = scene * (1 - alpha) + figure * alpha
    return np.asarray(np.clip(scene, 0, 255).astype(np.uint8))


def _occlude(
    rng: np.random.Generator, image: np.ndarray, body: np.ndarray, backs: Backgrounds
) -> np.ndarray:
    """Cover parts of the body with boxes, poles and ellipses filled with texture."""
    import cv2

    if rng.random() > 0.35:
        return image
    low, high = body.min(0), body.max(0)
    extent = high - low
    for _ in range(int(rng.integers(1, 3))):
        mask = np.zeros(image.shape[:2], np.uint8)
        centre = low + rng.uniform(0, 1, 2) * extent
        half = extent * rng.uniform(0.08, 0.35, 2) / 2
        if rng.random() < 0.25:  # a pole or the edge of a table or wall
            half[rng.integers(2)] = 999
        a, b = np.clip(centre - half, -2000, 2000), np.clip(centre + half, -2000, 2000)
        if rng.random() < 0.6:
            cv2.rectangle(
                mask, tuple(a.astype(int).tolist()), tuple(b.astype(int).tolist()), 255, -1
            )
        else:
            axes = np.clip(half, 1, 999).astype(int).tolist()
            cv2.ellipse(
                mask,
                tuple(centre.astype(int).tolist()),
                tuple(axes),
                float(rng.uniform(0, 180)),
                0,
                360,
                255,
                -1,
            )
        patch = backs.photograph(rng, *image.shape[:2])
        image = np.where(mask[..., None] > 0, patch, image)
    return image


def degrade(rng: np.random.Generator, image: np.ndarray, person_pixels: float) -> np.ndarray:
    """Blur, shrink to the camera's true resolution, compress there, and enlarge again."""
    import cv2

    if rng.random() < 0.15:
        length = int(rng.integers(3, 10))
        kernel = np.zeros((length, length), np.float32)
        angle = rng.uniform(0, np.pi)
        reach = np.array([np.cos(angle), np.sin(angle)]) * length / 2
        middle = np.array([length / 2, length / 2])
        start, end = (middle - reach).astype(int).tolist(), (middle + reach).astype(int).tolist()
        cv2.line(kernel, tuple(start), tuple(end), 1.0, 1)
        image = cv2.filter2D(image, -1, kernel / max(float(kernel.sum()), 1.0))
    height, width = image.shape[:2]
    factor = person_pixels / 220
    if factor < 0.9:
        size = (max(8, int(width * factor)), max(8, int(height * factor)))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if rng.random() < 0.6:
        noise = rng.normal(0, rng.uniform(0, 8), image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        image = decode(encode(image, quality=int(rng.integers(35, 95))))
    if image.shape[:2] != (height, width):
        mode = [cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LINEAR][rng.integers(3)]
        image = cv2.resize(image, (width, height), interpolation=mode)
    return np.ascontiguousarray(image)
