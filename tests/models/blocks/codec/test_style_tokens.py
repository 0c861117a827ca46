"""Style tokens against loops; padding changes nothing; weights by hand; ONNX Runtime."""

import math

import numpy as np
import pytest
import torch

from prunus.models.blocks.codec.style_tokens import (
    StyleConfig,
    StyleGraph,
    StyleTokens,
    WeightsGraph,
)
from prunus.models.macs import count_macs
from prunus.runtime.errors import TensorError, UsageError

SMALL = StyleConfig(bands=10, channels=(3, 4, 5), hidden=6, tokens=4, heads=2, dim=8)


def _network(config=SMALL):
    torch.manual_seed(2)
    network = StyleTokens(config)
    for norm in network.encoder.norms:
        norm.running_mean.normal_(std=0.3)
        norm.running_var.uniform_(0.5, 2.0)
    with torch.no_grad():
        for value in network.parameters():
            if value.dim() > 1:
                value.normal_(std=0.6)
    return network.eval()


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _literal(state, mel, config):
    """Convolve tap by tap, step the GRU, attend head by head: one clip (T, bands)."""
    image = mel[None]
    for k in range(len(config.channels)):
        weight = state[f"encoder.convs.{k}.weight"]
        rows, columns = (-(-side // 2) for side in image.shape[1:])
        out = np.zeros((len(weight), rows, columns))
        for c, y, x in np.ndindex(out.shape):
            for i, j in np.ndindex(3, 3):
                at = (2 * y + i - 1, 2 * x + j - 1)
                if 0 <= at[0] < image.shape[1] and 0 <= at[1] < image.shape[2]:
                    out[c, y, x] += weight[c, :, i, j] @ image[:, at[0], at[1]]
        name = f"encoder.norms.{k}"
        scale = state[f"{name}.weight"] / np.sqrt(state[f"{name}.running_var"] + 1e-5)
        shifted = (out - state[f"{name}.running_mean"][:, None, None]) * scale[:, None, None]
        image = np.maximum(shifted + state[f"{name}.bias"][:, None, None], 0)
    h = np.zeros(config.hidden)
    wi, wh = state["encoder.gru.weight_ih_l0"], state["encoder.gru.weight_hh_l0"]
    bi, bh = state["encoder.gru.bias_ih_l0"], state["encoder.gru.bias_hh_l0"]
    for step in range(image.shape[1]):
        a, b = wi @ image[:, step].reshape(-1) + bi, wh @ h + bh
        n = config.hidden
        r, z = _sigmoid(a[:n] + b[:n]), _sigmoid(a[n : 2 * n] + b[n : 2 * n])
        h = (1 - z) * np.tanh(a[2 * n :] + r * b[2 * n :]) + z * h
    width = config.dim // config.heads
    bank = np.tanh(state["bank.tokens"])
    query = state["bank.query.weight"] @ h
    keys, values = bank @ state["bank.key.weight"].T, bank @ state["bank.value.weight"].T
    style, all_weights = [], []
    for head in range(config.heads):
        part = slice(head * width, head * width + width)
        raw = [math.exp(query[part] @ key[part] / math.sqrt(width)) for key in keys]
        all_weights.append([value / sum(raw) for value in raw])
        style.append(sum(w * v[part] for w, v in zip(all_weights[-1], values, strict=True)))
    return np.concatenate(style), np.array(all_weights)


@pytest.mark.parametrize("length", [16, 13])
def test_module_equals_the_loops(length) -> None:
    network = _network()
    mel = torch.randn(2, length, 10, generator=torch.Generator().manual_seed(length))
    state = {key: value.double().numpy() for key, value in network.state_dict().items()}
    with torch.no_grad():
        style, weights = network(mel)
    for k in range(2):
        expected = _literal(state, mel[k].double().numpy(), SMALL)
        np.testing.assert_allclose(style[k].numpy(), expected[0], rtol=0, atol=1e-5)
        np.testing.assert_allclose(weights[k].numpy(), expected[1], rtol=0, atol=1e-5)
    assert float((style[0] - style[1]).abs().max()) > 1e-3


def test_sizes_are_the_papers() -> None:
    network = StyleTokens().eval()
    style, weights = network(torch.randn(1, 64, 80))
    assert style.shape == (1, 256) and weights.shape == (1, 8, 10)
    assert network.encoder.gru.input_size == 128 * 2 and network.config.stride == 64
    # About 10 M multiply-accumulates per second of reference (100 frames).
    with torch.device("meta"):
        macs = count_macs(StyleTokens(), torch.zeros(1, 6400, 80)) / 64
    assert 5e6 < macs < 20e6


def test_weights_of_a_head_sum_to_one() -> None:
    with torch.no_grad():
        _, weights = _network()(torch.randn(3, 16, 10))
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(3, 2))
    assert float(weights.min()) > 0


def test_order_of_the_bank_does_not_matter() -> None:
    network = _network()
    mel, order = torch.randn(2, 16, 10), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        style, weights = network(mel)
        network.bank.tokens.copy_(network.bank.tokens[order].clone())
        again, moved = network(mel)
    torch.testing.assert_close(again, style)
    torch.testing.assert_close(moved, weights[:, :, order])


@pytest.mark.parametrize("length", [1, 7, 16, 17, 24])
def test_padding_changes_nothing(length) -> None:
    network = _network()
    clip = torch.randn(1, length, 10)
    padded = torch.full((1, 24, 10), 9.0)  # rubbish behind the end
    padded[:, :length] = clip
    with torch.no_grad():
        alone = network(clip)[0]
        both = network(torch.cat((padded, torch.randn(1, 24, 10))), torch.tensor([length, 24]))[0]
    torch.testing.assert_close(both[:1], alone, rtol=0, atol=1e-6)


def test_styles_by_hand() -> None:
    network = _network()
    weights = torch.zeros(1, 2, 4)
    weights[0, 0, 1] = weights[0, 1, 3] = 1.0  # head 0 takes token 1, head 1 token 3
    values = torch.tanh(network.bank.tokens) @ network.bank.value.weight.T
    expected = torch.cat((values[1, :4], values[3, 4:]))
    torch.testing.assert_close(network.from_weights(weights)[0], expected)
    style, given = network(torch.randn(1, 16, 10))
    torch.testing.assert_close(network.from_weights(given), style)


def test_onnx_runtime_gives_the_same(run_onnx) -> None:
    network = _network()
    mel, frames = torch.randn(2, 24, 10), torch.tensor([24, 11])
    with torch.no_grad():
        expected = network(mel, frames)
    for got, wanted in zip(
        run_onnx(StyleGraph(network), mel, frames, outputs=2), expected, strict=True
    ):
        np.testing.assert_allclose(got, wanted.numpy(), rtol=0, atol=1e-5)
    got = run_onnx(WeightsGraph(network), expected[1])[0]
    np.testing.assert_allclose(got, expected[0].numpy(), rtol=0, atol=1e-5)


def test_gradients_reach_every_parameter() -> None:
    network = _network().train()
    style, _ = network(torch.randn(3, 16, 10))
    style.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_bad_sizes_and_clips_are_refused() -> None:
    with pytest.raises(UsageError, match="heads that divide"):
        StyleConfig(heads=7)
    with pytest.raises(UsageError, match="size of zero"):
        StyleConfig(tokens=0)
    network = _network()
    with pytest.raises(TensorError, match=r"\(B, T, 10\)"):
        network(torch.zeros(1, 16, 80))
    with pytest.raises(TensorError, match=r"expected \(2,\)"):
        network(torch.zeros(2, 16, 10), torch.tensor([4]))
    for wrong in (0, 17):
        with pytest.raises(TensorError, match="expected 1 to 16"):
            network(torch.zeros(1, 16, 10), torch.tensor([wrong]))
    with pytest.raises(TensorError, match=r"\(B, 2, 4\)"):
        network.from_weights(torch.zeros(1, 4, 2))
