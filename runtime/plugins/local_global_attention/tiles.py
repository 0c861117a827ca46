"""Tile sizes of the kernel: which variants are compiled, and which one serves a given problem.

Twelve variants per architecture keep the library small and quick to build. The first entry of a
data type's list that fits is taken, so the lists run from the most special to the most general.
Sizes were chosen from the compiler's register counts (no spilling inside the loops), not yet from
times on a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

# Compute capabilities, times ten, that the library holds kernels for.
ARCHITECTURES = (75, 80, 86, 87, 89, 90, 100, 120)
DTYPES = ("fp16", "bf16", "fp32")
MIN_HEAD_DIM, MAX_HEAD_DIM = 16, 128
# Vector loads move 8 halves at once; a head that starts elsewhere takes the general variant.
VECTOR = 8


@dataclass(frozen=True, slots=True)
class Tile:
    """One compiled variant.

    Attributes:
        dtype: ``fp16``, ``bf16`` or ``fp32``: type of all floating-point tensors.
        rows: Queries per program.
        keys: Keys per step of the loop.
        dim: Largest head dimension.
        warps: Warps of 32 threads per program.
        stages: Loads in flight, in loop steps.
        max_queries: Largest Lq that it is meant for; 0: any.
        min_keys: Fewest keys (Lk + G) that it is meant for.
        aligned: Whether head dimension and addresses must be multiples of `VECTOR` elements.
    """

    dtype: str
    rows: int
    keys: int
    dim: int
    warps: int
    stages: int
    max_queries: int = 0
    min_keys: int = 0
    aligned: bool = True

    @property
    def name(self) -> str:
        """Identify the variant in files and messages, e.g. ``fp16_64x32x64``."""
        suffix = "" if self.aligned else "_any"
        return f"{self.dtype}_{self.rows}x{self.keys}x{self.dim}{suffix}"

    def fits(self, queries: int, keys: int, head_dim: int, aligned: bool) -> bool:
        """Tell whether it is meant for windows of `queries` queries that see `keys` keys."""
        return (
            head_dim <= self.dim
            and (aligned or not self.aligned)
            and (self.max_queries == 0 or queries <= self.max_queries)
            and keys >= self.min_keys
        )


_HALF = (
    Tile("fp16", 64, 32, 32, 4, 2),
    Tile("fp16", 64, 32, 64, 4, 2),
    Tile("fp16", 64, 32, 128, 8, 2),
    Tile("fp16", 32, 32, 128, 4, 1, aligned=False),
)
TILES: tuple[Tile, ...] = (
    # Few queries and many keys: cells of super tokens, semantic tokens, one query per cell.
    Tile("fp16", 16, 64, 64, 4, 2, max_queries=16, min_keys=64),
    *_HALF,
    *(replace(tile, dtype="bf16") for tile in _HALF),
    Tile("fp32", 32, 32, 64, 4, 2),
    Tile("fp32", 32, 32, 128, 8, 2),
    Tile("fp32", 16, 32, 128, 4, 1, aligned=False),
)


def choose_tile(queries: int, keys: int, head_dim: int, dtype: str, aligned: bool = True) -> Tile:
    """Return the variant for windows of `queries` queries that see `keys` keys (Lk + G).

    Raises:
        ValueError: no variant: `head_dim` above `MAX_HEAD_DIM`, or another data type.
    """
    aligned = aligned and head_dim % VECTOR == 0
    for tile in TILES:
        if tile.dtype == dtype and tile.fits(queries, keys, head_dim, aligned):
            return tile
    raise ValueError(f"no kernel for {dtype} and a head dimension of {head_dim}")


def compiled_tiles(architecture: int) -> tuple[Tile, ...]:
    """Return the variants of an architecture, in the order of `TILES`.

    Turing has no bfloat16, and the compiler has no tensor-core code for it, so its tiles are
    smaller and load one step at a time.
    """
    if architecture >= 80:
        return TILES
    return tuple(
        replace(tile, rows=32 if tile.dim <= 64 and tile.rows > 16 else 16, keys=32, stages=1)
        for tile in TILES
        if tile.dtype != "bf16"
    )


def precision(architecture: int, dtype: str) -> str:
    """Return how products of `dtype` are formed.

    float32 products are split into three TF32 products each (error about 2^-21) where tensor cores
    have TF32, and are exact in float32 elsewhere.
    """
    return "tf32x3" if dtype == "fp32" and architecture >= 80 else "ieee"


def runs_on(image: int, device: int) -> bool:
    """Tell whether code for compute capability `image` runs on `device` (both times ten).

    Code for one minor version runs on later minors of the same major, except between Tegra (8.7)
    and the others, and except from 9.0 on, where the kernels use one architecture's instructions.
    """
    if image == device:
        return True
    tegra = 87 in (image, device)
    return image < 90 and not tegra and image // 10 == device // 10 and image < device
