"""What a model card says about the two networks of the face path.

A detector (BlazeFace family, arXiv 1907.05047) answers on grids of anchors; a mesh network (arXiv
1907.06724) reads landmarks in an upright square around one face.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prunus.runtime.card.reading import Factor, Share, Size
from prunus.runtime.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class FacesPostprocess:
    """How the heads of a face detector become faces.

    Per grid there is one output of logits and one of rows (centre x, centre y, width, height, then
    x, y of each keypoint), in pixels of the input as seen from the middle of the anchor's cell.

    Attributes:
        kind: Discriminator in JSON.
        strides: Input pixels per cell, one per grid.
        anchors_per_cell: Anchors in each cell, one number per grid.
        keypoints: Names of the coarse keypoints in output order.
        minimum_score: Faces below are dropped.
        same_face: Boxes that overlap more (IoU) are one face.
    """

    strides: tuple[Size, ...]
    anchors_per_cell: tuple[Size, ...]
    keypoints: tuple[str, ...]
    minimum_score: Share = 0.5
    same_face: Share = 0.3
    kind: Literal["faces"] = "faces"

    def __post_init__(self) -> None:
        if len(self.strides) != len(self.anchors_per_cell) or not self.strides:
            raise ArtifactError(
                f"The card has {len(self.strides)} strides and {len(self.anchors_per_cell)} counts "
                "of anchors; expected one of each per grid."
            )


@dataclass(frozen=True, slots=True)
class FaceMeshPostprocess:
    """How the output becomes the landmarks of one face.

    Attributes:
        kind: Discriminator in JSON.
        points: Landmarks per face, rows of x, y, z in input pixels.
        box_padding: Factor by which the face box grows into the square that is cropped.
        minimum_score: Below, the crop shows no face.
    """

    points: Size = 468
    box_padding: Factor = 1.5
    minimum_score: Share = 0.5
    kind: Literal["face_mesh"] = "face_mesh"
