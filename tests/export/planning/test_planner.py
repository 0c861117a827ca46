"""`prunus plan` from end to end on a small network, and what it refuses."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from prunus.apps.cli.main import main
from prunus.export.planning import candidates, command, planner
from prunus.export.planning.candidates import first_blocks, survey
from prunus.export.planning.choice import Budget
from prunus.export.planning.options import PlanOptions
from prunus.export.planning.planner import make_plan
from prunus.models.tokens import registry
from prunus.models.tokens.plan import read_plan
from prunus.models.tokens.reducer import Place
from prunus.models.tokens.selection import SelectingReducer
from prunus.runtime.errors import CheckFailedError, HostError, SourceError, TensorError, UsageError
from prunus.runtime.progress import Silent
from tests.models.tokens.networks import PlainVit, build, pixels

NETWORKS = """
import torch
from torch import nn
from tests.models.tokens import networks

class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.vit = networks.PlainVit()
        self.head = nn.Linear(32, 4)

    def forward(self, x):
        return self.head(self.vit(x)[:, 0])

def pooled():
    return Pooled()

def plain():
    torch.manual_seed(0)
    return networks.PlainVit()

class Shrunk(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Pooled()

    def forward(self, x):
        return self.inner(nn.functional.avg_pool2d(x, 2))

def shrunk():
    return Shrunk()

def likeness(outputs, references):
    return -abs(outputs["output"] - references["wanted"]).mean()
"""


class First(SelectingReducer):
    """Keep the first patches: a constant selection."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)

    def score(self, patches, side):
        return -torch.arange(self.place.tokens, dtype=torch.float32).expand(len(patches), -1)


class Gridded(First):
    """Stands nowhere."""

    def __init__(self, place: Place) -> None:
        raise UsageError("No grid.")


GRIDDED = registry.Method("gridded", f"{__name__}:Gridded", "control", "", "Needs a grid.")
FIRST = registry.Method("first", f"{__name__}:First", "control", "", "Keep the first patches.")
TRAINED = registry.Method("learned", f"{__name__}:First", "query", "", "Learn.", trained=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan")
    (path / "nets.py").write_text(NETWORKS)
    from prunus.export.module import build_network

    x = torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        wanted = build_network(f"{path / 'nets.py'}:pooled")(x)
    np.savez(path / "labelled.npz", pixels=x.numpy(), wanted=wanted.numpy())
    return path


@pytest.fixture(scope="module")
def plan(folder):
    """A plan in which dense is best by construction: the score is the likeness to it."""
    nets = folder / "nets.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "METHODS", (*registry.METHODS, FIRST))
        return make_plan(
            f"{nets}:pooled", input=("pixels:1x3x64x64",), method=("tome",), block=("0",),
            keep=("0.5",), control=("first",), rival=(f"{nets}:shrunk",),
            budget="1000x", score=f"{nets}:likeness", calibration=folder / "labelled.npz",
            rounds=2, seconds=0.01, clock="cpu", threads=1,
        )  # fmt: skip


def test_everything_is_measured_beside_dense(plan, folder) -> None:
    (told,) = plan.backends
    kinds = {p.candidate.name: p.candidate.kind for p in told.points}
    assert kinds == {
        "dense": "dense", "tome:32@0": "pruned", "first:32@0": "constant",
        "first 2 blocks": "blocks", "first 1 blocks": "blocks",
        f"{folder}/nets.py:shrunk": "rival",
    }  # fmt: skip
    assert told.dense.share == 1.0
    for point in told.points:
        low, high = point.share_range
        assert 0 < low <= point.share <= high and 0 < point.p50_ms <= point.p90_ms
        assert len(point.sha256) == 64 and point.candidate.macs > 0
        assert (point.accuracy is None) == bool(point.dropped)
    macs = {p.candidate.name: p.candidate.macs for p in told.points}
    assert macs["first:32@0"] < macs["dense"] > macs["first 2 blocks"] > macs["first 1 blocks"]
    assert plan.notes == ()


def test_what_one_method_cannot_do_is_noted_and_the_rest_goes_on(folder, monkeypatch) -> None:
    rows = tuple(row for row in registry.METHODS if row.name in ("tome", "evit"))
    monkeypatch.setattr(registry, "METHODS", rows)
    methods = ("tome", "evit(merge=drop)")
    options = PlanOptions(
        f"{folder}/nets.py:pooled", input=("pixels:1x3x64x64",), method=methods,
        block=("0", "0/1"), keep=("0.5", "0.25", "16"),
    )  # fmt: skip
    field = survey(options, Silent())
    cuts = {c.name: c.keep for c in field.candidates if c.keep}
    assert cuts == {
        "tome:32@0": (32,), "tome:32/16@0/1": (32, 16), "evit(merge=drop):32@0": (32,),
        "evit(merge=drop):16@0": (16,), "evit(merge=drop):32/16@0/1": (32, 16),
        "evit(merge=drop):16/4@0/1": (16, 4), "evit(merge=drop):16/16@0/1": (16, 16),
    }  # fmt: skip
    assert field.tokens == 64 and field.depth == 3
    assert field.notes[0] == "constant selection not compared: no method random, strided, centre"
    assert field.notes[1] == (
        "tome:0.25@0 left out: Method 'tome' at block 0 merges at most 32 of 64 tokens in one cut; "
        "got 16 to keep."
    )
    with pytest.raises(
        UsageError, match="merges at most 32 of 64"
    ):  # asked for, and never possible
        survey(dataclasses.replace(options, method=("tome",), block=("0",)), Silent())


def test_dense_is_recommended_where_nothing_pays(plan) -> None:
    best = plan.backends[0].best
    assert best is not None and best.candidate.name == "dense"
    assert best.accuracy == pytest.approx(0, abs=1e-5)
    text = plan.to_text()
    assert "recommended: dense" in text and "leave it as it is" in text
    assert "accuracy: " in text and "fidelity" not in text


def test_the_file_tells_all_of_it(plan) -> None:
    raw = json.loads(plan.to_json())
    (told,) = raw["backends"]
    assert raw["judged"] == "accuracy" and raw["samples"] == 6 and raw["tokens"] == 64
    assert len(raw["weights_sha256"]) == 64 and raw["environment"]["cpu"]
    assert told["recommended"]["plan"] == "dense" and told["front"][-1] == "dense"
    assert set(told["recommended"]["lead_95_percent"]) >= {"tome:32@0", "first 2 blocks"} - {
        p.candidate.name for p in plan.backends[0].points if p.dropped
    }


def _as_if(plan, name, **more):
    """Return the plan as if a point had won."""
    (told,) = plan.backends
    point = next((p for p in told.points if p.candidate.name == name), None)
    if point is not None:
        point = dataclasses.replace(point, accuracy=0.0, dropped="")
    return dataclasses.replace(plan, backends=(dataclasses.replace(told, best=point),), **more)


def test_plan_words_are_those_of_the_export(plan, folder) -> None:
    made = _as_if(plan, "tome:32@0", restore="delta")
    raw = json.loads(made.to_json())["backends"][0]["recommended"]
    assert read_plan(raw["plan"], 64).keep == (32,)
    assert raw["command"] == (
        f"prunus export module {folder}/nets.py:pooled --input pixels:1x3x64x64 --plan tome:32@0 "
        "--restore delta"
    )
    assert "prunus export module" in made.to_text()


def test_plain_winners_have_no_plan(plan, folder) -> None:
    made = _as_if(plan, "first 2 blocks")
    assert json.loads(made.to_json())["backends"][0]["recommended"]["plan"] is None
    assert "keep the first 2 blocks" in made.to_text()
    rival = _as_if(plan, f"{folder}/nets.py:shrunk")
    raw = json.loads(rival.to_json())["backends"][0]["recommended"]
    assert raw["command"].startswith(f"prunus export module {folder}/nets.py:shrunk --input")


def test_a_budget_that_nothing_meets_is_said_after_all_is_written(
    plan, folder, tmp_path, monkeypatch, capsys
) -> None:
    unmet = _as_if(plan, "none", budget=Budget(0.001, "x"))
    monkeypatch.setattr(command, "make_plan", lambda options, progress: unmet)
    out, plot = tmp_path / "plan.json", tmp_path / "plan.png"
    words = ["plan", f"{folder}/nets.py:pooled", "-o", str(out), "--plot", str(plot), "--quiet"]
    assert main(words) == 1
    told = capsys.readouterr()
    assert "nothing meets what was asked for: asked for 0.001 of dense; the fastest" in told.out
    assert "error: Nothing meets the budget on onnxruntime" in told.err and "hint:" in told.err
    assert json.loads(out.read_text())["backends"][0]["recommended"] is None
    assert plot.read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(CheckFailedError):
        unmet.raise_if_unmet()


@pytest.mark.parametrize("name", ["plain", "vit", "whisper", "clip"])
def test_the_first_blocks_run_with_norm_and_head(name) -> None:
    torch.manual_seed(0)
    network = (PlainVit() if name == "plain" else build(name)).eval()
    x = pixels(name)
    with torch.no_grad():
        whole, short, all_of_it = (f(x) for f in (
            network, first_blocks(network, 2), first_blocks(network, 3)))  # fmt: skip
    whole, short, all_of_it = (
        o if isinstance(o, torch.Tensor) else o.last_hidden_state for o in (whole, short, all_of_it)
    )
    assert torch.equal(whole, all_of_it)
    assert short.shape == whole.shape and not torch.allclose(short, whole)
    if name == "plain":
        by_hand = network.blocks[1](network.blocks[0](network.embed(x)))
        assert torch.equal(short, by_hand)


def test_there_are_not_more_blocks_than_there_are() -> None:
    for depth in (0, 4):
        with pytest.raises(UsageError, match=f"Got {depth} blocks; expected 1 to 3"):
            first_blocks(PlainVit(), depth)


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"block": ("3",)}, UsageError, r"Got --block 3; the network has blocks 0\.\.2"),
        ({"block": ("0/7",)}, UsageError, r"Got --block 0/7; the network has blocks 0\.\.2"),
        ({"block": ("two",)}, UsageError, "Got --block two; expected the number of a block"),
        ({"method": ("evitt",)}, UsageError, "did you mean 'evit'"),
        ({"method": ("tome(heat=3)",)}, UsageError, "has no option 'heat'"),
        ({"method": ("learned",)}, UsageError, "which nobody has trained yet"),
        ({"control": ("randem",)}, UsageError, "Unknown method 'randem'"),
        ({"keep": ("0.5", "300")}, UsageError, "keeps 300 patches, but only 64 enter"),
        ({"keep": ("half",)}, UsageError, "Cannot read the plan"),
        ({"budget": "-1x"}, UsageError, "expected a share of the dense latency"),
        ({"budget": "0ms"}, UsageError, "expected a share of the dense latency"),
        ({"lose": -0.1}, UsageError, "expected 0 or more"),
        ({"backend": ("openvinoo",)}, UsageError, "did you mean 'openvino'"),
        ({"backend": ("tensorrt",)}, UsageError, "Cannot plan for the back end 'tensorrt'"),
        ({"score": "nets.py:nope"}, UsageError, "File not found"),
        ({"score": "os:sep"}, UsageError, "os:sep is a str; expected a function"),
        ({"score": "math:dist"}, UsageError, "nothing to compare with"),
        ({"rival": ("math:nope",)}, UsageError, "math has no 'nope'"),
        ({"input": ()}, UsageError, "inputs of the network are not given"),
        ({"output": "plan.txt"}, UsageError, "ending in .json"),
        ({"plot": "missing/plan.png"}, SourceError, "does not exist"),
        ({"calibration": "none.npz"}, SourceError, "not found"),
        ({"calibration": "other"}, TensorError, "expected n of"),
        ({"network": "plain"}, UsageError, "--restore scatter"),
    ],
)
def test_what_is_refused_before_anything_is_measured(
    folder, tmp_path, monkeypatch, more, error, message
) -> None:
    monkeypatch.setattr(registry, "METHODS", (*registry.METHODS, TRAINED))
    monkeypatch.setattr(planner, "write_all", lambda *_: pytest.fail("it went on"))
    monkeypatch.chdir(tmp_path)
    np.savez("other.npz", pixels=np.zeros((2, 3, 32, 32), np.float32))
    more = {k: Path(v) if k in ("output", "plot") else v for k, v in more.items()}
    if "calibration" in more:
        more["calibration"] = Path(more["calibration"]).with_suffix(".npz")
    values = {
        "network": "pooled", "input": ("pixels:1x3x64x64",), "method": ("tome",), "block": ("0",),
        "keep": ("0.5",), **more,
    }  # fmt: skip
    values["network"] = f"{folder}/nets.py:{values['network']}"
    with pytest.raises(error, match=message):
        make_plan(**values)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.npz"]


def test_an_arithmetic_that_the_cpu_lacks_is_refused(folder, monkeypatch) -> None:
    """OpenVINO would take float32 instead, and the plan would carry the wrong name."""
    pytest.importorskip("openvino")
    monkeypatch.setattr(planner.host, "bfloat16_flag", lambda: "")
    with pytest.raises(HostError, match="has no bfloat16 arithmetic"):
        make_plan(f"{folder}/nets.py:pooled", backend=("openvino-bf16",))


def test_a_default_control_that_cannot_stand_is_noted_and_a_wanted_one_refused(
    folder, monkeypatch
) -> None:
    monkeypatch.setattr(registry, "METHODS", (*registry.METHODS, GRIDDED))
    monkeypatch.setattr(candidates, "_default", {"control": ("gridded",), "keep": ()}.get)
    options = PlanOptions(
        f"{folder}/nets.py:pooled", input=("pixels:1x3x64x64",), method=("tome",), block=("0",),
        keep=("0.5",), control=("gridded",),
    )  # fmt: skip
    assert [n for n in survey(options, Silent()).notes if "gridded:0.5@0 left out: No grid" in n]
    monkeypatch.setattr(candidates, "_default", {"control": (), "keep": ()}.get)
    with pytest.raises(UsageError, match="No grid"):
        survey(options, Silent())


def test_progress_never_goes_back() -> None:
    seen: list[tuple[int, int]] = []

    class Heard:
        def update(self, done: int, total: int, note: str = "") -> None:
            seen.append((done, total))

    for low, high in ((0, 10), (10, 50)):
        for done in range(5):
            planner._Part(planner._Part(Heard(), low, high), 50, 100).update(done, 4)
    assert seen == sorted(seen) and seen[0] == (5, 100) and seen[-1] == (50, 100)
    planner._Part(Heard(), 20, 30).update(3, 0)
    assert seen[-1] == (20, 100)
