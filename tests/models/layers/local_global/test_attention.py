"""The operator against its literal definition, its gradients, and what it refuses."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.models.layers.local_global.attention import (
    gated_attention,
    global_attention,
    joint_attention,
    local_global_attention,
    window_attention,
)
from prunus.models.layers.local_global.index import AttentionIndex, grid_windows, shifted_windows
from prunus.models.layers.local_global.math import MASK_VALUE, Operands, reference
from prunus.runtime.errors import TensorError, UsageError

FLOATS = ("q", "k", "v", "bias_l", "kg", "vg", "bias_g", "gate")
ORDER = (
    "q", "k", "v", "q_index", "kv_index", "bias_l", "kg", "vg", "bias_g", "gate", "o_index",
)  # fmt: skip
NINE = range(9)


def tensors(inputs, dtype=torch.float32):
    """Return the operator's inputs, in order, from a numpy problem."""
    full = {**inputs, "o_index": np.argsort(inputs["q_index"].reshape(-1))}
    made = {name: torch.from_numpy(np.ascontiguousarray(full[name])) for name in ORDER}
    return [made[n].to(dtype) if n in FLOATS else made[n] for n in ORDER]


def operands(arguments, **attributes):
    return Operands(**dict(zip(ORDER, arguments, strict=True)), **attributes)


@pytest.fixture(scope="module")
def cases(attention_definition):
    return list(attention_definition.nine_cases())


@pytest.mark.parametrize("number", NINE)
def test_the_nine_designs_equal_their_definition(cases, attention_definition, number):
    _, inputs, heads, combine = cases[number]
    expected = attention_definition.define(inputs, heads, 0.3, combine)
    attributes = {"num_heads": heads, "scale": 0.3, "combine": combine}
    got = local_global_attention(*tensors(inputs), **attributes)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-5)
    exact, _ = reference(operands(tensors(inputs, torch.float64), **attributes))
    np.testing.assert_allclose(exact.numpy(), expected, atol=1e-12)


@st.composite
def problems(draw):
    """Draw shapes, broadcasts, a random partition, and masks."""
    windows, rows = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    keys, tokens, count = draw(st.integers(1, 6)), draw(st.integers(1, 9)), draw(st.integers(1, 4))
    heads, d, batch = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def some(*full):
        shape = [n if draw(st.booleans()) else 1 for n in full]
        values = rng.normal(size=shape)
        values[rng.random(shape) < draw(st.sampled_from((0.0, 0.5, 1.0)))] = MASK_VALUE
        return values

    def normal(*shape):
        return rng.normal(size=shape)

    lead, c = (windows, heads, rows), heads * d
    sets = draw(st.sampled_from((1, windows)))
    inputs = {
        "q": normal(batch, windows * rows, c),
        "k": normal(batch, tokens, c),
        "v": normal(batch, tokens, c),
        "q_index": rng.permutation(windows * rows).reshape(windows, rows),
        "kv_index": rng.integers(0, tokens, (windows, keys)),
        "bias_l": some(*lead, keys),
        "kg": normal(batch, sets, count, c),
        "vg": normal(batch, sets, count, c),
        "bias_g": some(batch, *lead, count),
        "gate": normal(1, windows, 1, rows, 1),
    }
    return inputs, heads, draw(st.sampled_from(("joint", "sum", "local", "global")))


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_any_shape_equals_the_definition(attention_definition, problem):
    inputs, heads, combine = problem
    expected = attention_definition.define(inputs, heads, 0.7, combine)
    arguments = tensors(inputs, torch.float64)
    attributes = {"num_heads": heads, "scale": 0.7, "combine": combine}
    got = local_global_attention(*arguments, **attributes)
    np.testing.assert_allclose(got.numpy(), expected, atol=1e-12)
    again, _ = reference(operands(arguments, **attributes))
    np.testing.assert_allclose(again.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("value", [MASK_VALUE, -torch.inf])
@pytest.mark.parametrize("combine", ["joint", "sum", "local", "global"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_rows_without_a_key_are_zero(value, combine, dtype):
    index = AttentionIndex(grid_windows((4, 4), (2, 2)))
    q, k, v = (torch.randn(2, 16, 8, dtype=dtype) for _ in range(3))
    kg = torch.randn(2, 1, 3, 8, dtype=dtype)
    bias_l = torch.zeros(4, 2, 4, 4, dtype=dtype)
    bias_g = torch.zeros(1, 4, 2, 4, 3, dtype=dtype)
    bias_l[1, 0, 2] = value
    bias_g[:, 1, 0, 2] = value
    one = torch.ones(1, 1, 1, 1, dtype=dtype)
    got = local_global_attention(
        q, k, v, index.q_index, index.kv_index, bias_l, kg, kg, bias_g, one, index.o_index,
        num_heads=2, scale=0.5, combine=combine,
    )  # fmt: skip
    token = int(index.q_index[1, 2])
    assert torch.isfinite(got).all()
    assert (got[:, token, :4] == 0).all()
    assert (got[:, token, 4:] != 0).any()


@pytest.mark.parametrize("combine", ["joint", "sum", "local", "global"])
def test_gradients_are_the_numerical_ones(combine, attention_definition):
    grid = attention_definition.window_table(4, 2, 2)
    inputs = attention_definition.problem(
        3, grid, grid, 8, 3, 2, 2, batch=2, sets=2,
        bias_l=(1, 2, 4, 4), bias_g=(1, 1, 2, 4, 3), gate=(1, 2, 1, 1, 1),
    )  # fmt: skip
    inputs["bias_l"][0, 0, 1] = MASK_VALUE  # a whole row
    inputs["bias_g"][..., 2] = MASK_VALUE
    arguments = tensors(inputs, torch.float64)
    for name, value in zip(ORDER, arguments, strict=True):
        value.requires_grad_(name in FLOATS)

    def run(*values):
        return local_global_attention(*values, num_heads=2, scale=0.6, combine=combine)

    assert torch.autograd.gradcheck(run, arguments)


def test_gradients_of_repeated_keys_add_up():
    q = torch.randn(1, 2, 4, dtype=torch.float64, requires_grad=True)
    k = torch.randn(1, 1, 4, dtype=torch.float64, requires_grad=True)
    none = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    order = torch.arange(2)

    def run(k, keys):
        index = torch.zeros(2, keys, dtype=torch.int32)
        return local_global_attention(
            q, k, k, order[:, None], index, none, none, none, none, none, order,
            num_heads=1, scale=1.0, combine="local",
        )  # fmt: skip

    once, twice = (torch.autograd.grad(run(k, n).square().sum(), k)[0] for n in (1, 3))
    torch.testing.assert_close(once, twice)


@pytest.mark.parametrize(
    "combine",
    ["sum", *(pytest.param(c, marks=pytest.mark.slow) for c in ("joint", "local", "global"))],
)
def test_the_registration_is_sound(combine, attention_definition):
    grid = attention_definition.window_table(4, 4, 2)
    inputs = attention_definition.problem(1, grid, grid, 16, 3, 2, 4)
    arguments = tensors(inputs)
    for name, value in zip(ORDER, arguments, strict=True):
        value.requires_grad_(name in FLOATS)
    attributes = {"num_heads": 2, "scale": 0.5, "combine": combine}
    torch.library.opcheck(
        torch.ops.prunus.local_global_attention.default, tuple(arguments), attributes
    )


def test_window_order_does_not_matter(attention_definition):
    grid = attention_definition.window_table(4, 4, 2)
    inputs = attention_definition.problem(1, grid, grid, 16, 3, 2, 4, bias_l=(4, 2, 4, 4))
    turned = {**inputs, **{n: inputs[n][::-1] for n in ("q_index", "kv_index", "bias_l")}}
    first, second = (
        local_global_attention(*tensors(p), num_heads=2, scale=0.5, combine="joint")
        for p in (inputs, turned)
    )
    torch.testing.assert_close(first, second)


def test_two_equal_globals_weighing_half_are_one():
    index = AttentionIndex(grid_windows((4, 4), (2, 2)))
    x, g = torch.randn(1, 16, 8), torch.randn(1, 3, 8)
    once = joint_attention(x, x, x, g, g, index, num_heads=2)
    pair = torch.cat((g, g), 1)
    half = torch.full((1, 1, 1, 1, 6), -float(np.log(2)))
    torch.testing.assert_close(
        joint_attention(x, x, x, pair, pair, index, num_heads=2, bias_g=half), once
    )


def test_joint_is_a_sum_gated_by_the_log_sum_exps(attention_definition):
    grid = attention_definition.window_table(4, 4, 2)
    inputs = attention_definition.problem(1, grid, grid, 16, 3, 2, 4, bias_l=(1, 2, 4, 4))
    arguments = tensors(inputs, torch.float64)
    parts, sums = {}, {}
    for combine in ("joint", "local", "global"):
        parts[combine], sums[combine] = reference(Operands(*arguments, 2, 0.5, combine))
    share = torch.sigmoid(sums["global"] - sums["local"]).transpose(1, 2).repeat_interleave(4, -1)
    mixed = (1 - share) * parts["local"] + share * parts["global"]
    torch.testing.assert_close(mixed, parts["joint"])
    torch.testing.assert_close(torch.logaddexp(sums["local"], sums["global"]), sums["joint"])


def test_wrappers_are_plain_attention_where_one_window_holds_all():
    x, g = torch.randn(2, 12, 8), torch.randn(2, 5, 8)
    whole = AttentionIndex(grid_windows((3, 4), (3, 4)))

    def plain(keys):
        q, k = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in (x, keys))
        mixed = torch.nn.functional.scaled_dot_product_attention(q, k, k)
        return mixed.transpose(1, 2).flatten(2)

    near = window_attention(x, x, x, whole, num_heads=2)
    far = global_attention(x, g, g, num_heads=2)
    torch.testing.assert_close(near, plain(x))
    torch.testing.assert_close(far, plain(g))
    torch.testing.assert_close(
        joint_attention(x, x, x, g, g, whole, num_heads=2), plain(torch.cat((x, g), 1))
    )
    torch.testing.assert_close(gated_attention(x, x, x, g, g, whole, num_heads=2), near + far)
    quarter = torch.full((1, 1, 1, 1, 1), 0.25)
    torch.testing.assert_close(
        gated_attention(x, x, x, g, g, whole, num_heads=2, gate=quarter), near + far / 4
    )
    per_window = AttentionIndex(grid_windows((3, 4), (1, 4)))
    sets = torch.stack((g, g, g), 1)
    torch.testing.assert_close(global_attention(x, sets, sets, num_heads=2, index=per_window), far)


def test_a_learned_bias_adds_to_the_mask():
    index = AttentionIndex(shifted_windows((4, 4), (2, 2), (1, 1)))
    x = torch.randn(1, 16, 4)
    learned = torch.randn(1, 1, 4, 4)
    both = window_attention(x, x, x, index, num_heads=1, bias=learned)
    by_hand = local_global_attention(
        x, x, x, index.q_index, index.kv_index, index.mask + learned,
        *[torch.zeros(1, 1, 1, 1)] * 4, index.o_index, num_heads=1, scale=0.5, combine="local",
    )  # fmt: skip
    torch.testing.assert_close(both, by_hand)


def test_half_precision_rounds_the_result_only(cases):
    for _, inputs, heads, combine in cases[:6]:
        arguments = tensors(inputs, torch.float16)
        attributes = {"num_heads": heads, "scale": 0.3, "combine": combine}
        exact, _ = reference(operands([a.float() if a.is_floating_point() else a
                                       for a in arguments], **attributes))  # fmt: skip
        got = local_global_attention(*arguments, **attributes)
        assert got.dtype == torch.float16
        torch.testing.assert_close(got.float(), exact, atol=2e-3, rtol=2e-3)


def test_biases_follow_the_dtype_of_the_queries():
    index = AttentionIndex(shifted_windows((4, 4), (2, 2), (1, 1)))
    x = torch.randn(1, 16, 4, dtype=torch.bfloat16)
    learned = torch.randn(1, 1, 4, 4)
    assert window_attention(x, x, x, index, num_heads=1, bias=learned).dtype == torch.bfloat16


def test_tables_stay_out_of_the_state_dict():
    index = AttentionIndex(grid_windows((4, 4), (2, 2)))
    assert not index.state_dict()
    assert {name for name, _ in index.named_buffers()} == {
        "q_index", "kv_index", "o_index", "mask",
    }  # fmt: skip


def _broken(name, value):
    """Return a change of one argument."""
    return lambda arguments: arguments.__setitem__(ORDER.index(name), value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_broken("kv_index", torch.full((4, 4), 16)), "position 16; expected 0 to 15"),
        (_broken("kv_index", torch.full((4, 4), -1)), "kv_index holds position -1"),
        (_broken("q_index", torch.zeros(4, 4, dtype=torch.int64)), "query 0 16 times"),
        (_broken("q_index", torch.full((4, 4), 99)), "q_index holds position 99"),
        (_broken("q_index", torch.zeros(3, 4, dtype=torch.int64)), "3 x 4 positions for 16"),
        (_broken("q_index", torch.zeros(4, 4)), "q_index is torch.float32; expected torch.int64"),
        (_broken("o_index", torch.arange(16)), "not the inverse"),
        (_broken("o_index", torch.arange(15)), "o_index has shape"),
        (_broken("k", torch.randn(1, 16, 6)), "k has shape"),
        (_broken("v", torch.randn(1, 15, 8)), r"v has shape \(1, 15, 8\); expected .*Nk=16"),
        (_broken("kg", torch.randn(1, 3, 2, 8)), "3 sets of global tokens; expected 1 or 4"),
        (_broken("vg", torch.randn(1, 1, 3, 8)), "vg has shape"),
        (_broken("bias_l", torch.randn(1, 3, 4, 4)), "bias_l has shape"),
        (_broken("bias_g", torch.randn(1, 1, 1, 1, 3)), "bias_g has shape"),
        (_broken("gate", torch.randn(1, 1, 1, 4, 8)), "gate has shape"),
        (_broken("k", torch.randn(1, 16, 8).double()), "k is torch.float64; expected q's"),
        (_broken("q", torch.zeros(1, 16, 8, dtype=torch.int64)), "expected a floating-point"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_named(attention_definition, change, message):
    grid = attention_definition.window_table(4, 4, 2)
    arguments = tensors(attention_definition.problem(1, grid, grid, 16, 2, 2, 4))
    change(arguments)
    with pytest.raises(TensorError, match=message):
        local_global_attention(*arguments, num_heads=2, scale=1.0, combine="sum")


def test_wrong_attributes_are_named(attention_definition):
    grid = attention_definition.window_table(4, 4, 2)
    arguments = tensors(attention_definition.problem(1, grid, grid, 16, 2, 2, 4))
    with pytest.raises(UsageError, match="8 channels and 3 heads"):
        local_global_attention(*arguments, num_heads=3, scale=1.0, combine="joint")
    with pytest.raises(UsageError, match=r"Unknown combination 'jiont' \(did you mean 'joint'"):
        local_global_attention(*arguments, num_heads=2, scale=1.0, combine="jiont")
    with pytest.raises(UsageError, match="8 channels and 3 heads"):
        global_attention(arguments[0], arguments[0], arguments[0], num_heads=3)
