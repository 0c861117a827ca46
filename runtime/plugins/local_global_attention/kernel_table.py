"""The generated C++ file that embeds compiled kernels and their table in the library."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from prunus.runtime.plugins.library import MARK
from prunus.runtime.plugins.local_global_attention.tiles import Tile

_TYPES = {"fp16": "kHalf", "bf16": "kBFloat16", "fp32": "kFloat"}


def kernel_table(
    tiles: Mapping[int, Sequence[Tile]], folder: Path, identity: str, description: str
) -> str:
    """Return the C++ source.

    Args:
        tiles: Compiled tiles of each architecture, in the order of `tiles.TILES`.
        folder: Holds ``sm<architecture>/<tile>.cubin`` and ``.json``.
        identity: Version and hash of the library.
        description: JSON object with what the library says about itself.
    """
    blobs: list[str] = []
    entries: list[str] = []
    functions: set[str] = set()
    for architecture, variants in sorted(tiles.items()):
        for tile in variants:
            place = folder / f"sm{architecture}" / tile.name
            facts = json.loads(place.with_name(f"{tile.name}.json").read_text())
            symbol = f"prunus_cubin_{len(entries)}"
            blobs.append(_blob(symbol, place.with_name(f"{tile.name}.cubin")))
            functions.add(facts["function"])
            size, shared, threads = (facts[k] for k in ("size", "shared_bytes", "threads"))
            numbers = (tile.rows, tile.keys, tile.dim, tile.max_queries, tile.min_keys)
            entries.append(
                f"    {{{architecture}, Type::{_TYPES[tile.dtype]}, "
                f"{', '.join(str(n) for n in numbers)}, {str(tile.aligned).lower()}, "
                f"{threads}, {shared}, {symbol}, {size}}},"
            )
    (function,) = functions
    return "\n".join(
        [
            '#include "kernels.hpp"',
            *blobs,
            "namespace prunus {",
            "KernelImage const kImages[] = {",
            *entries,
            "};",
            f"int32_t const kImageCount = {len(entries)};",
            f"char const* const kFunctionName = {json.dumps(function)};",
            f"char const* const kIdentity = {json.dumps(identity)};",
            f"char const* const kDescription = {json.dumps(MARK + description)};",
            "}  // namespace prunus",
            "",
        ]
    )


def _blob(symbol: str, path: Path) -> str:
    """Embed a file; the assembler reads it, which takes no time however large it is."""
    lines = [
        ".section .rodata", ".balign 64", f".hidden {symbol}", f".global {symbol}",
        f"{symbol}:", f".incbin {json.dumps(str(path))}", ".previous",
    ]  # fmt: skip
    assembly = json.dumps("\n".join(lines))
    return f'__asm__({assembly});\nextern "C" {{ extern unsigned char const {symbol}[]; }}'
