"""`prunus card add` from the command line."""

import json

import numpy as np
import pytest

from prunus.runtime.card.artifact import read_card


@pytest.fixture
def net(onnx_file):
    spec = ("float32", ["n", 3, 8, 8])
    return onnx_file("net", [("Mul", "x w", "y")], {"x": spec}, {"y": spec}, {"w": np.float32(2)})


def test_a_card_is_added_and_told(prunus, net, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("--shape", "x:1x3x8x8", "--licence", "MIT", "--origin", "A test.", "--name", "twice")
    picture = ("--before", "colour=rgb", "--before", "mean=0,0,0", "--before", "std=255,255,255")
    ran = prunus("card", "add", net, *words, *picture)
    assert ran.code == 0 and "wrote net-card.onnx  twice foreign fp32 (generic)" in ran.out
    assert f"prunus check net-card.onnx --against {net} --shape x:1x3x8x8" in ran.out
    card = read_card("net-card.onnx")
    assert card.weights.licence == "MIT" and card.preprocess.std == (255, 255, 255)
    shown = prunus("inspect", "net-card.onnx").out
    assert "A test." in shown and "mean=(0.0, 0.0, 0.0)" in shown
    words = (*words[2:], "--shape", "x:1x3x8x8", "--json", "-o", "again.onnx")
    body = json.loads(prunus("card", "add", net, *words).out)
    assert body["card"]["model"] == "twice" and body["remarks"] == []
    ran = prunus("check", "net-card.onnx", "--against", net, "--shape", "x:1x3x8x8", "--quiet")
    assert ran.code == 0 and "Inputs: 4 bundled pictures." in ran.out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "--shape x:1x3x8x8"),
        (("--shape", "x=1"), "expected NAME:SIZExSIZE"),
        (("--shape", "x:1x3x8x8", "--before", "colour"), "expected KEY=VALUE"),
        (("--shape", "x:1x3x8x8", "--task", "segmentation"), "colour, mean, std missing"),
        (("--shape", "x:1x3x8x8", "--task", "poze"), "did you mean 'pose'?"),
    ],
)
def test_errors_are_two_lines_and_write_nothing(prunus, net, tmp_path, words, said) -> None:
    ran = prunus("card", "add", net, *words, "-o", tmp_path / "out.onnx")
    assert ran.code == 2 and said in ran.err
    assert [line.partition(":")[0] for line in ran.err.strip().splitlines()] == ["error", "hint"]
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]
