"""What a card may say about tensors, and which saying is refused."""

import pytest

from prunus.runtime.card.tensors import DTYPES, StateSpec, TensorSpec
from prunus.runtime.errors import ArtifactError
from prunus.runtime.limits import TENSOR_VALUES


def _spec(**changes):
    words = {"name": "image", "dtype": "uint8", "shape": (1, 4), "axes": ("batch", "x")}
    return TensorSpec(**(words | changes))


def test_a_tensor_describes_itself():
    assert _spec().describe() == "image uint8 [batch=1, x=4]"
    assert _spec(shape=(), axes=()).describe() == "image uint8 []"


@pytest.mark.parametrize("dtype", DTYPES)
def test_known_types_are_taken(dtype):
    assert _spec(dtype=dtype).dtype == StateSpec("s", dtype, (1,)).dtype == dtype


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"axes": ("batch",)}, "with one name each"),
        ({"shape": (1, 0)}, "expected positive sizes with one name each"),
        ({"shape": (-1, 4)}, "positive sizes"),
        ({"dtype": "float31"}, "did you mean 'float32'"),
        ({"minimum": 2.0, "maximum": 1.0}, "ranges from 2 to 1"),
        ({"shape": (2, TENSOR_VALUES.most)}, "image"),
    ],
)
def test_what_no_tensor_is_is_refused(changes, said):
    with pytest.raises(ArtifactError, match="Tensor 'image'") as caught:
        _spec(**changes)
    assert said in str(caught.value)


def test_ranges_may_be_open_or_a_point():
    for low, high in ((None, 1.0), (1.0, None), (None, None), (1.0, 1.0), (0.0, 1.0)):
        spec = _spec(minimum=low, maximum=high)
        assert (spec.minimum, spec.maximum) == (low, high)


def test_states_are_held_to_the_same():
    assert _spec(shape=(1, 1)).shape == (1, 1)
    for dtype, shape in (("half", (1,)), ("float32", (0,)), ("float32", (TENSOR_VALUES.most + 1,))):
        with pytest.raises(ArtifactError, match="Tensor 's'"):
            StateSpec("s", dtype, shape)
