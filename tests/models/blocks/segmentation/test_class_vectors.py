"""Class vectors as an input: each class alone, with the class token as one more key."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from prunus.models.blocks.segmentation.class_vectors import ClassVectorNetwork, steered
from prunus.models.blocks.segmentation.deployed import deploy
from prunus.models.blocks.segmentation.network import build_sibling
from prunus.models.segmentation.edaformer import EDAFormerConfig
from prunus.runtime.errors import UsageError

CONFIG = EDAFormerConfig("t", (8, 16, 32, 64), (1, 1, 2, 1), 3.8, 2, 24)


def _network(blocks=2):
    torch.manual_seed(3)
    network = ClassVectorNetwork(CONFIG, blocks=blocks, width=12)
    with torch.no_grad():
        for value in network.parameters():
            if value.dim() > 1:
                value.normal_(std=value[0].numel() ** -0.5)
    return network.eval().double()


def _steered(block, x, grid, token):
    """Attention of one class over [class token ; pooled keys], head by head."""
    normed = functional.layer_norm(x, x.shape[1:], block.norm1.weight, block.norm1.bias, 1e-6)
    first = functional.layer_norm(token, token.shape, block.norm1.weight, block.norm1.bias, 1e-6)
    pooled = functional.avg_pool2d(normed.T.reshape(1, -1, *grid), block.attn.pooling)
    sources = torch.cat((first[None], pooled.flatten(2)[0].T))
    keys = sources @ block.attn.sr.weight[:, :, 0, 0].T + block.attn.sr.bias
    mixed, d = torch.zeros_like(x), x.shape[1] // block.attn.heads
    for head in range(block.attn.heads):
        part = slice(head * d, head * d + d)
        weights = (normed[:, part] @ keys[:, part].T / math.sqrt(d)).exp()
        mixed[:, part] = weights / weights.sum(1, keepdim=True) @ keys[:, part]
    x = x + block.attn.proj(mixed)
    return x + block.mlp(block.norm2(x)[None], grid)[0]


def test_a_steered_block_equals_the_loops() -> None:
    block = _network().backbone.get_submodule("block3")[0]
    x = torch.randn(3, 24, 32, dtype=torch.float64)
    tokens = torch.randn(3, 1, 32, dtype=torch.float64)
    with torch.no_grad():
        got = steered(block, x, (4, 6), tokens)
        expected = [_steered(block, one, (4, 6), t[0]) for one, t in zip(x, tokens, strict=True)]
    torch.testing.assert_close(got, torch.stack(expected), rtol=0, atol=1e-12)


def test_classes_together_equal_classes_one_by_one() -> None:
    network = _network(blocks=1)
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    vectors = torch.randn(3, 12, dtype=torch.float64)
    with torch.no_grad():
        together = network(image, vectors)
        assert together.shape == (1, 3, 8, 12)
        maps = []
        for vector in vectors:
            alone, current = [], image
            for stage in (1, 2, 3, 4):
                tokens, grid = network.backbone.get_submodule(f"patch_embed{stage}")(current)
                for k, block in enumerate(network.backbone.get_submodule(f"block{stage}")):
                    if stage == 3 and k == 0:
                        token = network.project[0](vector)
                        tokens = _steered(block, tokens[0], grid, token)[None]
                    else:
                        tokens = block(tokens, grid)
                tokens = network.backbone.get_submodule(f"norm{stage}")(tokens)
                current = tokens.transpose(1, 2).reshape(1, -1, *grid)
                alone.append(current)
            maps.append(network.decode_head(alone)[0, 0])
    torch.testing.assert_close(together[0], torch.stack(maps), rtol=0, atol=1e-11)
    assert float((together[0, 0] - together[0, 1]).abs().max()) > 1e-3  # the vectors matter


@pytest.mark.slow
def test_deployed_form_and_onnx_runtime_give_the_same(run_onnx) -> None:
    network = _network().float()
    image, vectors = torch.randn(1, 3, 64, 64), torch.randn(3, 12)
    with torch.no_grad():
        expected = network(image, vectors)
        torch.testing.assert_close(deploy(network)(image, vectors), expected, rtol=0, atol=1e-5)
    got = run_onnx(deploy(network), image, vectors)[0]
    np.testing.assert_allclose(got, expected.numpy(), rtol=0, atol=1e-5)
    other = torch.flip(vectors, (0,))  # the vectors are an input, not constants
    with torch.no_grad():
        flipped = network(image, other)
    torch.testing.assert_close(flipped, torch.flip(expected, (1,)), rtol=0, atol=1e-5)


def test_blocks_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UsageError, match="expected 1 to 2"):
        ClassVectorNetwork(CONFIG, blocks=3)


def test_the_table_builds_it_with_512_wide_vectors() -> None:
    network = build_sibling("clsclip", size=(64, 64))
    with torch.no_grad():
        assert network(torch.randn(1, 3, 64, 64), torch.randn(2, 512)).shape == (1, 2, 8, 8)
