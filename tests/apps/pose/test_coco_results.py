"""Boxes of a detector: by name, by number, of people, or one clear refusal."""

import pytest

from prunus.apps.pose.coco_results import read_boxes
from prunus.runtime.errors import PrunusError


def test_boxes_are_read_by_picture(tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text(
        '[{"image_id": 1, "bbox": [1, 2, 3, 4]}, {"image_id": 1, "bbox": [0, 0, 1, 1], '
        '"category_id": 2}, {"image_id": 2, "bbox": [5, 5, 5, 5], "score": 0.5}]'
    )
    found = read_boxes(path, {})
    assert {k: (b.tolist(), s.tolist()) for k, (b, s) in found.items()} == {
        1: ([[1, 2, 4, 6]], [1.0]),
        2: ([[5, 5, 10, 10]], [0.5]),
    }


def test_a_name_beats_a_number(tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text('[{"image_id": 1, "file_name": "b.jpg", "bbox": [1, 2, 3, 4]}]')
    assert list(read_boxes(path, {1: "a.jpg", 2: "b.jpg"})) == [2]


@pytest.mark.parametrize("text", ["{", "3", '[{"bbox": [1, 2]}]', '[{"image_id": 1}]'])
def test_boxes_of_another_form(tmp_path, text):
    path = tmp_path / "boxes.json"
    path.write_text(text)
    with pytest.raises(PrunusError):
        read_boxes(path, {})
