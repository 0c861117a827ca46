"""Index tables: what each builder puts into a window, and what it refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.models.layers.local_global.attention import window_attention
from prunus.models.layers.local_global.index import (
    AttentionIndex,
    WindowTables,
    chunks,
    grid_windows,
    identity_index,
    kept_windows,
    overlapping_windows,
    shifted_windows,
)
from prunus.models.layers.local_global.math import MASK_VALUE
from prunus.runtime.errors import TensorError, UsageError


@settings(max_examples=30, deadline=None)
@given(tiles=st.tuples(st.integers(1, 3), st.integers(1, 3)),
       window=st.tuples(st.integers(1, 4), st.integers(1, 4)))  # fmt: skip
def test_grid_windows_are_rectangles_that_cover_the_grid(tiles, window):
    grid = (tiles[0] * window[0], tiles[1] * window[1])
    tables = grid_windows(grid, window)
    assert tables.q_index.shape == (tiles[0] * tiles[1], window[0] * window[1])
    assert sorted(tables.q_index.flatten().tolist()) == list(range(grid[0] * grid[1]))
    rows, columns = tables.q_index // grid[1], tables.q_index % grid[1]
    assert int((rows.amax(1) - rows.amin(1)).max()) == window[0] - 1
    assert int((columns.amax(1) - columns.amin(1)).max()) == window[1] - 1
    assert torch.equal(tables.q_index.flatten()[tables.o_index], torch.arange(grid[0] * grid[1]))


def test_shifted_windows_do_what_rolling_does():
    """Swin's recipe: roll, cut, attend under a mask by region, put back, roll back."""
    grid, window, shift = (6, 8), (3, 4), (1, 2)
    index = AttentionIndex(shifted_windows(grid, window, shift))
    x = torch.randn(2, 48, 6)
    got = window_attention(x, x, x, index, num_heads=2)

    region = torch.zeros(grid)
    count = 0
    for rows in (slice(0, -3), slice(-3, -1), slice(-1, None)):
        for columns in (slice(0, -4), slice(-4, -2), slice(-2, None)):
            region[rows, columns] = count
            count += 1

    def cut(plane):  # (..., H, W, C) -> (..., windows, tokens, C)
        tiles = plane.unflatten(-3, (2, 3)).unflatten(-2, (2, 4))
        return tiles.transpose(-4, -3).flatten(-3, -2).flatten(-4, -3)

    owner = cut(region[None, ..., None])[0, ..., 0]
    mask = (owner[:, :, None] != owner[:, None, :]) * MASK_VALUE
    rolled = cut(x.unflatten(1, grid).roll((-1, -2), (1, 2)))
    heads = rolled.unflatten(-1, (2, 3)).transpose(2, 3)
    weights = (heads @ heads.transpose(-1, -2) * 3**-0.5 + mask[:, None]).softmax(-1)
    mixed = (weights @ heads).transpose(2, 3).flatten(3)
    tiles = mixed.unflatten(1, (2, 2)).unflatten(3, (3, 4)).transpose(2, 3)
    expected = tiles.flatten(3, 4).flatten(1, 2).roll((1, 2), (1, 2)).flatten(1, 2)
    torch.testing.assert_close(got, expected)


def test_a_finite_shift_mask_is_kept():
    tables = shifted_windows((4, 4), (2, 2), (1, 1), mask_value=-1.0)
    assert tables.mask is not None
    assert set(tables.mask.unique().tolist()) == {-1.0, 0.0}
    assert shifted_windows((4, 4), (2, 2), (0, 0)).mask is None


def test_overlapping_keys_stay_inside_and_hold_their_window(attention_definition):
    tables = overlapping_windows((8, 8), (4, 4), (6, 6))
    expected = attention_definition.overlapping_table(8, 8, 4, 1)
    np.testing.assert_array_equal(tables.kv_index.numpy(), expected)
    for queries, keys in zip(tables.q_index.tolist(), tables.kv_index.tolist(), strict=True):
        assert set(queries) <= set(keys)
        assert len(set(keys)) == 36


def test_chunks_see_their_past_only():
    tables = chunks(12, 3, before=1, causal=True)
    assert tables.kv_index.shape == (4, 6)
    assert tables.mask is not None
    visible = (tables.mask == 0).expand(4, 1, 3, 6)
    for window, queries in enumerate(tables.q_index.tolist()):
        for row, query in enumerate(queries):
            keys = tables.kv_index[window][visible[window, 0, row]].tolist()
            assert keys == list(range(max(0, 3 * window - 3), query + 1))
    assert chunks(12, 3).mask is None


def test_kept_tokens_fill_windows_in_order():
    kept = torch.tensor([0, 1, 4, 5, 6, 10, 11, 15])
    tables = kept_windows(grid_windows((4, 4), (2, 2)), kept)
    assert tables.keys == 8
    # Survivors by cell: (0, 1, 4, 5), (6), (), (10, 11, 15): windows of four, cell by cell.
    assert kept[tables.q_index].tolist() == [[0, 1, 4, 5], [6, 10, 11, 15]]


def test_a_hidden_key_equals_a_missing_one():
    line = torch.arange(4)[None]
    mask = torch.tensor([0.0, 0.0, 0.0, MASK_VALUE]).view(1, 1, 1, 4)
    hidden = AttentionIndex(WindowTables(line, torch.tensor([[0, 1, 2, 4]]), 5, mask))
    short = AttentionIndex(WindowTables(line, line[:, :3], 4))
    x = torch.randn(1, 4, 4)
    longer = torch.cat((x, torch.full((1, 1, 4), 7.0)), 1)
    torch.testing.assert_close(
        window_attention(x, longer, longer, hidden, num_heads=1),
        window_attention(x, x, x, short, num_heads=1),
    )


def test_tables_follow_the_module():
    index = identity_index(6, torch.device("meta"))
    assert index.q_index.device.type == "meta"
    assert index.q_index.shape == (1, 6)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: grid_windows((8, 6), (3, 3)), UsageError, "3x3 do not divide a grid of 8x6"),
        (lambda: grid_windows((0, 6), (1, 1)), UsageError, "at least one row"),
        (lambda: shifted_windows((4, 4), (2, 2), (2, 0)), UsageError, "less than the window"),
        (lambda: overlapping_windows((4, 4), (2, 2), (5, 2)), UsageError, "at most the grid"),
        (lambda: chunks(10, 3), UsageError, "multiple of the chunk"),
        (lambda: chunks(9, 3, before=-1), UsageError, "no negative count"),
        (lambda: WindowTables(torch.zeros(1, 2).long(), torch.zeros(1, 2).long(), 2), TensorError,
         "query 0 2 times"),
        (lambda: WindowTables(torch.arange(2)[None], torch.full((1, 2), 2), 2), TensorError,
         "position 2; expected 0 to 1"),
        (lambda: WindowTables(torch.arange(2)[None], torch.zeros(2, 1).long(), 2), TensorError,
         "1 windows and kv_index 2"),
        (lambda: WindowTables(torch.arange(2), torch.zeros(2).long(), 2), TensorError, "expected"),
        (lambda: WindowTables(torch.arange(2)[None], torch.arange(2)[None], 2,
                              torch.zeros(1, 1, 3, 2)), TensorError, "The mask has shape"),
        (lambda: kept_windows(grid_windows((4, 4), (2, 2)), torch.arange(7)), UsageError,
         "7 kept tokens do not fill windows of 4"),
        (lambda: kept_windows(grid_windows((4, 4), (2, 2)), torch.tensor([1, 0, 2, 3])),
         TensorError, "strictly increasing"),
        (lambda: kept_windows(chunks(8, 4, before=1), torch.arange(4)), UsageError, "unmasked"),
    ],
)  # fmt: skip
def test_impossible_partitions_are_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()
