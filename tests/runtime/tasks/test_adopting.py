"""Words that complete a card."""

import dataclasses

import pytest

from prunus.runtime.card.foreign import foreign_card
from prunus.runtime.errors import ArtifactError, SourceError, UsageError
from prunus.runtime.tasks.adopting import AFTER, BEFORE, fill, picture_part, read_words
from prunus.runtime.tasks.segmentation.card import MaskPostprocess, ScenePreprocess

SAID = {"colour": "bgr", "mean": [0, 0, 0], "std": [255, 255, 255]}


@pytest.fixture
def card(onnx_file):
    spec = ("float32", [1, 3, 32, 48])
    return foreign_card(onnx_file("net", [("Relu", "x", "y")], {"x": spec}, {"y": spec}))


def test_words_are_json_lists_texts_or_lines(tmp_path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("background\n\n person \n")
    words = ["a=1", "b=1,2.5", "c=text", "d=[[0,1]]", f"e=@{names}", "f=true", "g=x,y"]
    assert read_words(words, BEFORE) == {
        "a": 1,
        "b": [1, 2.5],
        "c": "text",
        "d": [[0, 1]],
        "e": ["background", "person"],
        "f": True,
        "g": ["x", "y"],
    }


@pytest.mark.parametrize("words", [["a"], ["=1"], ["a="], ["a=1", "a=2"]])
def test_words_of_another_form_are_refused(words) -> None:
    with pytest.raises(UsageError, match="expected KEY=VALUE, each key once"):
        read_words(words, AFTER)


def test_a_missing_text_file() -> None:
    with pytest.raises(SourceError, match=r"Cannot read gone\.txt"):
        read_words(["a=@gone.txt"], AFTER)


def test_a_picture_part_takes_its_size_from_the_input(card) -> None:
    part = picture_part(card, ScenePreprocess, SAID, fit="stretch")
    assert (part.height, part.width, part.fit, part.colour) == (32, 48, "stretch", "bgr")
    assert part.std == (255.0, 255.0, 255.0) and not part.normalised_in_graph


@pytest.mark.parametrize("silent", ["colour", "mean", "std"])
def test_nothing_is_guessed_about_pixels(card, silent) -> None:
    words = {k: v for k, v in SAID.items() if k != silent}
    with pytest.raises(ArtifactError, match=f"{silent} missing") as caught:
        picture_part(card, ScenePreprocess, words)
    assert f"--before {silent}=" in caught.value.hint


def test_bytes_need_their_colour_alone(card) -> None:
    image = dataclasses.replace(card.inputs[0], dtype="uint8")
    part = picture_part(
        dataclasses.replace(card, inputs=(image,)), ScenePreprocess, {"colour": "rgb"}
    )
    assert part.normalised_in_graph


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"colr": "rgb"}, r"'colr'.*did you mean 'colour'\?"),
        ({"fit": "squeeze"}, "fit is 'squeeze'"),
        ({"mean": [0, 0]}, "mean has 2 entries; expected 3"),
        ({"std": [0, 1, 1]}, r"std\[0\] is 0"),
        ({"pad_value": 300}, "pad_value is 300"),
    ],
)
def test_words_that_fit_no_field_name_the_fields(card, words, said) -> None:
    with pytest.raises(ArtifactError, match=said) as caught:
        picture_part(card, ScenePreprocess, {**SAID, **words})
    assert "Give --before KEY=VALUE" in caught.value.hint and "pad_value" in caught.value.hint


def test_what_is_needed_is_told() -> None:
    with pytest.raises(ArtifactError, match="'decoder' is missing") as caught:
        fill(MaskPostprocess, {}, AFTER)
    assert "needed: decoder, classes, palette" in caught.value.hint
