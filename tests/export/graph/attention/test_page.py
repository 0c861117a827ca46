"""The page about local-global attention: its code runs, and its picture is what the tables say."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

ROOT = Path(__file__).resolve().parents[4]
PAGE = ROOT / "docs" / "local-global-attention.md"
IMAGES = ROOT / "docs" / "images"


def test_the_code_of_the_page_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 4
    names: dict = {}
    torch.manual_seed(0)
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    layer, feed = names["Layer"]().eval(), (names["tokens"], names["registers"])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    results = []
    for model in (names["model"], names["plain"]):
        onnx.checker.check_model(model, full_check=True)
        session = onnxruntime.InferenceSession(model.SerializeToString(), options)
        results.append(session.run(None, {k: names[k].numpy() for k in ("tokens", "registers")}))
    np.testing.assert_allclose(results[0][0], results[1][0], atol=1e-6)
    assert results[0][0].shape == tuple(layer(*feed).shape)


def test_the_picture_is_drawn_from_the_tables(tmp_path):
    target = tmp_path / "drawn.svg"
    script = IMAGES / "draw_local_global_attention.py"
    subprocess.run([sys.executable, str(script), str(target)], check=True)
    assert target.read_text() == (IMAGES / "local-global-attention.svg").read_text()
