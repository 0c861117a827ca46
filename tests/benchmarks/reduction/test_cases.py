"""Scores of samples, and what a plan is called."""

import numpy as np
import pytest
import torch

from benchmarks.reduction.cases import Scores, Tokens, described


def test_resampled_scores_are_paired_and_spread_like_a_mean():
    rng = np.random.default_rng(0)
    right = rng.random(400)
    one, other = Scores(right, np.ones(400)), Scores(right - 0.1, np.ones(400))
    np.testing.assert_allclose(np.subtract(one.draws(), other.draws()), 0.1)
    assert np.std(one.draws()) == pytest.approx(np.std(right) / 20, rel=0.1)
    words = Scores(np.array([9.0, 0.0]), np.array([10.0, 90.0]))
    assert words.accuracy == pytest.approx(0.09)  # of all words, not the mean of two shares


def test_a_plan_is_described_by_what_it_does():
    cut, control = described("tome:0.7@4", 256, "transpose"), described("random:0.5@4", 256)
    assert (cut.name, cut.kind, cut.keep) == ("tome:180@4, transpose", "pruned", (180,))
    assert (control.name, control.kind) == ("random:128@4", "constant")
    assert described("top(by=received):0.5@1", 10).kind == "pruned"


def test_a_vit_without_its_mask_gives_the_same_tokens():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                                    intermediate_size=64, image_size=32)  # fmt: skip
    peer = transformers.ViTModel(config, add_pooling_layer=False).eval()
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        found, wanted = Tokens(peer)(pixels), peer(pixels).last_hidden_state
    torch.testing.assert_close(found, wanted)
