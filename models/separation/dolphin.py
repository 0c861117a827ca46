"""Dolphin: one microphone and the lips of one speaker in, that speaker's voice out.

Follows "Efficient Audio-Visual Speech Separation with Discrete Lip Semantics and Multi-Scale
Global-Local Attention" (arXiv 2509.23610); names of parameters are those of its released weights.

What differs:
* heat diffusion as a short filter instead of a dense cosine transform (`heat`);
* one layout, (B, C, T), from the microphone to the output;
* the video part and the audio part can be called apart: they run at 25 and at 4000 steps a second,
  and two speakers share one microphone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.separation.channels_first import GlobalNorm, PointwiseLinear
from prunus.models.separation.config import DolphinConfig
from prunus.models.separation.lips.coder import LipCoder
from prunus.models.separation.lips.head import VideoBlock, narrow
from prunus.models.separation.voice.fusion import Fusion
from prunus.models.separation.voice.heat_layer import set_heat
from prunus.models.separation.voice.separator import Separator

# Frames: 3 by the 7x7x7 convolution, 7 by the 3x3x3 ones, 1 by the narrowing layer.
LIP_REACH = 11


class AudioEncoder(nn.Module):
    """A bank of learned filters and GELU."""

    def __init__(self, config: DolphinConfig) -> None:
        super().__init__()
        self.conv1d = nn.Conv1d(
            1, config.audio_channels, config.kernel, stride=config.stride, bias=False
        )

    def forward(self, mixture: Tensor) -> Tensor:
        """Map (B, L) to (B, A, T)."""
        return functional.gelu(self.conv1d(mixture.unsqueeze(1)))


class Projector(nn.Module):
    """Norm and a 1x1 convolution from the filters to the separator's channels."""

    def __init__(self, config: DolphinConfig) -> None:
        super().__init__()
        self.norm = GlobalNorm(config.audio_channels)
        self.conv1d = nn.Conv1d(config.audio_channels, config.channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, A, T) to (B, C, T)."""
        out: Tensor = self.conv1d(self.norm(x))
        return out


class OutputLayer(nn.Module):
    """A gated perceptron per step, back to the filters' channels: mapped, not masked."""

    def __init__(self, config: DolphinConfig) -> None:
        super().__init__()
        wide = config.audio_channels
        self.end_conv1x1 = nn.Sequential(
            PointwiseLinear(config.channels, 2 * wide), nn.GLU(dim=1), PointwiseLinear(wide, wide)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, T) to (B, A, T)."""
        out: Tensor = self.end_conv1x1(x)
        return out


class Dolphin(nn.Module):
    """The network: mixture and mouth in, one voice out.

    Example:
        >>> network = Dolphin(dolphin_config("nano")).eval()
        >>> network(torch.zeros(1, 1600), torch.zeros(1, 1, 4, 88, 88)).shape
        torch.Size([1, 1, 1600])
    """

    def __init__(self, config: DolphinConfig) -> None:
        super().__init__()
        self.config = config
        self.pre_v1 = narrow(config.lips.features, config.video_channels)
        self.audio_encoder = AudioEncoder(config)
        self.feature_projector = Projector(config)
        self.separator = Separator(config)
        self.out_layer = OutputLayer(config)
        self.audio_decoder = nn.ConvTranspose1d(
            config.audio_channels, 1, config.kernel, stride=config.stride, bias=False
        )
        self.video_blocks = VideoBlock(config.video_channels)
        self.modalfuse = Fusion(config.channels, config.video_channels)
        self.video_encoder = LipCoder(config.lips)
        set_heat(self, config.heat, config.heat_radius)

    def forward(self, mixture: Tensor, mouth: Tensor) -> Tensor:
        """Separate one speaker.

        Args:
            mixture: (B, L) float32 at 16 kHz.
            mouth: (B, 1, F, 88, 88) float32, normalised grey crops at 25 frames a second over the
                same time.

        Returns:
            (B, 1, L'), L' = stride * floor((L - kernel) / stride) + kernel.
        """
        lips, _ = self.watch(mouth)
        return self.listen(mixture, lips)

    def watch(self, mouth: Tensor) -> tuple[Tensor, Tensor]:
        """Return lip features (B, V, F) and the code of each frame (B, F) int64.

        A frame's features depend on `LIP_REACH` frames to each side and on nothing else, so a long
        clip can be watched in pieces.
        """
        features, codes = self.video_encoder(mouth)
        return self.pre_v1(features.transpose(1, 2)), codes

    def listen(self, mixture: Tensor, lips: Tensor) -> Tensor:
        """Return the voice (B, 1, L') of the speaker whose lip features (B, V, F) are given."""
        audio = self.feature_projector(self.audio_encoder(mixture))
        length = audio.shape[-1]
        mixed = self.modalfuse(audio, self.video_blocks(lips))
        latent = self.out_layer(self.separator(mixed)[..., :length])
        out: Tensor = self.audio_decoder(latent)
        return out


def build_dolphin(config: DolphinConfig, seed: int = 0) -> Dolphin:
    """Build an untrained network in evaluation mode, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Dolphin(config).eval()
