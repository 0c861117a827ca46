"""Index tables of local-global attention: which tokens share a window, where keys come from.

Positions count tokens row by row: token (y, x) of a grid (H, W) is y * W + x. Masks are additive
(`MASK_VALUE` hides a key) and belong to the partition; learned biases come on top.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from prunus.models.layers.local_global.checks import check_cover, check_range
from prunus.models.layers.local_global.math import MASK_VALUE
from prunus.runtime.errors import TensorError, UsageError


@dataclass(frozen=True, slots=True)
class WindowTables:
    """A partition of queries into windows, and the keys that each window reads.

    Attributes:
        q_index: (W, Lq) int64 positions of queries, each exactly once.
        kv_index: (W, Lk) int64 positions of keys, repeats allowed.
        keys: Number of tokens from which kv_index picks.
        mask: (1 or W, 1, 1 or Lq, Lk) float32, added to the scores; None when nothing is hidden.

    Raises:
        TensorError: a position is out of range, or a query is not covered exactly once.
    """

    q_index: Tensor
    kv_index: Tensor
    keys: int
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        for name, index in (("q_index", self.q_index), ("kv_index", self.kv_index)):
            if index.dim() != 2 or index.numel() == 0:
                raise TensorError(f"{name} has shape {tuple(index.shape)}; expected (W, L).")
        if self.q_index.shape[0] != self.kv_index.shape[0]:
            raise TensorError(
                f"q_index has {self.q_index.shape[0]} windows and kv_index "
                f"{self.kv_index.shape[0]}; expected the same number."
            )
        check_range("kv_index", self.kv_index, self.keys)
        check_cover(self.q_index, self.o_index)
        if self.mask is not None:
            full = (self.windows, 1, self.q_index.shape[1], self.kv_index.shape[1])
            shape = tuple(self.mask.shape)
            if len(shape) != 4 or any(
                got not in (1, want) for got, want in zip(shape, full, strict=True)
            ):
                raise TensorError(f"The mask has shape {shape}; expected 1 or each of {full}.")

    @property
    def o_index(self) -> Tensor:
        """(Nq,) int64: where each query stands in the flattened q_index."""
        return self.q_index.reshape(-1).argsort()

    @property
    def windows(self) -> int:
        """Number of windows."""
        return int(self.q_index.shape[0])


class AttentionIndex(nn.Module):
    """Index tables as buffers: they follow `.to(device)` and stay out of the state dict.

    Example:
        >>> index = AttentionIndex(grid_windows((16, 12), (8, 6)))
        >>> index.q_index.shape
        torch.Size([4, 48])
    """

    q_index: Tensor
    kv_index: Tensor
    o_index: Tensor
    mask: Tensor

    def __init__(self, tables: WindowTables) -> None:
        super().__init__()
        self.masked = tables.mask is not None
        mask = torch.zeros(1, 1, 1, 1) if tables.mask is None else tables.mask
        for name, table in (
            ("q_index", tables.q_index),
            ("kv_index", tables.kv_index),
            ("o_index", tables.o_index),
            ("mask", mask),
        ):
            self.register_buffer(name, table.clone(), persistent=False)

    def bias(self, like: Tensor, learned: Tensor | None = None) -> Tensor:
        """Return the partition's mask, plus a learned bias, in the dtype of `like`.

        Args:
            like: Any tensor of the attention; gives the dtype.
            learned: (1 or W, 1 or h, 1 or Lq, 1 or Lk), or None.
        """
        mask = self.mask.to(like.dtype)
        if learned is None:
            return mask
        learned = learned.to(like.dtype)
        return learned + mask if self.masked else learned


def identity_index(tokens: int, device: torch.device | None = None) -> AttentionIndex:
    """Return one window that holds every token in order: plain or global-only attention."""
    line = torch.arange(tokens)
    index = AttentionIndex(WindowTables(line[None], line[None], tokens))
    return index if device is None else index.to(device)


def grid_windows(grid: tuple[int, int], window: tuple[int, int]) -> WindowTables:
    """Cut a grid into windows that read their own tokens.

    Args:
        grid: Rows and columns of tokens.
        window: Rows and columns of a window; must divide the grid.

    Raises:
        UsageError: the window does not divide the grid.
    """
    index = _cells(_positions(grid), window)
    return WindowTables(index, index, grid[0] * grid[1])


def shifted_windows(
    grid: tuple[int, int],
    window: tuple[int, int],
    shift: tuple[int, int],
    mask_value: float = MASK_VALUE,
) -> WindowTables:
    """Cut a grid, rolled up and left by `shift`, into windows whose wrapped parts do not mix.

    Swin's shifted windows (arXiv 2103.14030, section 3.2) as tables: nothing is rolled.

    Args:
        grid: Rows and columns of tokens.
        window: Rows and columns of a window; must divide the grid.
        shift: Rows and columns by which the grid is rolled, in [0, window).
        mask_value: Added between tokens that only the wrap brings together; some published
            weights were trained with a small value such as -1.

    Raises:
        UsageError: the window does not divide the grid, or the shift is not smaller than it.
    """
    if any(not 0 <= step < size for step, size in zip(shift, window, strict=True)):
        raise UsageError(
            f"Got a shift of {shift} for windows of {window}; expected 0 or more, and less than "
            "the window."
        )
    rolled = _positions(grid).roll((-shift[0], -shift[1]), (0, 1))
    index = _cells(rolled, window)
    rows, columns = grid
    region = torch.zeros(grid, dtype=torch.int64)
    region[rows - shift[0] :, :] += 1
    region[:, columns - shift[1] :] += 2
    owner = _cells(region, window)
    apart = owner[:, None, :, None] != owner[:, None, None, :]
    mask = torch.zeros(apart.shape).masked_fill(apart, mask_value) if any(shift) else None
    return WindowTables(index, index, rows * columns, mask)


def overlapping_windows(
    grid: tuple[int, int], window: tuple[int, int], reach: tuple[int, int]
) -> WindowTables:
    """Cut a grid into windows that read a larger, overlapping patch around themselves.

    At the border the patch is moved inside the grid, so every window reads `reach` real tokens
    (the semantic-token windows of arXiv 2303.08810 do so).

    Args:
        grid: Rows and columns of tokens.
        window: Rows and columns of a window of queries; must divide the grid.
        reach: Rows and columns of keys; between the window and the grid.

    Raises:
        UsageError: the window does not divide the grid, or the reach does not fit.
    """
    if any(not w <= r <= g for w, r, g in zip(window, reach, grid, strict=True)):
        raise UsageError(
            f"Got keys of {reach} around windows of {window} in a grid of {grid}; expected at "
            "least the window and at most the grid."
        )
    queries = _cells(_positions(grid), window)
    starts = [
        [min(max(start - (keys - size) // 2, 0), length - keys) for start in range(0, length, size)]
        for length, size, keys in zip(grid, window, reach, strict=True)
    ]
    positions = _positions(grid)
    keys = torch.stack(
        [
            positions[top : top + reach[0], left : left + reach[1]].flatten()
            for top in starts[0]
            for left in starts[1]
        ]
    )
    return WindowTables(queries, keys, grid[0] * grid[1])


def chunks(
    length: int, chunk: int, *, before: int = 0, after: int = 0, causal: bool = False
) -> WindowTables:
    """Cut a sequence into chunks that may also read whole chunks before and after them.

    Args:
        length: Tokens; must be a multiple of `chunk`.
        chunk: Tokens per chunk.
        before: Chunks in front that are read too; beyond the border they are masked.
        after: Chunks behind that are read too.
        causal: Hide keys that stand after their query.

    Raises:
        UsageError: the chunk does not divide the length, or a count is negative.
    """
    if chunk < 1 or length < 1 or length % chunk or min(before, after) < 0:
        raise UsageError(
            f"Got {length} tokens in chunks of {chunk}, {before} before and {after} after; "
            "expected a multiple of the chunk and no negative count."
        )
    queries = torch.arange(length).reshape(-1, chunk)
    offsets = torch.arange(-before * chunk, (after + 1) * chunk)
    keys = queries[:, :1] + offsets
    hidden = ((keys < 0) | (keys >= length))[:, None, None, :]
    if causal:
        hidden = hidden | (keys[:, None, None, :] > queries[:, None, :, None])
    mask = torch.zeros(hidden.shape).masked_fill(hidden, MASK_VALUE) if hidden.any() else None
    return WindowTables(queries, keys.clamp(0, length - 1), length, mask)


def kept_windows(tables: WindowTables, kept: Tensor) -> WindowTables:
    """Restrict a partition to the tokens that a fixed pruning kept.

    The k-th kept token becomes token k. Windows stay of one size: survivors fill them in the
    partition's order, so a window holds neighbours even where its own cell was thinned out.

    Args:
        tables: Partition of all tokens whose windows read their own queries.
        kept: (K,) increasing positions of the surviving tokens; K must be a multiple of Lq.

    Raises:
        TensorError: positions repeat, are unsorted or out of range.
        UsageError: K is not a multiple of the window, or the partition has masks or other keys.
    """
    size = int(tables.q_index.shape[1])
    if tables.mask is not None or not torch.equal(tables.q_index, tables.kv_index):
        raise UsageError(
            "Only windows that read their own tokens, unmasked, can be restricted to kept tokens.",
            "Build them with grid_windows or chunks.",
        )
    check_range("kept", kept, tables.keys)
    if kept.dim() != 1 or bool((kept.diff() <= 0).any()):
        raise TensorError("The kept positions are not a strictly increasing list.")
    if len(kept) % size:
        raise UsageError(
            f"{len(kept)} kept tokens do not fill windows of {size}.",
            f"Keep a multiple of {size}, for example {max(size, len(kept) // size * size)}.",
        )
    new = torch.full((tables.keys,), -1, dtype=torch.int64)
    new[kept] = torch.arange(len(kept))
    order = new[tables.q_index.reshape(-1)]
    index = order[order >= 0].reshape(-1, size)
    return WindowTables(index, index, len(kept))


def _positions(grid: tuple[int, int]) -> Tensor:
    rows, columns = grid
    if rows < 1 or columns < 1:
        raise UsageError(f"Got a grid of {grid}; expected at least one row and column.")
    return torch.arange(rows * columns).reshape(rows, columns)


def _cells(plane: Tensor, window: tuple[int, int]) -> Tensor:
    """Return (W, L): the values of a plane (H, W), window by window."""
    rows, columns = plane.shape
    high, wide = window
    if high < 1 or wide < 1 or rows % high or columns % wide:
        raise UsageError(
            f"Windows of {high}x{wide} do not divide a grid of {rows}x{columns}.",
            "Choose a window that divides it, or pad the grid.",
        )
    cells = plane.reshape(rows // high, high, columns // wide, wide)
    return cells.transpose(1, 2).reshape(-1, high * wide)
