"""What fixes the shapes of a Dolphin network, and the two sizes that have a name.

``dolphin`` is the released configuration of "Efficient Audio-Visual Speech Separation with Discrete
Lip Semantics and Multi-Scale Global-Local Attention" (arXiv 2509.23610). ``nano`` is ours: the same
parts at half the audio frame rate, half the channels and a quarter of the pixels, for CPUs at the
edge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from prunus.runtime.errors import UsageError, nearest

Heat = Literal["filter", "dense"]
Positions = Literal["table", "skew"]


@dataclass(frozen=True, slots=True)
class LipConfig:
    """The lip coder: two encoders of the same layout, one of them quantised.

    Attributes:
        image: Rows and columns of the grey mouth crop.
        first_stride: Spatial stride of the 7x7x7 convolution.
        widths: Channels before, between and after the three spatial halvings.
        linear_heads: Heads of the linear attention before the last halving.
        linear_head_dim: Channels of each.
        heads: Heads of the softmax attention after it.
        head_dim: Channels of each.
        memories: Learned keys and values in front of a frame's own.
        codes: Codebook entries.
        code_dim: Channels of a code.
    """

    image: int = 88
    first_stride: int = 1
    widths: tuple[int, int, int, int] = (4, 8, 16, 32)
    linear_heads: int = 16
    linear_head_dim: int = 8
    heads: int = 8
    head_dim: int = 32
    memories: int = 4
    codes: int = 256
    code_dim: int = 64

    @property
    def cells(self) -> int:
        """Rows (and columns) of the last feature map."""
        return -(-self.image // (8 * self.first_stride))  # odd sizes round up

    @property
    def features(self) -> int:
        """Values that describe one frame."""
        return self.widths[-1] * self.cells**2


@dataclass(frozen=True, slots=True)
class DolphinConfig:
    """The network.

    Attributes:
        variant: Name of the size.
        lips: The lip coder.
        sample_rate: Samples of the microphone per second.
        frame_rate: Mouth crops per second.
        kernel: Taps of the learned audio filters.
        stride: Samples between audio frames.
        audio_channels: Learned audio filters.
        channels: Channels of the separator; two attention heads' worth at least.
        video_channels: Channels of the video features that meet the audio.
        levels: Encoder levels, each half as long as the one before.
        heads: Heads of the global attention.
        max_positions: Distance in tokens beyond which relative positions are alike.
        expansion: Widening of the feed-forward parts.
        local_kernel: Taps of the local block's long depthwise filter.
        encoder_blocks: Pairs of a global and a local block per encoder level.
        decoder_blocks: The same per decoder step.
        heat: How heat diffusion is computed: ``filter`` (short symmetric filter) or ``dense`` (the
            cosine transform as two matrix products, quadratic in time and memory).
        heat_radius: Taps on each side of the filter.
        token_step: Tokens of the global attention are this many times coarser than trained; their
            relative positions are read in steps of it.
        positions: ``table`` (one vector per pair of tokens) or ``skew`` (one per distance).
    """

    variant: str = "base"
    lips: LipConfig = field(default_factory=LipConfig)
    sample_rate: int = 16000
    frame_rate: int = 25
    kernel: int = 16
    stride: int = 4
    audio_channels: int = 256
    channels: int = 128
    video_channels: int = 64
    levels: int = 4
    heads: int = 8
    max_positions: int = 2000
    expansion: int = 3
    local_kernel: int = 65
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    heat: Heat = "filter"
    heat_radius: int = 32
    token_step: int = 1
    positions: Positions = "table"

    def __post_init__(self) -> None:
        if self.channels % self.heads or self.channels % self.video_channels:
            raise UsageError(
                f"{self.channels} channels do not split into {self.heads} heads and "
                f"{self.video_channels} groups of video channels."
            )
        if self.kernel % self.stride:
            raise UsageError(
                f"{self.kernel} taps are no multiple of the stride {self.stride}: "
                "the decoder would leave gaps."
            )
        if self.token_step not in (1, 2):
            raise UsageError(
                f"Got a token step of {self.token_step}; expected 1 or 2.",
                "The coarsest level has two frames per token: it cannot be pooled further.",
            )
        if not 1 <= self.heat_radius <= MAX_RADIUS:
            raise UsageError(
                f"Got a heat radius of {self.heat_radius}; expected 1 to {MAX_RADIUS}."
            )

    @property
    def pool(self) -> int:
        """Audio frames behind one token of the global attention, as trained."""
        return 1 << self.levels

    @property
    def block(self) -> int:
        """The network pads its audio frames to a multiple of this."""
        return self.pool * self.token_step

    def audio_frames(self, samples: int) -> int:
        """Return the audio frames of a mixture.

        Raises:
            UsageError: it is shorter than one filter.
        """
        if samples < self.kernel:
            raise UsageError(f"Got {samples} samples; expected at least {self.kernel}.")
        return (samples - self.kernel) // self.stride + 1

    def padded_frames(self, samples: int) -> int:
        """Return the audio frames after padding to whole tokens."""
        return -(-self.audio_frames(samples) // self.block) * self.block


MAX_RADIUS = 256  # one second of the coarsest level; more would be the dense form by another name

_NANO = DolphinConfig(
    variant="nano",
    lips=LipConfig(
        first_stride=2,
        widths=(4, 8, 16, 16),
        linear_heads=4,
        heads=4,
        head_dim=16,
        code_dim=32,
    ),
    stride=8,
    audio_channels=128,
    channels=64,
    video_channels=32,
    heads=4,
    max_positions=1000,
    expansion=2,
    local_kernel=33,
    encoder_blocks=1,
    decoder_blocks=1,
    heat_radius=16,
)
VARIANTS = {"base": DolphinConfig(), "nano": _NANO}


def dolphin_config(variant: str) -> DolphinConfig:
    """Return the configuration of ``base`` (the released one) or ``nano``.

    Raises:
        UsageError: unknown variant.
    """
    if variant not in VARIANTS:
        known = list(VARIANTS)
        raise UsageError(
            f"Unknown Dolphin variant '{variant}'{nearest(variant, known)}.",
            f"Choose one of {', '.join(known)}.",
        )
    return VARIANTS[variant]
