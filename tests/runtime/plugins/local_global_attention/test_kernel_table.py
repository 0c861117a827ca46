"""The generated table: one line a kernel, in order, with the numbers that launch it."""

import json
import re

import pytest

from prunus.runtime.plugins.library import MARK
from prunus.runtime.plugins.local_global_attention.kernel_table import kernel_table
from prunus.runtime.plugins.local_global_attention.tiles import Tile

TILES = {
    90: [Tile("bf16", 64, 32, 128, 8, 2)],
    80: [Tile("fp16", 16, 64, 64, 4, 2, max_queries=16, min_keys=64),
         Tile("fp32", 16, 32, 128, 4, 1, aligned=False)],
}  # fmt: skip


def _kernels(folder, function="attend"):
    size = 100
    for architecture in sorted(TILES):
        for tile in TILES[architecture]:
            place = folder / f"sm{architecture}"
            place.mkdir(exist_ok=True)
            (place / f"{tile.name}.cubin").write_bytes(bytes(size))
            facts = {"function": function, "size": size, "shared_bytes": 7 * size, "threads": 128}
            (place / f"{tile.name}.json").write_text(json.dumps(facts))
            size += 1


def test_each_kernel_is_a_line_of_its_own(tmp_path):
    _kernels(tmp_path)
    text = kernel_table(TILES, tmp_path, "1.2-abc", '{"a": "b"}')
    assert re.findall(r"    \{(.*)\},", text) == [
        "80, Type::kHalf, 16, 64, 64, 16, 64, true, 128, 700, prunus_cubin_0, 100",
        "80, Type::kFloat, 16, 32, 128, 0, 0, false, 128, 707, prunus_cubin_1, 101",
        "90, Type::kBFloat16, 64, 32, 128, 0, 0, true, 128, 714, prunus_cubin_2, 102",
    ]
    assert "int32_t const kImageCount = 3;" in text
    assert 'char const* const kFunctionName = "attend";' in text
    assert 'char const* const kIdentity = "1.2-abc";' in text
    assert f"kDescription = {json.dumps(MARK + json.dumps({'a': 'b'}))};" in text
    for number, name in enumerate(["sm80/fp16_16x64x64", "sm80/fp32_16x32x128_any",
                                   "sm90/bf16_64x32x128"]):  # fmt: skip
        mark = f".global prunus_cubin_{number}\\n"
        blob = next(line for line in text.splitlines() if mark in line)
        assert f"{tmp_path}/{name}.cubin" in blob and ".balign 64" in blob
        assert f"extern unsigned char const prunus_cubin_{number}[];" in text


def test_kernels_of_two_names_are_no_table(tmp_path):
    _kernels(tmp_path)
    facts = tmp_path / "sm90" / "bf16_64x32x128.json"
    facts.write_text(facts.read_text().replace("attend", "another"))
    with pytest.raises(ValueError, match="too many values"):
        kernel_table(TILES, tmp_path, "", "{}")
