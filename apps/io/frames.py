"""What travels from a source to a sink, and what both promise: frames, sound and pairs of them.

Every item carries its time in seconds on the clock of its source: the time stamps of a container,
or the capture clock of a device. They are checked once, where they come in (`timeline`); behind
that nothing assumes a rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
Audio = npt.NDArray[np.float32]
Item_co = TypeVar("Item_co", covariant=True)
Item_contra = TypeVar("Item_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """What is known about a source before its first frame is processed.

    Attributes:
        kind: ``picture``, ``folder``, ``video``, ``camera``, ``stream``, ``synthetic`` or ``clip``.
        width: Width of the first frame in pixels; later pictures of a folder may differ.
        height: Height of the first frame in pixels.
        fps: Frames per second as the source tells it, 0 when it has no time of its own (pictures).
        frames: How many frames to expect, 0 when unknown. An estimate: containers may lie.
        live: True when frames arrive in their own time, so that late ones are dropped.
        time_base: Seconds of one tick of the container's clock, None for other sources.
        pixel_aspect: Width of a pixel over its height.
        sound: File whose sound belongs to the frames, empty for none.
    """

    kind: str
    width: int
    height: int
    fps: float
    frames: int
    live: bool
    time_base: Fraction | None = None
    pixel_aspect: Fraction = Fraction(1)
    sound: str = ""

    @property
    def still(self) -> bool:
        """Whether its frames are pictures, which have no time and nothing to do with each other."""
        return self.kind in ("picture", "folder")


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame.

    Attributes:
        index: Counts from 0.
        image: uint8 (height, width, 3) BGR.
        name: File name of a picture, else empty.
        captured_ns: `time.perf_counter_ns` when the frame was complete.
        picture_id: Of a picture in a folder; it holds whatever is skipped before it.
        seconds: Time in the source, strictly growing; None for pictures, which have none.
    """

    index: int
    image: Image
    name: str
    captured_ns: int
    picture_id: int | None = None
    seconds: float | None = field(default=None, kw_only=True)

    @property
    def image_id(self) -> int:
        """The id in COCO results: of the picture, else the frame's index."""
        return self.index if self.picture_id is None else self.picture_id


@dataclass(frozen=True, slots=True)
class AudioBlock:
    """Sound that belongs together.

    Attributes:
        seconds: Time of its first sample in the source.
        samples: float32 (T,) mono or (channels, T), within [-1, 1] unless the source exceeds it.
    """

    seconds: float
    samples: Audio


@dataclass(frozen=True, slots=True)
class AVFrame:
    """A picture and the sound that goes with it: one step of the clock.

    Attributes:
        index: Counts from 0.
        image: uint8 (height, width, 3) BGR, the latest picture.
        fresh: Whether the picture is another than in the step before.
        sound: float32 (samples per step,) mono.
        samples: How many of them are sound; behind the end there are zeros.
        captured_ns: `time.perf_counter_ns` when the step was complete.
        seconds: Time on the clock of the sound.
    """

    index: int
    image: Image
    fresh: bool
    sound: Audio
    samples: int
    captured_ns: int
    seconds: float = field(kw_only=True)


class Source(Protocol[Item_co]):
    """An iterator over items that knows what to expect and can be closed."""

    info: SourceInfo

    @property
    def warnings(self) -> list[str]:
        """Return what went wrong so far without ending the source."""

    def __iter__(self) -> Iterator[Item_co]:
        """Yield items until the source ends."""

    def close(self) -> None:
        """Release the device or file; safe to call twice and from another thread."""


class Sink(Protocol[Item_contra]):
    """Takes drawn items in order; `close` makes what was written complete."""

    name: str

    def write(self, frame: Item_contra, drawn: Image) -> None:
        """Take one item: `drawn` is its picture, uint8 (height, width, 3) BGR."""

    def close(self) -> None:
        """Finish the output; safe to call twice, and after an error."""


@dataclass(frozen=True, slots=True)
class SoundFormat:
    """What an end for sound must know.

    Attributes:
        sample_rate_hz: Of the sound; a source may have another one.
        block_seconds: Length of the blocks that will be asked for, or will come.
        keep: Samples by which files may turn out shorter than what was written.
        live: The sound comes by a clock of its own, which speakers then follow; otherwise a
            speaker makes its writer wait.
    """

    sample_rate_hz: int
    block_seconds: float
    keep: int = 0
    live: bool = False


class SoundSource(Protocol):
    """Gives sound, block by block; what is not said here is as for a microphone without faults.

    Attributes:
        sample_rate_hz: Samples per second.
    """

    sample_rate_hz: int

    @property
    def channels(self) -> int:
        """Channels, of which blocks are the mean."""
        return 1

    @property
    def samples(self) -> int:
        """Length, -1 while nobody knows."""
        return -1

    @property
    def live(self) -> bool:
        """Whether it does not wait for whoever reads."""
        return False

    @property
    def disguised(self) -> str:
        """Name of the true format of a file whose ending is wrong, else empty."""
        return ""

    @property
    def ends_early(self) -> str:
        """What a file that was cut off promises and holds, else empty; true at its end."""
        return ""

    @property
    def unmeasured(self) -> str:
        """Name of the format of a file that does not tell whether it is whole, else empty."""
        return ""

    @property
    def cancels(self) -> bool:
        """Whether the channels read so far are each other's negative."""
        return False

    def blocks(self, size: int) -> Iterator[Audio]:
        """Yield mono float32 blocks of at most `size` samples."""

    def close(self) -> None:
        """Release it; safe to call twice."""


class SoundSink(Protocol):
    """Takes sound in order.

    Attributes:
        name: For messages.
    """

    name: str

    def write(self, sound: Audio) -> None:
        """Take (T,) float32 in [-1, 1]."""

    def finish(self, samples: int | None) -> None:
        """End the sound; `samples` is its true length where it is known, at most what came."""
