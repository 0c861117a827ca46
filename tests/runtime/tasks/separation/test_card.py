"""What a separator's cards may say: both graphs are on one clock."""

import pytest

from prunus.runtime.errors import ArtifactError
from prunus.runtime.tasks.separation.card import MixturePreprocess, MouthPreprocess


@pytest.mark.parametrize(
    "change",
    [{"frames": 0}, {"size": 0}, {"frame_rate_hz": 0}, {"reach": -1}, {"std": 0.0}, {"std": -1.0}],
)
def test_mouths_without_a_size_are_refused(change):
    words = {"frames": 1, "size": 1, "frame_rate_hz": 1, "reach": 0, "std": 0.1}
    assert MouthPreprocess(**words).reach == 0
    with pytest.raises(ArtifactError, match="crops of"):
        MouthPreprocess(**(words | change))


def test_sound_and_frames_last_the_same_time():
    assert MixturePreprocess(32000, 50).samples_per_frame == 640
    assert MixturePreprocess(8, 4, 2, 1).samples_per_frame == 2
    for wrong in ((32001, 50), (32000, 49), (0, 0), (8, 4, 1, 1), (-8, -4, 2, 1), (8, 4, -2, -1)):
        with pytest.raises(ArtifactError, match="expected the same time of both"):
            MixturePreprocess(*wrong)
