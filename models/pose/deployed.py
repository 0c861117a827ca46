"""The network as it is deployed: raw pixels in, joints in pixels of the crop or heatmaps out."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from prunus.models.pose.decode import udp_dark_decode
from prunus.models.tokens.blocks.stack import find_pruned
from prunus.models.tokens.reducer import Reduced
from prunus.models.tokens.report import token_maps, watched
from prunus.runtime.errors import UsageError
from prunus.runtime.tasks.pose.card import ImagePreprocess


class PoseShape(Protocol):
    """What the wrapper reads off a network's configuration."""

    @property
    def head(self) -> str:
        """``regression`` for coordinates; heatmaps otherwise."""

    @property
    def height(self) -> int:
        """Input height in pixels."""

    @property
    def width(self) -> int:
        """Input width in pixels."""


class PoseNetwork(Protocol):
    """A network from normalised crops (B, 3, H, W) to heatmaps or coordinates."""

    @property
    def config(self) -> PoseShape:
        """Head and input size."""

    def __call__(self, images: Tensor, /) -> Tensor:
        """Return (B, J, H / 4, W / 4) heatmaps, or (B, J, 4) x, y and spreads in 0..1."""


IMAGENET = ImagePreprocess(height=256, width=192, fit="udp_affine")


class DeployedPose(nn.Module):
    """Normalisation + network + decoding, all of it inside one graph.

    Args:
        network: A pose network that takes normalised crops.
        heatmaps: Return the heatmaps beside the joints.
        show_tokens: Return what each cut did to the patches, between joints and heatmaps.
        preprocess: Mean and standard deviation of the pixels.
        decode: Give the joints; False: the heatmaps alone, which are decoded outside the graph.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        network: PoseNetwork,
        *,
        heatmaps: bool = False,
        show_tokens: bool = False,
        preprocess: ImagePreprocess = IMAGENET,
        decode: bool = True,
    ) -> None:
        super().__init__()
        if (heatmaps or not decode) and network.config.head == "regression":
            raise UsageError(
                "The regression head has no heatmaps.",
                "Leave --heatmaps out, or choose another head.",
            )
        self.network = network
        self.heatmaps = heatmaps
        self.decode = decode
        pruned = find_pruned(network) if isinstance(network, nn.Module) else None
        own = getattr(network, "cuts", {}) if pruned is None else dict(pruned.reducers())
        cuts = own if show_tokens else {}
        if show_tokens and not cuts:
            raise UsageError(
                "Got --show-tokens for a network without a cut.", "Choose one, as with --level L2."
            )
        self._told = [(int(block), cut) for block, cut in cuts.items()]
        self.register_buffer(
            "mean", torch.tensor(preprocess.mean).view(1, 3, 1, 1), persistent=False
        )
        self.register_buffer(
            "scale", 1.0 / torch.tensor(preprocess.std).view(1, 3, 1, 1), persistent=False
        )

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Map crops to joints.

        Args:
            image: (B, H, W, 3) uint8 RGB in 0..255.

        Returns:
            (B, J, 3) float32: x in 0..W-1 and y in 0..H-1 pixels of the crop, and a score: the
            heatmap's maximum, or 1 / (1 + 100 s) for the regression head, with s the mean of the
            predicted standard deviations as a share of the crop. With `show_tokens` also a
            (B, N) int32 map per cut, see `token_maps`; with `heatmaps` (B, J, H/4, W/4) float32.
            Without `decode` the heatmaps and nothing else.
        """
        config = self.network.config
        pixels = image.permute(0, 3, 1, 2).to(torch.float32)
        with watched(self._told) as seen:
            raw = self.network((pixels - self.mean) * self.scale)
        if not self.decode:
            return raw.float()
        maps = self._maps(seen)
        if config.head == "regression":
            joints = self._from_coordinates(raw.float())
            return (joints, *maps) if maps else joints
        decoded = udp_dark_decode(raw)
        rows, columns = raw.shape[2], raw.shape[3]
        # UDP: the outer pixel centres of heatmap and crop coincide.
        factors = torch.tensor(
            [(config.width - 1) / (columns - 1), (config.height - 1) / (rows - 1), 1.0],
            device=raw.device,
        )
        keypoints = decoded * factors
        heatmaps = (raw.float(),) if self.heatmaps else ()
        return (keypoints, *maps, *heatmaps) if maps or heatmaps else keypoints

    def _maps(self, seen: dict[int, Reduced]) -> tuple[Tensor, ...]:
        if not seen:
            return ()
        rows, columns = self.network.config.grid  # type: ignore[attr-defined]
        return tuple(token_maps(seen, rows * columns).values())

    def _from_coordinates(self, raw: Tensor) -> Tensor:
        config = self.network.config
        size = torch.tensor([config.width - 1.0, config.height - 1.0], device=raw.device)
        score = 1.0 / (1.0 + 100.0 * raw[..., 2:].mean(dim=-1, keepdim=True))
        return torch.cat((raw[..., :2] * size, score), dim=-1)
