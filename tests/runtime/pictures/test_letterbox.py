"""A frame inside an input: its size, its place, its colours."""

import numpy as np
import pytest

from prunus.runtime.pictures.letterbox import letterbox_into, letterbox_size


@pytest.mark.parametrize(
    ("frame", "size", "inside"),
    [
        ((40, 30), (64, 96), (64, 48)),
        ((30, 40), (96, 64), (48, 64)),
        ((100, 100), (50, 80), (50, 50)),
        ((64, 96), (64, 96), (64, 96)),
        ((1, 5000), (64, 64), (1, 64)),
        ((5000, 1), (64, 64), (64, 1)),
        ((333, 500), (100, 150), (100, 150)),
        ((200, 301), (64, 96), (64, 96)),
    ],
)
def test_the_aspect_stays_and_nothing_is_lost(frame, size, inside) -> None:
    assert letterbox_size(frame, size) == inside


@pytest.mark.parametrize("rgb", [True, False])
def test_the_frame_lies_at_the_top_left_and_the_rest_is_padding(rgb) -> None:
    frame = np.empty((20, 10, 3), np.uint8)
    frame[:] = (10, 20, 30)
    out = np.full((40, 60, 3), 77, np.uint8)
    scale = letterbox_into(frame, out, rgb=rgb, pad_value=5)
    assert scale.tolist() == [2, 2]
    assert (out[:40, :20] == ((30, 20, 10) if rgb else (10, 20, 30))).all()
    assert (out[:, 20:] == 5).all()


def test_the_scale_is_that_of_each_side() -> None:
    out = np.zeros((64, 96, 3), np.uint8)
    scale = letterbox_into(np.zeros((200, 301, 3), np.uint8), out)
    np.testing.assert_allclose(scale, [96 / 301, 64 / 200])


def test_defaults_are_rgb_on_black() -> None:
    frame = np.zeros((2, 2, 3), np.uint8)
    frame[..., 0] = 200  # blue
    out = np.full((4, 6, 3), 9, np.uint8)
    letterbox_into(frame, out)
    assert out[0, 0].tolist() == [0, 0, 200] and not out[:, 4:].any()
