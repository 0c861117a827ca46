"""The two halves of a Dolphin as they are exported: the lips at 25 frames a second, the voice.

Lip features are computed once per frame and serve every window that the frame falls into; two
speakers share a microphone and differ in their lips only. All constants that the network derives
from its weights (heat filters, relative positions) are fixed here.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.models.separation.channels_first import Depthwise
from prunus.models.separation.dolphin import Dolphin
from prunus.models.separation.voice.heat_layer import HeatLayer, freeze_heat

# Of the mouth crop, on the scale 0..1 (LRW convention, arXiv 2001.08702).
MOUTH_MEAN, MOUTH_STD = 0.421, 0.165
_LONG = 16  # taps from which a filter is faster in the plane


class DeployedLips(nn.Module):
    """Grey mouth crops to lip features.

    Args:
        network: Whose lip coder it is; its form is set.
        by_frames: Compute clips as batches of frames: the same numbers, with 2-D convolutions and
            a fraction of the memory.
    """

    def __init__(self, network: Dolphin, *, by_frames: bool = True) -> None:
        super().__init__()
        self.video_encoder = network.video_encoder
        self.video_encoder.by_frames = by_frames
        self.pre_v1 = network.pre_v1

    def forward(self, mouth: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a clip.

        Args:
            mouth: (B, F, 88, 88) uint8.

        Returns:
            Lip features (B, V, F) float32 and the code of each frame (B, F) int64.
        """
        scaled = (mouth.float() / 255 - MOUTH_MEAN) / MOUTH_STD
        features, codes = self.video_encoder(scaled.unsqueeze(1))
        return self.pre_v1(features.transpose(1, 2)), codes


class DeployedVoice(nn.Module):
    """A mixture and lip features to the voice of that speaker.

    Args:
        network: Its forms are set.
        plane: Compute long filters as 2-D convolutions of one row, see `filter_channels`.
    """

    def __init__(self, network: Dolphin, *, plane: bool = True) -> None:
        super().__init__()
        network.separator.pos_emb.form = "skew"
        freeze_heat(network)
        for module in network.modules():
            if isinstance(module, Depthwise):
                module.plane = plane and module.kernel_size[0] >= _LONG
            elif isinstance(module, HeatLayer):
                module.plane = plane and 2 * module.radius + 1 >= _LONG
        self.network = network
        self.stride, self.kernel = network.config.stride, network.config.kernel

    def forward(self, mixture: Tensor, lips: Tensor) -> Tensor:
        """Separate one window.

        Args:
            mixture: (B, L) float32.
            lips: (B, V, F) float32 over the same time.

        Returns:
            (B, L) float32; where the filters do not reach the end, the last samples are zero.
        """
        voice = self.network.listen(mixture, lips).squeeze(1)
        missing = mixture.shape[-1] - voice.shape[-1]
        return functional.pad(voice, (0, missing)) if missing else voice


class ExactVoice(nn.Module):
    """`DeployedVoice` in float64 on the float32 weights: what its graphs are held to.

    A hundred layers turn the last digit of float32 into the fifth; two float32 computations differ
    by the errors of both.

    Attributes:
        single: The float32 module, which is what can be traced.
    """

    def __init__(self, voice: DeployedVoice) -> None:
        super().__init__()
        self.single = voice
        self.voice = copy.deepcopy(voice).double()

    def forward(self, mixture: Tensor, lips: Tensor) -> Tensor:
        """See `DeployedVoice`; float32 in and out."""
        out: Tensor = self.voice(mixture.double(), lips.double()).float()
        return out


def enliven(network: Dolphin, seed: int = 0) -> None:
    """Give an untrained network weights with which every part takes part in the answer.

    As initialised, layer scales of 1e-5 and closed gates make nearly all blocks the identity:
    whatever an export did to them would go unnoticed, and no number format would cost anything.
    These weights keep the variance from layer to layer.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        last = name.rsplit(".", 1)[-1]
        if not value.is_floating_point() or last in ("initted", "cluster_size"):
            continue
        noise = torch.randn(value.shape, generator=generator)
        if last == "layer_scale":
            new = 0.3 + 0.1 * noise
        elif last in ("embed", "embed_avg", "mem_kv"):
            new = noise
        elif value.dim() > 1 and last != "gamma":
            new = noise / value[0].numel() ** 0.5
        elif last in ("bias", "running_mean"):
            new = 0.02 * noise
        else:  # norms, exponents, slopes
            new = (0.25 if name.endswith("act.weight") else 1.0) + 0.1 * noise.abs()
        value.copy_(new)
