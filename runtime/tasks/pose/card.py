"""What a card says about people: how a crop is made, how joints and people are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from prunus.runtime.card.reading import Byte, Deviation, Factor, Level, Size
from prunus.runtime.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class ImagePreprocess:
    """How a person or a frame becomes the input image.

    Attributes:
        kind: Discriminator in JSON.
        height: Input height in pixels.
        width: Input width in pixels.
        fit: ``udp_affine`` (box -> crop, unbiased data processing, arXiv 1911.07524),
            ``letterbox`` (keep aspect, pad bottom/right) or ``stretch``.
        colour: Channel order that the graph expects.
        box_padding: Factor by which a person box grows before it is cropped.
        mean: Per channel mean on the 0..255 scale.
        std: Per channel standard deviation on the 0..255 scale.
        normalised_in_graph: True when the graph takes raw 0..255 pixels and normalises itself.
        pad_value: Value outside the picture, 0..255.
    """

    height: Size
    width: Size
    fit: Literal["udp_affine", "letterbox", "stretch"]
    colour: Literal["rgb", "bgr"] = "rgb"
    box_padding: Factor = 1.25
    mean: tuple[Level, Level, Level] = (123.675, 116.28, 103.53)
    std: tuple[Deviation, Deviation, Deviation] = (58.395, 57.12, 57.375)
    normalised_in_graph: bool = True
    pad_value: Byte = 0
    kind: Literal["image"] = "image"


@dataclass(frozen=True, slots=True)
class KeypointPostprocess:
    """How the outputs become joints of one person.

    Attributes:
        kind: Discriminator in JSON.
        decoder: ``udp_dark`` (sub-pixel heatmap decoding inside the graph), ``regression``
            (rows of x, y in pixels of the input, and a score), ``movenet`` (rows of y, x, score in
            0..1) or ``heatmaps`` (one map per joint comes out, and is decoded outside the graph).
        skeleton: Name of the joint set.
        joints: Joint names in output order.
        limbs: Index pairs to draw.
        flip_pairs: Index pairs that swap when the picture is mirrored.
        sigmas: COCO OKS constants per joint (doubled standard deviation convention of pycocotools).
    """

    decoder: Literal["udp_dark", "regression", "movenet", "heatmaps"]
    skeleton: str
    joints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    flip_pairs: tuple[tuple[int, int], ...]
    sigmas: tuple[Deviation, ...]
    kind: Literal["keypoints"] = "keypoints"

    def __post_init__(self) -> None:
        count = len(self.joints)
        if not count or len(self.sigmas) not in (0, count):
            raise ArtifactError(
                f"The card has {count} joints and {len(self.sigmas)} sigmas; expected as many, and "
                "at least one."
            )
        for name, pairs in (("limbs", self.limbs), ("flip_pairs", self.flip_pairs)):
            outside = [pair for pair in pairs if not all(0 <= joint < count for joint in pair)]
            if outside:
                raise ArtifactError(
                    f"The card's {name} hold {list(outside[0])}; expected joints 0 to {count - 1}."
                )


@dataclass(frozen=True, slots=True)
class PeoplePostprocess:
    """How the dense heads of a multi-person detector become people.

    Attributes:
        kind: Discriminator in JSON.
        decoder: ``movenet_multipose`` (centre, regression, heatmap and offset heads).
        stride: Pixels of the input per cell of the heads.
        maximum_people: At most this many people come out of one frame.
        skeleton: Name of the joint set.
        joints: Joint names in output order.
    """

    decoder: Literal["movenet_multipose"]
    stride: Size
    maximum_people: Size
    skeleton: str
    joints: tuple[str, ...]
    kind: Literal["people"] = "people"
