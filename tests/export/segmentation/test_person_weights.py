"""The shipped person segmentation: found by default, exported, and right about people on a path."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import prunus.apps
from prunus.export.edaformer import export_edaformer, reference_module
from prunus.export.segmentation.samples import load_scenes
from prunus.export.segmentation.weights import find_weights, weights_of
from prunus.models import zoo
from prunus.models.segmentation.deployed import DeployedSegmentation
from prunus.models.segmentation.isr import IsrSetting
from prunus.models.training.rendering.backgrounds import median_frame
from prunus.models.training.segmentation.evaluate import file_predictor
from prunus.models.training.teachers.crops import read_frames
from prunus.runtime.card.artifact import read_card
from prunus.runtime.errors import UsageError
from prunus.runtime.session.base import open as open_session

NAME = "edaformer_t_person"


@pytest.fixture(scope="module")
def person(made_once):
    """The default export at the size of the training's last stage, with soft edges."""

    def fill(folder):
        export_edaformer(size="256x256", probability=True, output=folder / "p.onnx")

    return made_once("person", fill) / "p.onnx"


def test_shipped_weights_are_taken_unless_another_network_is_asked_for() -> None:
    entry = zoo.find(NAME)
    for asked in (None, "person"):
        found = find_weights(asked)
        assert found.spec.trained and found.spec.sha256 == entry.sha256
        assert (found.variant, found.classes) == ("t", ("background", "person"))
    assert len(find_weights(None, "t").classes) == 150
    assert not find_weights(None, None, 2).spec.trained
    assert not find_weights("random").spec.trained
    with pytest.raises(UsageError):
        find_weights("person", "b")


def test_card_names_weights_that_are_found_again(person) -> None:
    card = read_card(person)
    assert card.weights.trained and card.weights.licence == "Apache-2.0"
    assert card.postprocess.decoder == "probability" and card.postprocess.foreground == 1
    assert card.outputs[0].shape == (1, 1, 256, 256)
    assert weights_of(card.weights, card.variant, 2).spec == card.weights


def test_probability_agrees_with_pytorch_and_with_the_classes(person) -> None:
    card = read_card(person)
    image = load_scenes(None, card.preprocess, 2).arrays["image"][-1:]  # the portrait
    with open_session(person, "onnxruntime") as session:
        likely = session.run({"image": image})["probability"].copy()
    hard = DeployedSegmentation(find_weights("person").build(IsrSetting()), card.preprocess).eval()
    with torch.no_grad():
        expected = reference_module(card)(torch.from_numpy(image)).numpy()
        classes = hard(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(likely, expected, atol=1e-4)
    sure = np.abs(likely[0, 0] - 0.5) > 1e-3
    assert sure.mean() > 0.9
    assert np.array_equal((likely[0, 0] > 0.5)[sure], (classes[0] == 1)[sure])


def test_probability_is_refused_where_it_has_no_meaning(tmp_path) -> None:
    with pytest.raises(UsageError, match="two classes"):
        export_edaformer("t", size="64x64", probability=True, output=tmp_path / "x.onnx")
    with pytest.raises(UsageError, match="one of them"):
        export_edaformer(size="64x64", probability=True, logits=True, output=tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


def test_what_moves_before_a_still_camera_is_a_person(person) -> None:
    """The bundled clip is from after the frames that were trained on; motion is the judge."""
    clip = Path(prunus.apps.__path__[0]) / "media" / "pedestrians.mp4"
    empty, predict = median_frame(clip, 0, 60, 31), file_predictor(person)
    assert empty is not None
    scores = []
    for number in (0, 25, 50):
        frame = next(read_frames(clip, number, number + 1, 1))
        gap = np.abs(frame.astype(np.float32) - empty).max(2)
        moved = (cv2.GaussianBlur(gap, (0, 0), 1.0) > 30).astype(np.uint8)
        _, _, boxes, middles = cv2.connectedComponentsWithStats(moved)
        for k in np.argsort(-boxes[1:, cv2.CC_STAT_AREA])[:3] + 1:
            side = int(1.8 * max(boxes[k, cv2.CC_STAT_WIDTH], boxes[k, cv2.CC_STAT_HEIGHT]))
            x, y = (max(int(m) - side // 2, 0) for m in middles[k])
            found = predict(np.ascontiguousarray(frame[y : y + side, x : x + side]))
            there = moved[y : y + side, x : x + side] > 0
            scores.append((found & there).sum() / (found | there).sum())
    assert len(scores) == 9
    assert np.mean(scores) > 0.7 and min(scores) > 0.5  # 0.83 and 0.70 when they were trained
