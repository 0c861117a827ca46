"""What a segmenter's card may say: how frames are fitted, and what its classes are."""

import pytest

from prunus.runtime.errors import ArtifactError
from prunus.runtime.tasks.segmentation.card import MaskPostprocess, ScenePreprocess


@pytest.mark.parametrize("fit", ["stretch", "letterbox", "keep_ratio", "sliding"])
def test_a_bounded_resize_needs_its_bounds(fit):
    whole = {"longest": 4, "shortest": 2, "stride": (1, 1)}
    assert ScenePreprocess(2, 2, fit, **whole).fit == fit
    wanted = {"keep_ratio": ("longest", "shortest"), "sliding": tuple(whole)}.get(fit, ())
    for name in whole:
        for zero in ((0, 1), (1, 0)) if name == "stride" else (0,):
            lacking = whole | {name: zero}
            if name in wanted:
                with pytest.raises(ArtifactError, match=f"resizes by '{fit}'"):
                    ScenePreprocess(2, 2, fit, **lacking)
            else:
                assert ScenePreprocess(2, 2, fit, **lacking).fit == fit


def _post(**changes):
    words = {"decoder": "logits", "classes": ("a", "b"), "palette": ((0, 0, 0), (1, 1, 1))}
    return MaskPostprocess(**(words | changes))


def test_classes_have_colours_and_a_foreground_among_them():
    for foreground in (-1, 0, 1):
        assert _post(foreground=foreground).foreground == foreground
    for changes, said in (
        ({"palette": ((0, 0, 0),)}, "2 classes and 1 colours"),
        ({"classes": (), "palette": ()}, "0 classes and 0 colours"),
        ({"foreground": -2}, "foreground class -2 and stride 1"),
        ({"foreground": 2}, "expected -1 to 1"),
        ({"stride": 0}, "stride 0"),
    ):
        with pytest.raises(ArtifactError) as caught:
            _post(**changes)
        assert said in str(caught.value)
