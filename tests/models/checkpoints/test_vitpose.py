"""Every public layout, and every trap in it, on synthetic files with the documented names."""

import re
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from prunus.models.checkpoints import vitpose
from prunus.models.checkpoints.layouts import detect_layout
from prunus.models.checkpoints.vitpose import convert_vitpose, fit_positions, import_checkpoint
from prunus.models.pose import evitpose
from prunus.models.pose.evitpose import EViTPose, EViTPoseConfig
from prunus.models.tokens.plan import PruningPlan
from prunus.runtime.errors import ArtifactError, UsageError

DIM, DEPTH = 32, 2


def _config(**changes):
    base = EViTPoseConfig("toy", DIM, 2, PruningPlan("L0", (), ()), "classic", depth=DEPTH)
    return replace(base, **changes)


def _coarse(values):
    """Round to multiples of 2^-10, so that taking a slot out and folding it in is exact."""
    return (values * 1024).round() / 1024


def _network(**changes):
    """Return a network in which no two numbers agree by accident, norms and biases included."""
    torch.manual_seed(3)
    network = EViTPose(_config(**changes)).eval()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn_like(value)
            value.copy_(noise.abs() + 0.5 if "running_var" in name else 0.3 * noise)
    network.pos_embed.data.copy_(_coarse(network.pos_embed.data))
    return network


def _without_joint_tokens(network):
    return {k: v.clone() for k, v in network.state_dict().items() if k != "joint_tokens"}


def _official(network, slots=193):
    """Write layout A: `backbone.` and a position table whose slot 0 is added to all others."""
    out = {}
    for name, value in _without_joint_tokens(network).items():
        if name.startswith("keypoint_head."):
            out[name] = value
        else:
            out["backbone." + name.replace("patch_embed.", "patch_embed.proj.")] = value
    if slots == 193:
        shared = _coarse(torch.randn(1, 1, DIM))
        table = out["backbone.pos_embed"] - shared
        out["backbone.pos_embed"] = torch.cat((shared, table), dim=1)
    return out


def _mmpose(network, slots=192):
    out = {}
    for name, value in _official(network, slots).items():
        new = re.sub(r"blocks\.(\d+)\.norm([12])", r"layers.\1.ln\2", name)
        new = re.sub(r"blocks\.(\d+)\.mlp\.fc1", r"layers.\1.ffn.layers.0.0", new)
        new = re.sub(r"blocks\.(\d+)\.mlp\.fc2", r"layers.\1.ffn.layers.1", new)
        new = new.replace("blocks.", "layers.").replace("last_norm", "ln1")
        new = new.replace("patch_embed.proj.", "patch_embed.projection.")
        out[new.replace("keypoint_head.", "head.")] = value
    return out


def _hugging_face(network):
    renames = (
        ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
        ("pos_embed", "embeddings.position_embeddings"),
        ("blocks.", "encoder.layer."),
        ("norm1", "layernorm_before"),
        ("norm2", "layernorm_after"),
        ("attn.proj", "attention.output.dense"),
        ("last_norm", "layernorm"),
        ("keypoint_head.deconv_layers.0", "head.deconv1"),
        ("keypoint_head.deconv_layers.1", "head.batchnorm1"),
        ("keypoint_head.deconv_layers.3", "head.deconv2"),
        ("keypoint_head.deconv_layers.4", "head.batchnorm2"),
        ("keypoint_head.final_layer", "head.conv"),
    )
    out = {}
    for name, value in _official(network).items():
        target = name
        for old, new in renames:
            target = target.replace(old, new)
        if ".attn.qkv." in name:
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                out[target.replace("attn.qkv", f"attention.attention.{part}")] = rows.clone()
        else:
            out[target] = value
    return out


WRITERS = {"official": _official, "mmpose": _mmpose, "huggingface": _hugging_face}


def _same(network, imported):
    twin = EViTPose(imported.config).eval()
    twin.load_state_dict(imported.state)
    twin.joint_tokens.data.copy_(network.joint_tokens)
    image = torch.randn(1, 3, 256, 192)
    with torch.no_grad():
        assert torch.equal(twin(image), network(image))


@pytest.mark.parametrize("head", ["classic", "simple"])
@pytest.mark.parametrize("layout", WRITERS)
def test_each_layout_gives_the_same_network(layout, head):
    network = _network(head=head)
    imported = convert_vitpose(WRITERS[layout](network), _config(head=head))
    assert imported.layout == layout
    assert imported.fresh == ("joint_tokens",)
    _same(network, imported)


def test_mmpose_file_with_193_slots_keeps_slot_0():
    network = _network()
    _same(network, convert_vitpose(_mmpose(network, slots=193), _config()))


def test_wrappers_and_class_tokens_are_taken_off():
    network = _network()
    state = {"module." + k: v for k, v in _official(network).items()}
    state["module.backbone.cls_token"] = torch.zeros(1, 1, DIM)
    imported = convert_vitpose({"meta": {"epoch": 1}, "state_dict": state}, _config())
    assert imported.dropped == ("backbone.cls_token",)
    _same(network, imported)


def test_half_precision_becomes_float32():
    network = _network()
    state = {k: v.half() if v.is_floating_point() else v for k, v in _official(network).items()}
    imported = convert_vitpose(state, _config())
    floats = [v for v in imported.state.values() if v.is_floating_point()]
    assert {v.dtype for v in floats} == {torch.float32}


def _plus_plus(networks):
    """Write a ++ file: shared 3/4 rows, one expert per data set, heads padded to 133 joints."""
    state = _official(networks[0])
    kept = 3 * DIM // 4
    for block in range(DEPTH):
        for part in ("weight", "bias"):
            key = f"backbone.blocks.{block}.mlp.fc2.{part}"
            shared = state[key][:kept]
            for number, network in enumerate(networks):
                full = network.state_dict()[key.removeprefix("backbone.")]
                full[:kept] = shared
                expert = full[kept:].clone()
                state[key.replace("fc2", f"experts.{number}")] = expert
            state[key] = shared.clone()
    for number, network in enumerate(networks[1:]):
        for name, value in network.state_dict().items():
            if name.startswith("keypoint_head."):
                wide = value.clone()
                if "final_layer" in name:
                    wide = torch.cat((value, torch.randn(133 - len(value), *value.shape[1:])))
                new = name.replace("keypoint_head", f"associate_keypoint_heads.{number}")
                state[new] = wide
    return state


@pytest.fixture(scope="module")
def plus_plus():
    joints = [count for _, count in vitpose.DATASETS]
    networks = []
    shared = None
    for count in joints:
        network = _network(joints=count)
        state = network.state_dict()
        shared = shared or {k: v.clone() for k, v in state.items()}
        for name, value in state.items():  # one backbone for all, but for the experts' rows
            if not name.startswith(("keypoint_head.", "joint_tokens")) and "fc2" not in name:
                value.copy_(shared[name])
            elif "fc2" in name or "final_layer" in name:
                value.copy_(torch.randn(value.shape))
        networks.append(network)
    return networks, _plus_plus(networks)


@pytest.mark.parametrize("expert", range(6))
def test_each_expert_of_a_plus_plus_file(plus_plus, expert):
    networks, state = plus_plus
    config = _config(joints=vitpose.DATASETS[expert][1])
    imported = convert_vitpose(state, config, expert=expert)
    assert any("experts" in name for name in imported.dropped)
    _same(networks[expert], imported)


def test_expert_without_its_head_is_refused(plus_plus):
    state = {k: v for k, v in plus_plus[1].items() if "associate" not in k}
    with pytest.raises(UsageError, match="no head for the data set 'aic'"):
        convert_vitpose(state, _config(joints=14), expert=1)
    # ... unless the head is trained anew anyway.
    imported = convert_vitpose(state, _config(joints=14, head="subpixel"), expert=1)
    assert any(name.startswith("keypoint_head.up_layers") for name in imported.fresh)


def test_expert_of_a_plain_file_is_refused():
    with pytest.raises(UsageError, match="no experts"):
        convert_vitpose(_official(_network()), _config(joints=14), expert=1)
    with pytest.raises(UsageError, match="0 coco, 1 aic"):
        convert_vitpose(_official(_network()), _config(), expert=6)


def test_documented_shapes_of_the_small_plus_plus_file():
    config = evitpose.evitpose_config("small")
    with torch.device("meta"):
        own = EViTPose(config).state_dict()
    state = {k: torch.zeros(v.shape, dtype=v.dtype) for k, v in own.items()}
    del state["joint_tokens"]
    named = {}
    for name, value in state.items():
        new = name if name.startswith("keypoint") else "backbone." + name
        named[new.replace("patch_embed.", "patch_embed.proj.")] = value
    named["backbone.pos_embed"] = torch.zeros(1, 193, 384)
    for block in range(12):
        fc2 = f"backbone.blocks.{block}.mlp.fc2."
        named[fc2 + "weight"], named[fc2 + "bias"] = torch.zeros(288, 1536), torch.zeros(288)
        for expert in range(6):
            at = fc2.replace("fc2", f"experts.{expert}")
            named[at + "weight"], named[at + "bias"] = torch.ones(96, 1536), torch.ones(96)
    imported = convert_vitpose(named, config)
    assert imported.state["blocks.3.mlp.fc2.weight"].shape == (384, 1536)
    assert imported.state["blocks.3.mlp.fc2.bias"].sum() == 96


def test_mae_backbone_on_a_square_grid():
    network = _network()
    state = {
        k.removeprefix("backbone.").replace("last_norm", "norm"): v
        for k, v in _official(network).items()
        if not k.startswith("keypoint_head.")
    }
    rows, columns = torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing="ij")
    plane = (rows + 0.5) / 14 + 2 * (columns + 0.5) / 14
    table = plane.reshape(1, 196, 1).expand(1, 196, DIM)
    state["pos_embed"] = torch.cat((torch.full((1, 1, DIM), 5.0), table), dim=1)
    state["cls_token"] = torch.zeros(1, 1, DIM)
    state["decoder_blocks.0.norm1.weight"] = torch.zeros(8)
    imported = convert_vitpose(state, _config())
    assert imported.layout == "mae"
    assert set(imported.dropped) == {"cls_token", "decoder_blocks.0.norm1.weight"}
    assert "keypoint_head.final_layer.weight" in imported.fresh
    # A plane stays a plane away from the border, wherever the grid's lines fall.
    got = imported.state["pos_embed"][0, :, 0].reshape(16, 12)
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(12.0), indexing="ij")
    expected = 5 + (rows + 0.5) / 16 + 2 * (columns + 0.5) / 12
    inner = (slice(2, -2), slice(2, -2))
    torch.testing.assert_close(got[inner], expected[inner], rtol=0, atol=2e-2)


@pytest.mark.parametrize(("slots", "folded"), [(432, False), (433, True), (192, False)])
def test_positions_of_other_sizes(slots, folded):
    table = torch.ones(1, slots, DIM)
    got = fit_positions(table, _config())
    assert got.shape == (1, 192, DIM)
    torch.testing.assert_close(got, torch.full_like(got, 2.0 if folded else 1.0))


def test_positions_of_no_grid():
    with pytest.raises(UsageError, match=r"\[1, 200, 32\], which is no grid"):
        fit_positions(torch.zeros(1, 200, DIM), _config())


def test_joint_count_mismatch_is_refused_by_name():
    with pytest.raises(UsageError) as caught:
        convert_vitpose(_official(_network(joints=16)), _config())
    assert "keypoint_head.final_layer.weight is [16, 256, 1, 1], expected [17, 256, 1, 1]" in str(
        caught.value
    )
    assert "has 16 joints" in caught.value.hint


def test_everything_wrong_comes_in_one_message():
    state = _official(_network())
    del state["backbone.blocks.1.norm2.bias"]
    state["backbone.blocks.2.norm1.weight"] = torch.zeros(DIM)
    state["keypoint_head.surprise"] = torch.zeros(1)
    state["backbone.last_norm.bias"] = torch.zeros(DIM + 1)
    with pytest.raises(UsageError) as caught:
        convert_vitpose(state, _config())
    text = str(caught.value)
    assert "missing: blocks.1.norm2.bias" in text
    assert "unexpected: blocks.2.norm1.weight, keypoint_head.surprise" in text
    assert "mismatched: last_norm.bias is [33], expected [32]" in text


def test_another_width_names_the_variant():
    with pytest.raises(UsageError, match="32 channels: choose another variant"):
        convert_vitpose(_official(_network()), _config(dim=64))


def test_unknown_layouts_are_refused():
    with pytest.raises(UsageError, match=r"no known layout.*conv1\.weight"):
        detect_layout(["conv1.weight"])
    with pytest.raises(ArtifactError, match="No tensors"):
        convert_vitpose({"state_dict": {}}, _config())


def test_file_to_file(tmp_path, monkeypatch):
    monkeypatch.setitem(evitpose._SIZES, "small", (DIM, 2, DEPTH, "classic"))
    monkeypatch.setattr(
        vitpose, "evitpose_config", lambda v, **k: _config(**{n: x for n, x in k.items() if x})
    )
    network = _network(head="simple")
    pickle, tensors = tmp_path / "a.pth", tmp_path / "a.safetensors"
    torch.save({"meta": {"epoch": 210}, "state_dict": _official(network)}, pickle)
    save_file(_hugging_face(network), tensors)
    for number, source in enumerate((pickle, tensors)):
        target = tmp_path / f"out{number}.safetensors"
        imported = import_checkpoint(source, target)
        assert imported.config.head == "simple"
        assert load_file(target).keys() == imported.state.keys()
        _same(network, imported)
        with safe_open(target, "pt") as file:
            assert '"layout": "' + imported.layout in file.metadata()["prunus"]
    again = tmp_path / "again.safetensors"
    import_checkpoint(tensors, again)
    assert again.read_bytes() == (tmp_path / "out1.safetensors").read_bytes()


def test_unreadable_files(tmp_path):
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"not a checkpoint")
    with pytest.raises(ArtifactError, match=r"plain checkpoint|Cannot read"):
        import_checkpoint(bad, tmp_path / "out.safetensors")
    broken = tmp_path / "bad.safetensors"
    broken.write_bytes(b"\x00" * 20)
    with pytest.raises(ArtifactError, match="Cannot read"):
        import_checkpoint(broken, tmp_path / "out.safetensors")
    with pytest.raises(ArtifactError, match="not found"):
        import_checkpoint(tmp_path / "none.pth", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_objects_in_a_pickle_are_not_run(tmp_path):
    evil = tmp_path / "evil.pth"
    torch.save({"state_dict": {"a": torch.zeros(1)}, "hook": pytest.raises}, evil)
    with pytest.raises(ArtifactError, match="Python objects"):
        import_checkpoint(evil, tmp_path / "out.safetensors")
