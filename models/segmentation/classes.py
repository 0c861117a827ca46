"""Class names and colours of the data sets that published checkpoints were trained on.

Names are those of ADE20K's scene parsing benchmark (150 classes, in order of frequency) and of
Cityscapes' 19 evaluated classes. A checkpoint that names its classes itself is believed instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

Colour = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ClassSet:
    """Names and RGB colours of the classes of a data set, by class number."""

    names: tuple[str, ...]
    palette: tuple[Colour, ...]


# What person segmentation tells apart: everything else is drawn black.
PERSON = ClassSet(("background", "person"), ((0, 0, 0), (60, 200, 120)))

CITYSCAPES: tuple[str, ...] = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
    "motorcycle", "bicycle",
)  # fmt: skip
ADE20K: tuple[str, ...] = (
    "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass",
    "cabinet", "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain",
    "chair", "car", "water", "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field",
    "armchair", "seat", "fence", "desk", "rock", "wardrobe", "lamp", "bathtub", "railing",
    "cushion", "base", "box", "column", "signboard", "chest of drawers", "counter", "sand", "sink",
    "skyscraper", "fireplace", "refrigerator", "grandstand", "path", "stairs", "runway", "case",
    "pool table", "pillow", "screen door", "stairway", "river", "bridge", "bookcase", "blind",
    "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove", "palm",
    "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus",
    "towel", "light", "truck", "tower", "chandelier", "awning", "streetlight", "booth",
    "television receiver", "airplane", "dirt track", "apparel", "pole", "land", "bannister",
    "escalator", "ottoman", "bottle", "buffet", "poster", "stage", "van", "ship", "fountain",
    "conveyer belt", "canopy", "washer", "plaything", "swimming pool", "stool", "barrel", "basket",
    "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step", "tank",
    "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen",
    "blanket", "sculpture", "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan",
    "pier", "crt screen", "plate", "monitor", "bulletin board", "shower", "radiator", "glass",
    "clock", "flag",
)  # fmt: skip

# By the number of classes, which is what an unnamed checkpoint shows.
KNOWN = MappingProxyType({len(ADE20K): ADE20K, len(CITYSCAPES): CITYSCAPES})


def class_names(count: int) -> tuple[str, ...]:
    """Return the names of a known set of that size, else ``class 0`` and so on."""
    return KNOWN.get(count) or tuple(f"class {k}" for k in range(count))


def palette(count: int) -> tuple[Colour, ...]:
    """Return `count` RGB colours of which neighbours differ strongly, the same every time.

    The bits of an index are dealt to the high bits of the three channels, as in PASCAL VOC's
    colour map; index 0 is black there, so counting starts at 1.
    """
    return tuple(_colour(k + 1) for k in range(count))


def _colour(index: int) -> Colour:
    red = green = blue = 0
    for bit in range(8):
        red |= (index & 1) << (7 - bit)
        green |= (index >> 1 & 1) << (7 - bit)
        blue |= (index >> 2 & 1) << (7 - bit)
        index >>= 3
    return red, green, blue
