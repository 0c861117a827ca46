"""The short filter is the cosine-transform operator, for any length."""

import numpy as np
import pytest
import torch

from prunus.models.separation.voice.heat import (
    cosine_table,
    gain_error,
    heat_dense,
    heat_filter,
    heat_kernel,
    mirror,
    mirror_index,
)


@pytest.mark.parametrize("length", [7, 26, 250])
@pytest.mark.parametrize("form", ["filter", "dense"])
def test_both_forms_give_the_published_numbers(cases, length, form):
    x = torch.from_numpy(cases.arrays[f"unit/heat_{length}_x"]).double().T[None]
    k = torch.from_numpy(cases.arrays["unit/heat_k"]).double()
    expected = cases.arrays[f"unit/heat_{length}_y"].T
    if form == "filter":
        got = heat_filter(x, heat_kernel(k, 200))
    else:
        got = heat_dense(x, k, cosine_table(length))
    # k goes down to 0.05, where a cut kernel still misses some of the energy at Nyquist.
    bound = 1e-6 + (gain_error(k, 200) * 10 if form == "filter" else 0)
    assert np.abs(got[0].numpy() - expected).max() <= bound
    large = k >= 0.7
    assert np.abs(got[0].numpy() - expected)[large.numpy()].max() <= 5e-6


@pytest.mark.parametrize(
    ("k", "radius", "relative"),
    [(3.0, 16, 1e-9), (1.0, 16, 3e-5), (1.0, 64, 4e-6), (0.3, 64, 4e-3)],
)
def test_the_gain_error_bounds_what_any_signal_loses(k, radius, relative):
    torch.manual_seed(1)
    exponents = torch.full((4,), k, dtype=torch.float64)
    x = torch.randn(1, 4, 400, dtype=torch.float64)
    x[:, 3] = torch.cos(torch.arange(400) * np.pi)  # all energy at Nyquist, the worst place
    exact = heat_dense(x, exponents, cosine_table(400))
    short = heat_filter(x, heat_kernel(exponents, radius))
    loss = (exact - short).square().mean(dim=2).sqrt() / x.square().mean(dim=2).sqrt()
    bound = gain_error(exponents, radius)
    assert float(loss.max()) <= bound * 1.01 + 1e-12
    assert bound <= relative


def test_the_error_shrinks_with_the_radius_and_grows_with_sharpness():
    k = torch.tensor([1.0])
    errors = [gain_error(k, radius) for radius in (8, 16, 32, 64, 128)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 2e-6
    assert gain_error(torch.tensor([0.3]), 32) > gain_error(k, 32)


def test_the_table_is_orthonormal_and_diffusing_by_zero_changes_nothing():
    table = cosine_table(37)
    assert torch.allclose(table @ table.T, torch.eye(37, dtype=torch.float64), atol=1e-13)
    x = torch.randn(1, 2, 37, dtype=torch.float64)
    zero = torch.zeros(2, dtype=torch.float64)
    assert torch.allclose(heat_dense(x, zero, table), x)
    middle = heat_kernel(zero, 4)[:, 0]
    assert torch.allclose(middle, torch.eye(9, dtype=torch.float64)[4].expand(2, -1), atol=1e-12)


def test_kernels_sum_to_one_and_gradients_reach_the_exponents():
    k = torch.tensor([0.5, 1.0, 4.0], dtype=torch.float64, requires_grad=True)
    kernel = heat_kernel(k, 64)
    assert torch.allclose(kernel.sum(dim=-1).flatten(), torch.ones(3).double(), atol=1e-3)
    assert torch.equal(kernel, kernel.flip(-1))
    kernel[:, 0, 64].sum().backward()
    assert (k.grad < 0).all()  # more diffusion, less of the sample itself


def test_mirrors_repeat_the_edge_and_wrap_for_short_signals():
    assert mirror_index(3, 4).tolist() == [2, 2, 1, 0, 0, 1, 2, 2, 1, 0, 0]
    for length, radius in ((3, 4), (3, 3), (9, 4)):
        x = torch.randn(1, 2, length)
        assert torch.equal(mirror(x, radius), x[..., mirror_index(length, radius)])
