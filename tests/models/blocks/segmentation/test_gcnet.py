"""Global context against loops over positions and channels."""

import math

import numpy as np
import pytest
import torch

from prunus.models.blocks.segmentation.gcnet import GlobalContext, GlobalContextBlock
from prunus.runtime.errors import UsageError

KEYS = {
    "conv_mask.weight": (1, 12, 1, 1), "conv_mask.bias": (1,),
    **{f"channel_{kind}_conv.{key}": shape for kind in ("add", "mul") for key, shape in {
        "0.weight": (3, 12, 1, 1), "0.bias": (3,), "1.weight": (3, 1, 1), "1.bias": (3, 1, 1),
        "3.weight": (12, 3, 1, 1), "3.bias": (12,),
    }.items()},
}  # fmt: skip


def _alive(module):
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for value in module.parameters():
            value.normal_(std=0.5, generator=generator)
        for name, value in module.named_parameters():
            if name.endswith("conv.1.bias"):
                value.add_(1.0)  # most of the hidden channels pass the ReLU
    return module.eval()


def _literal(state, image, pooling, fusions):
    """y = x * sigmoid(t') + t, position by position."""
    dim, rows, columns = image.shape
    if pooling == "attention":
        w, b = state["conv_mask.weight"].reshape(-1), float(state["conv_mask.bias"][0])
        scores = [math.exp(w @ image[:, y, x] + b) for y in range(rows) for x in range(columns)]
    else:
        scores = [1.0] * (rows * columns)
    context = np.zeros(dim)
    for k, score in enumerate(scores):
        context += score / sum(scores) * image[:, k // columns, k % columns]

    def bottleneck(prefix):
        hidden = state[f"{prefix}.0.weight"][:, :, 0, 0] @ context + state[f"{prefix}.0.bias"]
        hidden = (hidden - hidden.mean()) / math.sqrt(hidden.var() + 1e-5)
        gain, shift = state[f"{prefix}.1.weight"], state[f"{prefix}.1.bias"]
        hidden = np.maximum(hidden * gain[:, 0, 0] + shift[:, 0, 0], 0.0)
        return state[f"{prefix}.3.weight"][:, :, 0, 0] @ hidden + state[f"{prefix}.3.bias"]

    out = image.copy()
    for y in range(rows):
        for x in range(columns):
            if "multiply" in fusions:
                out[:, y, x] *= 1.0 / (1.0 + np.exp(-bottleneck("channel_mul_conv")))
            if "add" in fusions:
                out[:, y, x] += bottleneck("channel_add_conv")
    return out


@pytest.mark.parametrize("pooling", ["attention", "average"])
@pytest.mark.parametrize("fusions", [("add",), ("multiply",), ("add", "multiply")])
def test_block_equals_the_formula(pooling, fusions) -> None:
    block = _alive(GlobalContext(12, pooling=pooling, fusions=fusions))
    image = torch.randn(2, 12, 4, 5, generator=torch.Generator().manual_seed(1))
    state = {key: value.double().numpy() for key, value in block.state_dict().items()}
    with torch.no_grad():
        got = block(image)
    expected = [_literal(state, one.double().numpy(), pooling, fusions) for one in image]
    np.testing.assert_allclose(got.numpy(), np.stack(expected), rtol=0, atol=2e-6)
    assert float((got - image).abs().max()) > 0.1  # the block does something


def test_parameters_have_the_published_names_and_shapes() -> None:
    block = GlobalContext(12, fusions=("add", "multiply"))
    assert {k: tuple(v.shape) for k, v in block.state_dict().items()} == KEYS


def test_untrained_the_block_changes_nothing() -> None:
    image = torch.randn(1, 12, 3, 3)
    assert torch.equal(GlobalContext(12)(image), image)


def test_onnx_runtime_gives_the_same(run_onnx) -> None:
    block = _alive(GlobalContextBlock(16, 24))
    image = torch.randn(2, 16, 6, 5)
    with torch.no_grad():
        expected = block(image).numpy()
    np.testing.assert_allclose(run_onnx(block, image)[0], expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.5


def test_gradients_reach_every_parameter() -> None:
    block = _alive(GlobalContextBlock(16, 24)).train()
    block(torch.randn(2, 16, 6, 5)).square().sum().backward()
    idle = [n for n, p in block.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert idle in ([], ["context.conv_mask.bias"])  # a softmax does not see a common bias


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"pooling": "atention"}, "attention"),
        ({"fusions": ("plus",)}, "add, multiply"),
        ({"fusions": ()}, "no fusion"),
        ({"ratio": 0.01}, "leaves no channel"),
    ],
)
def test_wrong_choices_are_named(arguments, words) -> None:
    with pytest.raises(UsageError) as caught:
        GlobalContext(12, **arguments)
    assert words in f"{caught.value.message} {caught.value.hint}"
