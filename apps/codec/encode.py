"""From sound at any rate to groups of codes, for the live codec."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from prunus.apps.codec.listener import Listener
from prunus.apps.io.frames import SoundSource
from prunus.runtime.audio.packets import Group
from prunus.runtime.audio.reblock import Held
from prunus.runtime.errors import UsageError
from prunus.runtime.tasks.codec.codec import SpeechCodec, StreamEncoder

Audio = npt.NDArray[np.float32]


class Encoding:
    """Sound at any rate -> groups of codes; takes the voice from the beginning where one is needed.

    Attributes:
        voice: Voice vector, None before it is known and for codecs without one.

    Args:
        codec: With its encoder, and its speaker encoder where it has one.
        source: Live ones are encoded as early as the network allows.
        strict: Refuse what would otherwise be changed with a notice.

    Raises:
        UsageError: `strict`, and the sound would have to be changed; or a part is missing.
    """

    def __init__(self, codec: SpeechCodec, source: SoundSource, *, strict: bool) -> None:
        self.voice: npt.NDArray[np.float32] | None = None
        self._codec = codec
        form = codec.format
        self._listener = Listener(
            source, form.sample_rate_hz, strict=strict, formula=form.resampler
        )
        self._stream: StreamEncoder = codec.encoder(eager=source.live)
        self._held = Held()  # until there is enough for a voice
        self._wanted = 0
        if codec.format.voice:
            if "speaker" not in codec.sessions:
                raise UsageError(f"{codec.format.name} needs its speaker encoder.",
                                 "Keep its files together.")  # fmt: skip
            self._wanted = codec.sessions["speaker"].card.inputs[0].shape[1]
        self._frames = 0

    @property
    def latency(self) -> int:
        """Samples by which codes lag behind whole blocks, those in the resampler included."""
        waiting = self._listener.latency_s * self._codec.format.sample_rate_hz
        return self._stream.latency + math.ceil(waiting)

    @property
    def samples(self) -> int:
        """Samples at the codec's rate so far."""
        return self._stream.samples

    def notes(self) -> tuple[str, ...]:
        """Return what was changed on the way."""
        return self._listener.notes()

    def push(self, block: Audio) -> tuple[Audio, list[Group]]:
        """Return the block at the codec's rate, and the codes that are complete by now."""
        return self._take(self._listener.push(block))

    def flush(self) -> tuple[Audio, list[Group]]:
        """Return the last of both."""
        rest, groups = self._take(self._listener.flush())
        if len(self._held):  # shorter than what a voice is taken from
            groups = self._with_voice()
        return rest, [*groups, *self._grouped(self._stream.flush())]

    def _take(self, sound: Audio) -> tuple[Audio, list[Group]]:
        if self._wanted and self.voice is None:
            self._held.push(sound)
            return sound, self._with_voice() if len(self._held) >= self._wanted else []
        return sound, self._grouped(self._stream.push(sound))

    def _with_voice(self) -> list[Group]:
        beginning = self._held.cut(len(self._held))
        self.voice = self._codec.voice_of(beginning[: self._wanted])
        return self._grouped(self._stream.push(beginning))

    def _grouped(self, codes: dict[str, npt.NDArray[np.int64]]) -> list[Group]:
        strides = {s.name: s.stride for s in self._codec.format.streams}
        frames = min(v.shape[1] * strides[n] for n, v in codes.items())
        if not frames:
            return []
        first, self._frames = self._frames, self._frames + frames
        return [Group(first, frames, codes)]
