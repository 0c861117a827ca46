"""The model card: everything a program must know to run a model, stored inside the model file.

The card is the JSON of a frozen dataclass tree. It travels in `metadata_props["prunus.card"]` of
the ONNX file and in the sidecar of an engine, and it is the *only* source of pre- and
post-processing constants for export, runtime and tests. Unknown keys are refused with the nearest
known one, so that a card from a newer exporter never half-works.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from prunus.runtime.card.reading import RE_EXPORT, build
from prunus.runtime.errors import ArtifactError, nearest
from prunus.runtime.tasks.codec.card import CodecPostprocess, CodecPreprocess
from prunus.runtime.tasks.faces.card import FaceMeshPostprocess, FacesPostprocess
from prunus.runtime.tasks.separation.card import (
    MixturePreprocess,
    MouthPreprocess,
    SeparatorPostprocess,
)

CARD_KEY = "prunus.card"
SCHEMA_VERSION = 1

Task = Literal["pose", "detection", "segmentation", "codec", "separation"]
Precision = Literal["fp32", "fp16", "int8"]
DTYPES = ("float32", "float16", "float64", "uint8", "int8", "int16", "int32", "int64", "bool")


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of the graph; every dimension is a constant.

    Attributes:
        name: Name in the graph.
        dtype: numpy dtype name, e.g. ``float32`` or ``uint8``.
        shape: Static shape.
        axes: One name per dimension, e.g. ``("batch", "height", "width", "rgb")``.
        unit: Unit of the values, e.g. ``pixel``, ``logit``, ``1`` for none.
        minimum: Smallest meaningful value, None when unbounded.
        maximum: Largest meaningful value, None when unbounded.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    unit: str = "1"
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        if len(self.axes) != len(self.shape) or any(n < 1 for n in self.shape):
            raise ArtifactError(
                f"Tensor '{self.name}' has the shape {list(self.shape)} and the axes "
                f"{list(self.axes)}; expected positive sizes with one name each."
            )
        if self.dtype not in DTYPES:
            raise ArtifactError(
                f"Tensor '{self.name}' has the dtype '{self.dtype}'; "
                f"expected one of {list(DTYPES)}{nearest(self.dtype, list(DTYPES))}."
            )

    def describe(self) -> str:
        """Return e.g. ``image uint8 [batch=1, height=256, width=192, rgb=3]``."""
        dims = ", ".join(f"{a}={n}" for a, n in zip(self.axes, self.shape, strict=True))
        return f"{self.name} {self.dtype} [{dims}]"


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

    height: int
    width: int
    fit: Literal["udp_affine", "letterbox", "stretch"]
    colour: Literal["rgb", "bgr"] = "rgb"
    box_padding: float = 1.25
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    normalised_in_graph: bool = True
    pad_value: int = 0
    kind: Literal["image"] = "image"


@dataclass(frozen=True, slots=True)
class ScenePreprocess:
    """How a whole frame becomes the input image of a dense network.

    Attributes:
        kind: Discriminator in JSON.
        height: Input height in pixels.
        width: Input width in pixels.
        fit: ``stretch`` (to the input size, aspect may change), ``letterbox`` (keep aspect, pad
            bottom and right), ``keep_ratio`` (shrink or grow into `longest` x `shortest`, then up
            to the next `multiple`; the result must be the input size) or ``sliding`` (the same
            resize, then windows of the input size in steps of `stride`).
        colour: Channel order that the graph expects.
        mean: Per channel mean on the 0..255 scale.
        std: Per channel standard deviation on the 0..255 scale.
        normalised_in_graph: True when the graph takes raw 0..255 pixels and normalises itself.
        pad_value: Value outside the picture, 0..255.
        longest: Bound of the longer side in pixels, for ``keep_ratio`` and ``sliding``.
        shortest: Bound of the shorter side in pixels.
        multiple: Sides are rounded up to a multiple of this, in a second resize.
        stride: Steps of the windows in pixels, rows and columns.
    """

    height: int
    width: int
    fit: Literal["stretch", "letterbox", "keep_ratio", "sliding"] = "letterbox"
    colour: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    normalised_in_graph: bool = True
    pad_value: int = 114
    longest: int = 0
    shortest: int = 0
    multiple: int = 1
    stride: tuple[int, int] = (0, 0)
    kind: Literal["scene"] = "scene"


@dataclass(frozen=True, slots=True)
class KeypointPostprocess:
    """How the outputs become joints of one person.

    Attributes:
        kind: Discriminator in JSON.
        decoder: ``udp_dark`` (sub-pixel heatmap decoding inside the graph), ``regression``,
            or ``movenet`` (rows of y, x, score in 0..1).
        skeleton: Name of the joint set.
        joints: Joint names in output order.
        limbs: Index pairs to draw.
        flip_pairs: Index pairs that swap when the picture is mirrored.
        sigmas: COCO OKS constants per joint (doubled standard deviation convention of pycocotools).
    """

    decoder: Literal["udp_dark", "regression", "movenet"]
    skeleton: str
    joints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    flip_pairs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]
    kind: Literal["keypoints"] = "keypoints"


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
    stride: int
    maximum_people: int
    skeleton: str
    joints: tuple[str, ...]
    kind: Literal["people"] = "people"


@dataclass(frozen=True, slots=True)
class MaskPostprocess:
    """How the outputs become a class per pixel.

    Attributes:
        kind: Discriminator in JSON.
        decoder: ``class_ids`` (numbers at input size, arg-max inside the graph), ``logits``
            (per class, at input size / `stride`) or ``probability`` (of the foreground, 0..1).
        classes: Class names by number; ``probability`` has two, background and foreground.
        palette: RGB colour of each class, 0..255.
        stride: Input pixels per cell of the output.
        foreground: Number of the class that background effects keep, -1 for none.
    """

    decoder: Literal["class_ids", "logits", "probability"]
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]
    stride: int = 1
    foreground: int = -1
    kind: Literal["mask"] = "mask"

    def __post_init__(self) -> None:
        if len(self.palette) != len(self.classes) or not self.classes:
            raise ArtifactError(
                f"The card has {len(self.classes)} classes and {len(self.palette)} colours; "
                "expected as many, and at least one."
            )
        if not -1 <= self.foreground < len(self.classes) or self.stride < 1:
            raise ArtifactError(
                f"The card has the foreground class {self.foreground} and stride {self.stride}; "
                f"expected -1 to {len(self.classes) - 1}, and a stride from 1 up."
            )


@dataclass(frozen=True, slots=True)
class TokenPlan:
    """Which tokens survive where; all counts are constants of the graph.

    Attributes:
        level: Name of the plan, e.g. ``L1`` or ``custom``.
        blocks: 0-based transformer blocks after whose attention tokens are dropped.
        keep: Patch tokens that survive at each of them.
        tokens: Patch tokens that enter.
        special: Tokens that are never dropped (joint queries).
        score: How attention is turned into a rank.
        fill: What a dense head sees where a token was dropped.
        macs: Multiply-accumulates of one image through this graph's network.
        macs_dense: The same without dropping.
    """

    level: str
    blocks: tuple[int, ...]
    keep: tuple[int, ...]
    tokens: int
    special: int
    score: str
    fill: str
    macs: int
    macs_dense: int


@dataclass(frozen=True, slots=True)
class PrecisionSpec:
    """Number formats inside the graph.

    Attributes:
        precision: The one asked for.
        kept_higher: Parts that stay in float32 (or half, for int8).
        quantiser: Tool and scheme, empty without quantisation.
        calibration_sha256: Hash of the calibration data, empty without.
        calibration_samples: How many samples were used.
        also_within_budget: Lower arithmetic of a back end (``bf16``) that was measured on real
            inputs and stayed within the error budget of the task; `auto` may then use it.
    """

    precision: Precision = "fp32"
    kept_higher: tuple[str, ...] = ()
    quantiser: str = ""
    calibration_sha256: str = ""
    calibration_samples: int = 0
    also_within_budget: tuple[Literal["bf16"], ...] = ()


@dataclass(frozen=True, slots=True)
class Weights:
    """Where the numbers come from.

    Attributes:
        origin: One sentence: trained here, converted from, or random.
        sha256: Hash of the checkpoint, ``random:<seed>`` for untrained ones.
        licence: SPDX identifier or a short name.
        trained: False for random weights, which only benchmarks may use.
    """

    origin: str
    sha256: str
    licence: str
    trained: bool


@dataclass(frozen=True, slots=True)
class StateSpec:
    """A state tensor of a step graph: it goes in as `name` and comes out as `name + "_next"`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    zero: float = 0.0


@dataclass(frozen=True, slots=True)
class Streaming:
    """Contract of a step graph: hop and delay in samples of the input."""

    states: tuple[StateSpec, ...]
    hop: int
    algorithmic_delay: int


Preprocess = (
    ImagePreprocess | ScenePreprocess | CodecPreprocess | MouthPreprocess | MixturePreprocess
)
Postprocess = (
    KeypointPostprocess
    | PeoplePostprocess
    | MaskPostprocess
    | CodecPostprocess
    | SeparatorPostprocess
    | FacesPostprocess
    | FaceMeshPostprocess
)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """All of it. See the module docstring; `to_json` and `from_json` are inverse.

    Attributes:
        task: What the model is for.
        model: Family, e.g. ``evitpose``.
        variant: Size and head, e.g. ``tiny-subpixel``.
        paper: Source of the architecture.
        licence: Licence of the graph's code.
        exporter: Name and version of the exporter.
        weights: Provenance of the weights.
        inputs: Graph inputs.
        outputs: Graph outputs.
        preprocess: How inputs are made, None when the caller makes them.
        postprocess: How outputs are read, None when the caller reads them.
        tokens: Token plan, None for networks without one.
        precision: Number formats.
        streaming: State contract, None for stateless graphs.
        schema_version: Version of this layout.
    """

    task: Task
    model: str
    variant: str
    paper: str
    licence: str
    exporter: str
    weights: Weights
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: Preprocess | None = None
    postprocess: Postprocess | None = None
    tokens: TokenPlan | None = None
    precision: PrecisionSpec = field(default_factory=PrecisionSpec)
    streaming: Streaming | None = None
    schema_version: int = SCHEMA_VERSION

    KEY: ClassVar[str] = CARD_KEY

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, no spaces, so equal cards are equal strings.

        Raises:
            ArtifactError: a value has a type that `from_json` would refuse.
        """
        # Built once more, so that 255 in a field of floats is written like the 255.0 it equals.
        raw = json.loads(json.dumps(dataclasses.asdict(self)))
        same = dataclasses.asdict(build(ModelCard, raw, "card"))
        return json.dumps(same, sort_keys=True, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> ModelCard:
        """Parse and validate; raises ArtifactError naming the first key that does not fit."""
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ArtifactError(f"The model card is not JSON: {error}.", RE_EXPORT) from None
        if not isinstance(raw, dict):
            raise ArtifactError(f"The model card is a {type(raw).__name__}, not an object.")
        version = raw.get("schema_version")
        if version != SCHEMA_VERSION:
            raise ArtifactError(
                f"The card has schema version {version}; this prunus reads {SCHEMA_VERSION}.",
                "Upgrade prunus, or export the model again with this version.",
            )
        return build(ModelCard, raw, "card")

    @property
    def name(self) -> str:
        """Short name for logs and pictures, e.g. ``evitpose tiny-subpixel L1 fp32``."""
        level = f" {self.tokens.level}" if self.tokens else ""
        return f"{self.model} {self.variant}{level} {self.precision.precision}"
