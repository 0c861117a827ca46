"""A draw that is a constant."""

import torch

from prunus.models.tokens.registry import build_reducer


def test_the_same_draw_for_every_picture_and_another_for_another_seed(bench):
    place = bench.place()
    x, side = bench.inputs(place, 3)
    kept = build_reducer("random", place)(x, side).kept
    assert torch.equal(kept[0], kept[1]) and torch.equal(kept[0], kept[2])
    again = build_reducer("random(seed=0)", place)(x + 1, side).kept
    assert torch.equal(kept, again)
    assert not torch.equal(kept, build_reducer("random(seed=1)", place)(x, side).kept)


def test_every_patch_is_drawn_about_as_often(bench):
    place = bench.place(keep=12)
    x, side = bench.inputs(place, 1)
    count = torch.zeros(48)
    for seed in range(400):
        count[build_reducer(f"random(seed={seed})", place)(x, side).kept[0]] += 1
    assert (count - 100).abs().max() < 40  # 4.6 deviations of a fair draw
