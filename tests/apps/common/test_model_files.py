"""Which file a name stands for."""

from __future__ import annotations

import os

import pytest

from prunus.apps.common.model_files import (
    DEFAULT_CODEC,
    codec_name,
    find_model,
    pose_models,
    segmentation_model,
    separation_models,
    shipped_separator,
)
from prunus.models import zoo
from prunus.runtime.errors import ArtifactError, UsageError


def test_paths_win_over_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "movenet_lightning").touch()
    assert find_model("movenet_lightning").absolute() == tmp_path / "movenet_lightning"


@pytest.mark.parametrize("name", ["movenet_lightning", "movenet-lightning"])
def test_shipped_names(name):
    assert find_model(name) == zoo.model_path("movenet_lightning")


def test_folders_hold_one_file_per_batch_size(tmp_path):
    for name in ("b.onnx", "a.onnx", ".a-tmp.onnx", "notes.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in pose_models([str(tmp_path)], None)] == ["a.onnx", "b.onnx"]


def test_empty_folder(tmp_path):
    with pytest.raises(ArtifactError, match="holds no model"):
        pose_models([str(tmp_path)], None)


@pytest.mark.parametrize("stem", ["evitpose-tiny-L1", "evitpose-tiny-subpixel-L1-fp32"])
def test_default_is_what_export_and_demo_leave(tmp_path, monkeypatch, stem):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    for name in (stem, stem.replace("L1", "L1-B4")):
        (tmp_path / "demo" / f"{name}.onnx").touch()
    found = [p.name for p in pose_models([], "L1")]
    assert found == [f"{stem}.onnx", f"{stem.replace('L1', 'L1-B4')}.onnx"]
    with pytest.raises(ArtifactError) as caught:
        pose_models([], "L2")
    assert "prunus export evitpose --level L2" in caught.value.hint
    assert [p.name for p in pose_models([], None)] == ["movenet_lightning.onnx"]


@pytest.mark.parametrize("folder", [".", "demo"])
def test_an_exported_file_does_not_replace_the_best_model(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "evitpose-tiny-L2.onnx").touch()
    assert pose_models([], None) == [zoo.model_path("movenet_lightning")]


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_a_codec_opens_by_every_listed_name(tmp_path, monkeypatch, part):
    monkeypatch.chdir(tmp_path)
    shipped = codec_name(None)
    assert codec_name(f"nsfcodec_16k_{part}") == codec_name("nsfcodec") == shipped
    (tmp_path / f"{DEFAULT_CODEC}-{part}.onnx").touch()
    assert codec_name(None) == shipped  # a file that lies here is taken when it is named
    assert codec_name(DEFAULT_CODEC) == DEFAULT_CODEC


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Stand for the exporters, which need PyTorch and a minute; returns what they were asked."""
    asked = []

    def export(kind):
        def make(*variant, output, progress, **words):
            asked.append((kind, variant, words))
            output.write_bytes(b"graph")
            return output

        return make

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for kind in ("evitpose", "edaformer"):
        monkeypatch.setattr(f"prunus.export.{kind}.export_{kind}", export(kind))
    return asked


def test_a_listed_checkpoint_is_exported_once(made, capsys):
    first = find_model("evitpose_tiny_coco17")
    assert first.read_bytes() == b"graph"
    assert made == [("evitpose", ("tiny",), {"level": "L2"})]
    assert capsys.readouterr().err.count("\n") == 1
    assert find_model("evitpose-tiny-coco17") == first
    assert len(made) == 1 and not capsys.readouterr().err


def test_another_prunus_exports_its_own_graph(made, monkeypatch, tmp_path):
    first = find_model("evitpose_tiny_coco17")
    monkeypatch.setattr("prunus.apps.common.exported.__version__", "9.9")
    monkeypatch.setenv("PRUNUS_CACHE_DIR", str(tmp_path / "elsewhere"))
    second = find_model("evitpose_tiny_coco17")
    assert len(made) == 2 and second.name != first.name
    assert second.is_relative_to(tmp_path / "elsewhere")


@pytest.mark.parametrize("entry", zoo.entries(), ids=lambda entry: entry.name)
@pytest.mark.usefixtures("made")
def test_whatever_is_listed_opens_by_its_name(entry):
    if entry.task == "separation":  # its graphs work as a pair
        assert separation_models(entry.name) == shipped_separator()
    else:
        assert find_model(entry.name).is_file()


def test_unknown_level():
    with pytest.raises(UsageError, match="did you mean"):
        pose_models([], "L02")


def test_a_named_segmentation_model_is_taken(tmp_path):
    (tmp_path / "own.onnx").touch()
    assert segmentation_model(str(tmp_path / "own.onnx")) == tmp_path / "own.onnx"


def test_the_shipped_segmentation_model_is_the_default(monkeypatch):
    shipped = [e for e in zoo.entries() if e.task == "segmentation" and e.kind == "artifact"]
    if shipped:
        assert segmentation_model(None) == zoo.model_path(shipped[0].name)
    monkeypatch.setattr(zoo, "entries", lambda: [])
    with pytest.raises(ArtifactError, match="no segmentation model ships") as caught:
        segmentation_model(None)
    assert "prunus export edaformer" in caught.value.hint


def _ship(monkeypatch, folder, *names):
    """Let the zoo hold these graphs, and no other."""
    rows = [
        zoo.Entry(n, f"{n.replace('nano_', 'nano-')}.onnx", "artifact", "separation", "0" * 64, 1,
                  "Apache-2.0", "test")
        for n in names
    ]  # fmt: skip
    monkeypatch.setattr(zoo, "entries", lambda: tuple(rows))
    files = {row.name: folder / row.file for row in rows}
    for path in files.values():
        path.touch()
    monkeypatch.setattr(zoo, "model_path", files.__getitem__)


def test_a_separator_is_a_pair_of_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _ship(monkeypatch, tmp_path)
    with pytest.raises(ArtifactError, match="No --model was given"):
        separation_models(None)
    for name in ("dolphin-a", "dolphin-b"):
        for part in ("lips", "voice"):
            (tmp_path / f"{name}-{part}.onnx").touch()
        stamp = {"dolphin-a": 2_000_000_000, "dolphin-b": 1_000_000_000}[name]
        os.utime(tmp_path / f"{name}-voice.onnx", (stamp, stamp))
    pair = ("dolphin-a-lips.onnx", "dolphin-a-voice.onnx")
    assert tuple(map(str, separation_models(None))) == pair  # the newest
    for name in ("dolphin-a", "dolphin-a-lips.onnx", "dolphin-a-voice.onnx"):
        assert tuple(map(str, separation_models(name))) == pair
    for part in ("lips", "voice"):
        (tmp_path / f"dolphin-a-{part}.engine").touch()
    engines = ("dolphin-a-lips.engine", "dolphin-a-voice.engine")
    assert tuple(map(str, separation_models("dolphin-a-voice.engine"))) == engines
    (tmp_path / "dolphin-b-lips.onnx").unlink()
    with pytest.raises(ArtifactError, match=r"not found: dolphin-b-lips\.onnx"):
        separation_models("dolphin-b")


def test_the_shipped_separator_is_the_default(tmp_path, monkeypatch):
    here, weights = tmp_path / "here", tmp_path / "weights"
    here.mkdir()
    weights.mkdir()
    monkeypatch.chdir(here)
    _ship(monkeypatch, weights, "dolphin_nano_lips")
    with pytest.raises(ArtifactError, match="No --model was given"):
        separation_models(None)  # half a pair is none
    assert shipped_separator() is None
    _ship(monkeypatch, weights, "dolphin_nano_lips", "dolphin_nano_voice")
    shipped = weights / "dolphin_nano-lips.onnx", weights / "dolphin_nano-voice.onnx"
    for name in (None, "dolphin-nano", "dolphin_nano", "dolphin_nano_lips", "dolphin_nano_voice"):
        assert separation_models(name) == shipped
    with pytest.raises(ArtifactError, match="not found: dolphin-own-lips"):
        separation_models("dolphin-own")
    for part in ("lips", "voice"):
        (here / f"dolphin-own-{part}.onnx").touch()
    assert separation_models(None) == shipped  # a pair that lies here is taken when it is named
    own = ("dolphin-own-lips.onnx", "dolphin-own-voice.onnx")
    assert tuple(map(str, separation_models("dolphin-own"))) == own
    assert separation_models("dolphin-nano") == shipped
    (here / "dolphin-nano-lips.onnx").touch()
    with pytest.raises(ArtifactError, match=r"not found: dolphin-nano-voice\.onnx"):
        separation_models("dolphin-nano")  # one of the user's files is lost: told, not replaced
