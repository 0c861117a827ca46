"""Draw numbered faces and level meters on a frame: scene in, scene out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunus.apps.io.sources.registry import Image
from prunus.apps.live.pages import hex_colour, rounded
from prunus.apps.pose.overlay import draw_tag, tag_colour
from prunus.runtime.pictures.opencv import load_cv2

if TYPE_CHECKING:
    from prunus.runtime.tasks.faces.finder import Face

_DARK = (24, 22, 20)
_FLOOR_DB = -60.0
_WARM, _HOT = -18.0, -6.0  # decibels from which a meter is yellow, and red
_COLOURS = ((112, 214, 128), (66, 214, 235), (66, 66, 235))  # BGR
_MINIMUM = 200  # pixels: meters on a smaller frame would cover it


def level_db(sound: npt.NDArray[np.float32]) -> float:
    """Return the root mean square of samples in decibels of full scale, at least -60."""
    if not len(sound):
        return _FLOOR_DB
    power = float(np.mean(np.square(sound, dtype=np.float64)))
    return max(10.0 * math.log10(power + 1e-12), _FLOOR_DB)


def draw_faces(scene: Image, faces: Sequence[Face], chosen: int) -> Image:
    """Draw a box, the lips and a number for each face; the chosen one's box is thick.

    Args:
        scene: uint8 (height, width, 3) BGR; changed in place.
        faces: In image pixels.
        chosen: Number of the face whose voice is heard.
    """
    from prunus.runtime.tasks.faces.mesh import OUTER_LIPS

    cv2 = load_cv2()
    limit = 4 * max(scene.shape[:2])
    thin = max(round(min(scene.shape[:2]) / 400), 1)
    for face in faces:
        colour = tag_colour(face.face_id)
        x0, y0, x1, y1 = (round(float(np.clip(v, -limit, limit))) for v in face.box)
        thick = 3 * thin if face.face_id == chosen else thin
        cv2.rectangle(scene, (x0, y0), (x1, y1), colour, thick, cv2.LINE_AA)
        lips = np.clip(face.points[list(OUTER_LIPS), :2], -limit, limit).round().astype(np.int32)
        cv2.polylines(scene, [lips], True, colour, thin, cv2.LINE_AA)
    for face in faces:  # numbers above all boxes
        middle = (face.box[0] + face.box[2]) / 2
        draw_tag(scene, _name(face, chosen), middle, face.box[1], tag_colour(face.face_id))
    return scene


def face_shapes(faces: Sequence[Face], chosen: int) -> list[dict[str, Any]]:
    """Return faces as shapes of a page (`prunus.apps.live.pages`): boxes, lips and numbers."""
    from prunus.runtime.tasks.faces.mesh import OUTER_LIPS

    return [
        {
            "id": face.face_id, "label": _name(face, chosen),
            "colour": hex_colour(tag_colour(face.face_id)), "box": rounded(face.box),
            "rings": [rounded(face.points[list(OUTER_LIPS), :2].ravel())],
            "strong": face.face_id == chosen,
        }
        for face in faces
    ]  # fmt: skip


def _name(face: Face, chosen: int) -> str:
    return f"{face.face_id} heard" if face.face_id == chosen else str(face.face_id)


def draw_meters(scene: Image, levels: Sequence[tuple[str, float]]) -> Image:
    """Draw level meters in the lower left corner: name and decibels of full scale of each."""
    height, width = scene.shape[:2]
    if min(height, width) < _MINIMUM:
        return scene
    cv2 = load_cv2()
    bar, gap = max(height // 45, 8), max(height // 90, 4)
    long, label = width // 3, width // 10
    top = height - gap - len(levels) * (bar + gap)
    low = scene[top - gap :, : long + label + 3 * gap]
    low[:] = (low * 0.35 + np.array(_DARK) * 0.65).astype(np.uint8)
    scale = bar / 26
    for k, (name, level) in enumerate(levels):
        y = top + k * (bar + gap)
        cv2.putText(scene, name, (gap, y + bar - bar // 5), cv2.FONT_HERSHEY_DUPLEX, scale,
                    (235, 235, 235), 1, cv2.LINE_AA)  # fmt: skip
        share = min((level - _FLOOR_DB) / -_FLOOR_DB, 1.0)
        colour = _COLOURS[(level >= _WARM) + (level >= _HOT)]
        left = gap + label
        cv2.rectangle(scene, (left, y), (left + long, y + bar), (90, 90, 90), 1)
        cv2.rectangle(scene, (left, y), (left + round(long * share), y + bar), colour, -1)
    return scene
