"""Tiny artifacts with cards, written without torch."""

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec


def tiny_card(batch: int = 2, **changes) -> ModelCard:
    values = {
        "task": "pose", "model": "tiny", "variant": "test", "paper": "none",
        "licence": "Apache-2.0", "exporter": "test",
        "weights": Weights("none", "random:0", "Apache-2.0", False),
        "inputs": (TensorSpec("image", "uint8", (batch, 4), ("batch", "pixel")),
                   TensorSpec("gain", "float32", (1,), ("gain",))),
        "outputs": (TensorSpec("keypoints", "float32", (batch, 3), ("batch", "value")),),
    }  # fmt: skip
    return ModelCard(**{**values, **changes})


def tiny_weights() -> np.ndarray:
    return np.arange(12, dtype=np.float32).reshape(4, 3) / 7


def write_tiny(path: Path, card: ModelCard | None, batch: int = 2) -> Path:
    """Write `keypoints = (float(image) @ W) * gain` with a card, or without one."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["real", "weight"], ["product"]),
        helper.make_node("Mul", ["product", "gain"], ["keypoints"]),
    ]
    graph = helper.make_graph(
        nodes, "tiny",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [batch, 4]),
         helper.make_tensor_value_info("gain", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("keypoints", TensorProto.FLOAT, [batch, 3])],
        [numpy_helper.from_array(tiny_weights(), "weight")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if card is not None:
        helper.set_model_props(model, {ModelCard.KEY: card.to_json()})
    onnx.save(model, path)
    return path


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny.onnx", tiny_card())


@pytest.fixture
def write_artifact(tmp_path: Path) -> Callable[..., Path]:
    def write(card: ModelCard | None, name: str = "tiny.onnx", batch: int = 2) -> Path:
        return write_tiny(tmp_path / name, card, batch)

    return write


@pytest.fixture
def card() -> ModelCard:
    return tiny_card()


@pytest.fixture
def tiny_inputs() -> dict[str, np.ndarray]:
    image = np.array([[0, 1, 2, 3], [250, 251, 252, 255]], np.uint8)
    return {"image": image, "gain": np.array([0.5], np.float32)}


@pytest.fixture
def hammer() -> Iterator[Callable[..., list[list[Any]]]]:
    """Call one object from eight threads at once; return the answers by case.

    Threads change places a thousand times as often as usual, so that what they share shows.
    """

    def run(call: Callable[[Any], Any], cases: Sequence[Any], rounds: int) -> list[list[Any]]:
        together, answers = threading.Barrier(8), [[] for _ in cases]

        def client(number: int) -> None:
            together.wait()
            for turn in range(rounds):
                case = (number + turn) % len(cases)
                answers[case].append(call(cases[case]))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(client, range(8)))
        return answers

    before = sys.getswitchinterval()
    sys.setswitchinterval(5e-6)
    try:
        yield run
    finally:
        sys.setswitchinterval(before)
