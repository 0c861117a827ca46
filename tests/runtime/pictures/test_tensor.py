"""Pictures as arrays of a network."""

import numpy as np
import pytest

from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.errors import ArtifactError
from prunus.runtime.pictures.tensor import picture_size, picture_spec, takes_pictures, to_tensor
from prunus.runtime.tasks.segmentation.card import ScenePreprocess

SCALE = ScenePreprocess(4, 6, mean=(1, 2, 3), std=(2, 4, 8))
PICTURES = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 3), np.uint8)


def spec(dtype: str, *shape: int) -> TensorSpec:
    return TensorSpec("x", dtype, shape, tuple("nabc"[: len(shape)]))


def test_bytes_go_in_as_they_are() -> None:
    assert to_tensor(PICTURES, spec("uint8", 2, 4, 6, 3), SCALE) is PICTURES
    first = to_tensor(PICTURES, spec("uint8", 2, 3, 4, 6), SCALE)
    assert first.dtype == np.uint8 and (first == PICTURES.transpose(0, 3, 1, 2)).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_floats_are_normalised_by_channel(dtype) -> None:
    literal = np.empty((2, 3, 4, 6))
    for c in range(3):
        literal[:, c] = (PICTURES[..., c].astype(float) - SCALE.mean[c]) / SCALE.std[c]
    last = to_tensor(PICTURES, spec(dtype, 2, 4, 6, 3), SCALE)
    first = to_tensor(PICTURES, spec(dtype, 2, 3, 4, 6), SCALE)
    assert first.dtype == last.dtype == dtype and first.flags.c_contiguous
    np.testing.assert_allclose(first, literal, rtol=1e-6 if dtype == "float32" else 1e-3)
    np.testing.assert_array_equal(last, first.transpose(0, 2, 3, 1))


def test_the_one_input_of_that_shape_is_found() -> None:
    picture, other = spec("float32", 1, 3, 8, 6), spec("int64", 1, 77)
    assert takes_pictures(picture) and not takes_pictures(other)
    assert picture_spec((other, picture), "net") is picture
    assert picture_size(picture) == (8, 6) == picture_size(spec("uint8", 1, 8, 6, 3))
    for inputs in ((other,), (picture, picture)):
        with pytest.raises(ArtifactError, match="inputs of the shape of pictures; expected one"):
            picture_spec(inputs, "net")
