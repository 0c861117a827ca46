"""Compose pictures of rendered people with exact masks: selfies, half and full bodies, groups.

The bodies, their clothes and the camera are those of `synthetic_people`. What is added here is what
masks need: people who fill the picture as in front of a webcam, things that are no people but have
edges too, and pictures without anybody.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunus.models.training.rendering.backgrounds import Backgrounds
from prunus.models.training.rendering.body_renderer import (
    SKIN,
    Actor,
    Bodies,
    BodyModel,
    SceneRenderer,
)
from prunus.models.training.rendering.synthetic_people import (
    degrade,
    frame_points,
    look_at,
    project,
)
from prunus.models.training.segmentation.shards import BACKGROUND, PERSON, MaskImage

SIZE = 288  # pictures are square; training cuts smaller ones out of them
_BATCH = 24
_LEFT_SHOULDER, _RIGHT_SHOULDER = 5, 6
_SHOTS = ("selfie", "half", "full", "group", "nobody")
_SHARES = (0.38, 0.18, 0.24, 0.14, 0.06)


@dataclass(frozen=True)
class _Camera:
    matrix: np.ndarray
    rows: float  # picture rows that the camera's sensor has, for blur and noise


class MaskStudio:
    """Make an endless, seeded stream of pictures with person masks."""

    def __init__(self, seed: int, backgrounds: Backgrounds) -> None:
        self._rng = np.random.default_rng(seed)
        self._model = BodyModel()
        self._renderer = SceneRenderer(self._model, SIZE, SIZE)
        self._backgrounds = backgrounds
        self._bodies: Bodies | None = None
        self._next = 0

    def shoot(self) -> MaskImage:
        """Return the next picture, RGB uint8 (SIZE,SIZE,3), and its labels."""
        rng = self._rng
        kind = str(rng.choice(_SHOTS, p=_SHARES))
        back = self._background(kind)
        scene = add_clutter(rng, back, self._backgrounds)
        alpha = np.zeros((SIZE, SIZE), np.float32)
        rows = float(SIZE)
        if kind != "nobody":
            actors, camera = self._stage(kind)
            light = rng.normal(size=3) * np.array([1, 0.6, 0.5]) + np.array([0, -0.8, 0.8])
            rgba = self._renderer.draw(
                actors, camera.matrix, light / np.linalg.norm(light), float(rng.uniform(0.3, 0.85))
            )
            scene, alpha = lay_over(rng, rgba, scene, self._backgrounds)
            rows = camera.rows
        scene, alpha = occlude(rng, scene, alpha, self._backgrounds)
        image = degrade(rng, np.clip(scene, 0, 255).astype(np.uint8), rows * 220 / SIZE)
        return MaskImage(image, np.where(alpha >= 0.5, PERSON, BACKGROUND).astype(np.uint8))

    def _background(self, kind: str) -> np.ndarray:
        import cv2

        rng = self._rng
        if kind in ("full", "group") and rng.random() < 0.4:
            back = self._backgrounds.street_patch(rng, SIZE, SIZE, rng.uniform(90, 400))
        else:
            back = self._backgrounds.photograph(rng, SIZE, SIZE)
        if rng.random() < 0.25:  # out of focus
            back = cv2.GaussianBlur(back, (0, 0), float(rng.uniform(1, 6)))
        scene: np.ndarray = back.astype(np.float32)
        return scene * rng.uniform(0.5, 1.2) + rng.uniform(-15, 25)

    def _actor(self, facing: float | None = None) -> Actor:
        """Return a dressed body; `facing` degrees from the camera turns it there."""
        rng = self._rng
        if self._bodies is None or self._next == _BATCH:
            self._bodies, self._next = self._model.sample(rng, _BATCH), 0
        bodies, b = self._bodies, self._next
        self._next += 1
        vertices, look = self._model.dress(rng, bodies.vertices[b], bodies.normals[b])
        if rng.random() < 0.3:  # strong skin patterns stand in for features that bodies lack
            look.patterns[SKIN] = (rng.uniform(0.3, 1.2), rng.uniform(10, 60), 0, 0)
        if rng.random() < 0.15:
            look.colours[:] = rng.uniform(0.02, 1.0, look.colours.shape)
        actor = Actor(vertices, bodies.normals[b], bodies.joints[b], look)
        return actor if facing is None else _turned(actor, facing)

    def _stage(self, kind: str) -> tuple[list[Actor], _Camera]:
        rng = self._rng
        if kind == "selfie":
            actor = self._actor(float(rng.normal(0, 28)))
            head, low = actor.joints[0, 2], actor.vertices[:, 2].min()
            cut = head - (head - low) * rng.uniform(0.14, 0.42)
            camera = self._close_camera(actor, cut, fill=rng.uniform(0.55, 1.25))
            return [actor, *self._others(actor, [0.85, 0.12, 0.03])], camera
        if kind == "half":
            actor = self._actor(float(rng.normal(0, 60)))
            head, low = actor.joints[0, 2], actor.vertices[:, 2].min()
            cut = head - (head - low) * rng.uniform(0.35, 0.8)
            camera = self._close_camera(actor, cut, fill=rng.uniform(0.6, 1.15))
            return [actor, *self._others(actor, [0.7, 0.22, 0.08])], camera
        actor = self._actor()
        if kind == "full":
            tall, others = rng.uniform(0.35, 1.0), self._others(actor, [0.65, 0.25, 0.1])
        else:
            tall, others = rng.uniform(0.14, 0.5), self._others(actor, [0.1, 0.3, 0.6], 2.5)
        return [actor, *others], self._far_camera(actor, float(tall))

    def _close_camera(self, actor: Actor, cut: float, fill: float) -> _Camera:
        """Show what lies above `cut`; the body leaves the picture through its lower edge."""
        rng = self._rng
        view = look_at(
            actor.joints[[_LEFT_SHOULDER, _RIGHT_SHOULDER]].mean(0),
            float(rng.normal(2, 9)),
            float(rng.uniform(0.7, 3.0)),
        )
        points = actor.vertices[actor.vertices[:, 2] > cut]
        matrix = frame_points(points, view, fill, np.zeros(2), (SIZE, SIZE))
        bottom = project(points, matrix, SIZE, SIZE)[:, 1].max()
        drop = SIZE * rng.uniform(0.98, 1.12) - bottom
        shift = np.array([rng.normal(0, 0.1) * SIZE, drop])
        matrix = frame_points(points, view, fill, shift, (SIZE, SIZE))
        return _Camera(matrix, float(np.exp(rng.uniform(np.log(110), np.log(500)))))

    def _far_camera(self, actor: Actor, tall: float) -> _Camera:
        rng = self._rng
        high = rng.random() < 0.4  # a street camera looks down
        elevation = rng.uniform(8, 35) if high else rng.normal(3, 8)
        distance = rng.uniform(6, 18) if high else rng.uniform(2.2, 8)
        view = look_at(actor.joints.mean(0), float(elevation), float(distance))
        room = np.maximum(1 - tall, 0.15) / 2 * SIZE
        shift = rng.uniform(-1, 1, 2) * np.array([0.3 * SIZE, room])
        matrix = frame_points(actor.vertices, view, tall, shift, (SIZE, SIZE))
        pixels = float(np.exp(rng.uniform(np.log(40), np.log(300))))  # the person's, in rows
        return _Camera(matrix, pixels / tall)

    def _others(self, actor: Actor, shares: list[float], spread: float = 1.0) -> list[Actor]:
        rng = self._rng
        others = []
        many = 2 if spread > 1 else 1
        for _ in range(many * int(rng.choice([0, 1, 2], p=shares))):
            other = self._actor()
            floor = actor.vertices[:, 2].min() - other.vertices[:, 2].min()
            side = spread * rng.uniform(0.4, 1.5) * rng.choice([-1, 1])
            other.offset = np.array([side, spread * rng.uniform(-0.2, 2.5), floor])
            others.append(other)
        return others


def _turned(actor: Actor, facing: float) -> Actor:
    """Turn a body about the vertical so that its chest looks `facing` degrees off the camera."""
    across = actor.joints[_LEFT_SHOULDER] - actor.joints[_RIGHT_SHOULDER]
    angle = np.deg2rad(facing) - np.arctan2(across[1], across[0])
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], np.float32)
    return Actor(actor.vertices @ turn.T, actor.normals @ turn.T, actor.joints @ turn.T, actor.look)


def lay_over(
    rng: np.random.Generator, rgba: np.ndarray, scene: np.ndarray, backs: Backgrounds
) -> tuple[np.ndarray, np.ndarray]:
    """Lay a rendered figure over a scene.

    Args:
        rng: Source of every random choice.
        rgba: uint8 (H,W,4), premultiplied by coverage.
        scene: float32 (H,W,3).
        backs: Where the figure's extra texture comes from.

    Returns:
        Picture float32 (H,W,3) and coverage float32 (H,W) in 0..1.
    """
    import cv2

    height, width = rgba.shape[:2]
    figure, alpha = rgba[..., :3].astype(np.float32), rgba[..., 3].astype(np.float32) / 255
    if rng.random() < 0.5:  # shadows, prints and folds that the flat shading lacks
        texture = backs.photograph(rng, height, width).astype(np.float32)
        grey = texture.mean(2, keepdims=True) if rng.random() < 0.6 else texture
        figure = figure * (1 + rng.uniform(0.2, 0.9) * (grey / max(float(grey.mean()), 20.0) - 1))
    gain = np.full(3, rng.uniform(0.6, 1.2))
    if rng.random() < 0.4:  # the light of the scene
        tint = scene.mean((0, 1)) / max(float(scene.mean()), 10.0)
        gain = gain * (0.4 + 0.6 * np.clip(tint, 0.5, 1.6))
    figure = figure * gain + rng.uniform(-12, 30) * alpha[..., None]
    layers = np.concatenate([figure, alpha[..., None]], 2).astype(np.float32)
    if rng.random() < 0.7:  # hide the hard edge that no camera shows
        layers = cv2.GaussianBlur(layers, (0, 0), float(rng.uniform(0.4, 1.1)))
    cover = layers[..., 3]
    return scene * (1 - cover[..., None]) + np.clip(layers[..., :3], 0, 300), cover


def add_clutter(rng: np.random.Generator, scene: np.ndarray, backs: Backgrounds) -> np.ndarray:
    """Put things that are no people into a scene float32 (H,W,3), behind whoever comes."""
    if rng.random() < 0.4:
        return scene
    for _ in range(int(rng.integers(1, 5))):
        scene, _ = _put(rng, scene, backs, rng.uniform(0.04, 0.3))
    return scene


def occlude(
    rng: np.random.Generator, scene: np.ndarray, alpha: np.ndarray, backs: Backgrounds
) -> tuple[np.ndarray, np.ndarray]:
    """Cover parts of a scene with things; returns the scene and what is left of the coverage."""
    if rng.random() > 0.35:
        return scene, alpha
    for _ in range(int(rng.integers(1, 3))):
        scene, cover = _put(rng, scene, backs, rng.uniform(0.04, 0.16))
        alpha = alpha * (1 - cover)
    return scene, alpha


def _put(
    rng: np.random.Generator, scene: np.ndarray, backs: Backgrounds, extent: float
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one textured ellipse, box, bar or polygon; returns scene and coverage (H,W)."""
    import cv2

    height, width = scene.shape[:2]
    shape = np.zeros((height, width), np.uint8)
    centre = rng.uniform(0, 1, 2) * (width, height)
    half = extent * width * np.exp(rng.normal(0, 0.5, 2))
    kind = rng.random()
    if kind < 0.35:
        axes = np.clip(half, 2, 999).astype(int).tolist()
        middle = centre.astype(int).tolist()
        cv2.ellipse(shape, middle, axes, float(rng.uniform(0, 180)), 0, 360, 255, -1, cv2.LINE_AA)
    else:
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
        if kind > 0.85:  # a pole, a table's edge
            corners = corners * (rng.permutation([1.0, 30.0]))
        elif kind > 0.6:
            turns = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
            radius = rng.uniform(0.5, 1.2, (len(turns), 1))
            corners = radius * np.stack([np.cos(turns), np.sin(turns)], 1) * half
        angle = rng.normal(0, 0.25)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = np.clip(corners @ turn.T + centre, -9999, 9999)
        cv2.fillPoly(shape, [points.astype(np.int32)], 255, cv2.LINE_AA)
    cover: np.ndarray = shape.astype(np.float32) / 255
    if rng.random() < 0.6:
        cover = cv2.GaussianBlur(cover, (0, 0), float(rng.uniform(0.4, 1.5)))
    texture: np.ndarray = backs.photograph(rng, height, width).astype(np.float32)
    if rng.random() < 0.5:  # a plain thing: one colour and a little shade
        texture = 0.25 * texture + 0.75 * rng.uniform(0, 255, 3)
    texture = texture * rng.uniform(0.4, 1.2)
    return scene * (1 - cover[..., None]) + texture * cover[..., None], cover
