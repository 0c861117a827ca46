"""What a loaded model answers: typed, and made into dictionaries, JSON, pictures, supervision."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prunus.runtime.errors import MissingDependencyError
from prunus.runtime.json_text import json_text
from prunus.runtime.tasks.pose.card import KeypointPostprocess
from prunus.runtime.tasks.segmentation.card import MaskPostprocess

if TYPE_CHECKING:
    from prunus.runtime.tasks.codec.codec import Speech
    from prunus.runtime.tasks.faces.finder import Face
    from prunus.runtime.tasks.pose.estimator import Pose
    from prunus.runtime.tasks.segmentation.segmenter import Mask

Image = npt.NDArray[np.uint8]


class _Result:
    """JSON of the dictionary that each result makes of itself."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Return numbers, lists and texts alone."""
        raise TypeError(f"{type(self).__name__} has no dictionary")

    def to_json(self) -> str:
        """Return `to_dict` as JSON with sorted keys."""
        return json_text(self.to_dict())


@dataclass(frozen=True, slots=True, eq=False)
class PoseResult(_Result):
    """People in one picture.

    Attributes:
        people: One `Pose` each; joints float32 (joints, 3) of x, y in pixels and score.
        joints: Joint names in order; coarse ones for people finders.
        skeleton: How they are drawn; None for people finders.
    """

    people: tuple[Pose, ...]
    joints: tuple[str, ...]
    skeleton: KeypointPostprocess | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return people with boxes, scores and joints by name, in pixels of the picture."""
        return {
            "people": [
                {
                    "box": [float(v) for v in person.box],
                    "score": float(person.score),
                    "track_id": person.track_id,
                    "joints": {
                        name: [float(v) for v in row]
                        for name, row in zip(self.joints, person.keypoints, strict=True)
                    },
                }
                for person in self.people
            ]
        }

    def plot(self, picture: Image) -> Image:
        """Return a copy of a BGR picture with the skeletons drawn."""
        from prunus.apps.pose.overlay import Bones, draw_people

        scene = picture.copy()
        if self.skeleton is not None:
            draw_people(scene, list(self.people), Bones.of(self.skeleton))
        return scene

    def to_supervision(self) -> Any:
        """Return ``supervision.KeyPoints``; raises MissingDependencyError without the package."""
        xyz = np.array([p.keypoints for p in self.people], np.float32)
        xyz = xyz.reshape(len(self.people), len(self.joints), 3)
        return _supervision().KeyPoints(xy=xyz[..., :2], keypoint_confidence=xyz[..., 2])


@dataclass(frozen=True, slots=True, eq=False)
class MaskResult(_Result):
    """Classes of one picture.

    Attributes:
        mask: (h, w) class numbers, and the foreground's probability where the model gives one.
        post: Class names and colours.
    """

    mask: Mask
    post: MaskPostprocess

    def to_dict(self) -> dict[str, Any]:
        """Return the size and the share of each class that is there, 0..1."""
        numbers, counts = np.unique(self.mask.classes, return_counts=True)
        size = self.mask.classes.shape
        shares = {
            self.post.classes[int(n)]: float(c) / (size[0] * size[1])
            for n, c in zip(numbers, counts, strict=True)
        }
        return {"height": size[0], "width": size[1], "shares": shares}

    def plot(self, picture: Image) -> Image:
        """Return a copy of a BGR picture with the classes painted."""
        from prunus.apps.segmentation.overlay import Look, MaskPainter

        return MaskPainter(self.post, Look())(picture.copy(), self.mask)

    def to_supervision(self) -> Any:
        """Return ``supervision.Detections``, one per class that is there."""
        classes = self.mask.classes
        numbers = np.unique(classes)
        masks = np.stack([classes == n for n in numbers])
        boxes = np.array([_box(m) for m in masks], np.float32)
        return _supervision().Detections(xyxy=boxes, mask=masks, class_id=numbers.astype(int))


@dataclass(frozen=True, slots=True, eq=False)
class SpeechResult(_Result):
    """Speech through a codec.

    Attributes:
        speech: The codes.
        sound: (samples,) float32, decoded again.
        sample_rate_hz: Samples per second.
        bits_per_second: Rate of the codes alone.
    """

    speech: Speech
    sound: npt.NDArray[np.float32]
    sample_rate_hz: int
    bits_per_second: float

    def to_dict(self) -> dict[str, Any]:
        """Return the codes by stream, and the rates."""
        return {
            "codes": {name: codes.tolist() for name, codes in self.speech.codes.items()},
            "samples": len(self.sound),
            "sample_rate_hz": self.sample_rate_hz,
            "bits_per_second": self.bits_per_second,
        }


@dataclass(frozen=True, slots=True, eq=False)
class VoicesResult(_Result):
    """Voices of a clip, one per face.

    Attributes:
        voices: Number of the face -> (samples,) float32, as long as the clip's sound; numbers count
            from 1, from left to right among faces that appear together.
        seconds: Number of the face -> seconds in which it was seen.
        sample_rate_hz: Samples per second.
        warnings: What was odd about the clip.
    """

    voices: dict[int, npt.NDArray[np.float32]]
    seconds: dict[int, float]
    sample_rate_hz: int
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return how long each face was seen, and the length and level of its voice."""
        return {
            "faces": [
                {
                    "face": number,
                    "seconds": self.seconds[number],
                    "samples": len(voice),
                    "rms": float(np.sqrt(np.mean(np.square(voice, dtype=np.float64)))),
                }
                for number, voice in self.voices.items()
            ],
            "sample_rate_hz": self.sample_rate_hz,
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True, slots=True, eq=False)
class FacesResult(_Result):
    """Faces in one picture.

    Attributes:
        faces: One `Face` each, from left to right; ``points`` float32 (468, 3) of x, y in pixels
            and depth on the same scale.
    """

    faces: tuple[Face, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return boxes, scores, how far the lips are apart, and landmarks, in pixels."""
        from prunus.runtime.tasks.faces.mouth import mouth_opening

        return {
            "faces": [
                {
                    "box": [float(v) for v in face.box],
                    "score": float(face.score),
                    "mouth_opening": mouth_opening(face.points),
                    "points": face.points.tolist(),
                }
                for face in self.faces
            ]
        }

    def plot(self, picture: Image) -> Image:
        """Return a copy of a BGR picture with the faces and their numbers drawn."""
        from prunus.apps.separation.face_overlay import draw_faces

        scene = picture.copy()
        draw_faces(scene, list(self.faces), 0)
        return scene


@dataclass(frozen=True, slots=True, eq=False)
class TensorResult(_Result):
    """Outputs of a network of which nothing more is known.

    Attributes:
        tensors: Output name -> array.
    """

    tensors: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the outputs as nested lists."""
        return {name: array.tolist() for name, array in self.tensors.items()}


def _box(mask: npt.NDArray[np.bool_]) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def _supervision() -> Any:
    try:
        import supervision
    except ImportError:
        raise MissingDependencyError("supervision", "supervision", "This conversion") from None
    return supervision
