"""One voice out of a mixture, chosen by its face: mouths in step with sound, and clean switches.

Each face has a cropper of its own, so that any of them can be chosen at any time. The chosen one's
crops and the sound go to a separator; when the choice changes, a fresh stream is first fed with the
last seconds, so that the other voice begins with its full context, and the two are blended. While
the chosen one's lips are shut, the voice is silent (`LipGate`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeGuard

import numpy as np
import numpy.typing as npt

from prunus.apps.io.sound.ring import blended
from prunus.runtime.tasks.faces.finder import Face
from prunus.runtime.tasks.faces.mouth import MouthCropper, mouth_opening
from prunus.runtime.tasks.separation.card import MouthPreprocess
from prunus.runtime.tasks.separation.lip_gate import LipGate

if TYPE_CHECKING:
    from prunus.apps.separation.options import SeparationChoice
    from prunus.runtime.tasks.separation.separator import SpeechSeparator
    from prunus.runtime.tasks.separation.stream import VoiceStream as SeparatorStream

Audio = npt.NDArray[np.float32]
Image = npt.NDArray[np.uint8]
CONFIRM_FRAMES = 3  # after which a face gets its number
_AHEAD = 11  # frames that steady a mouth where nobody waits for it, as published
_MOUTH_INSIDE = 0.75  # share of the lips' landmarks
_BLEND = 320  # samples over which a new voice replaces the old one: 20 ms


class VoiceStream(Protocol):
    """A separator's stream: sound and mouths in, the voice out, as much as came in by the end."""

    def push(self, mixture: Audio, mouths: Image) -> Audio:
        """Take (T,) float32 and (n, 88, 88) uint8 over the same time; return what is complete."""

    def flush(self) -> Audio:
        """Return the rest."""


@dataclass(slots=True, eq=False)
class _Placed:
    """A stream that knows where in the sound its next output sample lies."""

    stream: VoiceStream
    at: int
    face_id: int

    def push(self, sound: Audio, crop: Image) -> tuple[int, Audio]:
        return self._placed(self.stream.push(sound, crop[None]))

    def flush(self) -> tuple[int, Audio]:
        return self._placed(self.stream.flush())

    def _placed(self, voice: Audio) -> tuple[int, Audio]:
        at, self.at = self.at, self.at + len(voice)
        return at, voice


@dataclass(slots=True, eq=False)
class VoicePicker:
    """Separate the voice of one face out of several.

    Args:
        open_stream: Starts a separator's stream.
        mouth: From the card of the ``lips`` graph.
        samples_per_frame: Samples of sound per crop.
        history: Crops with which a new stream is fed before it is heard; at least as many as the
            stream lags by.
        chosen: Number of the face whose voice comes out.
        look_ahead: See `MouthCropper`; the voice lags by as many frames, and by the separator.
        gated: Whether shut lips are silent.

    Attributes:
        given: Samples of the voice that came out so far.
    """

    open_stream: Callable[[], VoiceStream]
    mouth: MouthPreprocess
    samples_per_frame: int
    history: int
    chosen: int = 1
    look_ahead: int = 11
    gated: bool = True
    given: int = 0
    _now: _Placed | None = None
    _before: _Placed | None = None
    _seam: Audio = field(default_factory=lambda: np.zeros(0, np.float32))
    _croppers: dict[int, MouthCropper] = field(default_factory=dict)
    _crops: dict[int, deque[Image]] = field(default_factory=dict)
    _gates: dict[int, LipGate] = field(default_factory=dict)
    _sound: deque[Audio] = field(default_factory=deque)
    _waiting: deque[Audio] = field(default_factory=deque)
    _early: list[tuple[int, Audio]] = field(default_factory=list)
    _fed: int = 0

    def choose(self, face_id: int) -> None:
        """Let the voice of another face come out from now on."""
        if face_id == self.chosen:
            return
        self.chosen = face_id
        if self._now is None:
            return
        start = (self._fed - len(self._sound)) * self.samples_per_frame
        self._before, self._now = self._now, _Placed(self.open_stream(), start, face_id)
        self._early = [
            self._now.push(sound, crop)
            for sound, crop in zip(self._sound, self._history_of(face_id), strict=True)
        ]

    def push(self, image: Image, faces: Sequence[Face], sound: Audio) -> Audio:
        """Take one moment; return the voice that is complete by now.

        Args:
            image: uint8 (height, width, 3) BGR; kept until it is cropped.
            faces: All faces in it.
            sound: float32 (samples_per_frame,).
        """
        moment = self._fed + len(self._waiting)
        self._waiting.append(sound)
        seen = {f.face_id: f for f in faces}
        for face_id in sorted(seen.keys() - self._croppers.keys()):
            self._croppers[face_id] = self._joined_now(image)
            self._gates[face_id] = LipGate(self.samples_per_frame, first_frame=moment)
        ready = {}
        for face_id, cropper in self._croppers.items():
            face = seen.get(face_id)
            self._gates[face_id].see(mouth_opening(face.points) if shows_mouth(face) else None)
            for crop in cropper.push(image, None if face is None else face.points):
                ready[face_id] = crop
        if len(self._waiting) <= self.look_ahead:
            return np.zeros(0, np.float32)
        return self._advance(ready)

    def flush(self) -> Audio:
        """End the stream; return the rest of the voice, as many samples in all as came in."""
        rest = {face_id: cropper.flush() for face_id, cropper in self._croppers.items()}
        parts = [
            self._advance({f: crops[k] for f, crops in rest.items()})
            for k in range(len(self._waiting))
        ]
        if self._now is not None:
            parts.append(self._heard(*self._now.flush()))
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _joined_now(self, image: Image) -> MouthCropper:
        """Return a cropper that saw no face in the moments that wait, but counts them."""
        cropper = MouthCropper(self.mouth, self.look_ahead)
        for _ in range(min(len(self._waiting) - 1, self.look_ahead)):
            cropper.push(image, None)
        return cropper

    def _advance(self, ready: dict[int, Image]) -> Audio:
        """Feed the oldest moment that waits; `ready` holds its crops by face."""
        sound = self._waiting.popleft()
        for face_id, crop in ready.items():
            self._crops.setdefault(face_id, deque(maxlen=self.history)).append(crop)
        self._sound.append(sound)
        if len(self._sound) > self.history:
            self._sound.popleft()
        if self._now is None:
            start = self._fed * self.samples_per_frame
            self._now = _Placed(self.open_stream(), start, self.chosen)
        self._fed += 1
        if self._before is not None:
            old = self._before
            self._cover(*old.push(sound, ready.get(old.face_id, self._grey())))
        placed = [*self._early, self._now.push(sound, ready.get(self.chosen, self._grey()))]
        self._early = []
        return np.concatenate([self._heard(at, voice) for at, voice in placed])

    def _cover(self, at: int, voice: Audio) -> None:
        """Keep a little of the old voice for the seam, from where the new one will begin."""
        after = self.given + len(self._seam)
        more = self._gated(self._before, max(after, at), voice[max(0, after - at) :])
        self._seam = np.concatenate((self._seam, more))[:_BLEND]

    def _heard(self, at: int, voice: Audio) -> Audio:
        """Return what of a placed block has not come out, blended with the old voice."""
        voice = voice[max(0, self.given - at) :] if at < self.given else voice
        voice = self._gated(self._now, max(self.given, at), voice)
        if len(voice) and self._before is not None:
            if len(self._seam) < _BLEND:  # the old one gives in bursts, and is behind now
                self._cover(*self._before.flush())
            voice = blended(self._seam, voice, len(self._seam))
            self._before, self._seam = None, self._seam[:0]
        self.given += len(voice)
        return voice

    def _gated(self, of: _Placed | None, start: int, voice: Audio) -> Audio:
        """Return a voice from a sample on, silent where the lips of its face are shut."""
        gate = self._gates.get(of.face_id) if of is not None and self.gated else None
        return voice if gate is None or not len(voice) else voice * gate.gains(start, len(voice))

    def _history_of(self, face_id: int) -> list[Image]:
        known = list(self._crops.get(face_id, ()))[-len(self._sound) :]
        return [self._grey()] * (len(self._sound) - len(known)) + known

    def _grey(self) -> Image:
        side = self.mouth.size
        return np.full((side, side), round(255 * self.mouth.mean), np.uint8)


class _Stream:
    """A separator's stream that takes sound and crops together.

    Args:
        stream: Of the separator.
        fps: Crops per second.
    """

    def __init__(self, stream: SeparatorStream, fps: int) -> None:
        self._stream, self._fps, self._count = stream, fps, 0

    def push(self, mixture: Audio, mouths: Image) -> Audio:
        """See `VoiceStream`."""
        parts = []
        for crop in mouths:
            parts.append(self._stream.watch(crop, self._count / self._fps))
            self._count += 1
        return np.concatenate([*parts, self._stream.push(mixture)])

    def flush(self) -> Audio:
        """See `VoiceStream`."""
        return self._stream.flush()


def shows_mouth(face: Face | None) -> TypeGuard[Face]:
    """Tell whether so much of a face's mouth lies in the picture that its lips can be read."""
    return face is not None and face.mouth_inside > _MOUTH_INSIDE


def open_picker(
    separator: SpeechSeparator, choice: SeparationChoice, face: int, *, live: bool
) -> VoicePicker:
    """Return a picker of one face's voice, as the options say.

    Args:
        separator: Gives the streams.
        choice: Hop, look-ahead and gate.
        face: Number of the face.
        live: Mouths do not wait to be steadied unless the options ask for it.

    Raises:
        UsageError: windows that do not fit the graphs.
    """
    plan = separator.stream(hop_s=choice.hop).plan
    ahead = (0 if live else _AHEAD) if choice.look_ahead is None else choice.look_ahead
    return VoicePicker(
        lambda: _Stream(separator.stream(hop_s=choice.hop), plan.frame_rate_hz),
        separator.mouth, plan.samples_per_frame, plan.frames + plan.lip_frames, face, ahead,
        choice.gate,
    )  # fmt: skip
