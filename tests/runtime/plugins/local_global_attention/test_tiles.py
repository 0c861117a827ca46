"""Which variant serves a problem, what an architecture compiles, and on which devices it runs."""

import itertools

import pytest

from prunus.runtime.plugins.local_global_attention.tiles import (
    ARCHITECTURES,
    DTYPES,
    MAX_HEAD_DIM,
    MIN_HEAD_DIM,
    TILES,
    choose_tile,
    compiled_tiles,
    precision,
    runs_on,
)


@pytest.mark.parametrize(
    ("problem", "name"),
    [
        ((64, 64, 32, "fp16"), "fp16_64x32x32"),
        ((64, 64, 40, "fp16"), "fp16_64x32x64"),
        ((64, 64, 64, "fp16"), "fp16_64x32x64"),
        ((64, 64, 72, "fp16"), "fp16_64x32x128"),
        ((64, 64, 33, "fp16"), "fp16_32x32x128_any"),
        ((64, 64, 32, "fp16", False), "fp16_32x32x128_any"),
        ((16, 64, 64, "fp16"), "fp16_16x64x64"),
        ((16, 63, 64, "fp16"), "fp16_64x32x64"),
        ((17, 64, 64, "fp16"), "fp16_64x32x64"),
        ((16, 64, 72, "fp16"), "fp16_64x32x128"),
        ((16, 64, 64, "bf16"), "bf16_64x32x64"),
        ((64, 64, 32, "fp32"), "fp32_32x32x64"),
        ((64, 64, 128, "fp32"), "fp32_32x32x128"),
        ((64, 64, 20, "fp32"), "fp32_16x32x128_any"),
    ],
)
def test_the_most_special_variant_that_fits_is_taken(problem, name):
    assert choose_tile(*problem).name == name


def test_every_size_has_a_variant_that_fits_it():
    for dim, queries, keys, dtype, aligned in itertools.product(
        range(MIN_HEAD_DIM, MAX_HEAD_DIM + 1), (1, 16, 17, 300), (1, 64, 999), DTYPES, (True, False)
    ):
        tile = choose_tile(queries, keys, dim, dtype, aligned)
        assert tile.dtype == dtype and tile.dim >= dim
        assert tile.aligned is False or (aligned and dim % 8 == 0)
    for wrong in ((64, 64, MAX_HEAD_DIM + 1, "fp16"), (64, 64, 64, "int8")):
        with pytest.raises(ValueError, match="no kernel for"):
            choose_tile(*wrong)


def test_what_an_architecture_compiles():
    for architecture in ARCHITECTURES[1:]:
        assert compiled_tiles(architecture) == TILES
    turing = [(t.dtype, t.rows, t.keys, t.dim, t.stages) for t in compiled_tiles(75)]
    assert turing == [
        ("fp16", 16, 32, 64, 1), ("fp16", 32, 32, 32, 1), ("fp16", 32, 32, 64, 1),
        ("fp16", 16, 32, 128, 1), ("fp16", 16, 32, 128, 1), ("fp32", 32, 32, 64, 1),
        ("fp32", 16, 32, 128, 1), ("fp32", 16, 32, 128, 1),
    ]  # fmt: skip
    assert len(TILES) == len({tile.name for tile in TILES}) == 12


def test_float32_is_split_where_tensor_cores_can():
    assert [precision(a, "fp32") for a in (75, 80, 90)] == ["ieee", "tf32x3", "tf32x3"]
    assert {precision(a, dtype) for a in ARCHITECTURES for dtype in ("fp16", "bf16")} == {"ieee"}


def test_code_runs_on_its_own_device_and_later_ones_of_its_kind():
    ran = {(i, d) for i in ARCHITECTURES for d in (*ARCHITECTURES, 103, 121) if runs_on(i, d)}
    assert ran == {(a, a) for a in ARCHITECTURES} | {(80, 86), (80, 89), (86, 89)}
