"""From shapes to the kernel's integers: strides as numpy has them for the broadcast tensor."""

import itertools

import numpy as np
import pytest

from prunus.runtime.errors import TensorError, UsageError
from prunus.runtime.plugins.local_global_attention.geometry import geometry

B, W, LQ, LK, G, H, D = 2, 3, 4, 5, 6, 2, 8
C, NK = H * D, 20
FULL = {
    "q": (B, W * LQ, C), "k": (B, NK, C), "v": (B, NK, C), "q_index": (W, LQ), "kv_index": (W, LK),
    "bias_l": (W, H, LQ, LK), "kg": (B, W, G, C), "vg": (B, W, G, C), "bias_g": (B, W, H, LQ, G),
    "gate": (B, W, H, LQ, 1), "o_index": (W, LQ),
}  # fmt: skip
ANY = (9, 9)  # the shape of what a combination does not read


def _strides(shape, full):
    """Return elements per step of a tensor that is broadcast, as numpy tells."""
    tensor = np.zeros(shape, np.int8)
    return np.broadcast_to(tensor.reshape((1,) * (len(full) - tensor.ndim) + shape), full).strides


@pytest.mark.parametrize("ones", list(itertools.product((False, True), repeat=4)))
def test_strides_of_what_is_broadcast_are_those_of_numpy(ones):
    shapes = dict(FULL)
    for name in ("bias_l", "bias_g", "gate"):
        axes = FULL[name]
        wide = zip((*ones, ones[0]), axes, strict=False)
        shapes[name] = tuple(1 if one else n for one, n in wide)
    found = geometry(shapes, H, "sum")
    local = _strides(shapes["bias_l"], FULL["bias_l"])
    far = _strides(shapes["bias_g"], FULL["bias_g"])
    gate = _strides(shapes["gate"], FULL["gate"])[:4]
    # numpy keeps the stride of an axis of one where nothing is repeated; such a step is never made.
    tokens = (W * G * C, G * C)
    assert found.strides == (*local, *far, *gate, *tokens)


def test_sizes_and_integers():
    found = geometry(FULL, H, "sum")
    assert (found.batch, found.windows, found.globals_) == (B, W, G)
    assert (found.queries, found.keys) == (LQ, LK)
    assert (found.query_tokens, found.key_tokens, found.heads, found.head_dim) == (W * LQ, NK, H, D)
    assert found.channels == C and found.separate == 1
    assert found.integers(2) == (1, LQ, LK, G, W * LQ, NK, H, D, C, 2, *found.strides)
    assert [found.grid(rows) for rows in (1, 3, 4, 64)] == [
        (W * 4 * H, B), (W * 2 * H, B), (W * H, B), (W * H, B)
    ]  # fmt: skip


def test_a_combination_reads_its_own_inputs_alone():
    local = geometry({**FULL, "kg": ANY, "vg": ANY, "bias_g": ANY, "gate": ANY}, H, "local")
    assert (local.keys, local.globals_, local.separate) == (LK, 0, 0)
    assert local.strides[4:] == (0,) * 11
    unread = {name: ANY for name in ("k", "v", "kv_index", "bias_l", "gate")}
    far = geometry({**FULL, **unread}, H, "global")
    assert (far.keys, far.key_tokens, far.globals_, far.separate) == (0, 0, G, 0)
    assert far.strides[:4] == far.strides[9:13] == (0,) * 4
    assert far.strides[13:] == (W * G * C, G * C)
    joint = geometry({**FULL, "gate": ANY}, H, "joint")
    assert (joint.keys, joint.globals_, joint.separate) == (LK, G, 0)
    assert joint.strides[9:13] == (0,) * 4


def test_globals_of_one_set_are_shared_by_all_windows():
    shapes = {**FULL, "kg": (B, 1, G, C), "vg": (B, 1, G, C)}
    assert geometry(shapes, H, "sum").strides[13:] == (G * C, 0)
    with pytest.raises(TensorError, match="vg has shape"):
        geometry({**shapes, "vg": FULL["vg"]}, H, "sum")
    with pytest.raises(TensorError, match="kg has shape"):
        geometry({**FULL, "kg": (B, 2, G, C)}, H, "sum")


def test_all_ones_may_lack_an_axis():
    ones = {"bias_l": (1, 1, 1), "bias_g": (1, 1, 1, 1), "gate": (1, 1, 1, 1)}
    assert geometry({**FULL, **ones}, H, "sum").strides[:13] == (0,) * 13
    for name in ones:
        with pytest.raises(TensorError, match=f"{name} has shape"):
            geometry({**FULL, name: FULL[name][1:]}, H, "sum")
        with pytest.raises(TensorError, match=f"{name} has shape"):
            geometry({**FULL, name: ones[name][1:]}, H, "sum")


@pytest.mark.parametrize("name", [n for n in FULL if n != "o_index"])
@pytest.mark.parametrize("change", ["an axis more", "last", "first"])
def test_a_shape_that_does_not_fit_names_its_input(name, change):
    shape = FULL[name]
    wrong = {
        "an axis more": (*shape, 1), "last": (*shape[:-1], shape[-1] + H), "first": (7, *shape[1:])
    }  # fmt: skip
    with pytest.raises(TensorError) as caught:
        geometry({**FULL, name: wrong[change]}, H, "sum")
    # Two tensors that must agree: either may be the one that is named.
    pairs = {"q": ("k", "q_index"), "k": ("v",), "kg": ("vg",), "q_index": ("kv_index", "bias_l")}
    pairs |= {"kv_index": ("bias_l",)}
    assert any(word in str(caught.value) for word in (name, *pairs.get(name, ())))


def test_bad_words_and_heads():
    with pytest.raises(UsageError, match="did you mean 'joint'"):
        geometry(FULL, H, "joined")
    for heads in (0, -2, 3):
        with pytest.raises(UsageError, match=f"{C} channels and {heads} heads"):
            geometry(FULL, heads, "sum")
    with pytest.raises(TensorError, match="every query exactly once"):
        geometry({**FULL, "q_index": (W, LQ + 1)}, H, "sum")
