"""The mix-shift block against sums over taps, one by one."""

import math

import numpy as np
import pytest
import torch

from prunus.models.blocks.segmentation.mix_shift import KERNELS, MixShiftBlock
from prunus.runtime.errors import UsageError

GELU = np.vectorize(lambda x: 0.5 * x * (1 + math.erf(x / math.sqrt(2))))


def _literal(state, image, groups, kernels):
    """Shift, convolve tap by tap, normalise, two layers, scale, add: on one map (C, H, W)."""
    _, rows, columns = image.shape
    mixed = np.zeros_like(image)
    for name, along in (("dwconv_lr", 1), ("dwconv_td", 0)):
        start = 0
        for g, (width, k, shift) in enumerate(zip(groups, kernels, range(-2, 3), strict=True)):
            rolled = np.roll(image[start : start + width], shift, axis=1 + along)
            weight, bias = state[f"{name}.{g}.weight"], state[f"{name}.{g}.bias"]
            for c, y, x in np.ndindex(width, rows, columns):
                total = bias[c]
                for i, j in np.ndindex(k, k):
                    at = (y + i - k // 2, x + j - k // 2)
                    if 0 <= at[0] < rows and 0 <= at[1] < columns:
                        total += weight[c, 0, i, j] * rolled[c, at[0], at[1]]
                mixed[start + c, y, x] += total
            start += width
    mean, var = mixed.mean(0), mixed.var(0)
    normed = (mixed - mean) / np.sqrt(var + 1e-6)
    normed = normed.transpose(1, 2, 0) * state["norm.weight"] + state["norm.bias"]
    hidden = GELU(normed @ state["pwconv1.weight"].T + state["pwconv1.bias"])
    out = state["gamma"] * (hidden @ state["pwconv2.weight"].T + state["pwconv2.bias"])
    return image + out.transpose(2, 0, 1)


def _block(dim, kernels, merged):
    torch.manual_seed(6)
    block = MixShiftBlock(dim, 2 * dim, kernels, merged=merged).eval()
    with torch.no_grad():
        block.gamma.normal_()  # 1e-6 when new: it would hide everything
    return block


@pytest.mark.parametrize("merged", [False, True])
@pytest.mark.parametrize(
    ("dim", "groups", "kernels"), [(22, (5, 5, 5, 5, 2), KERNELS[0]), (10, (2,) * 5, KERNELS[3])]
)
def test_block_equals_the_taps(dim, groups, kernels, merged) -> None:
    block = _block(dim, kernels, merged)
    image = torch.randn(1, dim, 5, 6, generator=torch.Generator().manual_seed(1))
    state = {key: value.double().numpy() for key, value in block.state_dict().items()}
    with torch.no_grad():
        got = block(image)
    expected = _literal(state, image[0].double().numpy(), groups, kernels)
    np.testing.assert_allclose(got[0].numpy(), expected, rtol=0, atol=3e-6)
    assert float((got - image).abs().max()) > 0.1


def test_parameters_have_the_published_names() -> None:
    names = {name.split(".")[0] for name in MixShiftBlock(22, 44).state_dict()}
    assert names == {"dwconv_lr", "dwconv_td", "norm", "pwconv1", "pwconv2", "gamma"}
    assert len(MixShiftBlock(22, 44).state_dict()) == 2 * 5 * 2 + 7


@pytest.mark.parametrize("merged", [pytest.param(False, marks=pytest.mark.slow), True])
def test_onnx_runtime_gives_the_same(run_onnx, merged) -> None:
    block = _block(22, KERNELS[1], merged)
    image = torch.randn(2, 22, 6, 8)
    with torch.no_grad():
        expected = block(image).numpy()
    np.testing.assert_allclose(run_onnx(block, image)[0], expected, rtol=1e-5, atol=1e-5)


def test_gradients_reach_every_parameter() -> None:
    block = _block(22, KERNELS[0], True).train()
    block(torch.randn(1, 22, 5, 5)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())


def test_channels_and_kernels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="make 4 groups"):
        MixShiftBlock(16, 32)
    with pytest.raises(UsageError, match="five odd sides"):
        MixShiftBlock(20, 32, (1, 2, 3, 5, 7))
