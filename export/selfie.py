"""Re-derive the selfie segmentation, see `prunus.export.convert.package`.

``selfie.onnx`` takes the raw pixels of a 256x256 picture and gives the probability of a person for
each of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from prunus.export.common.options import takes
from prunus.export.convert.options import PackageOptions
from prunus.export.convert.package import Size, Source, export_sources, public_card
from prunus.models.segmentation.classes import PERSON
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.segmentation.card import MaskPostprocess, ScenePreprocess

NAME = "selfie"


def selfie_card(source: Source, size: Size) -> ModelCard:
    """Return the card of the converted network."""
    mask = TensorSpec(
        "probability", "float32", (1, 1, *size), ("batch", "class", "row", "column"),
        "probability", 0.0, 1.0,
    )  # fmt: skip
    return public_card(
        source,
        size,
        origin="MediaPipe selfie segmentation",
        exporter=NAME,
        unit="intensity",
        task="segmentation",
        model=NAME,
        paper="MediaPipe Selfie Segmentation (Google, 2021): MobileNetV3-like encoder, small "
        "decoder",
        outputs=(mask,),
        # The network was made for pictures stretched to a square, whatever their aspect.
        preprocess=ScenePreprocess(*size, "stretch", mean=(0.0,) * 3, std=(source.std,) * 3),
        postprocess=MaskPostprocess("probability", PERSON.names, PERSON.palette, 1, foreground=1),
    )


SOURCE = Source(
    NAME,
    "square",
    NAME,
    (256, 256),
    {"probability": "activation_10"},  # the sigmoid at the end of the original graph
    "8f57aaa72dc068a50bd37c232d2e073e107912241e459002e1480876676f382a",
    selfie_card,
    0.0,
    255.0,
    channels_first=True,
)


@takes(PackageOptions)
def export_selfie(options: PackageOptions, progress: Progress) -> list[Path]:
    """Convert the network and write it.

    Args:
        options: See `PackageOptions`; its fields may be given by name instead.
        progress: Not used: it takes a second.

    Raises:
        PrunusError: see `export_sources`.
    """
    return export_sources(options, {NAME: SOURCE}, NAME)


if __name__ == "__main__":
    from prunus.export.common.command import script

    sys.exit(script(NAME))
