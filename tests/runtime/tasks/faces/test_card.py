"""What a face finder's card may say of its grids."""

import pytest

from prunus.runtime.errors import ArtifactError
from prunus.runtime.tasks.faces.card import FacesPostprocess


def test_each_grid_has_a_stride_and_a_count_of_anchors():
    assert FacesPostprocess((8, 16), (2, 6), ("nose",)).strides == (8, 16)
    for strides, anchors in (((8,), (2, 6)), ((8, 16), (2,)), ((), ())):
        said = f"{len(strides)} strides and {len(anchors)} counts"
        with pytest.raises(ArtifactError, match=said):
            FacesPostprocess(strides, anchors, ("nose",))
