"""What every method of the registry promises, row by row, on 48 patches."""

import io
import re

import numpy as np
import pytest
import torch

from prunus.models.macs import count_macs
from prunus.models.tokens.reducer import Attention, Side, assignment
from prunus.models.tokens.registry import METHODS, build_reducer
from prunus.runtime import references
from prunus.runtime.errors import UsageError

# Where a method cannot stand on the common place, and options that change what it does.
PLACES = {
    "globalcom2": {"tokens": 40, "keep": 19, "grid": (10, 4), "special": 1},
    "ltfr": {"keep": 23},
    "aim": {"keep": 10},
    "todre": {"keep": 9},
    "cdpruner": {"keep": 9},
    "average_pool": {"keep": 12},
    "llamavid": {"keep": 13},
}
VARIANTS = [
    "evit(merge=drop)",
    "joint(combine=max,merge=soft)",
    "vtc_cls(start=2,merge=nearest)",
    "hiprune(alpha=0.6)",
    "hiprune(alpha=0.6,literal=true)",
    "vscan(windows=2,shallow=1,merge=drop)",
    "top(by=class)",
    "top(by=logit)",
    "top(by=received)",
    "token_transforming(tau=1000)",
    "bat(clusters=0.5,pairs=0)",
    "dart(pivots=3)",
    "cdpruner(theta=0.5)",
    "vqtoken(steps=0)",
    "mergedna(window=8)",
    "centre(rows=4)",
]
WORDS = [*(method.name for method in METHODS), *VARIANTS]
each_method = pytest.mark.parametrize("words", WORDS)
# A trained method may do more than mix tokens: it has weights of its own between them.
TRAINED = {method.name for method in METHODS if method.trained}
NO_MIXTURES = {m.name for m in METHODS if m.trained and not references.load(m.reducer).convex}
each_mixing_method = pytest.mark.parametrize(
    "words", [words for words in WORDS if words.partition("(")[0] not in TRAINED]
)


def _name(words):
    return words.partition("(")[0]


def _build(words, bench, **changes):
    place = bench.place(**(PLACES.get(_name(words), {}) | changes))
    torch.manual_seed(0)  # weights of trained methods
    return build_reducer(words, place).eval()


@each_method
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_count_is_constant_and_special_tokens_pass(words, batch, bench):
    reducer = _build(words, bench)
    place = reducer.place
    x, side = bench.inputs(place, batch)
    with torch.no_grad():
        reduced = reducer(x, side)
    assert reduced.x.shape == (batch, place.special + place.keep, place.dim)
    assert torch.isfinite(reduced.x).all()
    assert torch.equal(reduced.x[:, : place.special], x[:, : place.special])
    if reduced.kept is not None:
        assert reduced.kept.dtype == torch.int64
        assert reduced.kept.shape[1] >= place.keep - 1
        assert (reduced.kept.diff(dim=1) > 0).all()
        assert reduced.kept.min() >= 0 and reduced.kept.max() < place.tokens
        kept = torch.gather(
            x[:, place.special :], 1, reduced.kept.unsqueeze(2).expand(-1, -1, place.dim)
        )
        count = reduced.kept.shape[1]
        assert torch.equal(reduced.x[:, place.special : place.special + count], kept)
    if reduced.size is not None:
        assert reduced.size.shape == (batch, place.keep) and (reduced.size > 0).all()
    if reducer.grid is not None:
        assert reducer.grid[0] * reducer.grid[1] == place.keep


@each_mixing_method
def test_what_comes_out_is_the_matrix_times_the_patches(words, bench):
    reducer = _build(words, bench)
    x, side = bench.inputs(reducer.place)
    reduced = reducer(x, side)
    weights = assignment(reduced, reducer.place.tokens)
    special = reducer.place.special
    torch.testing.assert_close(reduced.x[:, special:], weights @ x[:, special:], rtol=0, atol=1e-5)
    if reducer.convex:
        rows = weights.double().sum(dim=2)
        torch.testing.assert_close(rows, torch.ones_like(rows), rtol=0, atol=1e-6)


@each_mixing_method
def test_keeping_all_returns_the_input(words, bench):
    tokens = bench.place(**PLACES.get(_name(words), {})).tokens
    if words == "centre(rows=4)":
        words = "centre(rows=6)"
    reducer = _build(words, bench, keep=tokens)
    x, side = bench.inputs(reducer.place)
    assert torch.equal(reducer(x, side).x, x)
    assert reducer.macs() == 0
    assert reducer.grid == reducer.place.grid


@pytest.mark.parametrize("words", [w for w in WORDS if w.partition("(")[0] not in NO_MIXTURES])
def test_convex_rows_keep_constant_tokens(words, bench):
    reducer = _build(words, bench)
    place = reducer.place
    x, side = bench.inputs(place)
    x[:, place.special :] = torch.arange(1, place.dim + 1) / place.dim
    with torch.no_grad():
        reduced = reducer(x, side)
    # A fused row weighs by raw attention; the others are patches.
    count = place.keep if reducer.convex else place.keep - 1
    expected = x[:, place.special : place.special + count]
    y = reduced.x[:, place.special : place.special + count]
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-5)


@each_method
def test_merges_conserve_mass(words, bench):
    reducer = _build(words, bench)
    place = reducer.place
    x, side = bench.inputs(place)
    sizes = torch.rand(2, place.special + place.tokens) * 7 + 0.5
    for given, total in (
        (None, torch.full((2,), float(place.tokens))),
        (sizes, sizes[:, place.special :].sum(dim=1)),
    ):
        with torch.no_grad():
            reduced = reducer(x, Side(side.attention, side.levels, given))
        if reduced.size is None:
            assert reduced.kept is not None or not reducer.convex or reduced.assign is not None
            continue
        mass = reduced.size.double().sum(dim=1)
        torch.testing.assert_close(mass, total.double(), rtol=1e-6, atol=0)


@each_mixing_method
def test_an_untouched_reduction_is_restored(words, bench):
    reducer = _build(words, bench)
    x, side = bench.inputs(reducer.place)
    reduced = reducer(x, side)
    back = reducer.restore(reduced.x, reduced, x, "delta")
    if reduced.kept is not None and reduced.assign is None:
        assert torch.equal(back, x)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-5)


@each_method
def test_ties_keep_the_count_without_repeats(words, bench):
    """Every patch is the same: each score, distance and similarity is a tie."""
    reducer = _build(words, bench)
    place = reducer.place
    x, side = bench.inputs(place)
    x = x[:, -1:].expand_as(x).clone()
    same = Attention(*(part[:, :, -1:].expand_as(part) for part in side.attention[4]))
    with torch.no_grad():
        reduced = reducer(x, Side(dict.fromkeys(range(5), same), dict.fromkeys(range(5), x)))
    assert torch.isfinite(reduced.x).all()
    if reduced.kept is not None:
        assert (reduced.kept.diff(dim=1) > 0).all()
        assert reduced.kept.shape[1] >= place.keep - 1
    assert reduced.x.shape[1] == place.special + place.keep


def _moved(side, order):
    return Side(
        {
            block: Attention(*(part[:, :, order] for part in seen))
            for block, seen in side.attention.items()
        },
        {block: level[:, order] for block, level in side.levels.items()},
    )


def _same_tokens(reducer, inputs, order):
    """Return whether patches in another order give the same tokens, in whatever order."""
    (x, side), place = inputs, reducer.place
    order = torch.cat((torch.arange(place.special), place.special + order))
    with torch.no_grad():
        plain, moved = reducer(x, side).x, reducer(x[:, order], _moved(side, order)).x
    return all(
        torch.allclose(a[a[:, 0].argsort()], b[b[:, 0].argsort()], rtol=0, atol=1e-5)
        for a, b in zip(plain, moved, strict=True)
    )


@each_method
def test_commutes_with_what_it_declares(words, bench):
    """And no permutation leaves the others as they are: they go by places."""
    reducer = _build(words, bench)
    inputs = bench.inputs(reducer.place)
    count = reducer.place.tokens
    random = torch.randperm(count, generator=torch.Generator().manual_seed(1))
    assert _same_tokens(reducer, inputs, random) == (reducer.commutes == "permutation")
    if reducer.commutes:
        flip = torch.arange(count).view(reducer.place.grid).flip(1).flatten()
        assert _same_tokens(reducer, inputs, flip)


def test_some_methods_commute_with_permutations_and_some_with_flips(bench):
    found = {_build(m.name, bench).commutes for m in METHODS}
    assert found == {"permutation", "flip", ""}


class _Steps(torch.nn.Module):
    """Reducers side by side, on the first tokens that fit: tokens out, and the way back."""

    def __init__(self, reducers):
        super().__init__()
        self.reducers = torch.nn.ModuleList(reducers)

    def forward(self, x, attention, levels):
        outputs = []
        for reducer in self.reducers:
            length = reducer.place.special + reducer.place.tokens
            parts = attention[:, :, :, :length].unbind(0)
            side = Side(
                {b: Attention(*parts[3 * b : 3 * b + 3]) for b in range(5)},
                dict(enumerate(levels[:, :, :length])),
            )
            tokens = x[:, :length]
            reduced = reducer(tokens, side)
            outputs += [reduced.x, reducer.restore(reduced.x * 2, reduced, tokens)]
        return tuple(outputs)


GRAPHS = {
    **{
        mechanism: [m.name for m in METHODS if m.mechanism == mechanism]
        for mechanism in sorted({m.mechanism for m in METHODS})
    },
    "options": ["hiprune(alpha=0.6,literal=true)", "top(by=logit)", "evit(merge=soft)"],
}
GRAPH_PLACES = {"todre": {"keep": 4}, "cdpruner": {"keep": 4}, "dart": {"keep": 6}}


def _graph(title, batch, bench):
    """Return the module of a title, its inputs by name, the names of its outputs, and its graph."""
    from prunus.export.graph.trace import trace

    reducers = [_build(words, bench, **GRAPH_PLACES.get(words, {})) for words in GRAPHS[title]]
    x, side = bench.inputs(bench.place(), batch)
    attention = torch.stack([part for block in range(5) for part in side.attention[block]])
    levels = torch.stack([side.levels[block] for block in range(5)])
    names = [f"{kind}_{_name(w)}_{k}" for k, w in enumerate(GRAPHS[title]) for kind in "yr"]
    steps = _Steps(reducers)
    inputs = {"x": x, "attention": attention, "levels": levels}
    return steps, inputs, names, trace(steps, tuple(inputs.values()), list(inputs), names)


@pytest.mark.parametrize(("title", "batch"), [*((title, 2) for title in GRAPHS), ("options", 1)])
def test_graphs_are_static_and_agree_everywhere(title, batch, bench):
    """One graph for each mechanism: tracing costs more than the methods in it."""
    onnxruntime = pytest.importorskip("onnxruntime")
    openvino = pytest.importorskip("openvino")
    from prunus.export.graph.audit import audit
    from prunus.export.graph.functions import inlined

    steps, inputs, names, model = _graph(title, batch, bench)
    assert audit(model) == []
    with torch.no_grad():
        expected = steps(*inputs.values())
    feed = {name: value.numpy() for name, value in inputs.items()}
    session = onnxruntime.InferenceSession(model.SerializeToString())
    core = openvino.Core()
    network = core.read_model(io.BytesIO(inlined(model).SerializeToString()))
    compiled = core.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    # OpenVINO leaves out inputs that nothing reads.
    read = {port.any_name: feed[port.any_name] for port in compiled.inputs}
    for runner, got in (
        ("ONNX Runtime", session.run(None, {i.name: feed[i.name] for i in session.get_inputs()})),
        ("OpenVINO", list(compiled(read).values())),
    ):
        for name, value, want in zip(names, got, expected, strict=True):
            np.testing.assert_allclose(
                value, want.numpy(), rtol=0, atol=2e-5, err_msg=f"{name} in {runner}"
            )


@pytest.mark.slow
@pytest.mark.parametrize("title", GRAPHS)
def test_graphs_build_into_engines(title, bench, tmp_path):
    """Every method in TensorRT-RTX, which builds without a GPU."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt_rtx is not installed (extra trt-rtx)")
    import onnx

    from prunus.export.engine.build import build_engine

    path = tmp_path / f"{title}.onnx"
    onnx.save(_graph(title, 1, bench)[3], path)
    sidecar = build_engine(path, flavour="tensorrt_rtx", min_half_share=0.0)
    assert sidecar.describes(path.with_suffix(".engine"))


CHAINS = {
    "todre": ("todre", {"keep": 3}), "cdpruner": ("cdpruner", {"keep": 3}),
    "vqtoken": ("vqtoken(steps=1)", {}), "dart": ("dart(pivots=2)", {}),
}  # fmt: skip
LONGER = {
    "todre": ("todre", {"keep": 6}), "cdpruner": ("cdpruner", {"keep": 6}),
    "vqtoken": ("vqtoken(steps=4)", {}), "dart": ("dart(pivots=5)", {}),
}  # fmt: skip


def test_chains_are_as_long_as_their_errors_say(bench):
    """Nodes of three more steps, counted in one graph that holds short and long chains."""
    import importlib

    from prunus.export.graph.trace import trace

    built = [_build(words, bench, **more) for words, more in (*CHAINS.values(), *LONGER.values())]
    x, side = bench.inputs(bench.place(), 1)
    attention = torch.stack([part for block in range(5) for part in side.attention[block]])
    names = [f"y{k}" for k in range(len(built))]

    class Apart(_Steps):
        """Each on inputs of its own, or the exporter would share what chains have in common."""

        def forward(self, x, attention):
            outputs = []
            for number, reducer in enumerate(self.reducers):
                parts = (attention + number).unbind(0)
                side = Side({b: Attention(*parts[3 * b : 3 * b + 3]) for b in range(5)})
                outputs.append(reducer(x + number, side).x)
            return tuple(outputs)

    graph = trace(Apart(built), (x, attention), ["x", "attention"], names).graph
    scopes = [node.name.split("/")[0] for node in graph.node if node.op_type != "Constant"]
    counted, said = {}, {}
    for number, module in enumerate(CHAINS):
        short, long = (scopes.count(f"reducers.{k}") for k in (number, number + len(CHAINS)))
        counted[module] = (long - short) / 3
        path = f"prunus.models.tokens.methods.similarity.{module}"
        said[module] = importlib.import_module(path)._NODES
    assert counted == pytest.approx(said, abs=1)


@each_method
def test_macs_are_those_counted(words, bench):
    reducer = _build(words, bench)
    place = reducer.place
    x, side = bench.inputs(place, 1)

    class Forward(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.reducer = reducer

        def forward(self, x):
            return self.reducer(x, side).x

    assert reducer.macs() == count_macs(Forward(), x)


@pytest.mark.parametrize(
    ("words", "changes", "message"),
    [
        ("evit(merge=fuse)", {"keep": 1}, "keeps 1 token"),
        ("evit", {"class_token": False}, "'evit' at block 4 scores by the class token"),
        ("evit(merge=mean)", {}, "'merge' of method 'evit' is 'mean'; expected one of drop"),
        ("evit(tau=0)", {}, "temperature is 0"),
        ("vtc_cls(start=7)", {}, "names block 7; expected 0 to 4"),
        ("vtc_cls(start=1)", {"since": 3}, "names block 1; expected 3 to 4"),
        ("vtc_cls", {"class_token": False}, "'vtc_cls' at block 4"),
        ("hiprune", {"grid": None}, "'hiprune' at block 4 needs the rows and columns of the 48"),
        ("hiprune(alpha=2)", {}, "'alpha' of method 'hiprune' is 2.0"),
        ("hiprune(alfa=0.2)", {}, "no option 'alfa'.*alpha"),
        ("hiprune(object_block=5)", {}, "names block 5; expected 0 to 4"),
        ("vscan(windows=4)", {}, "6 x 8 into 4 windows a side"),
        ("vscan", {"grid": None}, "'vscan' at block 4 needs"),
        ("btp(spread=1.5)", {}, "'spread' of method 'btp' is 1.5"),
        ("globalcom2", {}, "a grid of 6 x 8 is not 5 tiles"),
        ("globalcom2", {"tokens": 40, "keep": 9, "grid": (10, 4), "special": 3}, "has 3 special"),
        ("globalcom2(merge=fuse)", {"tokens": 40, "keep": 9, "grid": (10, 4)}, "no probabilities"),
        ("ats", {"class_token": False}, "'ats' at block 4"),
        ("top(by=logit,merge=fuse)", {}, "no probabilities"),
        ("top(by=keys)", {}, "'by' of method 'top' is 'keys'"),
        ("tome", {"keep": 23}, "merges at most 24 of 48 tokens in one cut; got 23"),
        ("bat", {"keep": 1}, "keeps 1 token; expected at least 2"),
        ("bat(neighbours=0)", {}, "has 0 neighbours"),
        ("todre", {"tokens": 200, "keep": 65, "grid": None}, r"65 steps, .* about \d+ nodes"),
        ("cdpruner", {"tokens": 200, "keep": 99, "grid": None}, "99 steps, one after"),
        ("cdpruner(theta=3)", {}, "'theta' of method 'cdpruner' is 3.0"),
        ("dart(pivots=0)", {}, "0 pivots"),
        ("vqtoken(steps=65)", {}, "65 steps"),
        ("vqtoken(steps=-1)", {}, "-1 steps"),
        ("ltfr(frames=7)", {}, "48 tokens of 7 frames"),
        ("ltfr", {"keep": 22}, "Keep 8 and a multiple of 5"),
        ("ltfr", {"keep": 7}, "keeps 7 tokens: the 8 of the first frame"),
        ("mergedna(window=5)", {}, "48 tokens into windows of 5"),
        ("mergedna", {"keep": 30}, "Keep one of 36, 24"),
        ("checkerboard", {"grid": None}, "'checkerboard' at block 4 needs"),
        ("centre(rows=5)", {}, "cannot keep 24 patches in 5 rows"),
        ("average_pool", {"keep": 20}, "Keep one of 1, 2, 3, 4, 6, 8, 12, 16, 24, 48"),
        ("average_pole", {}, "Unknown method 'average_pole'.*did you mean 'average_pool'"),
    ],
)  # fmt: skip
def test_wrong_options_and_places(words, changes, message, bench):
    with pytest.raises(UsageError) as caught:
        build_reducer(words, bench.place(**changes))
    text = f"{caught.value} {caught.value.hint}"
    assert re.search(message, text), text
