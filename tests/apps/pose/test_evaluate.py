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
    whole = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(whole[: len(whole) // 2])
    result = evaluate_pose_folder(Oracle(), folder, labels)
    assert len(result.skipped) == 1 and "2.png is not a complete picture" in result.skipped[0]
    assert (result.images, result.people) == (1, 2) and result.ap["AR"] == pytest.approx(1)
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"No picture could be judged.*1\.png"):
        evaluate_pose_folder(Oracle(), folder, labels)
    (folder / "1.png").unlink()
    with pytest.raises(SourceError, match="not found"):
        evaluate_pose_folder(Oracle(), folder, labels)


def judged_by_the_evaluator(labels: Path, rows: list[dict]) -> dict[str, float]:
    """AP of results as faster-coco-eval gives it to somebody who has the two files."""
    from faster_coco_eval import COCO, COCOeval_faster

    truth = COCO(json.loads(labels.read_text()))
    judge = COCOeval_faster(
        truth, truth.loadRes(rows), "keypoints", kpt_oks_sigmas=list(COCO17.sigmas)
    )
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return dict(zip(("AP", "AP50", "AP75", "APm", "APl", "AR"), judge.stats, strict=False))


class Sometimes(Oracle):
    """Is off by more, the further right a box begins: some people match, others do not."""

    def _pose(self, box: np.ndarray) -> Pose:
        joints = layout(box) + np.array([box[0] / 8, 0])
        return Pose(np.c_[joints, np.full(17, 0.9)].astype(np.float32), tuple(box), 0.9)


def with_pictures(data, *, category=1, ids=lambda i: i, nobody=6):
    """Relabel the set: more pictures in which nobody is labelled, other ids and category."""
    folder, labels = data
    content = json.loads(labels.read_text())
    for k in range(4, 4 + nobody):
        content["images"].append({"id": k, "file_name": f"{k}.png"})
        cv2.imwrite(str(folder / f"{k}.png"), np.zeros((*SIZE, 3), np.uint8))
    for entry in content["images"]:
        entry["id"] = ids(entry["id"])
    for entry in content["annotations"]:
        entry["image_id"], entry["category_id"] = ids(entry["image_id"]), category
    content["categories"][0]["id"] = category
    labels.write_text(json.dumps(content))
    rng, rows = np.random.default_rng(3), []
    true = [(i, b) for i, boxes in BOXES.items() for b in boxes]
    false = [(k, [10.0, 10.0, 40.0, 60.0]) for k in range(4, 4 + nobody)]
    for image, box in true + false:
        score = round(float(rng.uniform(0.3, 1)), 3)
        rows.append({"image_id": ids(image), "category_id": category, "bbox": box, "score": score})
    boxes = folder / "boxes.json"
    boxes.write_text(json.dumps(rows))
    return boxes


@pytest.mark.parametrize("category", [1, 0, 7])
@pytest.mark.parametrize(
    "ids",
    [lambda i: i, lambda i: str(11 - i), lambda i: 2**40 - i],
    ids=["own", "text", "large"],
)
def test_ap_is_the_evaluators_with_false_alarms_in_pictures_of_nobody(data, category, ids) -> None:
    boxes = with_pictures(data, category=category, ids=ids)
    result = evaluate_pose_folder(Sometimes(), *data, boxes)
    assert result.images == 9 and {r["category_id"] for r in result.results} == {category}
    rows = [r | {"image_id": int(r["image_id"])} for r in result.results]
    expected = judged_by_the_evaluator(data[1], rows)
    assert {k: result.ap[k] for k in expected} == pytest.approx(expected, abs=1e-12)
    boxes.write_text(json.dumps(json.loads(boxes.read_text())[:3]))  # no false alarm
    assert evaluate_pose_folder(Sometimes(), *data, boxes).ap["AP"] > result.ap["AP"] > 0


@pytest.mark.parametrize("ids", ["img-{}".format, lambda i: 2**62 - i, lambda i: 2**70 + i])
def test_the_score_does_not_depend_on_the_ids(data, ids) -> None:
    """The evaluator itself takes no words, and cannot tell large numbers apart."""
    before = data[1].read_text()
    expected = evaluate_pose_folder(Sometimes(), *data, with_pictures(data)).ap
    data[1].write_text(before)
    boxes = with_pictures(data, ids=ids)
    result = evaluate_pose_folder(Sometimes(), *data, boxes)
    assert result.ap == expected and result.results[0]["image_id"] in (ids(1), ids(9))


def edited(data, change) -> tuple[Path, Path]:
    folder, labels = data
    content = json.loads(labels.read_text())
    change(content)
    labels.write_text(json.dumps(content))
    return folder, labels


@pytest.mark.parametrize("area", [0, None, 50.0])
def test_areas_are_the_evaluators_and_missing_ones_are_told(data, area) -> None:
    def change(content):
        content["annotations"][2]["area"] = area

    result = evaluate_pose_folder(Sometimes(), *edited(data, change))
    if area is None:  # the evaluator cannot read it
        w, h = BOXES[2][0][2:]
        edited(data, lambda c: c["annotations"][2].update(area=0.53 * w * h))
    rows = [dict(r) for r in result.results]
    expected = judged_by_the_evaluator(data[1], rows)
    assert {k: result.ap[k] for k in expected} == pytest.approx(expected, abs=1e-12)
    assert [n[:21] for n in result.notes] == {
        0: ["1 people have the are"], None: ["1 people have no area"]
    }.get(area, [])  # fmt: skip


@pytest.mark.parametrize("keypoints", [None, []])
def test_crowds_and_people_without_joints_mask_false_alarms(data, keypoints) -> None:
    boxes = with_pictures(data, nobody=2)
    before = evaluate_pose_folder(Oracle(), *data, boxes).ap["AP"]
    box = {"category_id": 1, "bbox": [0, 0, 160, 120], "area": 19200, "keypoints": keypoints}

    def change(content):
        content["annotations"] += [
            {**box, "id": 90, "image_id": 4, "iscrowd": 1},
            {**box, "id": 91, "image_id": 5, "num_keypoints": 0},
        ]

    result = evaluate_pose_folder(Oracle(), *edited(data, change), boxes)
    assert before < result.ap["AP"] == pytest.approx(1)
    assert result.people == 3


@pytest.mark.parametrize("value", [float("nan"), float("inf"), None, "left"])
def test_joints_that_are_no_numbers_are_refused_by_name(data, value) -> None:
    def change(content):
        content["annotations"][1]["keypoints"][15] = value

    with pytest.raises(UsageError, match=rf"annotation 2: the joint '{COCO17.joints[5]}'"):
        evaluate_pose_folder(Oracle(), *edited(data, change))
    # Of a joint that is not labelled nobody reads the place.
    edited(data, lambda c: c["annotations"][1]["keypoints"].__setitem__(17, 0))
    assert evaluate_pose_folder(Oracle(), *data).oks == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["annotations"][0].update(keypoints=[1, 2, 2]), "annotation 1 has 3 numbers"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), "annotation 1 has the bbox"),
        (lambda c: c["annotations"][0].update(area=float("nan")), "the area nan"),
        (lambda c: c["annotations"][0].pop("bbox"), "annotation 1 has the bbox None"),
        (lambda c: c["annotations"][0].update(image_id=77), "of the image 77"),
        (lambda c: c["images"].append({"id": 1, "file_name": "z.png"}), "is that of 1.png and of"),
        (lambda c: c["images"][0].update(id=1.5), "image id 1.5 of 1.png"),
    ],
)
def test_wrong_entries_are_refused_by_name(data, change, said) -> None:
    with pytest.raises(UsageError, match=said):
        evaluate_pose_folder(Oracle(), *edited(data, change))


@pytest.mark.parametrize(
    "name", ["../1.png", "/etc/1.png", "a/../../1.png", "C:\\1.png", "..\\1.png", "", ".", None]
)
def test_labels_cannot_reach_outside_the_folder(data, name) -> None:
    with pytest.raises(UsageError, match="not that of a picture inside the folder"):
        evaluate_pose_folder(
            Oracle(), *edited(data, lambda c: c["images"][2].update(file_name=name))
        )


def test_boxes_go_to_the_picture_that_they_name(data) -> None:
    """Ids of another list, and folders of another machine, in front of the right names."""
    boxes = with_pictures(data, nobody=0)
    rows = json.loads(boxes.read_text())
    for row in rows:
        row["file_name"] = f"/data/val/{row['image_id']}.png"
        row["image_id"] = 3 - row["image_id"]
    boxes.write_text(json.dumps(rows))
    assert evaluate_pose_folder(Oracle(), *data, boxes).ap["AR"] == pytest.approx(1)
    rows[0]["file_name"] = "/data/train/1.png"
    boxes.write_text(json.dumps(rows))
    with pytest.raises(UsageError, match=r"train/1\.png and /data/val/1\.png"):
        evaluate_pose_folder(Oracle(), *data, boxes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"category_id": 4}, "categories 4 only; expected some of category 1"),
        ({"image_id": 70}, "None of the 3 boxes"),
        ({"file_name": "other.png"}, r"None of the 3 boxes.*other\.png"),
        ({"bbox": [1, 2, float("nan"), 4]}, "box 0 of people is not finite"),
    ],
)
def test_boxes_that_fit_nothing_are_refused(data, change, said) -> None:
    boxes = with_pictures(data, nobody=0)
    boxes.write_text(json.dumps([r | change for r in json.loads(boxes.read_text())]))
    with pytest.raises(UsageError, match=said):
        evaluate_pose_folder(Oracle(), *data, boxes)


def test_a_cut_picture_is_named_and_ends_with_code_1(prunus, data) -> None:
    folder, labels = data
    content = json.loads(labels.read_text())
    noise = np.random.default_rng(1).integers(0, 256, (*SIZE, 3), np.uint8)
    whole = cv2.imencode(".jpg", noise)[1].tobytes()
    content["images"][1]["file_name"] = "2.jpg"
    labels.write_text(json.dumps(content))
    words = ("eval", "pose", folder, "--annotations", labels, "--model", "movenet_lightning",
             "--backend", "onnxruntime", "--threads", 1)  # fmt: skip
    (folder / "2.jpg").write_bytes(whole)
    assert prunus(*words).code == 0
    (folder / "2.jpg").write_bytes(whole[: len(whole) // 2])
    ran = prunus(*words, "--json")
    assert ran.code == 1
    result = json.loads(ran.out)
    assert result["images"] == 1 and "2.jpg is not a complete" in result["skipped"][0]
