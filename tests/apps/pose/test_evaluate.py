"""Known answers: a perfect estimator scores 1, a wrong one scores what its error deserves."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from prunus.apps.pose.coco import CocoPeople
from prunus.apps.pose.evaluate import evaluate_pose_folder
from prunus.models.pose.skeleton import COCO17, UNIFIED23
from prunus.runtime.errors import SourceError, UsageError
from prunus.runtime.tasks.pose.card import KeypointPostprocess
from prunus.runtime.tasks.pose.estimator import Pose

cv2 = pytest.importorskip("cv2")
pytest.importorskip("faster_coco_eval")
SIZE = (120, 160)


class Oracle:
    """Knows where everybody is; marks people in the picture by a bright pixel at the nose."""

    def __init__(self, skeleton=COCO17, shift: float = 0.0, score: float = 0.9) -> None:
        self.skeleton, self.shift, self.score = skeleton, shift, score
        self.postprocess = KeypointPostprocess(
            "udp_dark",
            skeleton.name,
            skeleton.joints,
            skeleton.limbs,
            skeleton.flip_pairs,
            skeleton.sigmas,
        )
        self.card = SimpleNamespace(name="oracle", weights=SimpleNamespace(sha256="abc"))
        self.calls = 0

    def __call__(self, frame: np.ndarray, boxes: np.ndarray) -> list[Pose]:
        self.calls += 1
        assert frame.dtype == np.uint8 and frame.shape == (*SIZE, 3)
        return [self._pose(box) for box in boxes]

    def _pose(self, box: np.ndarray) -> Pose:
        joints = layout(box, len(self.skeleton.joints)) + np.array([self.shift, 0])
        table = np.c_[joints, np.full(len(joints), self.score)].astype(np.float32)
        return Pose(table, tuple(box), self.score)


def layout(box: np.ndarray, count: int = 17) -> np.ndarray:
    """Joints on a fixed pattern inside a box, so that the box alone tells the truth."""
    share = np.random.default_rng(5).uniform(0.2, 0.8, (count, 2))
    return box[:2] + share * (box[2:] - box[:2])


BOXES = {
    1: [[10.0, 10.0, 60.0, 80.0], [70.0, 20.0, 60.0, 90.0]],
    2: [[30.0, 5.0, 70.0, 100.0]],
}


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path]:
    annotations = []
    for image, boxes in BOXES.items():
        cv2.imwrite(str(tmp_path / f"{image}.png"), np.zeros((*SIZE, 3), np.uint8))
        for x, y, w, h in boxes:
            joints = layout(np.array([x, y, x + w, y + h]))
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image,
                    "category_id": 1,
                    "bbox": [x, y, w, h],
                    "area": w * h * 0.6,
                    "iscrowd": 0,
                    "num_keypoints": 17,
                    "keypoints": np.c_[joints, np.full(17, 2)].ravel().tolist(),
                }
            )
    content = {
        "images": [{"id": i, "file_name": f"{i}.png"} for i in (1, 2, 3)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person", "keypoints": list(COCO17.joints)}],
    }
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps(content))
    return tmp_path, labels


def test_the_truth_scores_one(data) -> None:
    result = evaluate_pose_folder(Oracle(), *data)
    assert result.ap["AP"] == pytest.approx(1) and result.ap["AR"] == pytest.approx(1)
    assert result.oks == pytest.approx(1, abs=1e-6)
    assert result.pck == pytest.approx({0.05: 1, 0.1: 1, 0.2: 1})
    assert (result.images, result.people, result.boxes) == (2, 3, "ground truth")
    assert "flip test off" in result.to_text() and "100.0" in result.to_text()
    assert json.loads(json.dumps(result.to_dict()))["flip_test"] is False


def test_errors_cost_what_they_should(data) -> None:
    """6 px off: within 0.1 of boxes of 80 to 100 px, outside 0.05; OKS strictly in between."""
    result = evaluate_pose_folder(Oracle(shift=6.0), *data)
    assert result.pck == pytest.approx({0.05: 0, 0.1: 1, 0.2: 1})
    assert 0.2 < result.oks < 0.9
    assert 0 <= result.ap["AP"] < 1
    far = evaluate_pose_folder(Oracle(shift=60.0), *data)
    assert far.ap["AP"] == 0 and far.pck[0.2] == 0


def test_results_are_in_coco_format(data, tmp_path) -> None:
    result = evaluate_pose_folder(Oracle(), *data)
    result.save_results(tmp_path / "results.json")
    rows = json.loads((tmp_path / "results.json").read_text())
    assert len(rows) == 3 and {r["image_id"] for r in rows} == {1, 2}
    assert all(len(r["keypoints"]) == 51 and r["score"] == pytest.approx(0.9) for r in rows)


def test_detections_with_doubles_and_misses(data, tmp_path) -> None:
    """The double is suppressed, the missed person costs recall and one third of the OKS."""
    rows = [
        {"image_id": 1, "category_id": 1, "bbox": BOXES[1][0], "score": 0.9},
        {"image_id": 1, "category_id": 1, "bbox": BOXES[1][0], "score": 0.8},
        {"image_id": 1, "category_id": 3, "bbox": BOXES[1][1], "score": 0.9},
        {"image_id": 2, "category_id": 1, "bbox": BOXES[2][0], "score": 0.7},
    ]
    boxes = tmp_path / "boxes.json"
    boxes.write_text(json.dumps(rows))
    result = evaluate_pose_folder(Oracle(), *data, boxes)
    assert result.boxes == "detections" and len(result.results) == 2
    assert result.ap["AR"] == pytest.approx(2 / 3)
    assert result.pck[0.2] == pytest.approx(2 / 3)
    # The person who was missed is compared with the other one, far away.
    assert 2 / 3 <= result.oks < 0.75


def test_no_detections_score_zero(data, tmp_path) -> None:
    boxes = tmp_path / "boxes.json"
    boxes.write_text("[]")
    result = evaluate_pose_folder(Oracle(), *data, boxes)
    assert result.ap["AP"] == 0 and result.oks == 0 and result.pck[0.2] == 0


def test_a_larger_skeleton_is_matched_by_name(data) -> None:
    class Shuffled(Oracle):
        """Gives joints in the unified order; the first 17 are COCO's."""

        def _pose(self, box):
            head = layout(box)
            joints = np.r_[head, np.zeros((6, 2))]
            table = np.c_[joints, np.full(23, 0.9)].astype(np.float32)
            return Pose(table, tuple(box), 0.9)

    assert evaluate_pose_folder(Shuffled(UNIFIED23), *data).oks == pytest.approx(1, abs=1e-6)


def test_joints_that_the_model_lacks_are_named(data) -> None:
    folder, labels = data
    content = json.loads(labels.read_text())
    content["categories"][0]["keypoints"][3] = "tail"
    labels.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="tail"):
        evaluate_pose_folder(Oracle(), folder, labels)


def test_flip_test_swaps_sides(data) -> None:
    """An estimator that depends on nothing but mirrored truth must come back unchanged."""

    class Mirrored(Oracle):
        def __call__(self, frame, boxes):
            self.calls += 1
            if self.calls % 2:  # the picture itself
                return [self._pose(b) for b in boxes]
            back = boxes.copy()
            back[:, [0, 2]] = SIZE[1] - 1 - boxes[:, [2, 0]]
            poses = []
            for box in back:
                table = self._pose(box).keypoints.copy()
                table[:, 0] = SIZE[1] - 1 - table[:, 0]
                for a, b in COCO17.flip_pairs:
                    table[[a, b]] = table[[b, a]]
                poses.append(Pose(table, tuple(box), 0.9))
            return poses

    result = evaluate_pose_folder(Mirrored(), *data, flip_test=True)
    assert result.flip_test and result.oks == pytest.approx(1, abs=1e-6)


def test_crowds_mask_false_alarms_but_count_nobody(data) -> None:
    folder, labels = data
    content = json.loads(labels.read_text())
    crowd = {
        "id": 99, "image_id": 1, "category_id": 1, "bbox": [0, 0, 160, 120], "area": 19200,
        "iscrowd": 1, "num_keypoints": 0, "keypoints": [0] * 51,
    }  # fmt: skip
    content["annotations"].append(crowd)
    labels.write_text(json.dumps(content))
    truth = CocoPeople.read(labels)
    assert truth.count == 3 and len(truth.raw) == 4
    assert evaluate_pose_folder(Oracle(), folder, labels).ap["AP"] == pytest.approx(1)


def test_bad_files_are_explained(data, tmp_path) -> None:
    folder, labels = data
    with pytest.raises(SourceError, match=r"Cannot read .*none\.json"):
        evaluate_pose_folder(Oracle(), folder, tmp_path / "none.json")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(UsageError, match="not JSON"):
        evaluate_pose_folder(Oracle(), folder, tmp_path / "text.json")
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UsageError, match="not a COCO keypoint file"):
        evaluate_pose_folder(Oracle(), folder, tmp_path / "other.json")
    with pytest.raises(UsageError, match="not a COCO detection result"):
        evaluate_pose_folder(Oracle(), folder, labels, tmp_path / "other.json")
    empty = json.loads(labels.read_text()) | {"annotations": []}
    (tmp_path / "empty.json").write_text(json.dumps(empty))
    with pytest.raises(UsageError, match="labels nobody"):
        evaluate_pose_folder(Oracle(), folder, tmp_path / "empty.json")
    (folder / "2.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match="not a picture"):
        evaluate_pose_folder(Oracle(), folder, labels)
    (folder / "1.png").unlink()
    with pytest.raises(SourceError, match="not found"):
        evaluate_pose_folder(Oracle(), folder, labels)
