"""Fusion, distillation and alignment: what the training of FuseCodec adds to the generator."""

import pytest
import torch
from torch.nn.functional import normalize

from prunus.models.blocks.codec.fusecodec import (
    FuseCodec,
    FusionLayer,
    align_context,
    alignment_loss,
    distillation_loss,
)
from prunus.models.codec.fusecodec.speechtokenizer import SpeechTokenizer, SpeechTokenizerConfig
from prunus.runtime.errors import UsageError


def test_the_deployed_graph_is_the_plain_generator():
    small = SpeechTokenizerConfig(base=4, dim=16, codes=32, stages=2, semantic=8)
    assert list(FuseCodec(small).state_dict()) == list(SpeechTokenizer(small).state_dict())


def _fused(drop=0.0, seed=0):
    torch.manual_seed(seed)
    return FusionLayer(dim=12, teacher=16, heads=4, drop=drop), torch.randn(3, 12, 7)


def test_one_key_makes_attention_a_projection_of_the_other_teacher():
    layer, z = _fused()
    s, c = torch.randn(3, 16), torch.randn(3, 16)

    def through(attention, value):  # all keys are equal, so the weights do not matter
        weight, bias = attention.in_proj_weight[32:], attention.in_proj_bias[32:]
        return attention.out_proj(value @ weight.t() + bias)

    added = layer.to_semantic(through(layer.semantic, c)) + layer.to_context(
        through(layer.context, s)
    )
    torch.testing.assert_close(layer.eval()(z, s, c), z + added.unsqueeze(-1))


def test_modalities_are_dropped_whole_and_only_in_training():
    layer, z = _fused(drop=0.5)
    s, c = torch.randn(3, 16), torch.randn(3, 16)
    steady = layer.eval()(z, s, c)
    assert torch.equal(steady, layer(z, s, c))
    layer.train()
    torch.manual_seed(4)
    seen = torch.stack([layer(z, s, c) - z for _ in range(64)])[:, 0]
    kinds = torch.unique(seen.mean(dim=-1).mul(1e4).round(), dim=0)
    assert len(kinds) == 4  # none, one, the other, both
    with pytest.raises(UsageError, match="drop"):
        FusionLayer(drop=1.0)


def test_distillation_is_zero_when_directions_agree_and_two_when_opposed():
    s = normalize(torch.randn(2, 8), dim=-1)
    frames = s.unsqueeze(1).expand(2, 5, 8) * 3.0
    assert distillation_loss(frames, s, s).abs() < 1e-6
    assert (distillation_loss(frames, -s, -s) - 2.0).abs() < 1e-6
    assert (distillation_loss(frames, s, -s) - 1.0).abs() < 1e-6


def test_alignment_picks_the_most_similar_token_within_reach():
    tokens = torch.eye(4)
    frames = tokens.repeat_interleave(5, dim=0)  # the words in order, five frames each
    assert align_context(frames, tokens, 5).tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5
    far = torch.flip(frames, (0,))  # the right tokens are out of reach
    near = align_context(far, tokens, 1)
    assert near.tolist() != far.argmax(dim=-1).tolist()
    assert (near.diff() >= 0).all()  # nearest in time instead
    assert alignment_loss(frames, tokens, 5).abs() < 1e-6
    assert alignment_loss(far, tokens, 1) > 0.5
    with pytest.raises(UsageError, match="tokens"):
        align_context(frames, tokens[:0], 3)


def test_losses_reach_the_codec():
    frames = torch.randn(6, 4, requires_grad=True)
    alignment_loss(frames, torch.randn(3, 4), 2).backward()
    assert frames.grad.abs().sum() > 0
