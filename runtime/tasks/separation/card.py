"""What a model card says about the two graphs of an audio-visual separator.

``lips`` turns grey mouth crops into features, frame by frame; ``voice`` takes a mixture and the
features of one speaker over the same time. Both agree on frames, frame rate and feature width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prunus.runtime.card.reading import (
    Count,
    Deviation,
    FrameRate,
    Level,
    Positive,
    SampleRate,
    Size,
)
from prunus.runtime.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class MouthPreprocess:
    """How a face becomes the input of the ``lips`` graph.

    Attributes:
        kind: Discriminator in JSON.
        frames: Crops per run.
        size: Rows and columns of a crop, grey uint8.
        frame_rate_hz: Crops per second.
        reach: Frames to each side on which the features of a frame depend.
        aligned: Side of the square, upright face picture from which mouths are cut.
        mean: Mean on the scale 0..1.
        std: Standard deviation on the scale 0..1.
        normalised_in_graph: True when the graph takes raw 0..255 pixels and normalises itself.
        drawing: ``picture`` (the grey pixels of the mouth) or ``lips`` (the contours of the lips
            drawn in three greys, for networks that were trained on drawn lips).
    """

    frames: Positive
    size: Size = 88
    frame_rate_hz: FrameRate = 25
    reach: Count = 11
    aligned: Size = 256
    mean: Level = 0.421
    std: Deviation = 0.165
    normalised_in_graph: bool = True
    drawing: Literal["picture", "lips"] = "picture"
    kind: Literal["mouth"] = "mouth"

    def __post_init__(self) -> None:
        if min(self.frames, self.size, self.frame_rate_hz) < 1 or self.reach < 0 or self.std <= 0:
            raise ArtifactError(
                f"The card has {self.frames} crops of {self.size} pixels at {self.frame_rate_hz} "
                f"Hz, a reach of {self.reach} and a deviation of {self.std}; expected positive "
                "numbers."
            )


@dataclass(frozen=True, slots=True)
class MixturePreprocess:
    """How sound and lip features meet the ``voice`` graph.

    Attributes:
        kind: Discriminator in JSON.
        samples: Samples per run, mono float32 in [-1, 1].
        frames: Frames of lip features over the same time.
        sample_rate_hz: Samples per second.
        frame_rate_hz: Frames per second.
    """

    samples: Positive
    frames: Positive
    sample_rate_hz: SampleRate = 16000
    frame_rate_hz: FrameRate = 25
    kind: Literal["mixture"] = "mixture"

    def __post_init__(self) -> None:
        if min(self.samples, self.frames, self.sample_rate_hz, self.frame_rate_hz) < 1 or (
            self.samples * self.frame_rate_hz != self.frames * self.sample_rate_hz
        ):
            raise ArtifactError(
                f"The card has {self.samples} samples at {self.sample_rate_hz} Hz and "
                f"{self.frames} frames at {self.frame_rate_hz} Hz; expected the same time of both."
            )

    @property
    def samples_per_frame(self) -> int:
        """Samples behind one video frame."""
        return self.samples // self.frames


@dataclass(frozen=True, slots=True)
class SeparatorPostprocess:
    """What the graph gives, and where it departs from the published network.

    Attributes:
        kind: Discriminator in JSON.
        part: Which graph this is.
        heat_radius: Taps on each side of the filter that stands for heat diffusion.
        heat_gain_error: Largest gain by which any of these filters differs from the operator.
        heat_snr_db: The voice with these filters against the voice with the operator itself; the
            rounding of float32 bounds it near 100.
        token_step: Coarse tokens of the network per token of the graph; 1 is the network's own.
        token_snr_db: The voice with coarser tokens against the voice with the network's own; 0
            when they are its own. Untrained weights say nothing about what trained ones lose.
        level: The network does not hear how loud its window is. ``free``: the level of its voice
            means nothing (trained with a scale-invariant loss). ``relative``: the voice is given
            relative to the root mean square of the window, by which the runtime multiplies it.
    """

    part: Literal["lips", "voice"]
    heat_radius: Count = 0
    heat_gain_error: float = 0.0
    heat_snr_db: float = 0.0
    token_step: Size = 1
    token_snr_db: float = 0.0
    level: Literal["free", "relative"] = "free"
    kind: Literal["separator"] = "separator"
