"""DP-LipCoder: lip video to features on two paths, one of them discrete (arXiv 2509.23610).

The *reconstruction* path keeps what the lips look like; the *semantic* path is forced through one
code of a small codebook per frame, which was trained to resemble speech units. Their sum is the
video feature. Decoder, teacher and losses exist in training only and are not here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunus.models.separation.config import LipConfig
from prunus.models.separation.lips.layers import (
    ChannelFeedForward,
    ClipNorm,
    HalveSpace,
    LinearAttention,
    MemoryAttention,
    Residual,
    SqueezeExcite,
    TimeConv,
    bias_of,
    convolve_frames,
)


class LipEncoder(nn.Module):
    """One path: grey clips to features per frame."""

    def __init__(self, config: LipConfig) -> None:
        super().__init__()
        first, second, third, last = config.widths
        stride = config.first_stride
        self.conv_in = TimeConv(1, first, 7, stride=(1, stride, stride), padding=3)
        linear = LinearAttention(third, config.linear_heads, config.linear_head_dim)
        softmax = MemoryAttention(last, config.heads, config.head_dim, config.memories)
        self.encoder_layers = nn.ModuleList(
            [
                residual_unit(first),
                HalveSpace(first, second),
                nn.Sequential(residual_unit(second), residual_unit(second)),
                HalveSpace(second, third),
                nn.Sequential(residual_unit(third), residual_unit(third)),
                nn.Sequential(Residual(linear), Residual(ChannelFeedForward(third))),
                HalveSpace(third, last),
                nn.Sequential(residual_unit(last), residual_unit(last)),
                nn.Sequential(Residual(softmax), Residual(ChannelFeedForward(last))),
                nn.Sequential(nn.Identity(), ClipNorm(last)),
            ]
        )

    def forward(self, mouth: Tensor) -> Tensor:
        """Map (B, 1, F, 88, 88) to (B, F, features), flattened by channel, row and column."""
        return self.behind(self.conv_in(mouth)).transpose(1, 2).flatten(2)

    def behind(self, x: Tensor) -> Tensor:
        """Apply what follows the first convolution, to a clip or its frames."""
        for layer in self.encoder_layers:
            x = layer(x)
        return x


def residual_unit(channels: int) -> Residual:
    """Return x + SE(ELU(conv1(ELU(conv3(x)))))."""
    return Residual(
        nn.Sequential(
            TimeConv(channels, channels, 3, padding=1),
            nn.ELU(),
            TimeConv(channels, channels, 1),
            nn.ELU(),
            SqueezeExcite(channels),
        )
    )


class _Codebook(nn.Module):
    """The codes and what their training kept beside them, under the checkpoint's names."""

    initted: Tensor
    cluster_size: Tensor
    embed_avg: Tensor
    embed: Tensor

    def __init__(self, codes: int, dim: int) -> None:
        super().__init__()
        embed = torch.randn(1, codes, dim)
        self.register_buffer("initted", torch.ones(1))
        self.register_buffer("cluster_size", torch.ones(1, codes))
        self.register_buffer("embed_avg", embed.clone())
        self.register_buffer("embed", embed)


class _Layer(nn.Module):
    def __init__(self, codes: int, dim: int) -> None:
        super().__init__()
        self._codebook = _Codebook(codes, dim)


class LipQuantizer(nn.Module):
    """Project, take the nearest code, project back.

    Always computed in float32: two codes can be less than a thousandth apart.
    """

    def __init__(self, features: int, codes: int, dim: int) -> None:
        super().__init__()
        self.project_in = nn.Linear(features, dim)
        self.layers = nn.ModuleList([_Layer(codes, dim)])
        self.project_out = nn.Linear(dim, features)

    @property
    def codes(self) -> Tensor:
        """The codebook, (codes, dim)."""
        layer = self.layers[0]
        if not isinstance(layer, _Layer):
            raise TypeError("the quantiser has lost its codebook")
        return layer._codebook.embed[0]

    def nearest(self, projected: Tensor) -> Tensor:
        """Return (B, F) int64: the code with the least Euclidean distance to each row.

        |x|^2 and the square root do not change the order, so |c|^2 - 2 x.c is compared.
        """
        codes = self.codes
        distance = (codes * codes).sum(dim=1) - 2 * (projected @ codes.transpose(0, 1))
        return distance.argmin(dim=-1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return quantised features (B, F, features) and their codes (B, F) int64."""
        index = self.nearest(self.project_in(features))
        batch, frames = index.shape
        taken = self.codes.index_select(0, index.flatten()).reshape(batch, frames, -1)
        return self.project_out(taken), index


class _SemanticPath(LipEncoder):
    def __init__(self, config: LipConfig) -> None:
        super().__init__(config)
        self.quantizer = LipQuantizer(config.features, config.codes, config.code_dim)


class LipCoder(nn.Module):
    """Both paths and their sum.

    Attributes:
        by_frames: Compute each clip as a batch of frames, see `lip_layers`, and the first
            convolution of both paths as one.
    """

    def __init__(self, config: LipConfig) -> None:
        super().__init__()
        self.by_frames = False
        self.semantic_model = _SemanticPath(config)
        self.recon_model = LipEncoder(config)

    def forward(self, mouth: Tensor) -> tuple[Tensor, Tensor]:
        """Encode clips.

        Args:
            mouth: (B, 1, F, 88, 88) normalised grey crops.

        Returns:
            Features (B, F, features) and the code of each frame (B, F) int64.
        """
        if self.by_frames:
            clips = [self._by_frames(clip.transpose(0, 1)) for clip in mouth]
            semantic, recon = (torch.stack(parts) for parts in zip(*clips, strict=True))
        else:
            semantic, recon = self.semantic_model(mouth), self.recon_model(mouth)
        meaning, codes = self.semantic_model.quantizer(semantic)
        return meaning + recon, codes

    def _by_frames(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Return what both paths see in the frames (F, 1, 88, 88) of a clip, (F, features)."""
        paths = (self.semantic_model, self.recon_model)
        weight = torch.cat([path.conv_in.weight for path in paths])
        bias = torch.cat([bias_of(path.conv_in) for path in paths])
        both = convolve_frames(frames, weight, bias, paths[0].conv_in)
        halves = zip(paths, both.chunk(2, dim=1), strict=True)
        first, second = (path.behind(half).flatten(1) for path, half in halves)
        return first, second
