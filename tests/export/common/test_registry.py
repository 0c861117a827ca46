"""The table of models: every row is true, and one more row is all that a new model needs."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from prunus.apps.cli.main import main
from prunus.export.common import registry
from prunus.export.common.command import script
from prunus.export.common.registry import MODELS, ExportModel, faults
from prunus.runtime.card.artifact import read_card
from prunus.runtime.errors import UsageError

DUMMY = """
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch

from prunus.export.common.options import OUTPUT, takes
from prunus.export.common.pipeline import exporter_name, write_model
from prunus.export.common.samples import Samples
from prunus.runtime.card.card import ModelCard, Weights
from prunus.runtime.card.tensors import TensorSpec
from prunus.runtime.options import option

IMAGE = TensorSpec("x", "float32", (1, 4), ("batch", "value"))
WEIGHTS = Weights("made up", "random:0", "Apache-2.0", False)


@dataclass(frozen=True)
class Options:
    factor: float = option("What x is multiplied by.", default=2.0, minimum=1.0)
    output: Path | None = option("The file.", **OUTPUT)


class Times(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor([factor]))

    def forward(self, x):
        return x * self.factor


@takes(Options)
def export(options, progress):
    y = TensorSpec("y", "float32", (1, 4), ("batch", "value"))
    card = ModelCard(
        task="pose", model="times", variant=f"{options.factor:g}", paper="none",
        licence="Apache-2.0", exporter=exporter_name(), weights=WEIGHTS, inputs=(IMAGE,),
        outputs=(y,),
    )
    floats = onnx.TensorProto.FLOAT
    values = [onnx.helper.make_tensor_value_info(name, floats, [1, 4]) for name in "xy"]
    factor = onnx.numpy_helper.from_array(np.array([options.factor], np.float32), "factor")
    node = onnx.helper.make_node("Mul", ["x", "factor"], ["y"])
    graph = onnx.helper.make_graph([node], "times", values[:1], values[1:], [factor])
    path = Path(options.output or "times.onnx")
    write_model(onnx.helper.make_model(graph), card, path)
    return path


def reference(card, checkpoint=None):
    return Times(float(card.variant))


def samples(card, source=None, limit=8):
    return Samples({"x": np.linspace(-1, 1, 4 * 8, dtype=np.float32).reshape(8, 4)}, "a ramp")
"""
ROW = ExportModel(
    "times", "pose", "Export a product.", ("-o times.onnx", "--factor 3"),
    "dummy_times:Options", "dummy_times:export", ("times",), "dummy_times:reference",
    "dummy_times:samples",
)  # fmt: skip


@pytest.fixture
def dummy(tmp_path, monkeypatch):
    """Register one row; its module lies outside of prunus."""
    (tmp_path / "dummy_times.py").write_text(DUMMY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "MODELS", (*MODELS, ROW))
    yield
    sys.modules.pop("dummy_times", None)


def test_every_row_is_true():
    assert faults(MODELS) == []


def test_every_script_has_a_row():
    import prunus.export

    scripts = {path.stem for path in Path(prunus.export.__path__[0]).glob("*.py")}
    assert scripts - {"__init__"} == {model.name for model in MODELS}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_verb_and_script_show_help_with_two_examples(model, capsys):
    for run, program in (
        (lambda: main(["export", model.name, "--help"]), f"prunus export {model.name}"),
        (lambda: script(model.name, ["--help"]), f"python -m prunus.export.{model.name}"),
    ):
        assert run() == 0
        shown = capsys.readouterr().out
        assert shown.split("Examples:")[1].count(f"  {program} ") == 2
        assert "--output" in shown and "--quiet" in shown


@pytest.mark.parametrize("name", ["wavtokenizer", "faces"])
def test_scripts_run_as_modules(name, tmp_path):
    """Their own words reach them: a seed or a package that cannot be is two lines and code 2."""
    words = ["--seed", "-1"] if name == "wavtokenizer" else [str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", f"prunus.export.{name}", *words], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["error", "hint"]


def test_help_of_exports_loads_nothing_heavy():
    code = (
        "import sys; from prunus.apps.cli.main import main; main(['export', '--help']);"
        "main(['export', 'evitpose', '--help']);"
        "print(*{'torch', 'onnx', 'cv2', 'onnxruntime'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.split() == []


def test_one_row_is_a_model_on_the_command_line(dummy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert faults(registry.MODELS) == []
    assert main(["export", "times", "--factor", "3", "-o", "x.onnx", "--quiet"]) == 0
    assert capsys.readouterr().out.startswith("wrote x.onnx  ")
    assert read_card(tmp_path / "x.onnx").variant == "3"
    assert script("times", ["--quiet"]) == 0
    assert read_card(tmp_path / "times.onnx").variant == "2"
    assert main(["export", "times", "--factor", "0.5"]) == 2
    assert "expected 1 or more" in capsys.readouterr().err
    card = read_card(tmp_path / "x.onnx")
    assert registry.reference_module(card).factor.item() == 3.0
    assert registry.judged_module(card).factor.item() == 3.0
    assert len(registry.load_samples(card)) == 8


def test_names_and_the_dataclass_are_one_call(dummy, tmp_path):
    import dummy_times as times

    export, file = times.export, tmp_path / "a.onnx"
    assert export(times.Options(4.0, file)) == export(4.0, output=file) == file
    for wrong in (0.5, times.Options(0.5)):
        with pytest.raises(UsageError, match="expected 1 or more"):
            export(wrong, output=file)
    with pytest.raises(TypeError, match="did you mean 'factor'"):
        export(facto=2.0)


def test_files_of_other_makers_have_no_model(dummy, tmp_path):
    import dummy_times as times

    card = read_card(times.export(output=tmp_path / "a.onnx"))
    with pytest.raises(UsageError, match="No PyTorch network stands behind"):
        registry.model_of(dataclasses.replace(card, model="movenet"))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"reference": ""}, "times: no reference"),
        ({"samples": "dummy_times:sample"}, "times: samples: "),
        ({"build": "no_such_module:export"}, "times: build: "),
        ({"options": "dummy_times:Times"}, "times: "),
        ({"examples": ("-o times.onnx",)}, "times: no help with two examples"),
        ({"help": " "}, "times: no help with two examples"),
        ({"name": "evitpose"}, "two rows of the name 'evitpose'"),
        ({"families": ("dolphin",)}, "two rows of the family 'dolphin'"),
    ],
)
def test_a_row_that_lies_is_found(dummy, changes, told):
    found = faults((*MODELS, dataclasses.replace(ROW, **changes)))
    assert any(fault.startswith(told) for fault in found), found


def test_options_without_help_are_found(dummy):
    import dummy_times as times

    field = dataclasses.field(default=1.0, metadata={})
    times.Bare = dataclasses.make_dataclass("Bare", [("factor", float, field)])
    assert "not made with" in faults([dataclasses.replace(ROW, options="dummy_times:Bare")])[0]
