"""The model card: round trip, and one clear error for everything that does not fit."""

import copy
import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.precision import PrecisionSpec
from prunus.runtime.card.tensors import StateSpec, Streaming, TensorSpec
from prunus.runtime.card.tokens import TokenPlan
from prunus.runtime.errors import ArtifactError
from prunus.runtime.tasks.pose.card import ImagePreprocess, KeypointPostprocess, PeoplePostprocess

FULL = ModelCard(
    task="pose", model="evitpose", variant="tiny", paper="p", licence="Apache-2.0", exporter="e",
    weights=Weights("here", "0" * 64, "Apache-2.0", True),
    inputs=(TensorSpec("image", "uint8", (1, 4, 3, 3), ("batch", "y", "x", "rgb"), "1", 0, 255),),
    outputs=(TensorSpec("keypoints", "float32", (1, 2, 3), ("batch", "joint", "xys"), "pixel"),),
    preprocess=ImagePreprocess(4, 3, "udp_affine"),
    postprocess=KeypointPostprocess("udp_dark", "ab", ("a", "b"), ((0, 1),), ((0, 1),), (0.1, 0.2)),
    tokens=TokenPlan("L1", (3, 6), (9, 5), 12, 2, "sum", "carry", 10, 20),
    precision=PrecisionSpec("int8", ("decode",), "static", "ab", 3, ("bf16",)),
    streaming=Streaming((StateSpec("state", "float32", (1, 2)),), 320, 640),
)  # fmt: skip


def _with(path: str, value) -> str:
    raw = json.loads(FULL.to_json())
    *parents, last = path.split(".")
    at = raw
    for key in parents:
        at = at[int(key)] if key.isdigit() else at[key]
    at[int(last) if last.isdigit() else last] = value
    return json.dumps(raw)


def test_round_trip_is_exact_and_canonical() -> None:
    text = FULL.to_json()
    assert ModelCard.from_json(text) == FULL
    assert ModelCard.from_json(json.dumps(json.loads(text), indent=3)).to_json() == text
    people = PeoplePostprocess("movenet_multipose", 4, 6, "coco17", ("nose",))
    other = dataclasses.replace(FULL, postprocess=people, preprocess=None, tokens=None)
    assert ModelCard.from_json(other.to_json()) == other


def test_name_tells_level_and_precision() -> None:
    assert FULL.name == "evitpose tiny L1 int8"
    assert dataclasses.replace(FULL, tokens=None).name == "evitpose tiny int8"


def test_describe_names_the_axes() -> None:
    assert FULL.outputs[0].describe() == "keypoints float32 [batch=1, joint=2, xys=3]"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("tokenz", 1, r"Unknown key 'tokenz' in card \(did you mean 'tokens'\?\)"),
        ("preprocess.heigth", 1, r"card.preprocess \(did you mean 'height'\?\)"),
        ("schema_version", 99, "schema version 99; this prunus reads 1"),
        ("schema_version", None, "schema version None"),
        ("task", "poses", r"card.task is 'poses'.*did you mean 'pose'"),
        ("inputs", {}, r"card.inputs is \{\}; expected a list"),
        ("inputs.0.shape", [1, 4, 3], "expected positive sizes with one name each"),
        ("inputs.0.shape", [1, 4, 3, -1], "expected positive sizes"),
        ("inputs.0.shape", [1, 4, 3, True], r"shape\[3\] is True; expected int"),
        ("inputs.0.dtype", "float23", r"dtype 'float23'.*did you mean 'float32'"),
        ("inputs.0.minimum", "low", "minimum is 'low'; expected float"),
        ("preprocess.mean", [1, 2], "has 2 entries; expected 3"),
        (
            "postprocess.kind",
            "boxes",
            r"kind is 'boxes'; expected one of \['codes', .*'faces', 'keypoints', .*'people'.*\]",
        ),
        ("postprocess.kind", ["keypoints"], "kind is"),
        ("postprocess", 3, "kind is None"),
        ("weights.trained", 1, "trained is 1; expected bool"),
        ("weights", [], "card.weights is a list; expected an object"),
        ("precision.also_within_budget", ["bf17"], r"did you mean 'bf16'"),
    ],
)
def test_misfit_is_named(path, value, message) -> None:
    with pytest.raises(ArtifactError, match=message):
        ModelCard.from_json(_with(path, value))


def test_missing_key_is_named() -> None:
    raw = json.loads(FULL.to_json())
    del raw["weights"]["origin"]
    with pytest.raises(ArtifactError, match=r"Key 'origin' is missing in card.weights"):
        ModelCard.from_json(json.dumps(raw))


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "[" * 100_000])
def test_not_a_card(text) -> None:
    with pytest.raises(ArtifactError):
        ModelCard.from_json(text)


def _paths(value, prefix=()):
    yield prefix
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in children:
        yield from _paths(child, (*prefix, key))


PATHS = [path for path in _paths(json.loads(FULL.to_json())) if path]
junk = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(path=st.sampled_from(PATHS), value=junk)
def test_any_damage_is_an_artifact_error_or_a_valid_card(path, value) -> None:
    raw = copy.deepcopy(json.loads(FULL.to_json()))
    at = raw
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    try:
        card = ModelCard.from_json(json.dumps(raw))
    except ArtifactError as error:
        assert "\n" not in error.message
    else:
        assert ModelCard.from_json(card.to_json()) == card
