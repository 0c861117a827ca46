"""LLaVA-STF against a loop over cells, and the levels that it reads."""

import numpy as np
import pytest
import torch

from prunus.models.tokens.reducer import Place
from prunus.models.tokens.registry import build_reducer
from prunus.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("words", "levels"), [("stf", (1, 3)), ("stf(levels=0/2/4,ratio=2)", (0, 2, 4))]
)
def test_equals_the_loop(case, equals, counts, exports, restores, again, words, levels):
    def restated(patches, seen, weights):
        joined = np.concatenate([*(seen[b] for b in levels), patches], axis=1)
        fused = again.linear(joined, weights, "fuse")
        rows = np.stack([own.reshape(-1) for own in again.cells(fused, 2, 2)])
        return again.linear(again.gelu(again.linear(rows, weights, "fc1")), weights, "fc2")

    one = case(words, 6)
    assert one.reducer.reads_levels == levels
    equals(one, 6, restated)
    counts(one)
    exports(one)
    restores(one, "delta")


def test_levels_since_the_cut_before():
    def levels(block, since, words="stf"):
        place = Place(24, 6, grid=(4, 6), dim=8, block=block, since=since)
        return build_reducer(words, place).reads_levels

    assert levels(9, 0) == (3, 6)
    assert levels(9, 6) == (7, 8)
    assert levels(0, 0) == () and levels(1, 0) == (0,)
    for words in ("3/2", "3/3", "9", "a/b", "2/-1"):
        with pytest.raises(UsageError, match=f"block 9 reads the levels '{words}'"):
            levels(9, 0, f"stf(levels={words})")
    with pytest.raises(UsageError, match="'ratio' of method 'stf' is 0"):
        levels(9, 0, "stf(ratio=0)")


def test_in_a_network_it_reads_the_blocks_before():
    transformers = pytest.importorskip("transformers")
    from prunus.models.tokens.blocks.stack import pruned_blocks
    from prunus.models.tokens.prune import prune

    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16,
        image_size=16, patch_size=4,
    )  # fmt: skip
    torch.manual_seed(0)
    network = transformers.ViTModel(config, add_pooling_layer=False).eval()
    pruned = prune(network, "stf:4@3")
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        states = network(pixels, output_hidden_states=True).hidden_states
        seen = {}
        cut = dict(pruned_blocks(pruned).reducers())[3]
        cut.register_forward_hook(lambda _m, given, _out: seen.update(given[1].levels))
        out = pruned(pixels).last_hidden_state
    assert out.shape == (2, 5, 8) and cut.reads_levels == (1, 2)
    for block in (1, 2):  # hidden state k + 1 is what left block k
        torch.testing.assert_close(seen[block], states[block + 1])
    with pytest.raises(UsageError, match="same from block 3 on"):
        prune(network, "wico:4@2,stf(levels=1):1@3")
