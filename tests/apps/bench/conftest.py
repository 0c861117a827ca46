"""A codec that any machine computes in time, and Chromium."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prunus.apps.bench.browser import find_chromium
from prunus.runtime.errors import HostError


@pytest.fixture
def chromium() -> str:
    """Return the path of Chromium; skip where there is none."""
    try:
        return find_chromium()
    except HostError:
        pytest.skip("chromium is not installed")


@pytest.fixture(scope="session")
def pcm_codec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return NAME of a codec whose codes are the samples, in 12 bits: nothing to compute, 20 ms."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    from prunus.runtime.card.card import ModelCard, Weights
    from prunus.runtime.card.tensors import TensorSpec
    from prunus.runtime.tasks.codec.card import CodecPostprocess, CodecPreprocess, CodeStream

    hop, half = 320, 2048
    name = tmp_path_factory.mktemp("pcm") / "pcm"
    sound = TensorSpec("audio", "float32", (1, hop), ("batch", "sample"))
    codes = TensorSpec("codes", "int64", (1, hop, 1), ("batch", "codebook", "code"))
    streams = (CodeStream("codes", hop, 2 * half),)
    there = [
        ("Mul", ["audio", "half"], "scaled"), ("Add", ["scaled", "half"], "moved"),
        ("Clip", ["moved", "zero", "most"], "clipped"), ("Cast", ["clipped"], "whole"),
        ("Unsqueeze", ["whole", "last"], "codes"),
    ]  # fmt: skip
    back = [
        ("Squeeze", ["codes", "last"], "whole"), ("Cast", ["whole"], "real"),
        ("Sub", ["real", "half"], "moved"), ("Div", ["moved", "half"], "audio"),
    ]  # fmt: skip
    constants = {"half": np.float32(half), "zero": np.float32(0), "last": np.array([2]),
                 "most": np.float32(2 * half - 1)}  # fmt: skip
    for part, nodes, (one, other), to in (
        ("encoder", there, (sound, codes), TensorProto.INT64),
        ("decoder", back, (codes, sound), TensorProto.FLOAT),
    ):
        card = ModelCard(
            task="codec", model="pcm", variant="x", paper="", licence="Apache-2.0",
            exporter="test", weights=Weights("none", "hand-made", "Apache-2.0", True),
            inputs=(one,), outputs=(other,), preprocess=CodecPreprocess(16_000, hop, 1),
            postprocess=CodecPostprocess(part, streams),
        )  # fmt: skip
        made = [
            helper.make_node(op, inputs, [output], **({"to": to} if op == "Cast" else {}))
            for op, inputs, output in nodes
        ]
        types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
        value = helper.make_tensor_value_info
        first, last = ([value(s.name, types[s.dtype], s.shape)] for s in (one, other))
        used = {n for _, inputs, _ in nodes for n in inputs}
        tensors = [
            numpy_helper.from_array(np.array(v), k) for k, v in constants.items() if k in used
        ]
        graph = helper.make_graph(made, part, first, last, tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        helper.set_model_props(model, {card.KEY: card.to_json()})
        onnx.save(model, f"{name}-{part}.onnx")
    return name
