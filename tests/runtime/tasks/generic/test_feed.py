"""A picture as the input of any network."""

import dataclasses

import numpy as np
import pytest

from prunus.runtime.card.foreign import foreign_card
from prunus.runtime.errors import ArtifactError, TensorError
from prunus.runtime.tasks.generic.feed import picture_feed
from prunus.runtime.tasks.segmentation.card import ScenePreprocess

pytest.importorskip("cv2")


@pytest.fixture
def card(onnx_file):
    spec = ("float32", [2, 3, 8, 16])
    made = foreign_card(onnx_file("net", [("Relu", "x", "y")], {"x": spec}, {"y": spec}))
    scene = ScenePreprocess(
        8, 16, "letterbox", "rgb", (0, 0, 0), (255, 255, 255), False, pad_value=51
    )
    return dataclasses.replace(made, preprocess=scene)


def test_a_picture_is_fitted_turned_and_scaled(card) -> None:
    frame = np.zeros((4, 4, 3), np.uint8)
    frame[..., 0] = 255  # blue
    feed = picture_feed(card, frame)["x"]
    assert feed.shape == (2, 3, 8, 16) and feed.dtype == np.float32
    np.testing.assert_array_equal(feed[0], feed[1])
    assert (feed[0, 2, :, :8] == 1).all() and (feed[0, :2, :, :8] == 0).all()
    np.testing.assert_allclose(feed[0, :, :, 8:], 0.2)


def test_without_a_word_about_pictures(card) -> None:
    for part in (None, dataclasses.replace(card.preprocess, fit="sliding", longest=9, shortest=9,
                                           stride=(1, 1))):  # fmt: skip
        with pytest.raises(ArtifactError, match="does not say how a picture becomes") as caught:
            picture_feed(dataclasses.replace(card, preprocess=part), np.zeros((4, 4, 3), np.uint8))
        assert "--before colour=" in caught.value.hint


def test_other_arrays_are_no_pictures(card) -> None:
    with pytest.raises(TensorError, match="Got a frame float64"):
        picture_feed(card, np.zeros((4, 4, 3)))
