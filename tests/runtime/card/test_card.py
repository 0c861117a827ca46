"""The model card: round trip, and one clear error for everything that does not fit."""

import copy
import dataclasses
import json

import pytest
from hypothesis import given
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
        ("preprocess.height", 0, "height is 0; expected 1 to 65536"),
        ("preprocess.width", 10**30, "width is a number of 100 bits; expected -9"),
        ("preprocess.std", [1, 0, 1], r"std\[1\] is 0; expected 1e-06 to"),
        ("preprocess.mean", [1e99, 0, 1], r"mean\[0\] is 1e\+99; expected -1e\+06 to 1e\+06"),
        ("preprocess.box_padding", -1, "box_padding is -1; expected 0.01 to 100"),
        ("preprocess.box_padding", 10**400, "box_padding is beyond every float"),
        ("preprocess.pad_value", 256, "pad_value is 256; expected 0 to 255"),
        ("postprocess.limbs", [[0, 2]], r"limbs hold \[0, 2\]; expected joints 0 to 1"),
        ("postprocess.flip_pairs", [[-1, 0]], r"flip_pairs hold \[-1, 0\]"),
        ("postprocess.sigmas", [0.1], "2 joints and 1 sigmas"),
        ("postprocess.sigmas", [0.1, 0.0], r"sigmas\[1\] is 0"),
        ("tokens.tokens", 0, "tokens is 0; expected 1"),
        ("tokens.keep", [9], r"keeps \[9\] of 12 tokens at the blocks \[3, 6\]"),
        ("tokens.keep", [13, 5], r"none above all tokens"),
        ("tokens.macs", -1, "macs is -1; expected 0"),
        ("streaming.hop", 0, "hop is 0; expected 1"),
        ("streaming.algorithmic_delay", -1, "algorithmic_delay is -1"),
        ("streaming.states.0.shape", [1, 1 << 31], "the size that the card declares is 2147483648"),
        ("streaming.states.0.shape", [0], "expected positive sizes"),
        ("streaming.states.0.dtype", "object", "dtype 'object'"),
        ("streaming.states.0.zero", 10**400, "zero is beyond every float"),
        ("inputs.0.shape", [1, 1 << 20, 1 << 20, 3], "Tensor 'image': the size that the card"),
        ("inputs.0.maximum", -5, "ranges from 0 to -5"),
        ("inputs.0.minimum", [[[[[[[]]]]]]], "expected float"),
    ],
)
def test_misfit_is_named(path, value, message) -> None:
    with pytest.raises(ArtifactError, match=message):
        ModelCard.from_json(_with(path, value))


def test_numbers_that_json_does_not_know_are_refused() -> None:
    text = FULL.to_json().replace('"box_padding":1.25', '"box_padding":%s')
    for number in ("NaN", "Infinity", "-Infinity", "1e999"):
        with pytest.raises(ArtifactError, match=r"is not a number|beyond every float"):
            ModelCard.from_json(text % number)


def test_deep_nesting_is_refused_before_it_is_parsed() -> None:
    for depth in (65, 1000, 100_000):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            text = _with("model", 0).replace(
                '"model": 0', f'"model": {opening * depth}1{closing * depth}'
            )
            with pytest.raises(ArtifactError, match=r"the nesting of its JSON is .* at most 64"):
                ModelCard.from_json(text)
    quoted = json.dumps("[" * 1000 + '\\"' + "{" * 1000)
    text = _with("paper", 0).replace('"paper": 0', f'"paper": {quoted}')
    assert ModelCard.from_json(text).paper.startswith("[[[")  # brackets in a text do not nest


def test_two_tensors_of_one_name_are_refused() -> None:
    raw = json.loads(FULL.to_json())
    raw["inputs"] *= 2
    with pytest.raises(ArtifactError, match="names two inputs alike"):
        ModelCard.from_json(json.dumps(raw))


def test_a_scene_without_steps_is_refused() -> None:
    scene = {"kind": "scene", "height": 4, "width": 4, "fit": "sliding", "longest": 8}
    with pytest.raises(ArtifactError, match=r"resizes by 'sliding' into 8 x 0 .* \[0, 0\]"):
        ModelCard.from_json(_with("preprocess", scene))


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
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5),
    st.sampled_from([0, -1, 1 << 31, 10**400, 1e-300, float("inf")]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)  # fmt: skip


@pytest.mark.fuzz
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
