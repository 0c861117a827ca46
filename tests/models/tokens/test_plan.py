"""Plans in words: what they say, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.models.tokens.plan import DENSE, PruningPlan, read_plan, split_method
from prunus.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("text", "blocks", "keep", "methods"),
    [
        ("evit:138/97/68@3/6/9", (3, 6, 9), (138, 97, 68), ("evit",) * 3),
        ("tome:0.7@4", (4,), (138,), ("tome",)),  # 137.2 rounded up, as EViT does
        ("tome:0.5@2/4", (2, 4), (98, 49), ("tome", "tome")),
        ("hiprune(alpha=0.2):96@6", (6,), (96,), ("hiprune(alpha=0.2)",)),
        ("a(x=1,y=2):9@1, b:4@3", (1, 3), (9, 4), ("a(x=1,y=2)", "b")),
        ("evit:1.0@0", (0,), (196,), ("evit",)),
    ],
)
def test_words(text, blocks, keep, methods):
    plan = read_plan(text, 196)
    assert (plan.blocks, plan.keep, plan.methods) == (blocks, keep, methods)


def test_dense_has_no_cut():
    assert read_plan("dense", 196) is DENSE


@given(share=st.floats(0.01, 1.0), tokens=st.integers(1, 5000))
@settings(max_examples=50, deadline=None)
def test_a_share_keeps_at_least_itself_and_less_than_one_more(share, tokens):
    (keep,) = read_plan(f"evit:{share:.6f}@0", tokens).keep
    assert -1e-3 < keep - float(f"{share:.6f}") * tokens < 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected METHOD:COUNTS@BLOCKS"),
        ("evit", "expected METHOD:COUNTS@BLOCKS"),
        ("evit:128", "expected METHOD:COUNTS@BLOCKS"),
        ("evit:-3@1", "expected METHOD:COUNTS@BLOCKS"),
        ("evit:128/64@3", "1 blocks and 2 counts"),
        ("evit:1.5@3", "keeps '1.5'"),
        ("evit:0.0@3", "keeps '0.0'"),
        ("evit:0.3.2@3", "keeps '0.3.2'"),
        ("evit:0@3", "counts of at least 1"),
        ("evit:64/128@3/6", "never grow"),
        ("evit:64/32@6/3", "increasing list"),
    ],
)
def test_wrong_words(text, message):
    with pytest.raises(UsageError, match=message):
        read_plan(text, 196)


def test_a_method_for_every_cut():
    with pytest.raises(UsageError, match="2 blocks and 1 methods"):
        PruningPlan("p", (1, 2), (9, 8), ("evit",))


def test_options_of_a_method():
    assert split_method("m(a=1, b = two)") == ("m", {"a": "1", "b": "two"})
    assert split_method("m") == ("m", {})
    with pytest.raises(UsageError, match="expected name=value"):
        split_method("m(a)")
