"""A back end is one file and one row: with both, every verb knows it."""

import numpy as np
import pytest

import prunus.runtime as runtime
from prunus.apps.cli.main import main
from prunus.runtime.errors import UsageError
from prunus.runtime.session import registry
from prunus.runtime.session.registry import Arithmetic, BackendInfo, Package, split_word, words

SESSION = '''
"""The reference evaluator of ONNX, as a back end."""

from prunus.runtime.session.base import BaseSession


class ReferenceSession(BaseSession):
    backend = "reference"

    def _infer(self, inputs):
        names = [spec.name for spec in self.card.outputs]
        return dict(zip(names, self.evaluator.run(names, dict(inputs)), strict=True))

    def _free(self):
        self.evaluator = None


def open_session(source, card, threads, device, options):
    from onnx.reference import ReferenceEvaluator

    session = ReferenceSession(card, f"onnx.reference in {options.inference_precision}", options)
    model = source if isinstance(source, bytes) else str(source)
    session.evaluator = ReferenceEvaluator(model)
    return session
'''
ROW = BackendInfo(
    name="reference",
    module="reference_session",
    label="ONNX reference",
    packages=(Package("onnx", "export", ("onnx",)),),
    suffixes=(".onnx",),
    devices=("cpu",),
    settings=("inference_precision",),
    arithmetics=(Arithmetic("f32"), Arithmetic("bf16", budget="fp16")),
)


@pytest.fixture
def reference(monkeypatch, tmp_path):
    pytest.importorskip("onnx")
    (tmp_path / "reference_session.py").write_text(SESSION)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "BACKENDS", (*registry.BACKENDS, ROW))


@pytest.mark.usefixtures("reference")
def test_the_runtime_opens_it_by_its_name(artifact, tiny_inputs) -> None:
    with runtime.open(artifact, "reference") as one, runtime.open(artifact, "onnxruntime") as two:
        got, wanted = one.run(tiny_inputs), two.run(tiny_inputs)
        assert one.choice == ("reference: asked for",)
        assert one.settings == {"inference_precision": "auto"}
    np.testing.assert_allclose(got["keypoints"], wanted["keypoints"], rtol=1e-5)
    with pytest.raises(UsageError, match="has no device 'cuda'"):
        runtime.open(artifact, "reference", device="cuda:0")


@pytest.mark.usefixtures("reference")
def test_its_words_are_those_of_the_row() -> None:
    assert words()[-3:] == ("reference", "reference-f32", "reference-bf16")
    assert split_word("reference-bf16") == ("reference", "bf16")
    with pytest.raises(UsageError, match=r"did you mean 'reference-bf16'"):
        split_word("reference-bf61")
    assert [p.name for p in registry.probe() if p.usable][-1] == "reference"


@pytest.mark.usefixtures("reference")
def test_the_verbs_know_it(onnx_file, tmp_path, capsys) -> None:
    weight = np.arange(12, dtype=np.float32).reshape(4, 3) / 7
    model = onnx_file(
        "linear", [("MatMul", "x w", "y")], {"x": ("float32", [2, 4])},
        {"y": ("float32", [2, 3])}, {"w": weight},
    )  # fmt: skip
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    words, out = ["--input", f"x={tmp_path / 'x.npy'}", "--backend"], tmp_path / "out.npz"
    assert main(["run", "tensors", str(model), *words, "reference", "-o", str(out)]) == 0
    np.testing.assert_allclose(np.load(out)["y"], x @ weight, rtol=1e-5)
    capsys.readouterr()
    assert main(["check", str(model), "--against", str(model), *words, "reference"]) == 0
    told = capsys.readouterr().out
    assert "reference 1." in told and "verdict: ok" in told
    assert main(["doctor"]) in (0, 1)
    assert "reference" in capsys.readouterr().out
    assert main(["run", "tensors", str(model), *words, "referense"]) == 2
    assert "did you mean 'reference'" in capsys.readouterr().err
