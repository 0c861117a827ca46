"""Export networks of the user's own, pruned: file, card, check, refusals."""

import json

import numpy as np
import onnx
import pytest
import torch

from prunus.apps.cli.inspect import operator_counts
from prunus.apps.cli.main import main
from prunus.export.foreign.options import ModuleOptions
from prunus.export.foreign.samples import load_samples
from prunus.export.module import (
    export_module,
    named_outputs,
    read_inputs,
    reference_module,
    weights_hash,
)
from prunus.models.tokens import registry
from prunus.models.tokens.reducer import Place, Reduced
from prunus.models.tokens.selection import SelectingReducer
from prunus.runtime.card.artifact import read_card
from prunus.runtime.errors import ArtifactError, PrunusError, UsageError
from prunus.runtime.session.base import open as open_session
from tests.models.tokens.networks import build, pixels

NETWORKS = """
import torch
from tests.models.tokens import networks

def vit():
    return networks.build("vit")

def plain():
    torch.manual_seed(0)
    return networks.PlainVit()

def unseeded():
    return networks.PlainVit()

def broken():
    raise FileNotFoundError("weights.pt is not there")

def listed():
    class Odd(torch.nn.Module):
        def forward(self, x):
            return {"numbers": [1, 2]}
    return Odd()

three = 3
"""


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "networks.py"
    path.write_text(NETWORKS)
    return path


@pytest.fixture(scope="module")
def pruned(networks):
    """One file with everything: a merge, a cut with a fused row, maps, restored tokens."""
    path = networks.parent / "vit.onnx"
    export_module(
        f"{networks}:vit",
        input=("pixels:1x3x64x64",),
        plan="tome:40@0,evit:20@1",
        restore="delta",
        outputs="last_hidden_state",
        show_tokens=True,
        output=path,
    )
    return path


def test_the_file_says_what_it_is(pruned, networks):
    card = read_card(pruned)
    assert (card.task, card.model, card.variant) == ("generic", "module", f"vit {networks}:vit")
    assert [(i.name, i.shape) for i in card.inputs] == [("pixels", (1, 3, 64, 64))]
    assert [(o.name, o.dtype, o.shape) for o in card.outputs] == [
        ("last_hidden_state", "float32", (1, 65, 32)),
        ("tokens_0", "int32", (1, 64)),
        ("tokens_1", "int32", (1, 64)),
    ]
    plan = card.tokens
    assert (plan.blocks, plan.keep, plan.tokens, plan.special) == ((0, 1), (40, 20), 64, 1)
    assert (plan.score, plan.fill, plan.grid) == ("tome; evit", "delta", (8, 8))
    assert plan.macs < plan.macs_dense
    inputs = onnx.load(pruned).graph.input
    assert all(d.dim_value for v in inputs for d in v.type.tensor_type.shape.dim)


def test_it_computes_what_the_module_computes_and_maps_every_patch(pruned):
    x = pixels("vit")[:1]
    reference = reference_module(read_card(pruned))
    with torch.no_grad():
        expected = reference(x)
    with open_session(pruned, "onnxruntime", threads=1) as session:
        got = session.run({"pixels": x.numpy()})
    np.testing.assert_allclose(got["last_hidden_state"], expected[0], atol=1e-4)
    first, second = got["tokens_0"][0], got["tokens_1"][0]
    assert np.array_equal(first, expected[1][0]) and np.array_equal(second, expected[2][0])
    assert set(first) == set(range(40))  # a merge drops nothing
    assert set(second) <= set(range(-1, 20)) and set(range(19)) <= set(second)
    for row in range(40):  # patches that became one stay one
        assert len(set(second[first == row])) == 1


def test_numbers_without_an_axis_count_in_the_hash():
    network = torch.nn.BatchNorm2d(3)  # counts its batches in one whole number
    before = weights_hash(network)
    network.num_batches_tracked += 1
    assert weights_hash(network) != before


def test_other_weights_than_in_the_file_are_refused(networks, tmp_path):
    path = export_module(
        f"{networks}:unseeded", input=("pixels:1x3x64x64",), output=tmp_path / "plain.onnx"
    )
    card = read_card(path)
    assert card.tokens is None and card.outputs[0].shape == (1, 65, 32)
    with pytest.raises(ArtifactError, match="makes other weights now"):
        reference_module(card)


def test_a_method_of_ones_own_through_the_command_line(networks, tmp_path, monkeypatch, capsys):
    """The proof that a reducer is one row: a class, a row, and the verb knows it."""
    row = registry.Method("last", f"{__name__}:Last", "control", "none", "Keep the last patches.")
    monkeypatch.setattr(registry, "METHODS", (*registry.METHODS, row))
    path = tmp_path / "last.onnx"
    words = ["export", "module", f"{networks}:plain", "--input", "pixels:1x3x64x64"]
    words += ["--plan", "last:5@1", "--show-tokens", "-o", str(path), "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["tokens"]["score"] == "last"
    with open_session(path, "onnxruntime", threads=1) as session:
        got = session.run({"pixels": pixels("plain")[:1].numpy()})
    assert got["tokens_1"][0].tolist() == [-1] * 59 + [0, 1, 2, 3, 4]
    assert got["output"].shape == (1, 6, 32)


class Last(SelectingReducer):
    """Keep the last patches."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)

    def score(self, patches, side):
        return torch.arange(self.place.tokens, dtype=torch.float32).expand(len(patches), -1)

    def forward(self, x, side) -> Reduced:
        return super().forward(x, side)


@pytest.mark.parametrize(
    ("function", "more", "message"),
    [
        ("nope", {}, "has no 'nope'"),
        ("plan", {}, "did you mean 'plain'"),
        ("broken", {}, "fails: FileNotFoundError: weights.pt"),
        ("three", {}, "is a int; expected a function"),
        ("listed", {}, "returns a list as 'numbers'"),
        ("plain", {"input": ()}, "inputs of the network are not given"),
        ("plain", {"input": ("pixels:1x4x64x64",)}, "does not run on"),
        ("plain", {"input": ("pixels:1x3x64x64:flaot32",)}, "did you mean 'float32'"),
        ("plain", {"input": ("pixels:0x3",)}, "numbers from 1 up"),
        ("plain", {"plan": "evit:70@1"}, "only 64 enter"),
        ("plain", {"plan": "evit:9@7"}, r"blocks 0\.\.2"),
        ("plain", {"plan": "evti:9@1"}, "did you mean 'evit'"),
        ("plain", {"plan": "evit:9@1", "outputs": "logits"}, "no output 'logits'"),
        ("plain", {"show_tokens": True}, "without a cut"),
        ("plain", {"grid": "8"}, "ROWSxCOLUMNS"),
        ("plain", {"precision": "int8"}, "needs real inputs"),
    ],
)
def test_refusals_write_nothing(networks, tmp_path, function, more, message):
    values = {"input": ("pixels:1x3x64x64",), "output": tmp_path / "x.onnx", **more}
    with pytest.raises(UsageError, match=message):
        export_module(f"{networks}:{function}", **values)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_for_npus_is_one_whose_places_are_constants(networks, tmp_path):
    """The ways back of constant cuts need no scatter either."""
    words = {"input": ("pixels:1x3x64x64",), "npu": True, "restore": "delta"}
    path = export_module(
        f"{networks}:vit", plan="strided:32@0,strided:16@1", output=tmp_path / "a.onnx", **words
    )
    assert read_card(path).tokens.level == "strided:32@0,strided:16@1"
    assert not {"ScatterElements", "TopK"} & set(operator_counts(path))
    path.unlink()
    with pytest.raises(PrunusError, match="TopK chooses by data"):
        export_module(f"{networks}:vit", plan="evit:20@1", output=path, **words)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("networks", "expected package.module:function"),
        ("no.such.package:build", "cannot be imported: ModuleNotFoundError"),
        ("nofile.py:build", "File not found"),
    ],
)
def test_functions_that_are_not_there(reference, message):
    with pytest.raises(UsageError, match=message):
        export_module(reference, input=("x:1x2",))


def test_words_for_inputs():
    first, second = read_inputs(("image:2x3x8x8", "length:2:int64"))
    assert (first.name, first.dtype, first.shape) == ("image", "float32", (2, 3, 8, 8))
    assert (second.name, second.dtype, second.shape) == ("length", "int64", (2,))
    with pytest.raises(UsageError, match="two inputs of one name"):
        read_inputs(("a:1x2", "a:1x3"))
    with pytest.raises(UsageError, match="one size as the first axis"):
        read_inputs(("a:1x2", "b:2x3"))


def test_names_of_outputs():
    a, b = torch.zeros(1), torch.ones(1)
    assert list(named_outputs(a)) == ["output"]
    assert list(named_outputs((a, None, b))) == ["output0", "output2"]
    with torch.no_grad():
        assert list(named_outputs(build("vit")(pixels("vit")))) == [
            "last_hidden_state", "pooler_output",
        ]  # fmt: skip


def test_samples_of_a_generic_card(pruned, tmp_path):
    card = read_card(pruned)
    noise = load_samples(card)
    assert "noise" in noise.source and noise["pixels"].shape == (4, 3, 64, 64)
    assert not np.array_equal(noise["pixels"][0], noise["pixels"][1])
    own = tmp_path / "own.npz"
    np.savez(own, pixels=np.arange(3 * 3 * 64 * 64, dtype=np.float32).reshape(3, 3, 64, 64))
    assert np.array_equal(load_samples(card, own)["pixels"][1].ravel()[:2], [12288, 12289])
    with pytest.raises(ArtifactError, match="does not say how a picture"):
        load_samples(card, "prunus/apps/media")


def test_options_have_defaults_that_export_dense():
    assert ModuleOptions("m:f").plan == "dense"
