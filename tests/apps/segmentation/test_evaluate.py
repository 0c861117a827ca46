"""`prunus eval segmentation` on generated sets whose scores are known exactly."""

from __future__ import annotations

import json
import struct
import zlib

import cv2
import numpy as np
import pytest

from prunus.apps.segmentation.evaluate import parse_numbers
from prunus.apps.segmentation.label_maps import LAYOUTS, label_pairs, layout_of, read_labels
from prunus.runtime.errors import SourceError, UsageError

RED, GREEN, BLUE = (0, 0, 255), (0, 255, 0), (255, 0, 0)  # BGR
OTHER, IS_RED, IS_GREEN = 0, 1, 2


def picture(*stripes):
    """64x64 pixels, equal horizontal stripes of the colours."""
    rows = 64 // len(stripes)
    return np.repeat(np.array(stripes, np.uint8), rows, axis=0)[:, None].repeat(64, axis=1)


def numbers(*stripes):
    return picture(*[(n, n, n) for n in stripes])[..., 0]


@pytest.fixture
def evaluate(prunus, colour_model, tmp_path):
    def run(*words, decoder="class_ids", **fit):
        model = colour_model(decoder, **fit)
        return prunus("eval", "segmentation", tmp_path / "in", "--masks", tmp_path / "labels",
                      "--model", model, "--backend", "onnxruntime", "--threads", 1,
                      *words)  # fmt: skip

    return run


def save(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


@pytest.fixture
def data(tmp_path):
    """Two pictures: one right everywhere, one with a quarter of the labels against the model."""
    save(tmp_path / "in" / "a.png", picture(RED, GREEN, BLUE, BLUE))
    save(tmp_path / "labels" / "a.png", numbers(IS_RED, IS_GREEN, OTHER, OTHER))
    save(tmp_path / "in" / "more" / "b.png", picture(RED, RED, BLUE, GREEN))
    save(tmp_path / "labels" / "more" / "b.png", numbers(IS_RED, OTHER, OTHER, 255))
    return tmp_path


def test_scores_are_those_worked_out_by_hand(evaluate, data) -> None:
    ran = evaluate("--json", "-o", data / "scores.json")
    assert ran.code == 0, ran.err
    result = json.loads(ran.out)
    assert result == json.loads((data / "scores.json").read_text())
    assert result["pictures"] == 2 and result["judged_pixels"] == 7 * 16 * 64
    # In stripes: other 4 labelled, 3 found, 3 hit; red 2, 3, 2; green 1, 1, 1 (one is ignored).
    other, red, green = result["classes"]
    assert (other["iou"], red["iou"], green["iou"]) == pytest.approx((3 / 4, 2 / 3, 1))
    assert (other["accuracy"], red["accuracy"]) == pytest.approx((3 / 4, 1))
    assert result["mean_iou"] == pytest.approx((3 / 4 + 2 / 3 + 1) / 3)
    assert result["pixel_accuracy"] == pytest.approx(6 / 7)
    assert other["pixels"] == 4 * 16 * 64 and other["name"] == "other"


def test_the_table_names_classes_in_percent(evaluate, data) -> None:
    ran = evaluate()
    assert "mIoU 80.56" in ran.out and "pixel accuracy 85.71" in ran.out
    assert "3 of 3 classes occur" in ran.out
    (line,) = [text for text in ran.out.splitlines() if text.strip().startswith("red")]
    assert line.split() == ["red", "66.67", "100.00", "2048", "28.57%"]


def test_ade20k_numbers_begin_at_one(evaluate, data) -> None:
    for path in (data / "labels").rglob("*.png"):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(int)
        cv2.imwrite(str(path), np.where(labels == 255, 0, labels + 1).astype(np.uint8))
    result = json.loads(evaluate("--layout", "ade20k", "--json").out)
    assert result["mean_iou"] == pytest.approx((3 / 4 + 2 / 3 + 1) / 3)
    assert result["judged_pixels"] == 7 * 16 * 64


def test_cityscapes_names_and_numbers(evaluate, data) -> None:
    """Its label 7 (road) is class 0, 8 (sidewalk) class 1, 11 (building) class 2."""
    for name, labels in (("in/more/b", (8, 7, 7, 4)), ("in/a", (8, 11, 7, 7))):
        source = data / f"{name}.png"
        target = data / "labels" / source.relative_to(data / "in").parent
        (target / source.name).unlink()
        save(target / f"{source.stem}_gtFine_labelIds.png", numbers(*labels))
        source.rename(source.with_name(f"{source.stem}_leftImg8bit.png"))
    result = json.loads(evaluate("--layout", "cityscapes", "--json").out)
    assert result["mean_iou"] == pytest.approx((3 / 4 + 2 / 3 + 1) / 3)


def test_a_class_against_all_others(evaluate, data) -> None:
    """The two-class network finds red; labels 1 are red, all others are background."""
    result = json.loads(evaluate("--positive", "1", "--json", decoder="probability").out)
    # Stripes: red 2 labelled, 3 found, 2 hit; background 5 labelled, 4 found, 4 hit.
    assert [c["iou"] for c in result["classes"]] == pytest.approx([4 / 5, 2 / 3])
    refused = evaluate("--positive", "1")
    assert refused.code == 2 and "expected two classes" in refused.err
    assert parse_numbers("11, 12") == (11, 12) and parse_numbers(None) == ()
    with pytest.raises(UsageError, match="expected numbers") as caught:
        parse_numbers("1;2")
    assert "--layout" in caught.value.hint


def test_labels_of_0_and_255_are_judged_or_refused(evaluate, data) -> None:
    """255 is the class where it is asked for; else nobody judges it, and one class is no score."""
    for path in (data / "labels").rglob("*.png"):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), np.where(labels == IS_RED, 255, 0).astype(np.uint8))
    ran = evaluate("--positive", "255", "--json", decoder="probability")
    # Stripes: red 2 labelled, 3 found, 2 hit; background 6 labelled, 5 found, 5 hit.
    classes = json.loads(ran.out)["classes"]
    assert [c["iou"] for c in classes] == pytest.approx([5 / 6, 2 / 3])
    assert [c["pixels"] for c in classes] == [6 * 16 * 64, 2 * 16 * 64]
    refused = evaluate(decoder="probability")
    assert refused.code == 2
    assert "no judged pixel of " in refused.err and "2048 of the label 255 not" in refused.err
    assert "--positive 255" in refused.err
    # Background that is not judged leaves one class as well.
    assert evaluate("--positive", "255", "--ignore", "0", decoder="probability").code == 2


def test_binary_labels_of_one_bit_score_as_those_of_eight(evaluate, data) -> None:
    def score(*words):
        return json.loads(evaluate(*words, "--json", decoder="probability").out)["mean_iou"]

    for path in (data / "labels").rglob("*.png"):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), (labels == IS_RED).astype(np.uint8))
    eight = score()
    assert eight == pytest.approx((5 / 6 + 2 / 3) / 2)
    for path in (data / "labels").rglob("*.png"):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(path), labels * 255, [cv2.IMWRITE_PNG_BILEVEL, 1])
        assert path.read_bytes()[24] == 1
    assert score() == eight == score("--positive", "1")


def test_classes_that_nobody_labelled_are_named(evaluate, data) -> None:
    save(data / "labels" / "a.png", numbers(IS_RED, OTHER, OTHER, OTHER))
    ran = evaluate()
    assert ran.code == 0 and "never judged, 1: green" in ran.out
    assert [c["pixels"] for c in json.loads(evaluate("--json").out)["classes"]] == [5120, 2048, 0]


def test_two_pictures_with_one_label_are_refused(evaluate, data) -> None:
    save(data / "in" / "a.bmp", picture(RED))
    ran = evaluate()
    assert ran.code == 2 and "a.bmp" in ran.err and "would share the labels" in ran.err


def test_limit_takes_pictures_from_everywhere(evaluate, data) -> None:
    assert json.loads(evaluate("--limit", 1, "--json").out)["pictures"] == 1


def test_bad_files_are_left_out_and_named(evaluate, data) -> None:
    (data / "in" / "broken.png").write_bytes(b"no picture")
    save(data / "labels" / "broken.png", numbers(OTHER))
    save(data / "in" / "lonely.png", picture(RED))
    save(data / "in" / "small.png", picture(RED)[:32])
    save(data / "labels" / "small.png", numbers(OTHER))
    ran = evaluate()
    assert ran.code == 1
    for said in ("broken.png is not a complete picture", "lonely.png: Cannot read",
                 "small.png has 64x32 pixels and 64x64 labels"):  # fmt: skip
        assert said in ran.out
    assert "2 pictures" in ran.out and "mIoU 80.56" in ran.out


def test_labels_that_the_model_does_not_know_are_refused(evaluate, data) -> None:
    save(data / "labels" / "a.png", numbers(7))
    ran = evaluate()
    assert ran.code == 2 and "a.png" in ran.err and "class number 7" in ran.err
    assert len([line for line in ran.err.splitlines() if line[:4] in ("erro", "hint")]) == 2
    assert evaluate("--ignore", 7).code == 2  # now 255 of the other picture is no class


def test_folders_that_do_not_fit_are_refused(evaluate, data, tmp_path) -> None:
    assert "Unknown layout 'ade'" in evaluate("--layout", "ade").err
    with pytest.raises(UsageError, match="did you mean 'cityscapes'"):
        layout_of("cityscape")
    (tmp_path / "empty").mkdir()
    plain = LAYOUTS["plain"]
    with pytest.raises(SourceError, match="holds no pictures"):
        label_pairs(tmp_path / "empty", data / "labels", plain)
    with pytest.raises(SourceError, match="has labels in"):
        label_pairs(data / "in", tmp_path / "empty", plain)
    with pytest.raises(SourceError, match="Not a folder"):
        label_pairs(data / "in", tmp_path / "none", plain)
    for path in (data / "in").rglob("*.png"):
        path.write_bytes(b"")
    ran = evaluate()
    assert ran.code == 2 and "No picture could be judged" in ran.err


def raw_png(path, indices, bits, colour, *chunks):
    """Write numbers as they are, of 1, 2, 4 or 8 bits."""

    def chunk(kind, body):
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + checksum

    height, width = indices.shape
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    planes = np.unpackbits(indices[..., None], axis=-1)[..., 8 - bits :].reshape(height, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in planes)
    body = b"".join(chunk(*c) for c in (*chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body)


def indexed_png(path, indices, bits=8):
    """Write an indexed PNG whose palette is anything but its indices."""
    colours = bytes((200 - k) % 256 for k in range(3 * 2**bits))
    raw_png(path, indices, bits, 3, (b"PLTE", colours), (b"tRNS", b"\x7f\x00"))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_numbers_of_few_bits_are_read_as_they_are(tmp_path, bits) -> None:
    expected = np.random.default_rng(bits).integers(0, 2**bits, (5, 7), np.uint8)
    raw_png(tmp_path / "grey.png", expected, bits, 0)
    raw_png(tmp_path / "clear.png", expected, bits, 0, (b"tRNS", b"\0\1"))
    indexed_png(tmp_path / "indexed.png", expected, bits)
    for name in ("grey", "clear", "indexed"):
        labels = read_labels(tmp_path / f"{name}.png", LAYOUTS["plain"])
        np.testing.assert_array_equal(labels, expected, err_msg=name)


def test_labels_in_every_form_of_png(tmp_path) -> None:
    plain = LAYOUTS["plain"]
    expected = np.arange(12, dtype=np.uint8).reshape(3, 4)
    expected[0, 0] = 255
    save(tmp_path / "grey.png", expected)
    save(tmp_path / "deep.png", expected.astype(np.uint16))
    save(tmp_path / "as_colours.png", np.dstack([expected] * 3))
    indexed_png(tmp_path / "indexed.png", expected)
    for name in ("grey", "deep", "as_colours", "indexed"):
        np.testing.assert_array_equal(read_labels(tmp_path / f"{name}.png", plain), expected)
    save(tmp_path / "colours.png", picture(RED))
    with pytest.raises(SourceError, match="in colours"):
        read_labels(tmp_path / "colours.png", plain)
    (tmp_path / "half.png").write_bytes((tmp_path / "indexed.png").read_bytes()[:40])
    with pytest.raises(SourceError, match="not a complete PNG"):
        read_labels(tmp_path / "half.png", plain)
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(SourceError, match="is empty"):
        read_labels(tmp_path / "empty.png", plain)
