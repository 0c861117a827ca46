"""What a pose network's card may say of its joints."""

import pytest

from prunus.runtime.errors import ArtifactError
from prunus.runtime.tasks.pose.card import KeypointPostprocess


def _post(**changes):
    words = {"decoder": "udp_dark", "skeleton": "two", "joints": ("a", "b"), "limbs": ((0, 1),),
             "flip_pairs": ((1, 0),), "sigmas": (0.1, 0.2)}  # fmt: skip
    return KeypointPostprocess(**(words | changes))


def test_sigmas_may_be_left_out():
    assert _post().sigmas == (0.1, 0.2)
    assert _post(sigmas=()).sigmas == ()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"joints": (), "sigmas": (), "limbs": (), "flip_pairs": ()}, "0 joints and 0 sigmas"),
        ({"sigmas": (0.1,)}, "2 joints and 1 sigmas"),
        ({"sigmas": (0.1,) * 3}, "2 joints and 3 sigmas"),
        ({"limbs": ((0, 1), (1, 2))}, "limbs hold [1, 2]; expected joints 0 to 1"),
        ({"limbs": ((-1, 0),)}, "limbs hold [-1, 0]"),
        ({"flip_pairs": ((0, 2),)}, "flip_pairs hold [0, 2]"),
        ({"flip_pairs": ((-2, 0),)}, "flip_pairs hold [-2, 0]"),
    ],
)
def test_joints_that_are_not_there_are_refused(changes, said):
    with pytest.raises(ArtifactError) as caught:
        _post(**changes)
    assert said in str(caught.value)
