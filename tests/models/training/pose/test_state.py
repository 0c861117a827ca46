"""Weights of a whole network begin a shorter one, a smaller one and a narrower one."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from prunus.models.pose.evitpose import EViTPose, evitpose_config
from prunus.models.training.pose.state import build_network, resize_positions, start_from
from prunus.runtime.errors import ArtifactError


def _table(rows: int, columns: int) -> torch.Tensor:
    """Codes that say in which row and column, from the middle, in heights of a crop."""
    y, x = ((torch.arange(n) + 0.5 - n / 2) / rows for n in (rows, columns))
    grid = torch.stack((y[:, None].expand(rows, columns), x.expand(rows, columns)), -1)
    return grid.reshape(1, rows * columns, 2)


@pytest.mark.parametrize("new", [(16, 8), (16, 7), (13, 10), (12, 9), (24, 18)])
def test_positions_keep_their_place_from_the_middle(new):
    old = (16, 12)
    moved = resize_positions({"pos_embed": _table(*old)}, old, new)["pos_embed"]
    inner = (slice(2, -2), slice(2, -2))  # at the borders there is nothing to interpolate with
    found, wanted = (t.reshape(*new, 2)[inner] for t in (moved, _table(*new)))
    torch.testing.assert_close(found, wanted, atol=4e-3, rtol=0)  # a twentieth of a patch


def test_a_shorter_and_narrower_network_begins_with_the_first_blocks_and_the_middle(tmp_path):
    torch.manual_seed(0)
    whole = EViTPose(evitpose_config("tiny"))
    path = tmp_path / "whole.safetensors"
    save_file({n: v.contiguous() for n, v in whole.state_dict().items()}, str(path))
    short = build_network("tiny", (256, 128), 1, depth=3)
    start_from(short, path, whole.config)
    assert len(short.blocks) == 3
    for name in ("blocks.2.mlp.fc1.weight", "last_norm.weight", "keypoint_head.final_layer.weight"):
        assert torch.equal(short.state_dict()[name], whole.state_dict()[name])
    middle = whole.pos_embed.reshape(16, 12, -1)[:, 2:10].reshape(1, 128, -1)
    torch.testing.assert_close(short.pos_embed, middle, atol=1e-5, rtol=0)
    other = EViTPose(replace(evitpose_config("tiny"), depth=3)).state_dict()
    save_file({n: v.contiguous() for n, v in other.items()}, str(path))
    with pytest.raises(ArtifactError, match="does not fit EViTPose-Tiny"):
        start_from(short, path, whole.config)  # a file of three blocks is no whole network
