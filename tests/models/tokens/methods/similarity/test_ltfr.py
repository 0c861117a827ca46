"""The temporal drop against a loop over frames."""

import pytest
import torch

from prunus.models.tokens.registry import build_reducer


@pytest.mark.parametrize(("words", "frames"), [("ltfr", 6), ("ltfr(frames=4)", 4)])
def test_each_frame_keeps_what_changed_most(words, frames, bench):
    patches = 48 // frames
    place = bench.place(keep=patches + 3 * (frames - 1))
    x, side = bench.inputs(place)
    for picture, kept in enumerate(build_reducer(words, place)(x, side).kept):
        unit = bench.unit(x[picture, 2:]).reshape(frames, patches, -1)
        expected = list(range(patches))
        for frame in range(1, frames):
            same = [unit[frame, p] @ unit[frame - 1, p] for p in range(patches)]
            expected += sorted(
                frame * patches + p for p in sorted(range(patches), key=lambda p: same[p])[:3]
            )
        assert kept.tolist() == expected


def test_a_still_clip_keeps_the_first_frame_and_equally_many_of_the_others(bench):
    place = bench.place(keep=8 + 5 * 2)
    x, side = bench.inputs(place)
    x[:, 2:] = x[:, 2:10].repeat(1, 6, 1)
    kept = build_reducer("ltfr", place)(x, side).kept
    assert torch.equal(torch.bincount(kept[0] // 8), torch.tensor([8, 2, 2, 2, 2, 2]))


def test_the_first_frame_alone(bench):
    place = bench.place(keep=8)
    x, side = bench.inputs(place)
    assert build_reducer("ltfr", place)(x, side).kept.tolist() == [list(range(8))] * 2
