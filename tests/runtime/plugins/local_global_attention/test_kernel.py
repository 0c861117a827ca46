"""The Triton kernel against the definition, in Triton's interpreter: no GPU is needed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prunus.runtime.errors import TensorError, UsageError


def _load(name):
    path = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"plugins_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


definition = _load("definition")
define, problem = definition.define, definition.problem
CASES = {name: rest for name, *rest in definition.nine_cases()}
# Largest error relative to the largest value; one unit in the last place of a type.
TOLERANCE = 1e-5
EPSILONS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}


def rounded(inputs, dtype):
    """Return the inputs as a dtype holds them, so that only the kernel's own error remains."""
    if dtype == "float32":
        return inputs
    torch = pytest.importorskip("torch")

    def through(array):
        return torch.from_numpy(array).to(getattr(torch, dtype)).float().numpy()

    return {n: through(a) if n in definition.FLOATS else a for n, a in inputs.items()}


def worst(got, expected):
    assert np.isfinite(got).all() and got.shape == expected.shape
    return np.abs(got - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("name", CASES)
def test_nine_cases(run_kernel, name) -> None:
    inputs, heads, combine = CASES[name]
    scale = (inputs["q"].shape[-1] // heads) ** -0.5
    got = run_kernel(inputs, heads, scale, combine)
    assert worst(got, define(inputs, heads, scale, combine)) < TOLERANCE


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "name", ["shifted windows with masks", "gated sum", "chunks of a sequence"]
)
def test_half_precision(run_kernel, name, dtype) -> None:
    inputs, heads, combine = CASES[name]
    scale = (inputs["q"].shape[-1] // heads) ** -0.5
    inputs = rounded(inputs, dtype)
    got = run_kernel(inputs, heads, scale, combine, dtype)
    # Weights and result are rounded to the type, sums are not.
    assert worst(got, define(inputs, heads, scale, combine)) < 2 * EPSILONS[dtype]


@st.composite
def problems(draw):
    batch, windows, heads = (
        draw(st.integers(1, 2)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 2)),
    )
    queries, keys, globals_ = (draw(st.integers(1, 40)) for _ in range(3))
    d = draw(st.sampled_from([16, 20, 24, 32, 40, 64, 96, 128]))
    key_tokens = draw(st.integers(1, 50))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))

    def some(*sizes):
        return tuple(draw(st.sampled_from([1, size])) for size in sizes)

    inputs = problem(
        draw(st.integers(0, 1000)),
        rng.permutation(windows * queries).reshape(windows, queries),
        rng.integers(0, key_tokens, (windows, keys)),
        key_tokens, globals_, heads, d, batch=batch, sets=draw(st.sampled_from([1, windows])),
        bias_l=some(windows, heads, queries, keys),
        bias_g=some(batch, windows, heads, queries, globals_),
        gate=(*some(batch, windows, heads, queries), 1),
    )  # fmt: skip
    for bias in ("bias_l", "bias_g"):
        inputs[bias][rng.random(inputs[bias].shape) < draw(st.sampled_from([0, 0.5, 1]))] = -30000
    if draw(st.booleans()):
        for table in ("q_index", "kv_index"):
            inputs[table] = inputs[table].astype(np.int32)
    return inputs, heads, draw(st.sampled_from(["joint", "sum", "local", "global"]))


@settings(
    max_examples=12, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(problems())
def test_any_shape(run_kernel, drawn) -> None:
    inputs, heads, combine = drawn
    scale = (inputs["q"].shape[-1] // heads) ** -0.5
    expected = define(inputs, heads, scale, combine)
    got = run_kernel(inputs, heads, scale, combine)
    assert np.isfinite(got).all()
    assert np.abs(got - expected).max() <= TOLERANCE * max(np.abs(expected).max(), 1e-3)


@pytest.mark.parametrize("combine", ["joint", "sum", "local", "global"])
def test_fully_masked_rows_are_zero(run_kernel, combine) -> None:
    table = np.arange(24).reshape(2, 12)
    inputs = problem(1, table, table, 24, 5, 1, 16, bias_l=(2, 1, 12, 12), bias_g=(1, 2, 1, 12, 5))
    for value, row in ((-30000, 3), (-np.inf, 7)):
        inputs["bias_l"][:, :, row] = inputs["bias_g"][:, :, :, row] = value
    y = run_kernel(inputs, 1, 0.25, combine)
    masked = table[:, [3, 7]].ravel()
    assert (y[:, masked] == 0).all()
    assert (np.abs(np.delete(y, masked, axis=1)).max(-1) > 0).all()


def test_order_of_windows_changes_nothing(run_kernel) -> None:
    inputs, heads, combine = CASES["overlapping keys"]
    order = [2, 0, 3, 1]
    moved = inputs | {n: inputs[n][order] for n in ("q_index", "kv_index")}
    same = [run_kernel(x, heads, 0.25, combine) for x in (inputs, moved)]
    assert np.array_equal(*same)


def test_two_half_weighted_globals_equal_one(run_kernel) -> None:
    """A merged token of size s enters with a bias of log s: two halves weigh as much as a whole."""
    inputs, heads, combine = CASES["windows and shared globals"]
    twice = inputs | {n: np.repeat(inputs[n], 2, axis=2) for n in ("kg", "vg")}
    twice["bias_g"] = np.repeat(inputs["bias_g"], 2, axis=4) - np.float32(np.log(2))
    one, two = (run_kernel(x, heads, 0.25, combine) for x in (inputs, twice))
    assert worst(two, one) < TOLERANCE


def test_int32_tables_and_longer_key_tiles_change_nothing(run_kernel) -> None:
    inputs, heads, combine = CASES["chunks of a sequence"]
    short = inputs | {n: inputs[n].astype(np.int32) for n in ("q_index", "kv_index")}
    assert np.array_equal(
        run_kernel(inputs, heads, 0.25, combine), run_kernel(short, heads, 0.25, combine)
    )
    tile = ("fp32", 16, 16, 32, 4, 1)
    got = run_kernel(inputs, heads, 0.25, combine, tile=tile)
    assert worst(got, define(inputs, heads, 0.25, combine)) < TOLERANCE


def test_launch_refuses_what_it_cannot_run(run_kernel) -> None:
    inputs, heads, _ = CASES["windows and shared globals"]
    with pytest.raises(UsageError, match="did you mean 'joint'"):
        run_kernel(inputs, heads, 0.25, "joined")
    with pytest.raises(TensorError, match="different integer types"):
        run_kernel(inputs | {"q_index": inputs["q_index"].astype(np.int32)}, heads, 1, "joint")
    with pytest.raises(TensorError, match=r"q is torch.float64; expected float16"):
        run_kernel(inputs, heads, 0.25, "joint", "float64")
    table = np.arange(2).reshape(1, 2)
    with pytest.raises(TensorError, match="head dimension is 136; expected at most 128"):
        run_kernel(problem(0, table, table, 2, 1, 1, 136), 1, 0.25, "joint")


@pytest.mark.parametrize("combine", ["joint", "sum", "local", "global"])
def test_the_function_in_onnx_runtime_computes_the_same(run_kernel, combine) -> None:
    """One node, two executions: the kernel, and the function that stands in for it."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra export)")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra ort)")
    from prunus.export.graph.attention.body import INPUTS
    from prunus.export.graph.functions import add_functions, describe_shapes

    helper, tensor_type = onnx.helper, onnx.TensorProto
    inputs, heads, _ = CASES["gated sum"]
    inputs = inputs | {"o_index": inputs["q_index"].ravel().argsort()}
    shape = inputs["q"].shape
    named = dict(zip(INPUTS, ("q", "k", "v", "q_index", "kv_index", "bias_l", "kg", "vg", "bias_g",
                              "gate", "o_index"), strict=True))  # fmt: skip
    node = helper.make_node(
        "LocalGlobalAttention", list(INPUTS), ["Y"], domain="prunus", num_heads=heads,
        scale=0.25, combine=combine, plugin_version="1", plugin_namespace="prunus",
    )  # fmt: skip
    graph = helper.make_graph(
        [node], "one",
        [helper.make_tensor_value_info("Q", tensor_type.FLOAT, shape)],
        [helper.make_tensor_value_info("Y", tensor_type.FLOAT, shape)],
        [onnx.numpy_helper.from_array(inputs[n], name) for name, n in named.items() if name != "Q"],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("prunus", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    add_functions(describe_shapes(model))
    session = runtime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (expected,) = session.run(None, {"Q": inputs["q"]})
    got = run_kernel(inputs, heads, 0.25, combine)
    assert worst(got, expected.astype(np.float64)) < TOLERANCE
