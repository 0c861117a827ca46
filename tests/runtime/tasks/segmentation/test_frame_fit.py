"""Frames become inputs exactly as the published pipeline makes them."""

import numpy as np
import pytest

from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError, UsageError
from prunus.runtime.pictures.letterbox import letterbox_into
from prunus.runtime.pictures.tensor import to_tensor
from prunus.runtime.tasks.segmentation.card import ScenePreprocess
from prunus.runtime.tasks.segmentation.frame_fit import (
    FrameFit,
    keep_ratio_size,
    resize,
    round_up,
)

pytest.importorskip("cv2")


@pytest.mark.parametrize(("name", "multiple", "step"), [("plain", 1, 4), ("aligned", 32, 1)])
def test_preparation_is_bit_equal_to_the_published_one(parity, name, multiple, step) -> None:
    data = parity("edaformer")
    frame = data["preproc/bgr_uint8"]
    size = round_up(keep_ratio_size(frame.shape[:2], 256, 96), multiple)
    spec = ScenePreprocess(*size, "keep_ratio", longest=256, shortest=96, multiple=multiple)
    fit = FrameFit(spec)
    scaled = fit.scale(frame)
    np.testing.assert_array_equal(scaled, data[f"preproc/{name}_uint8"])
    slot = np.zeros((*size, 3), np.uint8)
    fit.place(scaled, slot)
    image = TensorSpec("image", "float32", (1, 3, *size), ("n", "c", "h", "w"))
    planes = to_tensor(slot[None], image, spec)[:, :, ::step, ::step]
    np.testing.assert_array_equal(planes, data[f"preproc/{name}_nchw"])


def test_letterbox_keeps_the_aspect_and_pads_below_and_right() -> None:
    fit = FrameFit(ScenePreprocess(64, 96, "letterbox", pad_value=7))
    frame = np.full((40, 30, 3), 200, np.uint8)
    scaled = fit.scale(frame)
    assert scaled.shape == (64, 48, 3)
    slot = np.zeros((64, 96, 3), np.uint8)
    fit.place(scaled, slot)
    assert (slot[:, :48] == 200).all() and (slot[:, 48:] == 7).all()


@pytest.mark.parametrize("size", [(40, 30), (479, 641), (1, 300), (64, 96), (65, 97)])
def test_finders_and_dense_networks_see_the_same_letterbox(size) -> None:
    frame = np.random.default_rng(6).integers(0, 256, (*size, 3), np.uint8)
    fit = FrameFit(ScenePreprocess(64, 96, "letterbox", pad_value=7))
    slot, other = np.zeros((2, 64, 96, 3), np.uint8)
    fit.place(fit.scale(frame), slot)
    scale = letterbox_into(frame, other, pad_value=7)
    np.testing.assert_array_equal(slot, other)
    np.testing.assert_allclose(scale * size[::-1], fit.scaled_size(size)[::-1])


@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_frames_that_shrink_are_averaged(fit) -> None:
    """Fine noise becomes the grey that it is from afar, whatever rows and columns are hit."""
    noise = np.random.default_rng(7).integers(0, 2, (640, 640, 3), np.uint8) * 255
    small = FrameFit(ScenePreprocess(64, 64, fit)).scale(noise)
    assert small.std() < 1.1 * noise.std() / 10 and small.mean() == pytest.approx(127.5, abs=2)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (479, 641)])
@pytest.mark.parametrize("fit", ["letterbox", "stretch", "sliding"])
def test_any_frame_becomes_an_input(size, fit) -> None:
    bounds = {"longest": 128, "shortest": 64, "stride": (32, 32)} if fit == "sliding" else {}
    frame_fit = FrameFit(ScenePreprocess(64, 64, fit, **bounds))
    scaled = frame_fit.scale(np.zeros((*size, 3), np.uint8))
    assert scaled.shape[:2] == frame_fit.scaled_size(size) and min(scaled.shape) >= 1
    if fit != "sliding":
        frame_fit.place(scaled, np.zeros((64, 64, 3), np.uint8))


def test_colours_go_in_the_order_of_the_card() -> None:
    frame = np.zeros((8, 8, 3), np.uint8)
    frame[..., 0] = 9  # blue
    for colour, channel in (("rgb", 2), ("bgr", 0)):
        slot = np.zeros((8, 8, 3), np.uint8)
        FrameFit(ScenePreprocess(8, 8, "stretch", colour)).place(frame, slot)
        assert (slot[..., channel] == 9).all() and slot.sum() == 9 * 64


def test_a_frame_of_another_aspect_is_refused_with_the_size_to_export() -> None:
    fit = FrameFit(ScenePreprocess(512, 512, "keep_ratio", longest=2048, shortest=512, multiple=32))
    with pytest.raises(UsageError, match="512x704 under") as error:
        fit.place(fit.scale(np.zeros((300, 400, 3), np.uint8)), np.zeros((512, 512, 3), np.uint8))
    assert "--size 512x704" in error.value.hint


def test_a_card_without_bounds_is_refused() -> None:
    with pytest.raises(ArtifactError, match=r"into 0 x 0 pixels .* expected positive numbers"):
        ScenePreprocess(64, 64, "keep_ratio")
    with pytest.raises(ArtifactError, match="longest >= shortest"):
        FrameFit(ScenePreprocess(64, 64, "keep_ratio", longest=32, shortest=64))


def test_class_numbers_are_resized_by_the_nearest_pixel() -> None:
    numbers = np.array([[1, 5], [9, 200]], np.uint8)
    big = resize(numbers, (6, 4), nearest=True)
    np.testing.assert_array_equal(big, numbers.repeat(3, axis=0).repeat(2, axis=1))
