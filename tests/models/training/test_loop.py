"""What every training's command line decides: in which numbers it computes, and that it says so."""

import argparse
import importlib
import sys

import pytest

from prunus.models.training.loop import add_bf16, start, train_parser
from prunus.runtime import host

TRAININGS = {
    "pose.train": ("PoseTrainer", ()),
    "segmentation.train": ("SegmentationTrainer", ()),
    "codec.train": ("CodecTrainer", ()),
    "separation.train": ("SeparationTrainer", ()),
    "tokens.distil": ("Distiller", ("nets:build", "--plan", "evit:6@1")),
}


@pytest.fixture
def cpu(monkeypatch):
    return lambda flag: monkeypatch.setattr(host, "bfloat16_flag", lambda: flag)


def _started(words, recipe=None) -> dict:
    parser = train_parser("A test.", "data", 1e-3)
    add_bf16(parser, recipe)
    return start(parser.parse_args(["--out", "run", "--threads", "1", *words]))


@pytest.mark.parametrize(
    ("flag", "words", "recipe", "bf16", "said"),
    [
        ("", [], None, False, "float32, as this CPU does not multiply bfloat16"),
        ("amx_bf16", [], None, True, "bfloat16, which this CPU has (amx_bf16)"),
        ("", ["--bf16"], None, True, "bfloat16, although this CPU does not multiply bfloat16"),
        ("bf16", ["--bf16"], None, True, "bfloat16, as asked for"),
        ("bf16", ["--no-bf16"], None, False, "float32, as asked for"),
        ("bf16", [], False, False, "float32, as in the recipe"),
        ("", ["--bf16"], False, True, "bfloat16, although this CPU does not multiply bfloat16"),
        ("bf16", ["--device", "xpu"], None, False, "float32, as it is not known whether xpu"),
    ],
)
def test_the_arithmetic_is_what_the_machine_is_good_at_and_is_said(
    cpu, capsys, flag, words, recipe, bf16, said
) -> None:
    cpu(flag)
    assert _started(words, recipe)["bf16"] is bf16
    assert capsys.readouterr().out.startswith(f"arithmetic: {said}")


def test_a_training_without_the_choice_says_nothing(capsys) -> None:
    parser = train_parser("A test.", "data", 1e-3)
    settings = start(parser.parse_args(["--out", "run", "--threads", "1"]))
    assert "bf16" not in settings and capsys.readouterr().out == ""


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("flag", ["", "avx512_bf16"])
def test_no_training_takes_bfloat16_where_it_is_slow(cpu, monkeypatch, capsys, name, flag) -> None:
    cpu(flag)
    module = importlib.import_module(f"prunus.models.training.{name}")
    trainer, words = TRAININGS[name]
    seen = []
    stub = argparse.Namespace(run=lambda: None)
    monkeypatch.setattr(module, trainer, lambda config, *, resume: seen.append(config) or stub)
    words = [*words, "--out", "run", "--steps", "1", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["train", *words])
    module.main()
    expected = bool(flag) and name != "separation.train"  # whose recipe is float32
    assert seen[0].bf16 is expected
    assert ("bfloat16, which" if expected else "float32") in capsys.readouterr().out
