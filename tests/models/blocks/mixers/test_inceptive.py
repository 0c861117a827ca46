"""The Inceptive mixer against a loop over taps."""

import numpy as np
import pytest
import torch

from prunus.models.blocks.mixers.inceptive import InceptiveMixer
from prunus.models.macs import count_macs
from prunus.runtime.errors import UsageError

DIM, HEADS, TIME = 8, 2, 11


def _restated(again, mixer, x):
    rows = []
    for branch in mixer.branches:
        out, kernel = [], branch.weight.shape[2]
        for t in range(TIME):
            value = branch.bias.clone()
            for tap in range(kernel):
                at = t + tap - kernel // 2
                if 0 <= at < TIME:
                    value = value + branch.weight[:, :, tap] @ x[at]
            out.append(value.clamp_min(0))
        rows.append(torch.stack(out))
    x = x + torch.cat(rows, dim=1)
    normed = again.norm(mixer.norm, x)
    return x + again.mha(mixer.attn, normed, normed)


@pytest.mark.parametrize("kernels", [(1, 3, 5, 7), (3,), (1, 9)])
def test_equals_the_loop(again, kernels) -> None:
    mixer = again.alive(InceptiveMixer(DIM, HEADS, kernels))
    x = torch.randn(2, TIME, DIM, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.stack([_restated(again, mixer, one) for one in x])
        torch.testing.assert_close(mixer(x), expected, rtol=0, atol=1e-11)


def test_onnx_cost_and_gradients(again, run_onnx) -> None:
    mixer = again.alive(InceptiveMixer(DIM, HEADS))
    x = torch.randn(2, TIME, DIM, dtype=torch.float64)
    mixer(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in mixer.parameters())
    with torch.no_grad():
        expected = mixer(x).numpy()
    got = run_onnx(mixer.float(), x.float())[0]
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    taps = (1 + 3 + 5 + 7) * TIME * DIM * DIM // 4
    cost = taps + 4 * TIME * DIM**2 + 2 * TIME**2 * DIM
    assert count_macs(mixer, torch.zeros(1, TIME, DIM)) == cost


@pytest.mark.parametrize("kernels", [(2,), (), (1, 3, 5), (0, 1)])
def test_refusals(kernels) -> None:
    with pytest.raises(UsageError, match="for 8 channels; expected odd widths"):
        InceptiveMixer(DIM, HEADS, kernels)
