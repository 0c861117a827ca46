"""What every reducer promises, on the joint-token one and on two plain merging matrices."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prunus.models.tokens.methods.attention.joint import JointTokenReducer
from prunus.models.tokens.reducer import Attention, Place, Reduced, Side, TokenReducer, assignment
from prunus.models.tokens.selection import best
from prunus.runtime.errors import UsageError

JOINTS, PATCHES, DIM = 3, 24, 8


class _Merge(TokenReducer):
    """Soft rows (a learned pooling) or hard columns (each patch goes to one token)."""

    def __init__(self, keep, soft):
        super().__init__(Place(PATCHES, keep, JOINTS))
        weights = torch.rand(keep, PATCHES, generator=torch.Generator().manual_seed(keep)) + 0.1
        if not soft:
            hard = torch.arange(PATCHES) % keep
            weights = torch.nn.functional.one_hot(hard, keep).T.float()
        self.weights = weights / weights.sum(1, keepdim=True)

    def forward(self, x, side):
        assign = self.weights.expand(x.shape[0], -1, -1)
        y = torch.cat((x[:, :JOINTS], assign @ x[:, JOINTS:]), dim=1)
        return Reduced(y, None, assign, (assign > 0).sum(2).float())


def _inputs(batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, JOINTS + PATCHES, DIM, generator=generator)
    query = torch.randn(batch, 2, JOINTS, 4, generator=generator)
    key = torch.randn(batch, 2, JOINTS + PATCHES, 4, generator=generator)
    return x, _side(query, key)


def _side(query, key):
    return Side({0: Attention(query, key, key)})


def _joints(keep, combine="sum"):
    return JointTokenReducer(Place(PATCHES, keep, JOINTS), combine=combine)


REDUCERS = {
    "joints_sum": _joints,
    "joints_max": lambda keep: _joints(keep, "max"),
    "soft": lambda keep: _Merge(keep, soft=True),
    "hard": lambda keep: _Merge(keep, soft=False),
}


@pytest.mark.parametrize("name", REDUCERS)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_shapes_and_special_tokens(name, batch):
    x, side = _inputs(batch)
    reduced = REDUCERS[name](10)(x, side)
    assert reduced.x.shape == (batch, JOINTS + 10, DIM)
    assert torch.equal(reduced.x[:, :JOINTS], x[:, :JOINTS])
    if reduced.kept is not None:
        assert reduced.kept.shape == (batch, 10) and reduced.kept.dtype == torch.int64
        assert (reduced.kept.diff(dim=1) > 0).all()


@pytest.mark.parametrize("name", ["joints_sum", "joints_max"])
def test_keeping_all_changes_nothing(name):
    x, side = _inputs(2)
    assert torch.equal(REDUCERS[name](PATCHES)(x, side).x, x)


@pytest.mark.parametrize("name", REDUCERS)
def test_convex_rows_keep_constant_tokens(name):
    x, side = _inputs(2)
    constant = torch.ones_like(x) * torch.arange(DIM)
    reduced = REDUCERS[name](10)(constant, side)
    torch.testing.assert_close(reduced.x, constant[:, : JOINTS + 10], rtol=0, atol=1e-5)
    rows = assignment(reduced, PATCHES).sum(dim=2)
    torch.testing.assert_close(rows, torch.ones_like(rows), rtol=0, atol=1e-6)


@given(
    seed=st.integers(0, 10_000), keep=st.integers(1, PATCHES), score=st.sampled_from(["sum", "max"])
)
@settings(max_examples=40, deadline=None)
def test_commutes_with_a_permutation_of_the_patches(seed, keep, score):
    x, side = _inputs(2, seed)
    order = torch.randperm(PATCHES, generator=torch.Generator().manual_seed(seed))
    full = torch.cat((torch.arange(JOINTS), JOINTS + order))
    reducer = _joints(keep, score)
    plain = reducer(x, side).kept
    query, key, _ = side.attention[0]
    moved = reducer(x[:, full], _side(query, key[:, :, full])).kept
    assert torch.equal(order[moved].sort(dim=1).values, plain)


@pytest.mark.parametrize("name", REDUCERS)
def test_delta_of_an_untouched_reduction_is_the_identity(name):
    x, side = _inputs(3)
    reducer = REDUCERS[name](7)
    reduced = reducer(x, side)
    back = reducer.restore(reduced.x, reduced, x, "delta")
    if reduced.kept is not None:
        assert torch.equal(back, x)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-5)


def test_scatter_and_copy_of_a_pruning():
    x, side = _inputs(2)
    reducer = _joints(7)
    reduced = reducer(x, side)
    y = reduced.x + 100
    for how, background in (("scatter", x), ("delta", x), ("copy", 0 * x), ("transpose", 0 * x)):
        back = reducer.restore(y, reduced, x, how)
        for picture in range(2):
            expected = background[picture].clone()
            expected[:JOINTS] = y[picture, :JOINTS]
            expected[JOINTS + reduced.kept[picture]] = y[picture, JOINTS:]
            assert torch.equal(back[picture], expected)
    assert reducer.restore(y, reduced, None, "none") is y


def test_ways_back_of_a_merging():
    x, side = _inputs(2)
    reducer = _Merge(6, soft=False)
    reduced = reducer(x, side)
    groups = torch.arange(PATCHES) % 6
    # Each patch belongs to one token, so the normalised transpose hands that token out.
    spread = reducer.restore(reduced.x, reduced, x, "transpose")
    torch.testing.assert_close(spread[:, JOINTS:], reduced.x[:, JOINTS + groups])
    changed = reducer.restore(reduced.x + 1, reduced, x, "delta")
    torch.testing.assert_close(changed, x + 1)
    with pytest.raises(UsageError, match="no place"):
        reducer.restore(reduced.x, reduced, x, "scatter")


def test_ties_keep_the_count():
    kept = best(torch.ones(2, PATCHES), 11)
    assert kept.shape == (2, 11)
    assert (kept.diff(dim=1) > 0).all() and kept.min() >= 0 and kept.max() < PATCHES


def test_half_precision_inputs_keep_nearly_the_same_patches():
    x, side = _inputs(50)
    query, key, _ = side.attention[0]
    full = _joints(12)(x, side).kept
    half = _joints(12)(x.half(), _side(query.half(), key.half())).kept
    common = (full[:, :, None] == half[:, None, :]).any(2).float().mean()
    assert common >= 0.98


def test_max_keeps_what_one_joint_needs():
    """One joint stares at patch 5, all others spread over the rest: only `max` ranks it first."""
    query = torch.zeros(1, 1, 4, 2)
    query[0, 0, 0, 0] = 1.0
    query[0, 0, 1:, 1] = 1.0
    key = torch.zeros(1, 1, 4 + 6, 2)
    key[0, 0, 4 + 5, 0] = 6.0
    key[0, 0, 4 + 2, 1] = 3.0
    for combine, expected in (("max", 5), ("sum", 2)):
        reducer = JointTokenReducer(Place(6, 1, 4), combine=combine)
        assert reducer(torch.zeros(1, 10, 2), _side(query, key)).kept.tolist() == [[expected]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": 5, "keep": 6}, "6 of 5"),
        ({"tokens": 5, "keep": 0}, "0 of 5"),
        ({"tokens": 5, "keep": 2, "special": -1}, "at least 0"),
        ({"tokens": 5, "keep": 2, "class_token": True}, "at least 1"),
        ({"tokens": 5, "keep": 2, "grid": (2, 2)}, "does not hold 5"),
    ],
)
def test_wrong_places(arguments, message):
    with pytest.raises(UsageError, match=message):
        Place(**arguments)


def test_wrong_ways_back():
    x, side = _inputs(1)
    reducer = _joints(7)
    reduced = reducer(x, side)
    with pytest.raises(UsageError, match="needs the tokens before"):
        reducer.restore(reduced.x, reduced, None, "delta")
    with pytest.raises(UsageError, match="Unknown way back"):
        reducer.restore(reduced.x, reduced, x, "learnt")


def test_the_exported_reducer_agrees_and_has_no_forbidden_op():
    onnxruntime = pytest.importorskip("onnxruntime")
    from prunus.export.graph.trace import trace

    class Step(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.reducer = _joints(7)

        def forward(self, x, query, key):
            reduced = self.reducer(x, _side(query, key))
            return reduced.x, reduced.kept, self.reducer.restore(reduced.x * 2, reduced, x)

    for batch in (1, 2):
        x, side = _inputs(batch)
        inputs = (x, *side.attention[0][:2])
        model = trace(Step(), inputs, ["x", "q", "k"], ["y", "kept", "back"])
        types = {node.op_type for node in model.graph.node}
        assert not types & {"NonZero", "Loop", "If", "Compress", "Unique", "Range", "Shape"}
        scatters = [n for n in model.graph.node if n.op_type.startswith("Scatter")]
        assert scatters
        for node in scatters:
            assert all(a.s in (b"", b"none") for a in node.attribute if a.name == "reduction")
        session = onnxruntime.InferenceSession(model.SerializeToString())
        got = session.run(None, {n: v.numpy() for n, v in zip("xqk", inputs, strict=True)})
        for value, expected in zip(got, Step()(*inputs), strict=True):
            torch.testing.assert_close(torch.from_numpy(value), expected)
