"""Smart Turn is read out of a graph of int8 weights, and its short form hears the end."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.record import MODELS
from benchmarks.reduction.turn_network import FILE, SmartTurn, read_smart_turn, unrounded
from prunus.models.tokens.prune import prune
from prunus.runtime.errors import ArtifactError

pytest.importorskip("transformers")
WIDTH, HIDDEN, BINS, POSITIONS, POOL, INNER, LAST = 12, 24, 4, 10, 5, 7, 3


def _shapes():
    square = {f"self_attn.{n}_proj": (WIDTH, WIDTH) for n in ("q", "k", "v", "out")}
    layer = {**square, "fc1": (HIDDEN, WIDTH), "fc2": (WIDTH, HIDDEN)}
    matrices = {f"encoder.layers.0.{name}": shape for name, shape in layer.items()}
    matrices |= {"pool_attention.0": (POOL, WIDTH), "pool_attention.2": (1, POOL)}
    named = {"classifier.0": (INNER, WIDTH), "classifier.4": (LAST, INNER)}
    named |= {"classifier.6": (1, LAST), "encoder.conv1": (WIDTH, BINS, 3)}
    named["encoder.conv2"] = (WIDTH, WIDTH, 3)
    around = ("layers.0.self_attn_layer_norm", "layers.0.final_layer_norm", "layer_norm")
    norms = {f"encoder.{name}": WIDTH for name in around} | {"classifier.1": INNER}
    return matrices, named, norms


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    matrices, named, norms = _shapes()
    made = {"encoder.embed_positions.weight": torch.randn(POSITIONS, WIDTH, generator=generator)}
    for name, shape in {**matrices, **named}.items():
        made[f"{name}.weight"] = torch.randint(-99, 99, shape, generator=generator) / 64
        if "k_proj" not in name:
            made[f"{name}.bias"] = torch.randn(shape[0], generator=generator)
    for name, size in norms.items():
        made |= {f"{name}.weight": torch.rand(size, generator=generator) + 0.5,
                 f"{name}.bias": torch.randn(size, generator=generator)}  # fmt: skip
    return made


def _graph(tensors, leave_out=""):
    """A graph as the package's: int8 weights, matrices without names, rounded activations."""
    nodes, constants = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.asarray(value), name))

    def rounded(name, value):
        constant(f"{name}_q", np.round(value * 64).astype(np.int8))
        constant(f"{name}_scale", np.float32(1 / 64))
        constant(f"{name}_zero", np.int8(0))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}_q", f"{name}_scale",
                     f"{name}_zero"], [f"{name}_DequantizeLinear_Output"]))  # fmt: skip
        return f"{name}_DequantizeLinear_Output"

    matrices = {f"{name}.weight" for name in _shapes()[0]}
    for name, value in tensors.items():
        if name in matrices:
            continue
        read = f"inner.{name}"
        if name.endswith(".weight") and value.dim() > 1 and "embed" not in name:
            read = rounded(read, value.numpy())
        else:
            constant(read, value.numpy())
        nodes.append(helper.make_node("Identity", [read], [f"{name} read"]))
    constant("act_scale", np.float32(0.1))
    constant("act_zero", np.uint8(128))
    for number, name in enumerate(sorted(matrices - {leave_out})):
        weight = rounded(f"val_{number}", tensors[name].numpy().T)
        layer, _, part = name.removesuffix(".weight").rpartition(".")
        source = f"{layer} in" if part in ("q_proj", "k_proj", "v_proj") else f"{name} in"
        out = f"product {number}"
        nodes.append(helper.make_node("MatMul", [source, weight], [out]))
        told = [f"{out} q", "act_scale", "act_zero"]
        nodes.append(helper.make_node("QuantizeLinear", [out, *told[1:]], told[:1]))
        nodes.append(helper.make_node("DequantizeLinear", told, [f"{out} d"]))
        bias = name.replace(".weight", ".bias")
        if bias in tensors:
            nodes.append(helper.make_node("Add", [f"{out} d", f"inner.{bias}"], [f"{out} b"]))
        else:
            nodes.append(helper.make_node("Identity", [f"{out} d"], [f"{out} b"]))
    graph = helper.make_graph(nodes, "turn", [], [], constants)
    return helper.make_model(graph)


def test_every_weight_gets_the_name_of_its_place(tensors, tmp_path):
    path = tmp_path / "turn.onnx"
    onnx.save(_graph(tensors), path)
    found = read_smart_turn(path)
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, msg=name)
    SmartTurn(found, POSITIONS)
    onnx.save(_graph(tensors, "encoder.layers.0.self_attn.q_proj.weight"), path)
    with pytest.raises(ArtifactError, match="1 products without a bias beside 0 queries"):
        read_smart_turn(path)


def test_activations_are_not_rounded_any_more_and_weights_are_what_they_stood_for():
    rng = np.random.default_rng(0)
    weight, scale = rng.integers(-127, 127, (3, 4), np.int8), rng.random(4).astype(np.float32)
    constants = {"w": weight, "s": scale, "z": np.zeros(4, np.int8), "as": np.float32(0.5),
                 "az": np.int8(3)}  # fmt: skip
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wf"], axis=1),
        helper.make_node("QuantizeLinear", ["x", "as", "az"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "as", "az"], ["xf"]),
        helper.make_node("MatMul", ["xf", "wf"], ["y"]),
    ]
    ends = [[helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, k])] for n, k in
            (("x", 3), ("y", 4))]  # fmt: skip
    graph = helper.make_graph(nodes, "g", *ends, [numpy_helper.from_array(np.asarray(v), n)
                              for n, v in constants.items()])  # fmt: skip
    model = helper.make_model(graph)
    plain = unrounded(model)
    assert [node.op_type for node in plain.graph.node] == ["MatMul"]
    assert len(model.graph.node) == 4  # the given one stays
    (kept,) = plain.graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(kept), weight * scale)
    assert list(plain.graph.node[0].input) == ["x", "wf"]
    with pytest.raises(ArtifactError, match="rounds nothing"):
        unrounded(plain)


@torch.no_grad()
def test_the_short_form_hears_the_end_with_the_positions_that_it_had(tensors):
    mel = torch.randn(2, BINS, 2 * POSITIONS, generator=torch.Generator().manual_seed(1))
    whole, short = (SmartTurn(tensors, count).eval() for count in (POSITIONS, 4))
    assert whole(mel).shape == short(mel).shape == (2, 1)
    changed = mel.clone()
    changed[:, :, :12] = 7
    torch.testing.assert_close(short(changed), short(mel))
    assert not torch.allclose(whole(changed), whole(mel))
    table = short.encoder.embed_positions.weight
    torch.testing.assert_close(table, tensors["encoder.embed_positions.weight"][6:])
    halved = prune(whole, "strided:0.5@0")
    assert halved(mel).shape == (2, 1) and not torch.allclose(halved(mel), whole(mel))


@torch.no_grad()
def test_the_network_is_the_shipped_one_but_for_the_rounding():
    path = MODELS / "packages" / FILE
    if not path.is_file():
        pytest.skip("needs pipecat-ai, as benchmarks.reduction.turn installs it")
    runtime = pytest.importorskip("onnxruntime")
    mels = torch.randn(2, 80, 800, generator=torch.Generator().manual_seed(0))
    model = unrounded(onnx.load(str(path))).SerializeToString()
    session = runtime.InferenceSession(model, providers=["CPUExecutionProvider"])
    told = session.run(None, {session.get_inputs()[0].name: mels.numpy()})[0]
    own = SmartTurn(read_smart_turn(path)).eval()(mels).sigmoid().numpy()
    np.testing.assert_allclose(own, told, atol=1e-5)
