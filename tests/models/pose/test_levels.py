import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.models.pose.levels import LEVELS, evitpose_plan, parse_plan, plan_for_ratio
from prunus.models.tokens.plan import PruningPlan
from prunus.runtime.errors import UsageError

TABLE = {
    17: {"L1": (135, 95, 71), "L2": (119, 71, 47), "L3": (95, 47, 23)},
    23: {"L1": (129, 97, 73), "L2": (113, 65, 41), "L3": (97, 49, 25)},
}


@pytest.mark.parametrize("joints", TABLE)
def test_published_levels(joints):
    for level, keep in TABLE[joints].items():
        assert evitpose_plan(level, joints) == PruningPlan(level, (3, 6, 9), keep)
    assert evitpose_plan("L0", joints) == PruningPlan("L0", (), ())


def test_cuts_lie_after_each_quarter_of_the_blocks():
    assert [evitpose_plan("L2", depth=d).blocks for d in (6, 8, 12)] == [
        (1, 3, 4), (2, 4, 6), (3, 6, 9)
    ]  # fmt: skip
    assert parse_plan("0.5", depth=8).blocks == parse_plan("90/60/30", depth=8).blocks == (2, 4, 6)
    assert parse_plan("L1", depth=8).keep == parse_plan("L1").keep


@given(joints=st.integers(1, 400), level=st.sampled_from(LEVELS[1:]))
def test_rule_for_other_joint_counts(joints, level):
    plan = evitpose_plan(level, joints)
    plan.check(192, 12)
    assert len(plan.keep) == 3
    for keep in plan.keep:
        assert (joints + keep) % 8 == 0 or keep in (1, 192)


@given(joints=st.integers(1, 200), keep=st.floats(0.01, 1.0))
def test_ratio_plans_fit(joints, keep):
    plan_for_ratio(keep, joints).check(192, 12)


def test_ratios_order_like_levels():
    kept = [sum(plan_for_ratio(r).keep) for r in (0.3, 0.5, 0.7, 0.9)]
    assert kept == sorted(kept) and len(set(kept)) == 4
    assert plan_for_ratio(1.0) == evitpose_plan("L0")


@pytest.mark.parametrize(
    ("text", "blocks", "keep"),
    [
        ("L2", (3, 6, 9), (119, 71, 47)),
        ("135/95/71@3/6/9", (3, 6, 9), (135, 95, 71)),
        ("95@3", (3,), (95,)),
        ("120/60", (3, 6), (120, 60)),
        ("192@0", (0,), (192,)),
        ("1", (), ()),
    ],
)
def test_texts(text, blocks, keep):
    plan = parse_plan(text)
    assert (plan.blocks, plan.keep) == (blocks, keep)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("L4", "Cannot read the plan 'L4'"),
        ("a/b@3", "Cannot read"),
        ("95/47@3", "1 blocks and 2 counts"),
        ("47/95@3/6", "never grow"),
        ("95/47@6/3", "increasing list"),
        ("95/47@3/3", "increasing list"),
        ("0.0", "above 0 and at most 1"),
        ("1.5", "above 0 and at most 1"),
        ("nan", "above 0 and at most 1"),
        ("-0.5", "above 0 and at most 1"),
        ("0/0@3/6", "at least 1"),
        ("150/100/80/40", "Give one count per block"),
        ("", "Cannot read"),
    ],
)
def test_wrong_texts(text, message):
    with pytest.raises(UsageError) as caught:
        parse_plan(text)
    assert message in str(caught.value)


def test_check_names_what_does_not_fit():
    with pytest.raises(UsageError, match="only 192 enter"):
        PruningPlan("p", (3,), (200,)).check(192, 12)
    with pytest.raises(UsageError, match=r"blocks 0\.\.11"):
        PruningPlan("p", (12,), (100,)).check(192, 12)
    with pytest.raises(UsageError, match="Unknown level"):
        evitpose_plan("L9")


def test_a_plan_with_methods():
    plan = parse_plan("tome:0.5@4,joint:48@8")
    assert (plan.blocks, plan.keep, plan.methods) == ((4, 8), (96, 48), ("tome", "joint"))
