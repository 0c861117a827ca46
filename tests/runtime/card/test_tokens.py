"""Plans of tokens: what is told of them, and the names of outputs that tell what cuts did."""

import dataclasses

import pytest

from prunus.runtime.card.tokens import (
    TokenPlan,
    counts,
    dropped_tokens,
    pooled_keys,
    token_output,
    told_blocks,
    work,
)
from prunus.runtime.errors import ArtifactError


def test_names_are_read_as_they_are_written() -> None:
    names = ["keypoints", *map(token_output, (3, 10)), "heatmaps", "tokens_", "tokens_of_speech"]
    assert told_blocks(names) == (3, 10)


PLAN = TokenPlan("L1", (3, 6), (120, 48), 192, 17, "cls", "zero", 750_000_000, 3_000_000_000)


def test_a_plan_is_told_by_bars_and_by_what_it_saves() -> None:
    assert dropped_tokens(PLAN) == [
        "  token plan L1: 192 patch tokens enter, 17 special tokens are never dropped "
        "(score: cls, fill: zero)",
        f"  {'blocks 0-2':>12} |{'#' * 40}|  192 (100 %)",
        f"  {'blocks 3-5':>12} |{'#' * 25}{'.' * 15}|  120 (62 %)",
        f"  {'blocks 6-end':>12} |{'#' * 10}{'.' * 30}|   48 (25 %)",
        "  0.750 GMACs, 25.0 % of the 3.000 GMACs without dropping (4.00x fewer)",
    ]
    assert (counts(PLAN), work(PLAN)) == ("K 192 > 120 > 48", "0.75 GMAC")


def test_a_cut_at_the_first_block_and_no_cut_at_all() -> None:
    first = dropped_tokens(dataclasses.replace(PLAN, blocks=(0,), keep=(96,)))
    assert [line.split("|")[0].strip() for line in first[1:-1]] == ["blocks 0-end"]
    none = dropped_tokens(dataclasses.replace(PLAN, blocks=(), keep=(), macs=0, macs_dense=0))
    assert none[1].startswith("    all blocks |") and "192 (100 %)" in none[1]
    assert none[2] == "  0.000 GMACs, 100.0 % of the 0.000 GMACs without dropping (1.00x fewer)"


def test_a_pooling_network_is_told_by_its_keys() -> None:
    plan = dataclasses.replace(PLAN, blocks=(), keep=(64, 64, 64, 16, 9, 8, 7))
    lines = pooled_keys(plan)
    assert lines[0] == "  ISR L1: 192 tokens enter, none is dropped; keys are pooled to"
    assert [line.split() for line in lines[1:-1]] == [
        ["stage", "1", "64", "keys"], ["stage", "2", "64", "keys"], ["stage", "3", "64", "keys"],
        ["stage", "4", "16", "keys"], ["decoder", "1/8", "9", "keys"],
        ["decoder", "1/16", "8", "keys"], ["decoder", "1/32", "7", "keys"],
    ]  # fmt: skip
    assert lines[-1].endswith("25.0 % of the 3.000 GMACs with the trained pooling (4.00x fewer)")
    assert "100.0 %" in pooled_keys(dataclasses.replace(plan, macs_dense=0))[-1]
    assert "fewer" not in pooled_keys(dataclasses.replace(plan, macs=0))[-1]


@pytest.mark.parametrize("keep", [(120,), (120, 48, 10), (193, 48), (120, 193)])
def test_a_plan_that_does_not_fit_its_blocks_is_refused(keep) -> None:
    with pytest.raises(ArtifactError, match="one number for each, none above all tokens"):
        dataclasses.replace(PLAN, keep=keep)
    assert dataclasses.replace(PLAN, keep=(192, 192)).keep == (192, 192)
