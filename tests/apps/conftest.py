"""Small pictures and videos, and the command line as a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from prunus.apps.cli import main

MEDIA = Path(__file__).parents[2] / "apps" / "media"


class Ran(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def prunus(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    def run(*words: object) -> Ran:
        capfd.readouterr()
        code = main([str(word) for word in words])
        return Ran(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def portrait() -> Path:
    return MEDIA / "portrait.jpg"


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory, portrait: Path) -> Path:
    """Return 12 frames of 256x256 pixels at 10 frames per second; frame i is i pixels further."""
    path = tmp_path_factory.mktemp("video") / "walk.mp4"
    picture = cv2.resize(cv2.imread(str(portrait)), (256, 256))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10.0, (256, 256))
    for i in range(12):
        writer.write(np.roll(picture, i, axis=1))
    writer.release()
    return path


def _frames_of(path: Path) -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        done, frame = capture.read()
        if not done:
            capture.release()
            return frames
        frames.append(frame)


@pytest.fixture(scope="session")
def frames_of() -> Callable[[Path], list[np.ndarray]]:
    return _frames_of


def _write_masks_model(path: Path, decoder: str, **fit) -> Path:
    """Write a network that sees colours: bright red is class 1, bright green class 2, else 0."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from prunus.runtime.artifact import CARD_KEY
    from prunus.runtime.card import (
        MaskPostprocess,
        ModelCard,
        ScenePreprocess,
        TensorSpec,
        Weights,
    )

    sure = decoder == "probability"
    shape = (1, 1, 64, 64) if sure else (1, 64, 64)
    dtype, code = ("float32", TensorProto.FLOAT) if sure else ("uint8", TensorProto.UINT8)
    axes = ("batch", "class", "row", "column") if sure else ("batch", "row", "column")
    names = ("background", "person") if sure else ("other", "red", "green")
    colours = ((0, 0, 0), (255, 0, 0), (0, 255, 0))[: len(names)]
    card = ModelCard(
        task="segmentation", model="colours", variant="x", paper="", licence="Apache-2.0",
        exporter="test", weights=Weights("none", "hand-made", "Apache-2.0", True),
        inputs=(TensorSpec("image", "uint8", (1, 64, 64, 3), ("batch", "row", "column", "rgb")),),
        outputs=(TensorSpec("out", dtype, shape, axes),),
        preprocess=ScenePreprocess(64, 64, **fit),
        postprocess=MaskPostprocess(decoder, names, colours, 1, 1),
    )  # fmt: skip
    if sure:  # red / 255
        weight, bias = np.array([[1 / 255], [0], [0]]), np.zeros(1)
        last = [helper.make_node("Transpose", ["scores"], ["out"], perm=[0, 3, 1, 2])]
    else:
        weight, bias = np.array([[0, 1, 0], [0, 0, 1], [0, 0, 0]]), np.array([127.5, 0, 0])
        last = [
            helper.make_node("ArgMax", ["scores"], ["number"], axis=3, keepdims=0),
            helper.make_node("Cast", ["number"], ["out"], to=code),
        ]
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["real", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["scores"]),
        *last,
    ]
    constants = {"weight": weight, "bias": bias}
    graph = helper.make_graph(
        nodes, "colours",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 64, 64, 3])],
        [helper.make_tensor_value_info("out", code, shape)],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in constants.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {CARD_KEY: card.to_json()})
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def colour_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a writer of small segmentation models, see `_write_masks_model`."""
    folder = tmp_path_factory.mktemp("masks")

    def write(decoder: str = "class_ids", **fit) -> Path:
        path = folder / f"{decoder}{'-'.join(map(str, fit.values()))}.onnx"
        return path if path.exists() else _write_masks_model(path, decoder, **fit)

    return write
