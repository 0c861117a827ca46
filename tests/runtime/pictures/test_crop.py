"""Crops: the way in and the way back, odd pictures, odd boxes."""

import numpy as np
import pytest

from prunus.runtime.errors import TensorError
from prunus.runtime.pictures.crop import (
    CropGeometry,
    as_bgr8,
    check_boxes,
    check_frame,
    resample,
    warp,
)
from prunus.runtime.pictures.opencv import in_colours

GEOMETRY = CropGeometry(256, 192)


def test_windows_have_the_aspect_of_the_crop_and_keep_the_centre() -> None:
    boxes = np.array([[10.0, 20, 110, 60], [10, 20, 30, 220]])
    windows = GEOMETRY.windows(boxes)
    np.testing.assert_allclose(windows[:, 2] / windows[:, 3], 192 / 256)
    np.testing.assert_allclose(windows[:, :2] + windows[:, 2:] / 2, [[60, 40], [20, 120]])
    np.testing.assert_allclose([windows[0, 2], windows[1, 3]], [125, 250])


def test_a_point_survives_the_round_trip() -> None:
    """A bright dot in the image is found in the crop and maps back to where it was."""
    frame = np.zeros((300, 400, 3), np.uint8)
    frame[118:123, 198:203] = 255  # centre at x=200, y=120
    windows = GEOMETRY.windows(np.array([[150.0, 40, 230, 200]]))
    crop = np.zeros((1, 256, 192, 3), np.uint8)
    GEOMETRY.crop_into(frame, windows, crop)
    weight = crop[0, :, :, 0].astype(float)
    y, x = (
        np.array([(weight.sum(1 - a) * np.arange(weight.shape[a])).sum() for a in (0, 1)])
        / weight.sum()
    )
    joints = np.array([[[x, y, 1.0]]], np.float32)
    np.testing.assert_allclose(GEOMETRY.to_image(joints, windows)[0, 0, :2], [200, 120], atol=0.05)


def test_corners_of_the_crop_are_corners_of_the_window() -> None:
    windows = np.array([[-5.0, 7, 96, 128]])
    corners = np.array([[[0, 0, 1], [191, 255, 1]]], np.float32)
    np.testing.assert_allclose(GEOMETRY.to_image(corners, windows)[0, :, :2], [[-5, 7], [91, 135]])


def test_colour_order_and_batch_order() -> None:
    frame = np.zeros((64, 128, 3), np.uint8)
    frame[:, :64, 0], frame[:, 64:, 2] = 200, 100  # blue left, red right
    boxes = np.array([[16.0, 16, 40, 48], [88, 16, 112, 48]])
    crops = np.zeros((4, 256, 192, 3), np.uint8)
    GEOMETRY.crop_into(frame, GEOMETRY.windows(boxes), crops)
    assert crops[0, 128, 96].tolist() == [0, 0, 200]
    assert crops[1, 128, 96].tolist() == [100, 0, 0]
    assert not crops[2:].any()


def test_crops_in_rgb_are_those_in_bgr_turned_byte_for_byte() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
    boxes = np.array([[16.0, 16, 40, 48], [-30, 20, 60, 200], [0.3, 0.7, 119.2, 88.1]])
    crops = np.zeros((2, 3, 256, 192, 3), np.uint8)
    for rgb, out in zip((True, False), crops, strict=True):
        geometry = CropGeometry(256, 192, rgb=rgb)
        geometry.crop_into(frame, geometry.windows(boxes), out)
    assert np.array_equal(crops[0], crops[1][..., ::-1]) and not np.array_equal(*crops)
    apart = crops[1, :, ::2, ::3]  # a view with gaps
    assert np.array_equal(in_colours(apart[2], True), apart[2][..., ::-1])
    assert np.array_equal(in_colours(apart[2], False), apart[2])


@pytest.mark.parametrize("box", [[1e6, 1e6, 1e6 + 50, 1e6 + 90], [-900, -900, -800, -700]])
def test_a_box_outside_the_frame_gives_the_padding(box: list[float]) -> None:
    crop = np.full((1, 256, 192, 3), 7, np.uint8)
    geometry = CropGeometry(256, 192, pad_value=3)
    geometry.crop_into(np.full((90, 90, 3), 255, np.uint8), geometry.windows(np.array([box])), crop)
    assert (crop == 3).all()


@pytest.mark.parametrize("size", [(1, 1), (40, 2), (33_000, 400)])
def test_tiny_and_huge_frames(size: tuple[int, int]) -> None:
    frame = np.full((*size, 3), 90, np.uint8)
    windows = GEOMETRY.windows(np.array([[0.0, 0, size[1], size[0]]]))
    crop = np.zeros((1, 256, 192, 3), np.uint8)
    GEOMETRY.crop_into(frame, windows, crop)
    assert crop.max() == 90


def test_a_box_without_area_grows_to_one_pixel() -> None:
    windows = GEOMETRY.windows(np.array([[5.0, 5, 5, 5]]))
    assert np.isfinite(windows).all()
    assert (windows[:, 2:] >= 1).all()


@pytest.mark.parametrize(
    ("boxes", "words"),
    [([[0, 0, np.nan, 1]], "finite"), ([[5, 5, 1, 9]], "x0 <= x1"), ([1, 2, 3, 4], "people")],
)
def test_wrong_boxes_are_named(boxes: list[object], words: str) -> None:
    with pytest.raises(TensorError, match=words):
        check_boxes(np.array(boxes, float))


def test_no_boxes() -> None:
    assert check_boxes(np.array([])).shape == (0, 4)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)])
@pytest.mark.parametrize(("dtype", "white"), [("uint8", 255), ("uint16", 65535), ("float32", 1.0)])
def test_usual_pictures_become_bgr8(shape: tuple[int, ...], dtype: str, white: float) -> None:
    result = as_bgr8(np.full(shape, white, dtype))
    check_frame(result)
    assert result.shape == (4, 5, 3)
    assert (result == 255).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 5, 2), np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((4, 5, 3), np.int64),
        np.full((4, 5, 3), np.nan, np.float32),
        np.full((4, 5, 3), 200.0, np.float32),
    ],
)
def test_other_pictures_are_refused(image: np.ndarray) -> None:
    with pytest.raises(TensorError):
        as_bgr8(image)
    with pytest.raises(TensorError):
        check_frame(image)


def turned(shrinking: float, degrees: float, centre: tuple[float, float], side: int) -> np.ndarray:
    """Matrix from a square crop to the frame: around a centre, turned."""
    angle = np.deg2rad(degrees)
    turn = shrinking * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.c_[turn, np.array(centre) - turn @ np.full(2, (side - 1) / 2)]


@pytest.mark.parametrize("degrees", [0, 30, 90])
@pytest.mark.parametrize("shrinking", [2.0, 2.5, 3.9, 7.3])
def test_crops_that_shrink_average_areas(shrinking: float, degrees: float) -> None:
    """Noise shrinks with the side of the area; a filter of two by two pixels leaves more."""
    noise = np.random.default_rng(1).integers(0, 256, (700, 700, 3), np.uint8)
    crop = warp(noise, turned(shrinking, degrees, (350, 350), 60), (60, 60))
    assert crop.mean() == pytest.approx(127.5, abs=2.5)
    assert crop.std() < 1.05 * noise.std() / shrinking


@pytest.mark.parametrize("shrinking", [0.5, 1.0, 1.9, 2.2, 3.3, 8.0])
@pytest.mark.parametrize("degrees", [3, 20])
def test_crops_show_the_place_that_the_matrix_says(shrinking: float, degrees: float) -> None:
    """Two slopes: the grey of a place tells where it is, whatever is averaged around it."""
    y, x = np.mgrid[:256, :256]
    slopes = np.dstack([x, y, np.full(x.shape, 9)]).astype(np.uint8)
    side = 22
    matrix = turned(shrinking, degrees, (128.3, 126.6), side)
    crop = warp(slopes, matrix, (side, side)).astype(float)
    at = np.stack([*np.mgrid[:side, :side][::-1], np.ones((side, side))])
    expected = np.einsum("ij,jyx->yxi", matrix, at)
    assert np.abs(crop[..., :2] - expected).max() < 1.6  # greys are whole numbers
    assert np.abs((crop[..., :2] - expected).mean((0, 1))).max() < 0.3


@pytest.mark.parametrize("shrinking", [1.0, 2.0, 2.7, 6.0])
def test_a_mirrored_frame_gives_the_mirrored_crop(shrinking: float) -> None:
    rng = np.random.default_rng(4)
    frame = resample(rng.integers(0, 256, (25, 40, 3), np.uint8), (250, 401))
    width = frame.shape[1]
    window = np.array([[30.2, 20.6, 95 * shrinking, 95 * shrinking]])
    mirror = window.copy()
    mirror[:, 0] = width - 1 - (window[:, 0] + window[:, 2])
    geometry = CropGeometry(96, 96, pad_value=50)
    a, b = np.zeros((2, 1, 96, 96, 3), np.uint8)
    geometry.crop_into(frame, window, a)
    geometry.crop_into(np.ascontiguousarray(frame[:, ::-1]), mirror, b)
    difference = a.astype(float) - b[:, :, ::-1]
    assert np.abs(difference).mean() < 1.0 and np.abs(difference.mean()) < 0.1


def test_what_lies_outside_the_frame_is_padding_at_every_scale() -> None:
    white = np.full((100, 100, 3), 255, np.uint8)
    crop = warp(white, turned(4.0, 0, (0, 0), 40), (40, 40), fill=10)
    assert (crop[:19] == 10).all() and (crop[:, :19] == 10).all()
    assert (crop[21:, 21:] == 255).all()


@pytest.mark.parametrize("size", [(10, 10), (10, 300), (300, 10), (7, 90)])
def test_resampling_averages_along_the_sides_that_shrink(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (120, 120, 3), np.uint8)
    result = resample(noise, size)
    assert result.shape[:2] == size
    shrinking = np.prod([max(120 / s, 1) for s in size])
    assert result.std() < 1.15 * noise.std() / np.sqrt(shrinking)
    same = resample(noise, (120, 120))
    np.testing.assert_array_equal(same, noise)
