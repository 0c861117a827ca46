"""Stages of a fine-tuning at another size of input."""

import pytest

from prunus.models.training.pose.dataset import FINE_STAGES, fine_stages


@pytest.mark.parametrize(
    ("size", "sigma"), [((256, 128), 2.0), ((208, 160), 1.625), ((128, 96), 1.25)]
)
def test_targets_shrink_with_people_and_not_below_what_tells_them_apart(size, sigma):
    (stage,) = fine_stages(size)
    assert (stage.size, stage.sigma, stage.batch) == (size, sigma, FINE_STAGES[0].batch)
    assert fine_stages() == FINE_STAGES
