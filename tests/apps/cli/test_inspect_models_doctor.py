"""The verbs that only tell: inspect, models, doctor."""

from __future__ import annotations

import hashlib
import json

from prunus.apps.cli import doctor as doctor_cmd
from prunus.apps.common.tables import plain_table
from prunus.models.zoo import model_path
from prunus.runtime.card.artifact import EngineSidecar, read_card
from prunus.runtime.card.tokens import TokenPlan, dropped_tokens, pooled_keys


def test_inspect_tells_card_tensors_and_operators(prunus):
    ran = prunus("inspect", "movenet_lightning")
    assert ran.code == 0
    assert "image uint8 [batch=1, height=192, width=192, rgb=3]" in ran.out
    assert "Conv 7" in ran.out


def test_inspect_as_json(prunus):
    body = json.loads(prunus("inspect", "movenet-multipose", "--json").out)
    assert body["card"]["task"] == "detection"
    assert body["operators"]["Conv"] > 10


def test_inspect_tells_what_stands_in_an_npus_way(prunus):
    ran = prunus("inspect", "movenet_lightning", "--npu")
    assert ran.code == 0
    assert "NPU operators: " in ran.out and "has all of them; no NPU was asked" in ran.out
    assert "chosen by the data: " in ran.out and "ArgMax chooses by data" in ran.out
    body = json.loads(prunus("inspect", "selfie", "--npu", "--json").out)["npu"]
    assert body["unknown"] == body["chosen_by_data"] == []
    assert body["counts"]["Convolution"] > 20 and "npu_compiler" in body["source"]


def test_inspect_tells_an_engine_that_is_not_the_one_of_its_sidecar(prunus, tmp_path):
    engine = tmp_path / "m.engine"
    engine.write_bytes(b"plan")
    card = read_card(model_path("movenet_lightning"))
    sha256 = hashlib.sha256(b"plan").hexdigest()
    EngineSidecar(
        card, "0" * 64, sha256, "tensorrt_rtx", "1.7", "portable", "", (), 1.0, 0.0
    ).write(engine)
    ran = prunus("inspect", engine)
    assert ran.code == 0 and "movenet" in ran.out
    body = json.loads(prunus("inspect", engine, "--json").out)
    assert body["sidecar_describes_engine"] is True and body["sidecar"]["version"] == "1.7"
    engine.write_bytes(b"another plan")
    ran = prunus("inspect", engine)
    assert ran.code == 1 and "m.engine is not the engine of its sidecar" in ran.err
    ran = prunus("inspect", engine, "--json")
    assert ran.code == 1 and json.loads(ran.out)["sidecar_describes_engine"] is False


def test_pictures_of_plans_without_operations():
    assert "fewer" not in dropped_tokens(TokenPlan("L", (), (), 4, 0, "s", "f", 0, 10))[-1]
    assert "fewer" not in pooled_keys(TokenPlan("L", (), (1,) * 7, 4, 0, "s", "f", 0, 10))[-1]


def test_inspect_refuses_other_files(prunus, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x3a\xff\xff\xff\x7fshort")
    ran = prunus("inspect", path)
    assert ran.code == 2
    assert "truncated" in ran.err


def test_token_picture_shows_each_stretch():
    plan = TokenPlan("L2", (3, 6), (96, 48), 192, 17, "sum", "carry", 500_000_000, 1_000_000_000)
    lines = dropped_tokens(plan)
    bars = [line for line in lines if "|" in line]
    assert [line.count("#") for line in bars] == [40, 20, 10]
    assert "blocks 0-2" in bars[0]
    assert "2.00x fewer" in lines[-1]


def test_token_picture_of_a_dense_network():
    plan = TokenPlan("L0", (), (), 192, 17, "sum", "carry", 10**9, 10**9)
    assert sum("|" in line for line in dropped_tokens(plan)) == 1


def test_models_lists_what_ships(prunus):
    ran = prunus("models")
    assert ran.code == 0
    assert "movenet_lightning" in ran.out
    names = {row["name"] for row in json.loads(prunus("models", "--json").out)}
    assert {"movenet_lightning", "movenet_multipose"} <= names


def test_doctor_reports_back_ends(prunus):
    ran = prunus("doctor", "--json")
    facts = json.loads(ran.out)
    assert ran.code == 0
    assert any(b["name"] == "onnxruntime" and b["usable"] for b in facts["backends"])
    assert facts["cpus_usable"] >= 1


def test_doctor_fails_when_nothing_can_run(prunus, monkeypatch):
    none = [{"name": "onnxruntime", "usable": False, "reason": "not installed"}]
    monkeypatch.setattr(doctor_cmd, "_backends", lambda _gpu="": none)
    ran = prunus("doctor")
    assert ran.code == 3
    assert "onnxruntime" in ran.out


def test_tables_align_numbers_to_the_right():
    text = plain_table("t", ("name", "ms"), [("a", "1.5"), ("long name", "12.0")])
    assert text.splitlines()[2:] == ["a           1.5", "long name  12.0"]
