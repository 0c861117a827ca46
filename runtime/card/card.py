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
from typing import Annotated, ClassVar

from prunus.runtime.card.precision import PrecisionSpec
from prunus.runtime.card.reading import RE_EXPORT, build, parse_json
from prunus.runtime.card.tensors import Streaming, TensorSpec
from prunus.runtime.card.tokens import TokenPlan
from prunus.runtime.errors import ArtifactError
from prunus.runtime.limits import CARD_BYTES
from prunus.runtime.tasks.registry import (
    Processing,
    read_postprocess,
    read_preprocess,
    read_task,
)

CARD_KEY = "prunus.card"
SCHEMA_VERSION = 1


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

    task: Annotated[str, read_task]
    model: str
    variant: str
    paper: str
    licence: str
    exporter: str
    weights: Weights
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    preprocess: Annotated[Processing, read_preprocess] | None = None
    postprocess: Annotated[Processing, read_postprocess] | None = None
    tokens: TokenPlan | None = None
    precision: PrecisionSpec = field(default_factory=PrecisionSpec)
    streaming: Streaming | None = None
    schema_version: int = SCHEMA_VERSION

    KEY: ClassVar[str] = CARD_KEY

    def __post_init__(self) -> None:
        for kind, specs in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [spec.name for spec in specs]
            if len(set(names)) != len(names):
                raise ArtifactError(f"The card names two {kind} alike: {names}.", RE_EXPORT)

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
        CARD_BYTES.check(len(text), "The model card", ArtifactError)
        return ModelCard.from_parsed(parse_json(text, "The model card"))

    @staticmethod
    def from_parsed(raw: object) -> ModelCard:
        """Validate parsed JSON; raises ArtifactError naming the first key that does not fit."""
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
    def network(self) -> tuple[object, ...]:
        """What files of one network share, whatever their number format: weights and cuts."""
        plan = self.tokens
        cuts = (plan.blocks, plan.keep, plan.fill, plan.score) if plan else None
        return (self.model, self.variant, self.weights.sha256, cuts)

    @property
    def name(self) -> str:
        """Short name for logs and pictures, e.g. ``evitpose tiny-subpixel L1 fp32``."""
        level = f" {self.tokens.level}" if self.tokens else ""
        return f"{self.model} {self.variant}{level} {self.precision.precision}"
