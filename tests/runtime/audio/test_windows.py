"""Windows cover every pixel and stay inside."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.runtime.audio.windows import window_corners
from prunus.runtime.errors import UsageError


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.floats(0.05, 1.0),
)
def test_every_pixel_is_covered(size, crop, share) -> None:
    stride = (max(1, int(crop[0] * share)), max(1, int(crop[1] * share)))
    seen = np.zeros(size, int)
    for top, left in window_corners(size, crop, stride):
        assert top >= 0 and left >= 0
        assert top + min(crop[0], size[0]) <= size[0] and left + min(crop[1], size[1]) <= size[1]
        seen[top : top + crop[0], left : left + crop[1]] += 1
    assert seen.min() >= 1


def test_steps_that_would_miss_pixels_are_refused() -> None:
    with pytest.raises(UsageError, match="no larger than a window"):
        window_corners((64, 64), (32, 32), (33, 32))
