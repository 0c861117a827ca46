"""k-means on clusters that are known, against a plain statement of its steps."""

import numpy as np
import pytest
import torch

from prunus.models.codec.layers import kmeans
from prunus.models.codec.layers.kmeans import fit_kmeans, nearest_centres
from prunus.runtime.errors import TensorError, UsageError


def _blobs(seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = 10 * torch.randn(6, 4, generator=generator)
    noise = 0.2 * torch.randn(6, 50, 4, generator=generator)
    return centres, (centres[:, None] + noise).reshape(-1, 4)


def test_known_clusters_are_found() -> None:
    centres, frames = _blobs()
    found = fit_kmeans(frames, 6, seed=3)
    nearest = torch.cdist(centres, found.centres).argmin(dim=1)
    assert sorted(nearest.tolist()) == list(range(6))
    own = frames.reshape(6, 50, 4).mean(dim=1)
    torch.testing.assert_close(found.centres[nearest], own, rtol=0, atol=1e-5)
    inertia = float((frames.reshape(6, 50, 4) - own[:, None]).square().sum())
    assert found.inertia == pytest.approx(inertia, rel=1e-5)


def test_result_is_where_lloyds_steps_end() -> None:
    """Each centre is the mean of the frames nearest to it, by loops."""
    frames = torch.randn(300, 3, generator=torch.Generator().manual_seed(4))
    found = fit_kmeans(frames, 7, seed=1)
    data, centres = frames.double().numpy(), found.centres.double().numpy()
    labels = [min(range(7), key=lambda k: ((x - centres[k]) ** 2).sum()) for x in data]
    for k in range(7):
        np.testing.assert_allclose(data[np.array(labels) == k].mean(0), centres[k], atol=1e-5)
    assert labels == nearest_centres(frames, found.centres).tolist()


def test_more_steps_never_hurt() -> None:
    frames = torch.randn(400, 5, generator=torch.Generator().manual_seed(6))
    inertias = [fit_kmeans(frames, 9, seed=2, steps=s).inertia for s in (1, 2, 4, 8, 100)]
    assert inertias == sorted(inertias, reverse=True) and inertias[0] > inertias[-1]
    assert fit_kmeans(frames, 9, seed=2).steps < 100  # it ends by itself


def test_same_seed_same_centres() -> None:
    _, frames = _blobs()
    before = torch.get_rng_state()
    first, again, other = (fit_kmeans(frames, 9, seed=s).centres for s in (5, 5, 6))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_centre_stays_empty() -> None:
    frames = torch.cat((torch.zeros(50, 2), torch.tensor([[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]])))
    for seed in range(10):
        found = fit_kmeans(frames, 4, seed=seed)
        assert sorted(found.centres.tolist()) == [[0, 0], [0, 1], [1, 0], [9, 9]]
        assert found.inertia == 0.0


def test_an_empty_cluster_takes_the_farthest_frame() -> None:
    data = torch.tensor([[0.0], [1.0], [2.0], [9.0]], dtype=torch.float64)
    labels = torch.zeros(4, dtype=torch.int64)  # everything in cluster 0, whose mean is 3
    moved = kmeans._means(data, labels, torch.zeros(3, 1, dtype=torch.float64))
    assert moved.flatten().tolist() == [3.0, 9.0, 0.0]


def test_fewer_different_frames_than_centres() -> None:
    found = fit_kmeans(torch.ones(5, 2), 3)
    assert found.centres.tolist() == [[1, 1]] * 3 and found.inertia == 0.0


def test_bad_input_is_refused() -> None:
    with pytest.raises(TensorError, match="3 or more"):
        fit_kmeans(torch.ones(2, 2), 3)
    with pytest.raises(TensorError, match="NaN"):
        fit_kmeans(torch.tensor([[1.0], [float("nan")]]), 1)
    with pytest.raises(UsageError, match="1 or more"):
        fit_kmeans(torch.ones(2, 2), 0)
