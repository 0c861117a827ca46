"""Re-derive the face detector and the face mesh, see `prunus.export.convert.package`.

``blazeface_full.onnx`` gives raw heads, which `runtime.tasks.faces.boxes` decodes, and
``facemesh.onnx`` 468 landmarks. Scaling to the range that each network was trained on is part of
the graph: both take uint8 pixels.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from prunus.export.common.options import takes
from prunus.export.convert.options import FacesOptions
from prunus.export.convert.package import Size, Source, export_sources, public_card
from prunus.runtime.card.card import ModelCard
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.progress import Progress
from prunus.runtime.tasks.faces.card import FaceMeshPostprocess, FacesPostprocess
from prunus.runtime.tasks.pose.card import ImagePreprocess

KEYPOINTS = ("right_eye", "left_eye", "nose", "mouth", "right_ear", "left_ear")
POINTS = 468
_ANCHORS = {16: 512, 32: 384}  # stride -> anchors


def detector_card(source: Source, size: Size) -> ModelCard:
    """Return the card of the face detector."""
    outputs = [
        TensorSpec(f"{name}_{stride}", "float32", (1, count, width), ("batch", "anchor", axis),
                   unit)
        for name, width, axis, unit in (("scores", 1, "score", "logit"),
                                        ("rows", 16, "value", "pixel"))
        for stride, count in _ANCHORS.items()
    ]  # fmt: skip
    return public_card(
        source,
        size,
        origin="blazeface (MediaPipe)",
        exporter="faces",
        task="detection",
        model="blazeface",
        paper="BlazeFace (arXiv 1907.05047), the variant for cameras that look into a room",
        outputs=tuple(outputs),
        preprocess=_preprocess(source, size, "letterbox"),
        postprocess=FacesPostprocess(tuple(_ANCHORS), (2, 6), KEYPOINTS),
    )


def mesh_card(source: Source, size: Size) -> ModelCard:
    """Return the card of the face mesh."""
    return public_card(
        source,
        size,
        origin="facemesh (MediaPipe)",
        exporter="faces",
        task="detection",
        model="facemesh",
        paper="face mesh of Kartynnik et al. (arXiv 1907.06724)",
        outputs=(
            TensorSpec("points", "float32", (1, 3 * POINTS), ("batch", "point_x_y_z"), "pixel"),
            TensorSpec("face", "float32", (1, 1), ("batch", "score"), "1", 0.0, 1.0),
        ),
        preprocess=_preprocess(source, size, "stretch"),
        postprocess=FaceMeshPostprocess(POINTS),
    )


def _preprocess(
    source: Source, size: Size, fit: Literal["letterbox", "stretch"]
) -> ImagePreprocess:
    return ImagePreprocess(*size, fit, mean=(source.mean,) * 3, std=(source.std,) * 3)


SOURCES: Mapping[str, Source] = {
    source.name: source
    for source in (
        Source(
            "blazeface_full",
            "full",
            "blazeface",
            (256, 256),
            {
                "scores_16": "Identity",
                "scores_32": "Identity_1",
                "rows_16": "Identity_2",
                "rows_32": "Identity_3",
            },
            "dc9a97fdc50bc43216554bdd69aa3e7b9361a519ee7bdd996a2f69a98a6f9b72",
            detector_card,
            127.5,
            127.5,
        ),
        Source(
            "facemesh",
            "468",
            "facemesh",
            (192, 192),
            {"points": "Identity_2", "face": "Identity_1"},
            "3826da640b0a3021161605369ee6af293f75d518040355b960ec71a3390c1c0b",
            mesh_card,
            0.0,
            255.0,
        ),
    )
}


@takes(FacesOptions)
def export_faces(options: FacesOptions, progress: Progress) -> list[Path]:
    """Convert one of the face networks, or both, and write them.

    Args:
        options: See `FacesOptions`; its fields may be given by name instead.
        progress: Not used: it takes a second.

    Raises:
        PrunusError: see `export_sources`.
    """
    return export_sources(options.files, SOURCES, options.variant)


if __name__ == "__main__":
    from prunus.export.common.command import script

    sys.exit(script("faces"))
