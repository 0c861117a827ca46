"""The network as it is deployed: raw pixels in, class numbers of every pixel out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prunus.models.segmentation.class_map import CandidateArgMax, worthwhile
from prunus.models.segmentation.edaformer import LOGIT_STRIDE, EDAFormer, resize_logits
from prunus.models.segmentation.static import Rewrites, StaticEDAFormer
from prunus.runtime.tasks.segmentation.card import ScenePreprocess

BYTE_CLASSES = 256  # this many class numbers fit into uint8


class DeployedSegmentation(nn.Module):
    """Normalisation + network + enlarging + arg-max, all of it inside one graph.

    Args:
        network: EDAFormer in evaluation mode.
        preprocess: Input size, mean and standard deviation of the pixels.
        classes: Return class numbers; False returns the logits alone.
        logits: Return the logits beside the class numbers.
        rewrites: Exact rewrites of the network.
        candidates: Compare only candidates for the best class where there are many classes, see
            `CandidateArgMax`; False compares all classes at every pixel.
        probability: Return how likely the second of two classes is, instead of class numbers.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: EDAFormer,
        preprocess: ScenePreprocess,
        *,
        classes: bool = True,
        logits: bool = False,
        rewrites: Rewrites | None = None,
        candidates: bool = False,
        probability: bool = False,
    ) -> None:
        super().__init__()
        self.probability = probability
        self.network = StaticEDAFormer(network, rewrites)
        self.classes, self.logits = classes, logits or not classes
        self.size = (preprocess.height, preprocess.width)
        count, (rows, columns) = network.config.classes, self.size
        # Sizes between the multiples of the stride are enlarged by other factors.
        whole = rows % LOGIT_STRIDE == 0 and columns % LOGIT_STRIDE == 0
        self.best: CandidateArgMax | None = None
        if candidates and whole and worthwhile(count):
            self.best = CandidateArgMax(count, rows // LOGIT_STRIDE, columns // LOGIT_STRIDE)
        # float32, and a division: what the published code computes, bit for bit.
        self.register_buffer(
            "mean", torch.tensor(preprocess.mean).view(1, 3, 1, 1), persistent=False
        )
        self.register_buffer("std", torch.tensor(preprocess.std).view(1, 3, 1, 1), persistent=False)

    @property
    def class_dtype(self) -> torch.dtype:
        """uint8 where the class numbers fit, else int32."""
        return torch.uint8 if self.network.config.classes <= BYTE_CLASSES else torch.int32

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Map images to classes.

        Args:
            image: (B, H, W, 3) uint8 RGB in 0..255.

        Returns:
            (B, H, W) uint8 or int32 class numbers; with `logits` also, or without `classes` only,
            (B, classes, H / 8, W / 8) float32 logits; with `probability` (B, 1, H, W) float32.
        """
        pixels = image.permute(0, 3, 1, 2).to(torch.float32)
        logits: Tensor = self.network((pixels - self.mean) / self.std).float()
        if not self.classes:
            return logits
        if self.probability:
            full = resize_logits(logits, *self.size)
            return torch.sigmoid(full[:, 1:] - full[:, :1])  # the softmax of two
        # The arg-max of enlarged logits: borders lie between the cells, not on them.
        if self.best is not None:
            numbers = self.best(logits).to(self.class_dtype)
        else:
            numbers = resize_logits(logits, *self.size).argmax(dim=1).to(self.class_dtype)
        return (numbers, logits) if self.logits else numbers
