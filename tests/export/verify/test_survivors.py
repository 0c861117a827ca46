"""Which tokens survive: maps against PyTorch, the drawing, refusals."""

import dataclasses

import cv2
import numpy as np
import onnx
import pytest
import torch

from prunus.apps.cli.main import main
from prunus.export.evitpose import export_evitpose, reference_module
from prunus.export.verify import survivors
from prunus.export.verify.survivors import Survivors, _chain, draw, find_survivors
from prunus.runtime.card.artifact import read_card
from prunus.runtime.card.card import ModelCard
from prunus.runtime.errors import UsageError

PORTRAIT = "prunus/apps/media/portrait.jpg"


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    return export_evitpose(
        variant="tiny", level="L3", show_tokens=True,
        output=tmp_path_factory.mktemp("l3") / "l3.onnx",
    )  # fmt: skip


def test_indices_chain():
    maps = _chain({2: np.array([1, 3, 4]), 5: np.array([0, 2])}, 6)
    assert maps[2].tolist() == [-1, 0, -1, 1, 2, -1]
    assert maps[5].tolist() == [-1, 0, -1, -1, 1, -1]


def test_they_are_those_that_the_network_keeps(pruned):
    found = find_survivors(pruned, PORTRAIT)
    module = reference_module(read_card(pruned))
    kept = {}
    for block, cut in module.network.cuts.items():
        cut.register_forward_hook(lambda m, a, out, b=int(block): kept.__setitem__(b, out.kept[0]))
    image = torch.from_numpy(np.ascontiguousarray(found.picture[None, ..., ::-1]))
    with torch.no_grad():
        module(image)
    expected = _chain({b: k.numpy() for b, k in kept.items()}, 192)
    assert found.grid == (16, 12) and list(found.maps) == [3, 6, 9]
    for block, chart in found.maps.items():
        assert np.array_equal(chart, expected[block])


def test_a_file_that_tells_nothing_is_read_from_inside(pruned, monkeypatch):
    told = find_survivors(pruned, PORTRAIT)
    monkeypatch.setattr(survivors, "token_output", lambda block: f"nothing_{block}")
    found = find_survivors(pruned, PORTRAIT)
    assert list(found.maps) == list(told.maps)
    for block, chart in found.maps.items():
        assert np.array_equal(chart, told.maps[block])


def test_the_drawing_dims_what_is_gone_and_tints_what_is_shared():
    picture = np.full((200, 100, 3), 200, np.uint8)
    chart = np.array([-1, 0, 1, 1], np.int32)
    image = draw(Survivors(picture, (2, 2), {4: chart, 7: chart}))
    assert image.shape == (422, 2 * 200 + 8, 3)
    panel = image[22:, :200]
    assert (panel[50, 50] == 44).all() and (panel[50, 150] == 200).all()
    assert (panel[300, 50] == panel[300, 150]).all() and (panel[300, 50] != 200).any()


def test_through_the_command_line(pruned, tmp_path, capsys):
    target = tmp_path / "drawn.png"
    assert main(["inspect", str(pruned), "--tokens", PORTRAIT, "-o", str(target)]) == 0
    assert "16 x 12 tokens: 95 after block 3" in capsys.readouterr().out
    assert cv2.imread(str(target)).shape[0] == 534
    assert main(["inspect", str(pruned), "--tokens", "nobody.jpg", "-o", str(target)]) == 2


def test_a_run_darkens_what_is_dropped(pruned, tmp_path, capsys):
    shown, plain = tmp_path / "shown.png", tmp_path / "plain.png"
    words = ["run", "pose", "--source", PORTRAIT, "--threads", "1", "--quiet"]
    assert main([*words, "--model", str(pruned), "-o", str(plain)]) == 0
    assert main([*words, "--model", str(pruned), "-o", str(shown), "--show-tokens"]) == 0
    darker = cv2.imread(str(plain)).astype(int) - cv2.imread(str(shown))
    assert (darker > 20).any(2).mean() > 0.3 and (darker < -8).mean() < 0.01
    capsys.readouterr()
    assert main([*words, "--show-tokens", "-o", str(shown)]) == 2
    assert "does not tell which tokens its cuts drop" in capsys.readouterr().err
    assert main([*words, "--show-tokens", "--no-overlay", "-o", str(shown)]) == 2
    assert "expected one" in capsys.readouterr().err
    assert main(["inspect", str(pruned), "--tokens", PORTRAIT, "-o", "a.txt"]) == 2
    assert main(["inspect", str(pruned), "-o", "a.png"]) == 2


def test_a_dense_file_is_refused(pruned, tmp_path):
    card = read_card(pruned)
    plan = dataclasses.replace(card.tokens, blocks=(), keep=())
    for number, dense in enumerate((plan, None)):
        model = onnx.load(pruned)
        told = dataclasses.replace(card, tokens=dense).to_json()
        onnx.helper.set_model_props(model, {ModelCard.KEY: told})
        onnx.save(model, tmp_path / f"{number}.onnx")
        with pytest.raises(UsageError, match="drops no tokens"):
            find_survivors(tmp_path / f"{number}.onnx", PORTRAIT)
