"""Exported local-global attention: nodes, bodies, and what each back end makes of them."""

import importlib.util

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from prunus.export.common.samples import Samples
from prunus.export.graph.attention.body import BODY_ATTRIBUTES, INPUTS
from prunus.export.graph.audit import audit
from prunus.export.graph.functions import (
    NAME,
    NAMES,
    add_functions,
    attention_nodes,
    attributes_of,
    describe_shapes,
    inlined,
)
from prunus.export.graph.simplify import canonicalise, simplify
from prunus.export.graph.trace import trace
from prunus.export.precision.fp16 import to_fp16
from prunus.export.precision.int8 import to_int8
from prunus.export.verify.bisect import bisect_graphs
from prunus.models.layers.local_global.attention import (
    gated_attention,
    global_attention,
    joint_attention,
    local_global_attention,
    window_attention,
)
from prunus.models.layers.local_global.index import AttentionIndex, grid_windows, shifted_windows
from prunus.models.layers.local_global.math import MASK_VALUE
from prunus.runtime.errors import PrunusError
from prunus.runtime.host import int8_flag

FED = ("Q", "K", "V", "Kg", "Vg", "gate")
BIASES = ("bias_l", "bias_g")
COMBINES = ("joint", "sum", "local", "global")


def run_onnxruntime(model, feed):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    wanted = {value.name for value in session.get_inputs()}
    return session.run(None, {name: feed[name] for name in wanted})[0]


def run_openvino(model, feed, tmp_path):
    openvino = pytest.importorskip("openvino")
    from prunus.runtime.session.openvino.attention import add_attention

    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    core = openvino.Core()
    add_attention(core)
    compiled = core.compile_model(
        core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": 1}
    )
    return compiled({port.get_any_name(): feed[port.get_any_name()] for port in compiled.inputs})[0]


def node_model(problem, heads, combine, *, scale=0.3, fed=FED):
    """Return a graph of one node, and its feed; what is not fed is a constant."""
    named = {n: problem[{"Q": "q", "K": "k", "V": "v", "Kg": "kg", "Vg": "vg"}.get(n, n)]
             for n in INPUTS if n != "o_index"}  # fmt: skip
    named["o_index"] = np.argsort(problem["q_index"].reshape(-1))
    named = {n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in named.items()}
    node = helper.make_node(
        NAME, INPUTS, ["Y"], name="block/attention", domain="prunus",
        num_heads=heads, scale=scale, combine=combine,
    )  # fmt: skip
    graph = helper.make_graph(
        [node],
        "main",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, named[n].shape) for n in fed],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, named["Q"].shape)],
        [numpy_helper.from_array(np.ascontiguousarray(a), n)
         for n, a in named.items() if n not in fed],
    )  # fmt: skip
    model = helper.make_model(
        graph, ir_version=10,
        opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("prunus", 1)],
    )  # fmt: skip
    return canonicalise(describe_shapes(model)), {n: named[n] for n in fed}


@pytest.fixture(scope="module")
def cases(attention_definition):
    return list(attention_definition.nine_cases())


@pytest.mark.parametrize("fed", [FED, (*FED, *BIASES)], ids=["constant", "computed"])
@pytest.mark.parametrize("number", range(9))
def test_the_nine_designs_run_in_onnx_runtime(cases, attention_definition, number, fed):
    _, problem, heads, combine = cases[number]
    model, feed = node_model(problem, heads, combine, fed=fed)
    onnx.checker.check_model(model, full_check=True)
    assert audit(model) == []
    expected = attention_definition.define(problem, heads, 0.3, combine)
    np.testing.assert_allclose(run_onnxruntime(model, feed), expected, atol=1e-5)


@pytest.mark.parametrize("number", range(9))
def test_the_nine_designs_run_in_half_precision(cases, attention_definition, number):
    """Relative to the largest value: 2e-3, the type's own rounding being 5e-4."""
    _, problem, heads, combine = cases[number]
    model, feed = node_model(problem, heads, combine)
    half = to_fp16(model, keep_fp32=[])
    whole = onnx.shape_inference.infer_shapes(inlined(half), strict_mode=True, data_prop=True)
    kinds = {v.name: v.type.tensor_type.elem_type for v in whole.graph.value_info}
    products = [n for n in whole.graph.node if n.op_type in ("MatMul", "Softmax")]
    assert products and {kinds[n.output[0]] for n in products} == {TensorProto.FLOAT16}
    expected = attention_definition.define(problem, heads, 0.3, combine)
    gap = np.abs(run_onnxruntime(half, feed) - expected).max()
    assert gap < 2e-3 * np.abs(expected).max()


@pytest.mark.parametrize("number", range(9))
def test_the_nine_designs_run_in_openvino(cases, attention_definition, number, tmp_path):
    _, problem, heads, combine = cases[number]
    model, feed = node_model(problem, heads, combine)
    expected = attention_definition.define(problem, heads, 0.3, combine)
    np.testing.assert_allclose(run_openvino(model, feed, tmp_path), expected, atol=1e-5)


@st.composite
def drawn(draw):
    """Draw a partition, shapes that broadcast, and masks."""
    windows, rows, keys = (draw(st.integers(1, n)) for n in (3, 4, 5))
    tokens, count, heads, d, batch = (draw(st.integers(1, n)) for n in (6, 3, 3, 4, 2))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def some(*full):
        shape = [n if draw(st.booleans()) else 1 for n in full]
        values = rng.normal(size=shape)
        values[rng.random(shape) < draw(st.sampled_from((0.0, 0.6)))] = MASK_VALUE
        return values

    sets, c = draw(st.sampled_from((1, windows))), heads * d
    floats = {
        "q": (batch, windows * rows, c), "k": (batch, tokens, c), "v": (batch, tokens, c),
        "kg": (batch, sets, count, c), "vg": (batch, sets, count, c),
    }  # fmt: skip
    lead = (windows, heads, rows)
    problem = {
        **{name: rng.normal(size=shape) for name, shape in floats.items()},
        "q_index": rng.permutation(windows * rows).reshape(windows, rows),
        "kv_index": rng.integers(0, tokens, (windows, keys)),
        "bias_l": some(*lead, keys),
        "bias_g": some(batch, *lead, count),
        "gate": some(batch, *lead, 1),
    }
    fed = (*FED, *(b for b in BIASES if draw(st.booleans())))
    return problem, heads, draw(st.sampled_from(COMBINES)), fed


@settings(max_examples=40, deadline=None)
@given(case=drawn())
def test_any_shape_runs_in_onnx_runtime(attention_definition, case):
    problem, heads, combine, fed = case
    problem["gate"] = np.clip(problem["gate"], -3, 3)
    model, feed = node_model(problem, heads, combine, fed=fed)
    expected = attention_definition.define(problem, heads, 0.3, combine)
    np.testing.assert_allclose(run_onnxruntime(model, feed), expected, atol=1e-5)


@pytest.mark.parametrize("value", [MASK_VALUE, -np.inf])
@pytest.mark.parametrize("fed", [FED, (*FED, *BIASES)], ids=["constant", "computed"])
@pytest.mark.parametrize("combine", COMBINES)
def test_rows_without_a_key_are_zero(attention_definition, combine, fed, value, tmp_path):
    grid = attention_definition.window_table(4, 4, 2)
    problem = attention_definition.problem(
        1, grid, grid, 16, 3, 2, 4, bias_l=(4, 2, 4, 4), bias_g=(1, 4, 2, 4, 3)
    )
    problem["bias_l"][1, 0, 2] = problem["bias_g"][:, 1, 0, 2] = value
    expected = attention_definition.define(problem, 2, 0.3, combine)
    assert (expected[0, grid[1, 2], :4] == 0).all()
    model, feed = node_model(problem, 2, combine, fed=fed)
    half = to_fp16(model, keep_fp32=[])  # by default what reads the inputs stays float32
    assert not np.array_equal(run_onnxruntime(half, feed), run_onnxruntime(model, feed))
    for got, tolerance in (
        (run_onnxruntime(model, feed), 1e-5),
        (run_openvino(model, feed, tmp_path), 1e-5),
        (run_onnxruntime(half, feed), 5e-3),
    ):
        np.testing.assert_allclose(got, expected, atol=tolerance)
        assert (got[0, grid[1, 2], :4] == 0).all()


class Mixed(torch.nn.Module):
    """All four combinations in one network, with layers before and after."""

    def __init__(self):
        super().__init__()
        self.windows = AttentionIndex(grid_windows((8, 6), (4, 3)))
        self.shifted = AttentionIndex(shifted_windows((8, 6), (4, 3), (2, 1)))
        self.bias = torch.nn.Parameter(torch.randn(1, 2, 12, 12))
        self.into, self.out = torch.nn.Linear(16, 48), torch.nn.Linear(16, 16)
        self.last, self.tokens = torch.nn.Linear(16, 8), torch.nn.Linear(16, 16)

    def forward(self, x, g):
        g = self.tokens(g)
        q, k, v = self.into(x).split(16, -1)
        y = window_attention(q, k, v, self.shifted, num_heads=2, bias=self.bias)
        y = y + joint_attention(y, k, v, g, g, self.windows, num_heads=2, bias=self.bias)
        y = y + gated_attention(y, k, v, g, g, self.windows, num_heads=2)
        return self.last(self.out(y + global_attention(y, g, g, num_heads=2)))


@pytest.fixture(scope="module")
def mixed():
    """Network, feed, its output and its graph."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Mixed().eval()
        x, g = torch.randn(2, 48, 16), torch.randn(2, 5, 16)
    with torch.no_grad():
        expected = network(x, g).numpy()
    graph = simplify(trace(network, (x, g), ["x", "g"], ["y"]))
    return network, {"x": x.numpy(), "g": g.numpy()}, expected, graph


def test_a_network_keeps_one_node_per_attention(mixed):
    _, feed, expected, graph = mixed
    nodes = attention_nodes(graph)
    assert [n.op_type for n in nodes] == [
        f"{NAME}Local", NAME, f"{NAME}Sum", f"{NAME}Global",
    ]  # fmt: skip
    assert [attributes_of(n)["combine"] for n in nodes] == ["local", "joint", "sum", "global"]
    for node in nodes:
        attributes = attributes_of(node)
        assert attributes["num_heads"] == 2
        assert attributes["scale"] == pytest.approx(8**-0.5)
        assert (attributes["plugin_version"], attributes["plugin_namespace"]) == ("1", "prunus")
        assert len(node.input) == len(INPUTS) and all(node.input)
        assert node.domain == "prunus" and not node.overload
    assert {f.name for f in graph.functions} == {n.op_type for n in nodes} <= set(NAMES)
    assert audit(graph) == []
    onnx.checker.check_model(graph, full_check=True)
    np.testing.assert_allclose(run_onnxruntime(graph, feed), expected, atol=1e-5)


def test_the_export_is_the_same_bytes_again(mixed):
    network, feed, _, graph = mixed
    inputs = [torch.from_numpy(feed[name]) for name in ("x", "g")]
    again = simplify(trace(network, inputs, ["x", "g"], ["y"]))
    first, second = (m.SerializeToString(deterministic=True) for m in (graph, again))
    assert first == second
    canonical = onnx.ModelProto()
    canonical.CopyFrom(graph)
    assert canonicalise(canonical).SerializeToString(deterministic=True) == first


def test_a_reader_without_functions_gets_the_inlined_graph(mixed, tmp_path):
    _, feed, expected, graph = mixed
    plain = inlined(graph)
    assert not plain.functions
    assert {o.domain for o in plain.opset_import} == {""}
    assert {n.domain for n in plain.graph.node} == {""}
    np.testing.assert_allclose(run_onnxruntime(plain, feed), expected, atol=1e-5)
    openvino = pytest.importorskip("openvino")
    path = tmp_path / "plain.onnx"
    onnx.save(plain, path)
    openvino.Core().read_model(path)
    np.testing.assert_allclose(run_openvino(graph, feed, tmp_path), expected, atol=1e-5)


def test_half_precision_reaches_into_the_bodies(mixed):
    _, feed, expected, graph = mixed
    half = to_fp16(graph)
    assert audit(half) == []
    onnx.checker.check_model(half, full_check=True)
    whole = onnx.shape_inference.infer_shapes(inlined(half), strict_mode=True, data_prop=True)
    kinds = {v.name: v.type.tensor_type.elem_type for v in whole.graph.value_info}
    inner = [n for n in whole.graph.node if n.op_type in ("MatMul", "Softmax")]
    assert len(inner) > 12
    assert {kinds[n.output[0]] for n in inner} == {TensorProto.FLOAT16}
    np.testing.assert_allclose(run_onnxruntime(half, feed), expected, atol=1e-2)


@pytest.mark.skipif(not int8_flag(), reason="this CPU sums products of int8 in 16 bits")
def test_quantised_layers_surround_float_attention(mixed):
    _, feed, expected, graph = mixed
    rng = np.random.default_rng(0)
    shapes = {"x": (8, 48, 16), "g": (8, 5, 16)}
    noise = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    quantised = to_int8(graph, Samples(noise, "noise"), keep_higher=[])
    assert [n.op_type for n in attention_nodes(quantised)] == [
        n.op_type for n in attention_nodes(graph)
    ]
    assert audit(quantised) == []
    got = run_onnxruntime(quantised, feed)
    assert np.abs(got - expected).max() < 0.1 * np.ptp(expected)


def test_a_wrong_attention_is_found_by_its_name(mixed):
    _, feed, _, graph = mixed
    assert bisect_graphs(graph, to_fp16(graph), feed, 1e-2).divergence is None
    wrong = onnx.ModelProto()
    wrong.CopyFrom(graph)
    node = attention_nodes(wrong)[2]
    next(a for a in node.attribute if a.name == "scale").f *= 2
    found = bisect_graphs(graph, wrong, feed).divergence
    assert found is not None
    assert (found.node, found.operator) == (node.name, f"{NAME}Sum")
    assert found.input_error == 0


def test_one_combination_has_the_plain_name():
    class Single(torch.nn.Module):
        def forward(self, x, g):
            return global_attention(x, g, g, num_heads=2)

    x, g = torch.randn(1, 6, 8), torch.randn(1, 3, 8)
    graph = simplify(trace(Single(), (x, g), ["x", "g"], ["y"]))
    assert [n.op_type for n in graph.graph.node if n.domain] == [NAME]
    assert [f.name for f in graph.functions] == [NAME]
    # No bias: no row can be masked.
    assert "Where" not in {n.op_type for n in graph.functions[0].node}


def test_bodies_do_no_more_than_they_must(attention_definition):
    grid = attention_definition.window_table(4, 4, 2)

    def body(fill, fed=FED):
        problem = attention_definition.problem(1, grid, grid, 16, 3, 2, 4, bias_l=(1, 2, 4, 4))
        problem["bias_g"][:] = 0
        problem["bias_l"][:] = fill
        model, _ = node_model(problem, 2, "joint", fed=fed)
        return [n.op_type for n in model.functions[0].node]

    nothing, something, dead = body(0), body(1), body(MASK_VALUE)
    assert nothing.count("Expand") == 0 and "Where" not in nothing
    assert something.count("Expand") == 2 and "Where" not in something
    # A row of dead window keys still has the globals, but bodies do not look across inputs.
    assert "Where" in dead
    assert "Where" in body(1, (*FED, "bias_l"))


def test_a_model_without_attention_loses_its_functions(mixed):
    _, _, _, graph = mixed
    copy = onnx.ModelProto()
    copy.CopyFrom(graph)
    del copy.graph.node[:]
    add_functions(copy)
    assert not copy.functions
    assert {o.domain for o in copy.opset_import} == {""}


def test_unknown_shapes_are_refused_by_the_node_name():
    node = helper.make_node(
        NAME, INPUTS, ["Y"], name="stage/attention", domain="prunus",
        num_heads=2, scale=1.0, combine="local",
    )  # fmt: skip
    value = helper.make_tensor_value_info("Q", TensorProto.FLOAT, [1, "n", 8])
    graph = helper.make_graph([node], "main", [value], [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    with pytest.raises(PrunusError, match=r"stage/attention: the shape of Q, K, V.* not constant"):
        describe_shapes(model)
    with pytest.raises(PrunusError, match=r"stage/attention: got combine='local'"):
        add_functions(model)


def test_body_attributes_are_for_bodies_alone(mixed):
    """What a kernel needs is in the three attributes; the lists are not part of the definition."""
    for node in attention_nodes(mixed[3]):
        rest = set(attributes_of(node)) - set(BODY_ATTRIBUTES)
        assert rest == {"num_heads", "scale", "combine", "plugin_version", "plugin_namespace"}


needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed"
)


def parsed_by_tensorrt(model):
    """Return TensorRT's builder, network and what keeps them alive."""
    import tensorrt_rtx as trt

    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    done = parser.parse(model.SerializeToString())
    assert done, [parser.get_error(k).desc() for k in range(parser.num_errors)]
    return builder, network, (parser, logger)


@pytest.mark.trt
@needs_rtx
@pytest.mark.parametrize("fed", [FED, (*FED, *BIASES)], ids=["constant", "computed"])
@pytest.mark.parametrize("combine", COMBINES)
def test_tensorrt_parses_bodies_that_guard_masked_rows(attention_definition, combine, fed):
    grid = attention_definition.window_table(4, 4, 2)
    problem = attention_definition.problem(
        1, grid, grid, 16, 3, 2, 16, bias_l=(4, 2, 4, 4), bias_g=(1, 4, 2, 4, 3)
    )
    problem["bias_l"][1, 0, 2] = problem["bias_g"][:, 1, 0, 2] = MASK_VALUE
    model, _ = node_model(problem, 2, combine, fed=fed)
    for graph in (model, to_fp16(model)):
        _, network, _alive = parsed_by_tensorrt(graph)
        assert tuple(network.get_output(0).shape) == (1, 16, 32)


@pytest.mark.trt
@needs_rtx
@pytest.mark.parametrize("half", [False, True])
def test_tensorrt_takes_each_nodes_own_body(mixed, half):
    import tensorrt_rtx as trt

    builder, network, _alive = parsed_by_tensorrt(to_fp16(mixed[3]) if half else mixed[3])
    layers = [network.get_layer(k) for k in range(network.num_layers)]
    softmaxes = [layer for layer in layers if layer.type == trt.LayerType.SOFTMAX]
    # local, joint, two of the sum, global: keys per row.
    assert [layer.get_output(0).shape[-1] for layer in softmaxes] == [12, 17, 12, 5, 5]
    assert not [layer for layer in layers if "PLUGIN" in str(layer.type)]
    assert builder.build_serialized_network(network, builder.create_builder_config()) is not None


def test_the_bare_operator_exports(cases, attention_definition):
    """The registered operator is what the exporter translates; the wrappers are not needed."""
    _, problem, heads, combine = cases[3]
    tables = {**problem, "o_index": np.argsort(problem["q_index"].reshape(-1))}

    class Bare(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name in ("q_index", "kv_index", "bias_l", "bias_g", "gate", "o_index"):
                self.register_buffer(name, torch.from_numpy(tables[name]))

        def forward(self, q, k, v, kg, vg):
            return local_global_attention(
                q, k, v, self.q_index, self.kv_index, self.bias_l, kg, vg, self.bias_g, self.gate,
                self.o_index, num_heads=heads, scale=0.3, combine=combine,
            )  # fmt: skip

    names = ["q", "k", "v", "kg", "vg"]
    inputs = [torch.from_numpy(problem[name]) for name in names]
    graph = simplify(trace(Bare(), inputs, names, ["y"]))
    expected = attention_definition.define(problem, heads, 0.3, combine)
    np.testing.assert_allclose(run_onnxruntime(graph, problem), expected, atol=1e-5)
    assert len(graph.graph.node) == 1
