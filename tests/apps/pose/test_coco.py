"""COCO keypoint files of any content: read, or one clear error."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.apps.pose.coco import CocoPeople, id_forms
from prunus.apps.pose.coco_results import read_boxes
from prunus.runtime.errors import PrunusError, UsageError

NUMBERS = st.one_of(
    st.integers(-3, 3), st.floats(), st.just(10**400), st.just(1e308), st.booleans(), st.none()
)
VALUES = st.recursive(
    st.one_of(NUMBERS, st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def _odd(strategy):
    """Mostly what it should be, now and then anything."""
    return st.one_of(strategy, strategy, strategy, VALUES)


def _entry(**fields):
    return _odd(st.fixed_dictionaries({}, optional={k: _odd(v) for k, v in fields.items()}))


IDS = st.sampled_from([1, 2, "1", "a", 1.0, "000001"])
FILES = st.fixed_dictionaries(
    {},
    optional={
        "images": _odd(st.lists(_entry(
            id=IDS, file_name=st.sampled_from(["a.jpg", "b/c.png", "../x.jpg", "/etc/x", "C:x"]),
        ), max_size=3)),
        "annotations": _odd(st.lists(_entry(
            id=IDS, image_id=IDS, category_id=st.sampled_from([0, 1, "1"]),
            bbox=st.lists(NUMBERS, min_size=3, max_size=5), area=NUMBERS, iscrowd=NUMBERS,
            keypoints=st.lists(NUMBERS, min_size=6, max_size=6), num_keypoints=NUMBERS,
        ), max_size=3)),
        "categories": _odd(st.lists(_entry(
            id=st.sampled_from([0, 1, "1"]), name=st.just("person"),
            keypoints=st.just(["nose", "knee"]),
        ), max_size=2)),
    },
)  # fmt: skip


def _whole():
    return {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{
            "id": 5, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9], "area": 40,
            "keypoints": [1, 2, 2, 3, 4, 1], "num_keypoints": 2,
        }],
        "categories": [{"id": 1, "name": "person", "keypoints": ["nose", "knee"]}],
    }  # fmt: skip


def _use(people: CocoPeople) -> None:
    """What is read can be used: plain finite numbers, pictures that are listed."""
    numbers = {image: k for k, image in enumerate(people.images)}
    json.dumps(people.as_coco(numbers), allow_nan=False)
    assert people.count >= 1
    for entry in people.raw:
        assert entry["image_id"] in people.images
        assert isinstance(entry["num_keypoints"], int) and entry["num_keypoints"] >= 0


@pytest.mark.fuzz
@given(FILES)
def test_any_labels_are_read_or_one_clear_error(tmp_path_factory, content) -> None:
    path = tmp_path_factory.getbasetemp() / "labels.json"
    path.write_text(json.dumps(content))
    try:
        people = CocoPeople.read(path)
    except PrunusError as error:
        assert error.message and error.hint is not None
    else:
        _use(people)


@pytest.mark.fuzz
@given(st.binary(max_size=60), st.integers(0, 400))
def test_damaged_bytes_are_one_clear_error(tmp_path_factory, noise, place) -> None:
    path = tmp_path_factory.getbasetemp() / "labels.json"
    whole = json.dumps(_whole()).encode()
    path.write_bytes(whole[:place] + noise + whole[place + len(noise) :])
    try:
        people = CocoPeople.read(path)
    except PrunusError:
        return
    _use(people)


@pytest.mark.fuzz
@given(_odd(st.lists(_entry(
    image_id=IDS, category_id=st.just(1), bbox=st.lists(NUMBERS, min_size=3, max_size=5),
    score=NUMBERS, file_name=st.sampled_from(["a.jpg", ""]),
), max_size=3)))  # fmt: skip
def test_any_boxes_are_read_or_one_clear_error(tmp_path_factory, content) -> None:
    path = tmp_path_factory.getbasetemp() / "boxes.json"
    path.write_text(json.dumps(content))
    try:
        boxes = read_boxes(path, {1: "a.jpg", 2: "b/a.jpg"})
    except PrunusError:
        return
    for corners, scores in boxes.values():
        assert np.isfinite(corners).all() and np.isfinite(scores).all()


@pytest.mark.parametrize(("field", "value"), [
    ("bbox", [0, 0, 10**400, 1]), ("bbox", [0, 0, True, "nan"]), ("area", 10**400),
    ("keypoints", [10**400, 1, 2, 0, 0, 0]), ("num_keypoints", "many"), ("num_keypoints", -1),
    ("num_keypoints", float("nan")), ("iscrowd", [0]), ("keypoints", [1, 2, "2", 0, 0, 0]),
])  # fmt: skip
def test_a_wrong_entry_is_named(tmp_path, field, value) -> None:
    content = _whole()
    content["annotations"][0][field] = value
    (tmp_path / "labels.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match="annotation 5"):
        CocoPeople.read(tmp_path / "labels.json")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 10**30])
def test_the_number_of_the_category_may_be_anything_that_is_one(tmp_path, number) -> None:
    content = _whole()
    content["categories"][0]["id"] = content["annotations"][0]["category_id"] = number
    (tmp_path / "labels.json").write_text(json.dumps(content))
    if number == 10**30:
        assert CocoPeople.read(tmp_path / "labels.json").category == 10**30
        return
    with pytest.raises(UsageError, match=r"not a COCO keypoint file|not JSON"):
        CocoPeople.read(tmp_path / "labels.json")


def test_ids_stand_for_their_other_forms() -> None:
    assert id_forms("007") == ["007", 7]
    assert id_forms(True) == [] and id_forms(float("inf")) == [] and id_forms(0.5) == []
