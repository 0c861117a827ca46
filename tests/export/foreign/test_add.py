"""Cards for files of other exporters: what is written, and what never is."""

import dataclasses

import numpy as np
import onnx
import pytest

import prunus.runtime as runtime
from prunus.export.foreign.add import ADOPTERS, About, add_card
from prunus.export.graph import shapes as shapes_module
from prunus.runtime.card.artifact import read_card, sha256_of
from prunus.runtime.card.card import CARD_KEY
from prunus.runtime.errors import ArtifactError, PrunusError, UsageError
from prunus.runtime.tasks.registry import task_named

PICTURE = {"x": ("float32", [1, 3, 8, 8])}
SAID = {"colour": "rgb", "mean": [0, 0, 0], "std": [255, 255, 255]}


@pytest.fixture
def net(onnx_file):
    return onnx_file(
        "net",
        [("Mul", "x w", "y")],
        PICTURE,
        {"y": ("float32", [1, 3, 8, 8])},
        {"w": np.float32(2)},
    )


def test_the_copy_is_the_file_with_a_card(tmp_path, net) -> None:
    out = tmp_path / "out.onnx"
    about = About(name="twice", licence="MIT", origin="A test.", before=SAID)
    card, remarks = add_card(net, out, about)
    assert remarks == () and read_card(out) == card
    assert (card.task, card.model, card.licence) == ("generic", "twice", "MIT")
    assert card.weights == dataclasses.replace(
        card.weights, origin="A test.", sha256=sha256_of(net), licence="MIT"
    )
    assert "another 2.1, card added by prunus" in card.exporter
    before, after = onnx.load(net), onnx.load(out)
    assert [p.key for p in after.metadata_props] == [CARD_KEY]
    del after.metadata_props[:]
    assert after == before
    with runtime.open(out) as session:
        x = np.ones((1, 3, 8, 8), np.float32)
        assert (session.run({"x": x})["y"] == 2).all()


def test_tasks_that_adopt_have_rows() -> None:
    assert all(task_named(name).name == name for name in ADOPTERS)


@pytest.mark.parametrize(
    ("about", "error", "said"),
    [
        (About("poze"), UsageError, r"did you mean 'pose'\?"),
        (About("codec"), UsageError, "No card of the task 'codec' can be added"),
        (About(shapes={"x": (1, 3, 9, 8)}), UsageError, "fixes axis 2 at 8"),
        (About(after={"classes": ["a"]}), ArtifactError, "nothing reads the outputs"),
        (About(before={"colour": "rgb"}), ArtifactError, "mean, std missing"),
        (About(before={**SAID, "std": [0, 1, 1]}), ArtifactError, r"std\[0\] is 0"),
    ],
)
def test_what_does_not_fit_writes_nothing(tmp_path, net, about, error, said) -> None:
    with pytest.raises(error, match=said) as caught:
        add_card(net, tmp_path / "out.onnx", about)
    assert caught.value.hint and [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_places_that_are_refused(tmp_path, net) -> None:
    data = net.read_bytes()
    for output, said in (
        (net, "would replace its own source"),
        (tmp_path / "a.bin", "ending in .onnx"),
        (tmp_path / "no" / "a.onnx", "does not exist"),
    ):
        with pytest.raises(PrunusError, match=said):
            add_card(net, output)
    assert net.read_bytes() == data
    add_card(net, tmp_path / "out.onnx")
    with pytest.raises(UsageError, match="has a card already"):
        add_card(tmp_path / "out.onnx", tmp_path / "again.onnx")


def test_hostile_files_write_nothing(tmp_path, onnx_file) -> None:
    y = {"y": ("float32", [1, 3, 8, 8])}
    poisoned = np.ones((3, 1, 1), np.float32)
    poisoned[1] = np.nan
    cases = (
        (onnx_file("nan", [("Mul", "x w", "y")], PICTURE, y, {"w": poisoned}), "'w' .* hold 1 NaN"),
        (
            onnx_file("loop", [("Add", "x y", "a"), ("Relu", "a", "y")], PICTURE, y),
            "not valid ONNX",
        ),
        (onnx_file("lie", [("Relu", "x", "y")], PICTURE, {"y": ("float32", [1, 5])}), "not valid"),
        (onnx_file("own", [("a.b::Foo", "x", "y")], PICTURE, y), "node 'n0' is a.b::Foo"),
        (
            onnx_file(
                "open",
                [("Relu", "x", "y")],
                {"x": ("float32", ["n", 3])},
                {"y": ("float32", ["n", 3])},
            ),
            r"x \[n, 3\]",
        ),
        (onnx_file("ends", [("Relu", "z", "y")], PICTURE, y), "not valid ONNX"),
    )
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(cases[0][0].read_bytes()[:-5])
    for path, said in (*cases, (cut, "truncated")):
        with pytest.raises(ArtifactError, match=said):
            add_card(path, tmp_path / "out.onnx")
        assert not (tmp_path / "out.onnx").exists()
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_what_is_odd_is_said(tmp_path, onnx_file) -> None:
    path = onnx_file(
        "odd",
        [("Relu", "x", "p"), ("Div", "zero zero", "nan"), ("Add", "p nan", "y")],
        PICTURE,
        {"y": ("float32", [1, 3, 8, 8])},
        {"zero": np.float32(0)},
    )
    _, remarks = add_card(path, tmp_path / "out.onnx")
    assert any("a run on noise: output 'y' holds 192 NaN" in line for line in remarks)
    path = onnx_file(
        "rand",
        [("RandomNormal", "", "r", {"shape": [1, 3, 8, 8]}), ("Add", "x r", "y")],
        PICTURE,
        {"y": ("float32", [1, 3, 8, 8])},
    )
    _, remarks = add_card(path, tmp_path / "rand-card.onnx")
    assert any("RandomNormal is not allowed" in line for line in remarks)


def test_weights_beside_the_file_go_in_or_stay_beside_it(tmp_path, onnx_file, monkeypatch) -> None:
    path = onnx_file(
        "m",
        [("MatMul", "x w", "y")],
        {"x": ("float32", ["n", 64])},
        {"y": ("float32", ["n", 64])},
        {"w": np.ones((64, 64), np.float32)},
    )
    beside, other = tmp_path / "out.onnx", tmp_path / "elsewhere"
    other.mkdir()
    onnx.save_model(
        onnx.load(path), beside, save_as_external_data=True, location="w.bin", size_threshold=0
    )
    about = About(shapes={"x": (2, 64)})
    add_card(beside, other / "whole.onnx", about)
    with runtime.open(other / "whole.onnx") as session:
        assert (session.run({"x": np.ones((2, 64), np.float32)})["y"] == 64).all()
    monkeypatch.setattr(shapes_module, "MOST_BYTES", 1000)
    with pytest.raises(UsageError, match="in another folder") as caught:
        add_card(beside, other / "carded.onnx", about)
    assert str(tmp_path / "carded.onnx") in caught.value.hint
    card, _ = add_card(beside, tmp_path / "carded.onnx", about)
    assert card.inputs[0].shape == (2, 64) and card.weights.sha256 != sha256_of(beside)
    with runtime.open(tmp_path / "carded.onnx") as session:
        assert (session.run({"x": np.ones((2, 64), np.float32)})["y"] == 64).all()
    (tmp_path / "w.bin").write_bytes(np.full((64, 64), np.nan, np.float32).tobytes())
    with pytest.raises(ArtifactError, match="4096 NaN"):
        add_card(beside, tmp_path / "poisoned.onnx", about)
