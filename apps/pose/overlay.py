"""Draw skeletons and a panel of facts on a frame: scene in, scene out.

Limbs are coloured by side (left warm, right cool, middle green), so that swapped sides show at a
glance. Coordinates keep four fractional bits, which makes slow motion look smooth.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunus.apps.io.sources.registry import Image
from prunus.apps.live.pages import hex_colour, rounded
from prunus.runtime.pictures.opencv import load_cv2

if TYPE_CHECKING:
    from prunus.runtime.tasks.pose.card import KeypointPostprocess
    from prunus.runtime.tasks.pose.estimator import CropTokens, Pose

Colour = tuple[int, int, int]

LEFT: Colour = (66, 152, 255)  # BGR
RIGHT: Colour = (255, 176, 64)
MIDDLE: Colour = (112, 214, 128)
_DARK: Colour = (24, 22, 20)
_WHITE: Colour = (245, 245, 245)
_IDS: tuple[Colour, ...] = (
    (86, 180, 233), (0, 159, 230), (115, 158, 0), (66, 228, 240), (178, 114, 0), (0, 94, 213),
    (167, 121, 204),
)  # fmt: skip
_LEAST_SCORE = 0.25  # of a joint that is drawn
_SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
_DIMMEST = 0.25  # light that is left where the first cut dropped a patch
_PANEL_MINIMUM = 200  # pixels: a panel on a smaller frame would cover it


@dataclass(frozen=True, slots=True)
class Bones:
    """What is drawn: limbs with their colours, joints with theirs.

    Attributes:
        limbs: Pairs of joint indices.
        limb_colours: One BGR colour per limb.
        joint_colours: One BGR colour per joint.
    """

    limbs: tuple[tuple[int, int], ...]
    limb_colours: tuple[Colour, ...]
    joint_colours: tuple[Colour, ...]

    @staticmethod
    def of(post: KeypointPostprocess) -> Bones:
        """Take the skeleton from a card; sides are read off the joints' names."""
        joints = tuple(_side_colour(name) for name in post.joints)
        colours = tuple(
            joints[a] if joints[a] == joints[b] else _mixed(joints[a], joints[b])
            for a, b in post.limbs
        )
        return Bones(post.limbs, colours, joints)


def draw_people(
    scene: Image, poses: Sequence[Pose], bones: Bones, minimum_score: float = _LEAST_SCORE
) -> Image:
    """Draw the skeletons of all people into the scene and return it.

    Args:
        scene: uint8 (height, width, 3) BGR; changed in place.
        poses: People in image pixels.
        bones: Skeleton.
        minimum_score: Joints that are less certain are not drawn.

    Example:
        >>> draw_people(frame.copy(), poses, Bones.of(estimator.postprocess))
    """
    for pose in poses:
        _draw_pose(scene, pose, bones, minimum_score)
    for pose in poses:  # names above all skeletons
        if pose.track_id >= 0:
            _draw_name(scene, pose, minimum_score)
    return scene


def draw_tokens(scene: Image, crops: Sequence[CropTokens | None]) -> Image:
    """Darken the patches that cuts dropped, the earlier the darker, and return the scene.

    Args:
        scene: uint8 (height, width, 3) BGR; changed in place.
        crops: What the cuts did to each person's crop; None where nothing is known.
    """
    cv2 = load_cv2()
    light = np.ones(scene.shape[:2], np.float32)
    for crop in crops:
        if crop is None:
            continue
        maps = np.stack(list(crop.maps.values()))
        survived = (maps >= 0).mean(axis=0, dtype=np.float32)
        left, top, width, height = crop.window
        step = width / survived.shape[1], height / survived.shape[0]
        # Pixel centres are whole numbers: a cell's centre lies half a cell into it, less half.
        to_scene = np.array(
            [[step[0], 0, left + step[0] / 2 - 0.5], [0, step[1], top + step[1] / 2 - 0.5]]
        )
        own = cv2.warpAffine(
            _DIMMEST + (1 - _DIMMEST) * survived, to_scene, scene.shape[1::-1],
            flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=1.0,
        )  # fmt: skip
        np.minimum(light, own, out=light)
    scene[:] = (scene * light[..., None]).astype(np.uint8)
    return scene


def skeleton_shape(bones: Bones, minimum_score: float = _LEAST_SCORE) -> dict[str, Any]:
    """Return what a page needs once to draw the joints of all people."""
    return {
        "limbs": [list(pair) for pair in bones.limbs],
        "limb_colours": [hex_colour(c) for c in bones.limb_colours],
        "joint_colours": [hex_colour(c) for c in bones.joint_colours],
        "minimum_score": minimum_score,
    }


def people_shapes(poses: Sequence[Pose]) -> list[dict[str, Any]]:
    """Return people as shapes of a page (`prunus.apps.live.pages`)."""
    return [
        {
            "id": pose.track_id,
            "label": _name(pose) if pose.track_id >= 0 else "",
            "colour": hex_colour(tag_colour(pose.track_id)),
            "box": rounded(pose.box),
            "joints": [
                [*place, round(float(score), 2)]
                for place, score in zip(
                    rounded(pose.keypoints[:, :2]), np.nan_to_num(pose.keypoints[:, 2]),
                    strict=True,
                )
            ],
        }
        for pose in poses
    ]  # fmt: skip


def draw_panel(
    scene: Image, lines: Sequence[str], *, swatches: Sequence[Colour] = (), bottom: bool = False
) -> Image:
    """Draw lines of text on a translucent panel in a left corner and return the scene.

    A frame that is too small for text stays as it is.

    Args:
        scene: uint8 (height, width, 3) BGR; changed in place.
        lines: Text.
        swatches: One BGR colour per line, drawn as a square before it; none for no squares.
        bottom: In the lower corner instead of the upper one.
    """
    if not lines or min(scene.shape[:2]) < _PANEL_MINIMUM:
        return scene
    cv2 = load_cv2()
    font = cv2.FONT_HERSHEY_DUPLEX
    scale = _text_scale(scene)
    widest = max(cv2.getTextSize(line, font, scale, 1)[0][0] for line in lines)
    pad, step = round(20 * scale), round(36 * scale)
    indent = step if swatches else 0
    room = scene.shape[1] - 4 * pad - indent
    if widest > room:
        scale, widest = scale * room / widest, room
    height, width = step * len(lines) + pad, widest + 2 * pad + indent
    top = max(scene.shape[0] - pad - height, 0) if bottom else pad
    corner = scene[top : top + height, pad : pad + width]
    # One blend of the corner alone: blending whole frames would cost more than the skeletons.
    corner[:] = (corner * 0.35 + np.array(_DARK) * 0.65).astype(np.uint8)
    for i, line in enumerate(lines):
        at = (2 * pad + indent, top + round(step * (i + 0.85)))
        colour = _WHITE if i == 0 or swatches else (200, 200, 200)
        if swatches:
            side = round(0.55 * step)
            low, high = (2 * pad, at[1] - side), (2 * pad + side, at[1])
            cv2.rectangle(scene, low, high, swatches[i], -1)
        cv2.putText(scene, line, at, font, scale, colour, 1, cv2.LINE_AA)
    return scene


def _draw_pose(scene: Image, pose: Pose, bones: Bones, minimum: float) -> None:
    cv2 = load_cv2()
    points = _fixed_point(pose.keypoints[:, :2], scene)
    scores = pose.keypoints[:, 2]
    thick = _thickness(pose, scene)
    seen = [(a, b, c) for (a, b), c in zip(bones.limbs, bones.limb_colours, strict=True)
            if scores[a] >= minimum and scores[b] >= minimum]  # fmt: skip
    for a, b, _ in seen:  # a dark rim keeps limbs readable on any background
        cv2.line(scene, points[a], points[b], _DARK, thick + 2, cv2.LINE_AA, _SHIFT)
    for a, b, colour in seen:
        cv2.line(scene, points[a], points[b], colour, thick, cv2.LINE_AA, _SHIFT)
    radius = round(max(1.05 * thick, 1.4) * (1 << _SHIFT))
    for k, point in enumerate(points):
        if scores[k] >= minimum:
            cv2.circle(scene, point, radius + (1 << (_SHIFT - 1)), _DARK, -1, cv2.LINE_AA, _SHIFT)
            cv2.circle(scene, point, radius, bones.joint_colours[k], -1, cv2.LINE_AA, _SHIFT)


def _draw_name(scene: Image, pose: Pose, minimum: float) -> None:
    joints = np.nan_to_num(pose.keypoints)
    seen = joints[joints[:, 2] >= minimum]
    top = float(seen[:, 1].min()) if len(seen) else pose.box[1]
    middle = float(seen[:, 0].mean()) if len(seen) else (pose.box[0] + pose.box[2]) / 2
    draw_tag(scene, _name(pose), middle, top, tag_colour(pose.track_id))


def _name(pose: Pose) -> str:
    # Joints that were moved on, not read, say for how long.
    age = f" {pose.age_s * 1000:.0f}ms" if pose.age_s > 0 else ""
    return f"{pose.track_id}{age}"


def tag_colour(number: int) -> Colour:
    """Return the BGR colour of somebody's number."""
    return _IDS[number % len(_IDS)]


def draw_tag(scene: Image, text: str, middle: float, top: float, colour: Colour) -> None:
    """Draw a short text on a plate of that colour above a place, inside the scene."""
    cv2 = load_cv2()
    font, scale = cv2.FONT_HERSHEY_DUPLEX, _text_scale(scene) * 0.9
    width, height = cv2.getTextSize(text, font, scale, 1)[0]
    pad = max(round(height * 0.4), 2)
    left = int(np.clip(middle - width / 2, pad, max(scene.shape[1] - width - pad, pad)))
    base = int(np.clip(top - 3 * pad, height + pad, max(scene.shape[0] - pad, height + pad)))
    low, high = (left - pad, base - height - pad), (left + width + pad, base + pad)
    cv2.rectangle(scene, low, high, colour, -1, cv2.LINE_AA)
    cv2.putText(scene, text, (left, base), font, scale, _DARK, 1, cv2.LINE_AA)


def _fixed_point(xy: npt.NDArray[np.float32], scene: Image) -> list[tuple[int, int]]:
    # A joint far outside would overflow OpenCV's integers and draw a line across the frame.
    limit = 4.0 * max(scene.shape[:2])
    bounded = np.clip(np.nan_to_num(xy), -limit, limit)
    return [(int(x), int(y)) for x, y in np.rint(bounded * (1 << _SHIFT)).tolist()]


def _thickness(pose: Pose, scene: Image) -> int:
    size = max(pose.box[3] - pose.box[1], pose.box[2] - pose.box[0])
    return int(np.clip(round(size / 70), 1, max(min(scene.shape[:2]) // 120, 1)))


def _text_scale(scene: Image) -> float:
    return float(np.clip(min(scene.shape[:2]) / 1100, 0.36, 2.0))


def _side_colour(joint: str) -> Colour:
    if joint.startswith("left"):
        return LEFT
    return RIGHT if joint.startswith("right") else MIDDLE


def _mixed(a: Colour, b: Colour) -> Colour:
    """Colour of a limb between two sides; a limb from the middle takes the side's colour."""
    if MIDDLE in (a, b):
        other: Any = b if a == MIDDLE else a
        return (int(other[0]), int(other[1]), int(other[2]))
    return MIDDLE
