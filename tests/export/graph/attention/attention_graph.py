"""Small graphs of `LocalGlobalAttention` nodes, with the functions that the exporter gives them."""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from prunus.export.graph.attention.body import INPUTS
from prunus.export.graph.functions import add_functions, describe_shapes
from prunus.runtime.card.card import CARD_KEY, ModelCard, Weights
from prunus.runtime.card.precision import PrecisionSpec
from prunus.runtime.card.tensors import TensorSpec

B, W, LQ, LK, G, HEADS, DIM = 1, 4, 12, 16, 5, 2, 16
C, NQ, NK = HEADS * DIM, W * LQ, 40
COMBINATIONS = ("joint", "sum", "local", "global")


def tensors(seed: int = 0, dtype: type = np.float32) -> dict[str, np.ndarray]:
    """Return the operator's inputs by name; tables int64."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(dtype)

    q_index = rng.permutation(NQ).reshape(W, LQ)
    return {
        "Q": normal(B, NQ, C), "K": normal(B, NK, C), "V": normal(B, NK, C),
        "q_index": q_index, "kv_index": rng.integers(0, NK, (W, LK)),
        "bias_l": normal(1, HEADS, LQ, LK), "Kg": normal(B, 1, G, C), "Vg": normal(B, 1, G, C),
        "bias_g": normal(1, 1, HEADS, 1, G), "gate": normal(1, 1, HEADS, 1, 1),
        "o_index": q_index.ravel().argsort(),
    }  # fmt: skip


def attention_model(
    combines: tuple[str, ...] = COMBINATIONS,
    dtype: type = np.float32,
    changes: dict[str, np.ndarray] | None = None,
    *,
    heads: int = HEADS,
    described: bool = True,
) -> onnx.ModelProto:
    """Return one node per combination, each fed by a product with the graph's input ``tokens``.

    Args:
        combines: Combination of each node.
        dtype: float32 or float16 of everything but the graph's input and output.
        changes: Other constants for the nodes, by the names of `INPUTS`.
        heads: Attribute of the nodes.
        described: Whether the nodes get their functions; those of a broken graph cannot be made.
    """
    values = tensors(dtype=dtype) | (changes or {})
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    constants = {n: a for n, a in values.items() if n != "Q"}
    constants["w"] = (np.random.default_rng(1).normal(size=(C, C)) / 6).astype(dtype)
    nodes, last, shapes = [helper.make_node("Cast", ["tokens"], ["x0"], to=kind)], "x0", ["x0"]
    for i, combine in enumerate(combines):
        nodes.append(helper.make_node("MatMul", [last, "w"], [f"q{i}"], name=f"block{i}/project"))
        last = f"x{i + 1}"
        node = helper.make_node(
            "LocalGlobalAttention", [f"q{i}", *INPUTS[1:]], [last], domain="prunus",
            name=f"block{i}/attention", num_heads=heads, scale=DIM**-0.5, combine=combine,
            plugin_version="1", plugin_namespace="prunus",
        )  # fmt: skip
        nodes.append(node)
        shapes += [f"q{i}", last]
    nodes.append(helper.make_node("Cast", [last], ["kept"], to=TensorProto.FLOAT))
    graph = helper.make_graph(
        nodes, "attention",
        [helper.make_tensor_value_info("tokens", TensorProto.FLOAT, [B, NQ, C])],
        [helper.make_tensor_value_info("kept", TensorProto.FLOAT, [B, NQ, C])],
        [numpy_helper.from_array(a, n) for n, a in constants.items()],
        value_info=[helper.make_tensor_value_info(n, kind, [B, NQ, C]) for n in shapes],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("prunus", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return add_functions(describe_shapes(model)) if described else model


def save_with_card(path, model: onnx.ModelProto, precision: str = "fp32"):
    """Save a model as an artifact; returns the path."""
    axes = ("batch", "token", "dim")
    card = ModelCard(
        task="pose", model="attention", variant="test", paper="none", licence="Apache-2.0",
        exporter="test", weights=Weights("random", "random:0", "Apache-2.0", False),
        inputs=(TensorSpec("tokens", "float32", (B, NQ, C), axes),),
        outputs=(TensorSpec("kept", "float32", (B, NQ, C), axes),),
        precision=PrecisionSpec(precision),
    )  # fmt: skip
    entry = model.metadata_props.add()
    entry.key, entry.value = CARD_KEY, card.to_json()
    onnx.save(model, path)
    return path
