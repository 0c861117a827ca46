"""`prunus.load`: any model by name, path or task; one input, a list, an iterator; typed answers."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import prunus
from prunus.api import DEFAULTS
from prunus.apps.common.media import PORTRAIT
from prunus.apps.common.model_files import find_model, separation_models
from prunus.export.foreign.add import About, add_card
from prunus.runtime import host
from prunus.runtime.errors import ArtifactError

README = Path(__file__).parents[1] / "README.md"


@pytest.fixture(scope="module")
def picture():
    return cv2.imread(str(PORTRAIT))


@pytest.fixture(scope="module")
def pose():
    with prunus.load("pose") as opened:
        yield opened


def test_import_is_light() -> None:
    code = "import sys, prunus; print(prunus.__version__, 'numpy' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [prunus.__version__, "False"]
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        _ = prunus.laod
    assert all(getattr(prunus, name) is not None for name in prunus.__all__)


def test_the_portrait_has_one_person_with_a_face(pose, picture) -> None:
    [person] = pose(picture).to_dict()["people"]
    x, y, score = person["joints"]["nose"]
    x0, y0, x1, y1 = person["box"]
    assert x0 < x < x1 and y0 < y < y1 and score > 0.3
    assert person["joints"]["left_eye"][0] > person["joints"]["right_eye"][0]


def test_one_a_list_and_an_iterator_agree(pose, picture) -> None:
    one = pose.predict(picture).to_json()
    assert [r.to_json() for r in pose.predict([picture, picture])] == [one, one]
    lazy = pose.predict(iter([picture]))
    assert next(lazy).to_json() == one
    assert json.loads(one)["people"]


def test_a_plot_leaves_the_picture_alone(pose, picture) -> None:
    before = picture.copy()
    drawn = pose(picture).plot(picture)
    assert (picture == before).all() and (drawn != picture).any()


def test_shares_of_a_mask_add_up(picture) -> None:
    with prunus.load("segmentation") as segment:
        result = segment(picture)
    shares = result.to_dict()["shares"]
    assert sum(shares.values()) == pytest.approx(1) and shares["person"] > 0.3
    assert result.plot(picture).shape == picture.shape


def test_a_path_opens_what_its_name_opens(pose, picture) -> None:
    with prunus.load(find_model(DEFAULTS["pose"])) as by_path:
        assert by_path(picture).to_json() == pose(picture).to_json()
    with prunus.load(DEFAULTS["pose"], finder=None) as whole:
        assert len(whole(picture).people) == 1


def test_codes_come_back_as_sound() -> None:
    sound = 0.1 * np.sin(np.arange(16000, dtype=np.float32) * 0.1)
    with prunus.load("codec") as codec:
        result = codec(sound.astype(np.float32))
    told = result.to_dict()
    assert len(result.sound) == told["samples"] == 16000
    assert told["bits_per_second"] == pytest.approx(1900, rel=0.05)


def test_a_network_without_a_reader_gives_tensors() -> None:
    with prunus.load("facemesh") as face:
        card = face.estimator.card
        feed = {s.name: np.zeros(s.shape, s.dtype) for s in card.inputs}
        assert set(face(feed).tensors) == {o.name for o in card.outputs}


def test_a_foreign_file_opens_with_its_shapes(onnx_file, picture, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(host, "user_cache", lambda: tmp_path / "cache")
    spec = ("float32", ["n", 3, 8, 8])
    path = onnx_file("net", [("Mul", "x w", "y")], {"x": spec}, {"y": spec}, {"w": np.float32(2)})
    with pytest.raises(ArtifactError, match="no fixed size"):
        prunus.load(path)
    with prunus.load(path, shapes={"x": (1, 3, 8, 8)}) as net:
        ones = np.ones((1, 3, 8, 8), np.float32)
        assert (net({"x": ones}).tensors["y"] == 2).all()
        with pytest.raises(ArtifactError, match="does not say how a picture becomes"):
            net(picture)
    said = {"colour": "rgb", "mean": [0, 0, 0], "std": [255, 255, 255], "fit": "stretch"}
    about = About(shapes={"x": (1, 3, 8, 8)}, before=said)
    add_card(path, tmp_path / "card.onnx", about)
    with prunus.load(tmp_path / "card.onnx") as net:
        found = net(picture).tensors["y"]
    assert found.shape == (1, 3, 8, 8) and 0 < found.mean() < 2


def test_faces_are_found_and_read(picture) -> None:
    with prunus.load("faces") as faces:
        result = faces(picture)
        assert faces(picture).to_json() == result.to_json()  # nothing is remembered
        assert not faces(np.zeros_like(picture)).faces
    [face] = result.to_dict()["faces"]
    x0, y0, x1, y1 = face["box"]
    with prunus.load("pose") as pose:
        [person] = pose(picture).to_dict()["people"]
    x, y, _ = person["joints"]["nose"]
    assert x0 < x < x1 and y0 < y < y1 and face["score"] > 0.9 and len(face["points"]) == 468
    assert face["mouth_opening"] > 0.05  # she smiles
    assert (result.plot(picture) != picture).any()


def test_either_half_of_a_shipped_separator_opens_both() -> None:
    for name in ("dolphin_nano", "dolphin-nano", "dolphin_nano_lips", "separation"):
        with prunus.load(name) as separate:
            assert separate.takes == ("clip",) and separate.estimator.trained


def test_unknown_names_and_halves_are_named(tmp_path) -> None:
    with pytest.raises(prunus.PrunusError, match="no shipped model 'posse'"):
        prunus.load("posse")
    lips, _ = separation_models(None)
    shutil.copy(lips, tmp_path / "half-lips.onnx")
    for name in ("half", "half-lips.onnx"):
        with pytest.raises(prunus.PrunusError, match=r"not found: .*half-voice\.onnx"):
            prunus.load(tmp_path / name)
    with pytest.raises(prunus.PrunusError, match="The finder"):
        prunus.load("pose", finder="nobody")


@pytest.mark.filterwarnings("error:.*parameter in .* is deprecated")
def test_supervision_takes_and_draws_people(pose, picture) -> None:
    supervision = pytest.importorskip("supervision")
    result = pose(picture)
    given = result.to_supervision()
    assert len(given) == 1 and given.xy.shape == (1, 17, 2)
    np.testing.assert_array_equal(given.xy[0], result.people[0].keypoints[:, :2])
    np.testing.assert_array_equal(given.keypoint_confidence[0], result.people[0].keypoints[:, 2])
    drawn = supervision.VertexAnnotator(radius=5).annotate(picture.copy(), given)
    x, y = given.xy[0, 0].astype(int)
    assert (drawn[y, x] != picture[y, x]).any() and drawn.shape == picture.shape
    assert len(dataclasses.replace(result, people=()).to_supervision()) == 0


def test_supervision_takes_and_draws_masks(picture) -> None:
    supervision = pytest.importorskip("supervision")
    with prunus.load("segmentation") as segment:
        result = segment(picture)
    given = result.to_supervision()
    assert given.class_id.tolist() == [0, 1]
    assert given.area.sum() == picture.shape[0] * picture.shape[1]
    np.testing.assert_array_equal(given.mask[1], result.mask.classes == 1)
    rows, columns = np.nonzero(given.mask[1])
    np.testing.assert_array_equal(
        given.xyxy[1], [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    )
    assert supervision.MaskAnnotator().annotate(picture.copy(), given).shape == picture.shape


def test_without_supervision_its_name_is_told(pose, picture, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(prunus.PrunusError, match="supervision"):
        pose(picture).to_supervision()


def test_the_readme_example_runs(tmp_path, capsys, monkeypatch) -> None:
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.S).group(1)
    shutil.copy(PORTRAIT, tmp_path / "street.jpg")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    assert len(json.loads(capsys.readouterr().out)["people"]) == 1
    assert (tmp_path / "street-pose.jpg").stat().st_size > 10_000
