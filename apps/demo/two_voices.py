"""The bundled clip of two heads that speak at once, and what the face path reads in it.

The first sound of the clip is the mixture, mono; the second has the clean voices, one per channel
from left to right, and serves for scoring alone. Players play the first. `make_two_voices` makes
the clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from prunus.apps.common.model_files import find_model
from prunus.apps.io.sources.av_frames import open_av_frames
from prunus.apps.io.sources.clip import load_av
from prunus.runtime.audio.resample import resample
from prunus.runtime.errors import SourceError

if TYPE_CHECKING:
    from prunus.runtime.tasks.faces.finder import Face

Audio = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
Drawing = Literal["picture", "lips"]
RATE_HZ, FPS = 16_000, 25


def read_clean(path: str | Path, rate_hz: int = RATE_HZ) -> Audio:
    """Return the clean voices of a clip: float32 (voices, T), as long as its mixture.

    Args:
        path: A clip that `make_two_voices` made.
        rate_hz: Samples per second that are wanted.

    Raises:
        SourceError: the clip has no second sound.
    """
    av = load_av()
    try:
        with av.open(str(path)) as container:
            if len(container.streams.audio) < 2:
                raise SourceError(
                    f"{path} holds {len(container.streams.audio)} sounds; expected a second one "
                    "with the clean voices.",
                    "Make the clip with: python -m benchmarks.separation.make_two_voices",
                )
            stream = container.streams.audio[1]
            convert = av.AudioResampler(format="fltp")
            # Frames before time zero are the encoder's run-up.
            parts = [
                (part.pts or 0, part.to_ndarray())
                for frame in container.decode(stream)
                for part in convert.resample(frame)
            ]
            rate = int(stream.codec_context.sample_rate)
    except (av.error.FFmpegError, OSError) as error:
        raise SourceError(f"{path} cannot be read: {error}.", "Give a clip with sound.") from None
    voices = np.concatenate([block for start, block in parts if start >= 0], axis=1)
    return np.stack([resample(np.ascontiguousarray(v), rate, rate_hz) for v in voices])


def read_moments(path: str | Path) -> tuple[list[Image], Audio]:
    """Return what the voice picker gets of a clip.

    Returns:
        uint8 (height, width, 3) BGR pictures, 25 a second, and float32 (T,) at 16 kHz.
    """
    moments = list(open_av_frames(str(path), FPS, RATE_HZ))
    sound = np.concatenate([moment.sound[: moment.samples] for moment in moments])
    return [moment.image for moment in moments], sound


def follow_faces(pictures: Sequence[Image], backend: str = "auto") -> list[list[Face]]:
    """Find, read and number the faces of a clip, as the voice picker does.

    Returns:
        The faces of each picture.
    """
    from prunus.apps.separation.models import FACES, open_faces
    from prunus.apps.separation.voices import CONFIRM_FRAMES
    from prunus.runtime.tasks.faces.finder import FaceOptions, FaceTracker

    tracker = FaceTracker(FaceOptions(confirm_frames=CONFIRM_FRAMES))
    with ExitStack() as stack:
        boxes, points = map(find_model, FACES)
        finder, mesh = open_faces(boxes, points, {"backend": backend, "threads": 1}, stack)
        return [
            tracker.update(picture, finder, mesh, k / FPS) for k, picture in enumerate(pictures)
        ]


def openings(faces: Sequence[Sequence[Face]], number: int) -> npt.NDArray[np.float64]:
    """Return how far the lips of one face are apart: (pictures,), in mouth widths, NaN unseen."""
    from prunus.runtime.tasks.faces.mouth import mouth_opening

    found = [[f.points for f in seen if f.face_id == number] for seen in faces]
    return np.array([mouth_opening(points[0]) if points else np.nan for points in found])


def mouth_crops(
    pictures: Sequence[Image], faces: Sequence[Sequence[Face]], number: int, drawing: Drawing
) -> Image:
    """Return the mouth of one face as a separator sees it: uint8 (pictures, 88, 88).

    Args:
        pictures: See `read_moments`.
        faces: See `follow_faces`.
        number: Of the face.
        drawing: ``picture`` or ``lips``, as the card of the separator says.
    """
    from prunus.runtime.tasks.faces.mouth import MouthCropper
    from prunus.runtime.tasks.separation.card import MouthPreprocess

    cropper = MouthCropper(MouthPreprocess(frames=1, drawing=drawing))
    crops: list[Image] = []
    for picture, seen in zip(pictures, faces, strict=True):
        points = [f.points for f in seen if f.face_id == number]
        crops += cropper.push(picture, points[0] if points else None)
    return np.stack([*crops, *cropper.flush()])


def write_mixture(clip: Path, folder: Path, drawing: Drawing = "lips") -> Path:
    """Write a clip as a folder for ``prunus eval separation``; return the mixture's file.

    Args:
        clip: See `read_clean`.
        folder: Gets ``mix``, ``s1``, ``s2`` and ``mouths``.
        drawing: See `mouth_crops`.

    Raises:
        SourceError: the clip has no clean voices, or a face is missing in it.
    """
    from prunus.models.training.separation.mixture_files import write_mixture_files

    pictures, mixture = read_moments(clip)
    voices = [voice[: len(mixture)] for voice in read_clean(clip)]
    faces = follow_faces(pictures)
    mouths = []
    for number in range(1, len(voices) + 1):
        if not any(face.face_id == number for seen in faces for face in seen):
            raise SourceError(f"{clip} shows no face {number}.", "Make the clip again.")
        mouths.append(mouth_crops(pictures, faces, number, drawing))
    return write_mixture_files(folder, clip.stem, mixture, voices, mouths)
