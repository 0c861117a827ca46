"""What EDAFormer is timed against: PyTorch on its rewritten form, and SegFormer-B0.

SegFormer-B0 is built by `transformers` from its published configuration with random weights
(latency does not depend on them) and put into the same frame as EDAFormer: raw pixels in, the class
of every pixel out. The functions are targets of `prunus.runtime.measure.runner`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from prunus.export.common.pipeline import ExportOptions, export_artifact, exporter_name
from prunus.export.segmentation.samples import load_scenes
from prunus.export.segmentation.weights import weights_of
from prunus.models.macs import count_macs
from prunus.models.segmentation.class_map import CandidateArgMax
from prunus.models.segmentation.classes import class_names, palette
from prunus.models.segmentation.deployed import DeployedSegmentation
from prunus.models.segmentation.isr import parse_isr
from prunus.runtime.card.artifact import read_card
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import MissingDependencyError
from prunus.runtime.tasks.segmentation.card import MaskPostprocess, ScenePreprocess

CLASSES = 150
SIDE = 512
STRIDE = 4  # its logits are at 1/4 of the input


class DeployedSegFormer(nn.Module):
    """Normalisation, SegFormer-B0, enlarging and arg-max.

    Args:
        candidates: Compare candidates for the best class, as EDAFormer's graphs do; False
            compares all classes at every pixel.
        logits: Return the logits beside the class numbers, for the comparison with PyTorch.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, candidates: bool = False, logits: bool = False) -> None:
        super().__init__()
        try:
            from transformers import SegformerConfig, SegformerForSemanticSegmentation
        except ImportError:
            raise MissingDependencyError("transformers", "peer", "SegFormer-B0") from None
        self.logits = logits
        torch.manual_seed(0)
        # The defaults of the configuration are B0's; logits need to differ for a class map.
        self.network = SegformerForSemanticSegmentation(SegformerConfig(num_labels=CLASSES)).eval()
        with torch.no_grad():
            self.network.decode_head.classifier.weight.normal_(std=1.0)
        spec = ScenePreprocess(SIDE, SIDE)
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)
        cells = SIDE // STRIDE
        self.best = CandidateArgMax(CLASSES, cells, cells, STRIDE) if candidates else None

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Map (1, 512, 512, 3) uint8 RGB to (1, 512, 512) uint8 class numbers, and logits."""
        pixels = image.permute(0, 3, 1, 2).to(torch.float32)
        logits: Tensor = self.network(pixel_values=(pixels - self.mean) / self.std).logits
        if self.best is not None:
            numbers = self.best(logits)
        else:
            size = (SIDE, SIDE)
            full = functional.interpolate(logits, size=size, mode="bilinear", align_corners=False)
            numbers = full.argmax(dim=1)
        found = numbers.to(torch.uint8)
        return (found, logits) if self.logits else found


def network_macs() -> int:
    """Return the multiply-accumulates of the network alone at 512x512."""
    return count_macs(DeployedSegFormer().network, torch.zeros(1, 3, SIDE, SIDE))


def export_segformer(path: Path) -> Path:
    """Write the network as an artifact, compared with PyTorch as every export is."""
    spec = ScenePreprocess(SIDE, SIDE)
    image = TensorSpec("image", "uint8", (1, SIDE, SIDE, 3), ("batch", "height", "width", "rgb"))
    result = TensorSpec("classes", "uint8", (1, SIDE, SIDE), ("batch", "row", "column"))
    card = ModelCard(
        task="segmentation",
        model="segformer",
        variant="b0",
        paper="arXiv 2105.15203",
        licence="Apache-2.0",
        exporter=exporter_name(),
        weights=Weights("random, for benchmarks only", "random:0", "Apache-2.0", False),
        inputs=(image,),
        outputs=(result,),
        preprocess=spec,
        postprocess=MaskPostprocess("class_ids", class_names(CLASSES), palette(CLASSES)),
    )
    network = DeployedSegFormer(candidates=True, logits=True).eval()
    options = ExportOptions(extra_outputs=("logits",))
    return export_artifact(network, card, load_scenes(None, spec, 2), path, options=options)


def segformer(
    inputs: Mapping[str, npt.NDArray[Any]], threads: int | None, mode: str
) -> Callable[[], object]:
    """Run SegFormer-B0 in PyTorch with the full arg-max, as published.

    Args:
        inputs: ``image``: (copies, 1, 512, 512, 3) uint8.
        threads: CPU threads.
        mode: ``eager`` or ``compile``.
    """
    return _calls(DeployedSegFormer(), inputs, threads, mode)


def rewritten(
    inputs: Mapping[str, npt.NDArray[Any]], threads: int | None, path: str
) -> Callable[[], object]:
    """Run EDAFormer in PyTorch in the form that is exported, candidates for the classes included.

    Args:
        inputs: ``image``: (copies, batch, height, width, 3) uint8.
        threads: CPU threads.
        path: The artifact, with random weights.
    """
    card = read_card(path)
    post, before = card.postprocess, card.preprocess
    assert isinstance(post, MaskPostprocess) and isinstance(before, ScenePreprocess)
    assert card.tokens is not None  # the benchmark exported it
    weights = weights_of(card.weights, card.variant, len(post.classes))
    network = weights.build(parse_isr(card.tokens.level))
    return _calls(DeployedSegmentation(network, before, candidates=True), inputs, threads, "eager")


def _calls(
    network: nn.Module, inputs: Mapping[str, npt.NDArray[Any]], threads: int | None, mode: str
) -> Callable[[], object]:
    if threads is not None:
        torch.set_num_threads(threads)
    module: Any = network.eval()
    if mode == "compile":
        module = torch.compile(module)
    images = [torch.from_numpy(np.ascontiguousarray(image)) for image in inputs["image"]]
    turns = itertools.cycle(images)

    def call() -> object:
        with torch.inference_mode():
            return module(next(turns))

    return call
