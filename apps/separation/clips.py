"""All voices of a clip, one per face: each the very samples that `prunus run separation` writes."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from prunus.apps.io.sources.av_frames import open_av_frames
from prunus.apps.separation.voices import CONFIRM_FRAMES, VoicePicker, open_picker
from prunus.runtime.tasks.faces.finder import Face, FaceOptions, FaceTracker

if TYPE_CHECKING:
    from prunus.apps.separation.models import Models
    from prunus.apps.separation.options import SeparationChoice

Audio = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """What a clip holds.

    Attributes:
        voices: Number of the face -> its voice, (T,) float32, as long as the clip's sound.
        seconds: Number of the face -> seconds in which it was seen.
        warnings: What was odd about the clip.
    """

    voices: dict[int, Audio]
    seconds: dict[int, float]
    warnings: tuple[str, ...]


def separate_clip(source: str | Path, models: Models, choice: SeparationChoice) -> Heard:
    """Separate the voice of every face that is seen.

    Args:
        source: A clip; see `open_av_frames`.
        models: Open; they stay open.
        choice: How; the chosen face does not matter.

    Returns:
        The voices; none where no face is seen.

    Raises:
        SourceError: the clip cannot be read, or has no sound.
    """
    separator = models.separator
    rate, fps = separator.sample_rate_hz, separator.mouth.frame_rate_hz
    tracker = FaceTracker(FaceOptions(every=choice.detect_every, confirm_frames=CONFIRM_FRAMES))
    faces: list[Face] = []
    sounds: list[Audio] = []
    pickers: dict[int, VoicePicker] = {}
    parts: dict[int, list[Audio]] = {}
    seen: dict[int, int] = {}
    nothing = np.zeros((1, 1, 3), np.uint8)
    length = 0
    with closing(open_av_frames(str(source), fps, rate)) as moments:
        for moment in moments:
            if moment.fresh:
                faces = tracker.update(moment.image, models.finder, models.mesh, moment.seconds)
            for number in (face.face_id for face in faces):
                seen[number] = seen.get(number, 0) + 1
                if number not in pickers:  # it hears what was before it came
                    pickers[number] = picker = open_picker(separator, choice, number, live=False)
                    parts[number] = [picker.push(nothing, [], sound) for sound in sounds]
            for number, picker in pickers.items():
                own = [face for face in faces if face.face_id == number]
                parts[number].append(picker.push(moment.image, own, moment.sound))
            sounds.append(moment.sound)
            length += moment.samples
        warnings = tuple(moments.warnings)
    voices = {n: np.concatenate([*parts[n], pickers[n].flush()])[:length] for n in sorted(pickers)}
    return Heard(voices, {n: count / fps for n, count in sorted(seen.items())}, warnings)
