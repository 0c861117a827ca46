"""Tokens of an encoder's layers: nearest centres by loops, ids, repeats, pooling, ONNX Runtime."""

import math

import numpy as np
import pytest
import torch

from prunus.models.blocks.codec.ssl_tokens import (
    FIELD,
    HOP,
    KERNELS,
    STRIDES,
    LayerPooling,
    SpeechEncoderConfig,
    TokenExtractor,
    draw_encoder,
    fit_extractor,
    without_repeats,
)
from prunus.runtime.errors import TensorError, UsageError

SMALL = SpeechEncoderConfig(channels=6, dim=8, hidden=12, layers=3, heads=2, positions=5, groups=2)


def _sound(seconds=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.2 * torch.randn(int(16000 * seconds), generator=generator)


@pytest.fixture(scope="module")
def extractor():
    encoder = draw_encoder(SMALL, 1)
    return fit_extractor(encoder, [_sound(seed=s) for s in range(4)], (1, 3), 9, seed=2)


def test_frames_follow_from_kernels_and_strides() -> None:
    assert math.prod(STRIDES) == HOP
    field = 1
    for kernel, stride in zip(reversed(KERNELS), reversed(STRIDES), strict=True):
        field = (field - 1) * stride + kernel
    assert field == FIELD
    encoder = draw_encoder(SMALL, 1)
    for samples in (400, 719, 720, 16000):
        states = encoder(torch.zeros(1, samples))
        assert len(states) == 4 and states[3].shape == (1, 1 + (samples - FIELD) // HOP, 8)
    with pytest.raises(TensorError, match="400 samples or more"):
        encoder(torch.zeros(1, 399))


def test_a_layer_equals_the_loops() -> None:
    encoder = draw_encoder(SMALL, 4)
    before, after = encoder(_sound().unsqueeze(0), 1)
    layer, x = encoder.layers[0].double(), before[0].detach().double()

    def normed(norm, v):
        mean, var = v.mean(-1, keepdim=True), v.var(-1, keepdim=True, correction=0)
        return (v - mean) / torch.sqrt(var + 1e-5) * norm.weight + norm.bias

    q, k, v = (normed(layer.norm1, x) @ layer.qkv.weight.T + layer.qkv.bias).chunk(3, dim=1)
    mixed = torch.zeros_like(x)
    for n, head in np.ndindex(len(x), 2):
        part = slice(4 * head, 4 * head + 4)
        weights = torch.exp(k[:, part] @ q[n, part] / 2.0)
        mixed[n, part] = (weights[:, None] * v[:, part]).sum(0) / weights.sum()
    x = x + mixed @ layer.proj.weight.T + layer.proj.bias
    hidden = normed(layer.norm2, x) @ layer.fc1.weight.T + layer.fc1.bias
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    x = x + hidden @ layer.fc2.weight.T + layer.fc2.bias
    torch.testing.assert_close(after[0].detach().double(), x, rtol=0, atol=1e-5)


def test_tokens_are_the_nearest_centres(extractor) -> None:
    audio = torch.stack((_sound(seed=9), _sound(seed=10)))
    with torch.no_grad():
        tokens, states = extractor(audio), extractor.encoder(audio)
    assert tokens.dtype == torch.int64 and tokens.shape == (2, 24, 2)
    for b, frame, k in np.ndindex(2, 24, 2):
        state = states[extractor.used[k]][b, frame].double()
        distances = [float((state - c.double()).square().sum()) for c in extractor.centres[k]]
        assert int(tokens[b, frame, k]) == distances.index(min(distances))
    assert len(tokens[..., 0].unique()) > 3 and len(tokens[..., 1].unique()) > 3


def test_centres_are_those_of_the_layers(extractor) -> None:
    """Sounds that were clustered lie as close to their centres as k-means left them."""
    with torch.no_grad():
        frames = torch.cat([extractor.encoder(_sound(seed=s)[None])[3][0] for s in range(4)])
        tokens = torch.cat([extractor(_sound(seed=s)[None])[0, :, 1] for s in range(4)])
    for k in range(9):
        torch.testing.assert_close(
            frames[tokens == k].mean(0), extractor.centres[1, k], rtol=0, atol=1e-4
        )


def test_ids_of_layers_are_disjoint(extractor) -> None:
    tokens = torch.tensor([[[0, 0], [8, 8]]])
    assert extractor.ids(tokens).tolist() == [[[1, 10], [9, 18]]]
    assert extractor.vocabulary == 19 and extractor.clusters == 9


def test_same_seed_same_centres() -> None:
    encoder = draw_encoder(SMALL, 1)
    sounds = [_sound(seed=s) for s in range(3)]
    first, again, other = (
        fit_extractor(encoder, sounds, (2,), 7, seed=s).centres for s in (3, 3, 4)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_onnx_runtime_gives_the_same_tokens(extractor, run_onnx) -> None:
    audio = torch.stack((_sound(seed=20), _sound(seed=21)))
    with torch.no_grad():
        expected = extractor(audio)
    assert np.array_equal(run_onnx(extractor, audio)[0], expected.numpy())


def test_layers_behind_the_last_used_do_not_run() -> None:
    encoder = draw_encoder(SMALL, 1)
    centres = torch.randn(1, 5, 8)
    expected = TokenExtractor(encoder, (1,), centres)(_sound()[None])
    encoder.layers[2] = torch.nn.Identity()
    encoder.layers[1] = None  # would fail if it were called
    assert torch.equal(TokenExtractor(encoder, (1,), centres)(_sound()[None]), expected)


def test_repeats_are_merged_and_can_be_undone() -> None:
    tokens = np.array([3, 3, 3, 1, 3, 2, 2])
    kept, lengths = without_repeats(tokens)
    assert kept.tolist() == [3, 1, 3, 2] and lengths.tolist() == [3, 1, 1, 2]
    assert np.repeat(kept, lengths).tolist() == tokens.tolist()
    assert [len(part) for part in without_repeats(tokens[:0])] == [0, 0]
    with pytest.raises(TensorError, match=r"\(frames,\)"):
        without_repeats(tokens[None])


def test_pooling_weighs_layers_and_leaves_padding_out() -> None:
    torch.manual_seed(3)
    pooling = LayerPooling(19, 6)
    ids = torch.tensor([[[4, 12], [4, 0], [0, 12]]])
    with torch.no_grad():
        out = pooling(ids)[0]
        vectors = pooling.embed.weight[[4, 12]]
        scores = pooling.fc2(torch.relu(pooling.fc1(vectors))).exp()
    torch.testing.assert_close(out[0], (scores / scores.sum() * vectors).sum(0))
    torch.testing.assert_close(out[1:], vectors)  # one layer alone: its embedding


def test_bad_layers_and_centres_are_refused() -> None:
    encoder = draw_encoder(SMALL, 1)
    for layers in ((), (0,), (2, 1), (1, 4)):
        with pytest.raises(UsageError, match="from 1 to 3"):
            TokenExtractor(encoder, layers, torch.zeros(len(layers), 5, 8))
    with pytest.raises(TensorError, match="2, k, dim"):
        TokenExtractor(encoder, (1, 2), torch.zeros(1, 5, 8))
    with pytest.raises(TensorError, match="500 or more"):
        fit_extractor(encoder, [_sound()], (1,), 500)
    with pytest.raises(TensorError, match="no sounds"):
        fit_extractor(encoder, [], (1,), 5)
    with pytest.raises(UsageError, match="odd width"):
        SpeechEncoderConfig(positions=4)
