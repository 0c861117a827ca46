"""DINOv2's blocks twice: by EViTPose with imported weights, and as its authors wrote them."""

from dataclasses import replace
from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper, numpy_helper
from safetensors.torch import load_file, save_file
from torch.nn import functional

from prunus.models.checkpoints import dinov2
from prunus.models.checkpoints.dinov2 import convert_dinov2, read_dinov2, resize_kernel
from prunus.models.checkpoints.registry import import_model
from prunus.models.pose.evitpose import EViTPose, EViTPoseConfig, evitpose_config
from prunus.models.tokens.plan import PruningPlan
from prunus.runtime.errors import ArtifactError, PrunusError, UsageError

DIM, HEADS, BLOCKS, SIDE = 128, 2, 3, 6
CONFIG = EViTPoseConfig(
    "toy", DIM, HEADS, PruningPlan("L0", (), ()), "simple", BLOCKS, 1, height=64, width=48
)


def _facebook(width=DIM):
    """Return a random DINOv2 under the names of its authors' files."""
    torch.manual_seed(0)
    shapes = {
        "cls_token": (1, 1, width),
        "mask_token": (1, width),
        "pos_embed": (1, SIDE**2 + 1, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for block in range(BLOCKS):
        for name, shape in (
            ("norm1", (width,)), ("attn.qkv", (3 * width, width)), ("attn.proj", (width, width)),
            ("norm2", (width,)), ("mlp.fc1", (4 * width, width)), ("mlp.fc2", (width, 4 * width)),
        ):  # fmt: skip
            shapes[f"blocks.{block}.{name}.weight"] = shape
            shapes[f"blocks.{block}.{name}.bias"] = shape[:1]
        shapes[f"blocks.{block}.ls1.gamma"] = shapes[f"blocks.{block}.ls2.gamma"] = (width,)
    return {name: 0.15 * torch.randn(shape) for name, shape in shapes.items()}


def _hugging_face(state, attention):
    """Return the same numbers under Hugging Face's names; `attention` names q, k, v and output."""
    named = {}
    for name, value in state.items():
        new = name.replace("blocks.", "encoder.layer.").replace(".gamma", ".lambda1")
        new = new.replace("ls1", "layer_scale1").replace("ls2", "layer_scale2")
        new = new.replace("attn.proj", f"attention.{attention[3]}")
        new = new.replace("patch_embed.proj", "embeddings.patch_embeddings.projection")
        new = new.replace("pos_embed", "embeddings.position_embeddings")
        new = f"embeddings.{new}" if new in ("cls_token", "mask_token") else new
        new = f"layer{new}" if new.startswith("norm.") else new
        if "attn.qkv" not in new:
            named[new] = value
            continue
        for part, rows in zip(attention[:3], value.chunk(3), strict=True):
            named[new.replace("attn.qkv", f"attention.{part}")] = rows
    return named


OLD = ("attention.query", "attention.key", "attention.value", "output.dense")
NEW = ("q_proj", "k_proj", "v_proj", "o_proj")


def _write_onnx(named, path):
    """Write the graph as an exporter leaves it: matrices anonymous, transposed; positions split."""
    arrays, nodes = {}, []
    for number, (name, value) in enumerate(named.items()):
        layer, _, part = name.rpartition(".")
        if name == "embeddings.position_embeddings":
            arrays["onnx::Concat_1"], arrays["onnx::Reshape_2"] = value[:, :1], value[:, 1:]
        elif part == "weight" and value.dim() == 2:
            arrays[f"onnx::MatMul_{number}"] = value.T
            nodes.append(
                helper.make_node("MatMul", ["x", f"onnx::MatMul_{number}"], [f"m{number}"])
            )
            added = [f"backbone.{layer}.bias", f"m{number}"]
            nodes.append(helper.make_node("Add", added, [f"a{number}"]))
        else:
            arrays[f"backbone.{name}"] = value
    arrays["decoder.final_conv.bias"] = torch.zeros(1)
    tensors = [numpy_helper.from_array(v.contiguous().numpy(), n) for n, v in arrays.items()]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [], [], tensors)), path)


def _entering(network, images):
    patches = network.patch_embed(images).flatten(2).transpose(1, 2) + network.pos_embed
    return torch.cat((network.joint_tokens.expand(len(images), -1, -1), patches), 1)


def _authors_blocks(state, tokens):
    """Compute the blocks of the paper's code, LayerScale apart, in plain operations."""

    def linear(name, x):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(name, x):
        return functional.layer_norm(
            x, (DIM,), state[f"{name}.weight"], state[f"{name}.bias"], 1e-6
        )

    for block in (f"blocks.{i}" for i in range(BLOCKS)):
        qkv = linear(f"{block}.attn.qkv", norm(f"{block}.norm1", tokens))
        q, k, v = qkv.reshape(*tokens.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) / (DIM // HEADS) ** 0.5).softmax(-1)
        mixed = (weights @ v).transpose(1, 2).reshape(tokens.shape)
        tokens = tokens + state[f"{block}.ls1.gamma"] * linear(f"{block}.attn.proj", mixed)
        hidden = functional.gelu(linear(f"{block}.mlp.fc1", norm(f"{block}.norm2", tokens)))
        tokens = tokens + state[f"{block}.ls2.gamma"] * linear(f"{block}.mlp.fc2", hidden)
    return norm("norm", tokens)


def _filled(tensors, config=CONFIG, **more):
    network = EViTPose(config).eval()
    network.load_state_dict(convert_dinov2(tensors, config, spread=0.0, **more))
    return network


def test_the_blocks_give_the_features_of_dinov2():
    state = _facebook()
    network = _filled(state)
    images = torch.randn(2, 3, 64, 48)
    with torch.no_grad():
        joints, patches = network.features(images)
        wanted = _authors_blocks(state, _entering(network, images))
    assert wanted.std() > 0.05
    torch.testing.assert_close(torch.cat((joints, patches), 1), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        network.joint_tokens.data, state["cls_token"] + state["pos_embed"][:, :1]
    )


def test_the_blocks_give_the_features_of_the_published_port():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    peer = transformers.Dinov2Model(transformers.Dinov2Config(
        hidden_size=DIM, num_attention_heads=HEADS, num_hidden_layers=BLOCKS, image_size=14 * SIDE,
    )).eval()  # fmt: skip
    for value in peer.state_dict().values():
        value.add_(0.1 * torch.randn_like(value))
    network = _filled(peer.state_dict())
    images = torch.randn(1, 3, 64, 48)
    with torch.no_grad():
        joints, patches = network.features(images)
        tokens = peer.encoder(_entering(network, images)).last_hidden_state
        wanted = peer.layernorm(tokens)
    torch.testing.assert_close(torch.cat((joints, patches), 1), wanted, atol=2e-5, rtol=1e-5)


def test_every_layout_holds_the_same_numbers(tmp_path):
    state = _facebook()
    wanted = convert_dinov2(state, CONFIG)
    for names in (OLD, NEW):
        named = _hugging_face(state, names)
        save_file(
            {f"backbone.{k}": v.contiguous() for k, v in named.items()}, tmp_path / "d.safetensors"
        )
        _write_onnx(named, tmp_path / "d.onnx")
        for file in ("d.safetensors", "d.onnx"):
            got = convert_dinov2(read_dinov2(tmp_path / file), CONFIG)
            assert got.keys() == wanted.keys()
            for name, value in wanted.items():
                assert torch.equal(got[name], value), name


def test_a_resized_kernel_answers_to_an_enlarged_patch_as_before():
    kernel, patch = torch.randn(5, 3, 14, 14), torch.randn(1, 3, 14, 14)
    larger = functional.interpolate(patch, size=(16, 16), mode="bilinear")
    before = torch.einsum("oihw,bihw->bo", kernel, patch)
    after = torch.einsum("oihw,bihw->bo", resize_kernel(kernel, 16), larger)
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-4)


def test_positions_keep_their_place_and_the_class_tokens_own_is_not_spread():
    state = _facebook()
    rows = (torch.arange(SIDE) + 0.5) / SIDE
    plane = (rows[:, None] + 2 * rows[None]).reshape(1, -1, 1).expand(-1, -1, DIM)
    state["pos_embed"] = torch.cat((torch.full((1, 1, DIM), 9.0), plane), 1)
    got = convert_dinov2(state, CONFIG)["pos_embed"][0, :, 0].reshape(4, 3)
    wanted = (torch.arange(4)[:, None] + 0.5) / 4 + 2 * (torch.arange(3) + 0.5) / 3
    torch.testing.assert_close(got[1:3, 1], wanted[1:3, 1], atol=0.05, rtol=0)


def test_joint_tokens_start_near_the_class_token_and_differ():
    got = convert_dinov2(_facebook(), replace(CONFIG, joints=5))["joint_tokens"]
    middle = got.mean(1, keepdim=True)
    assert 0 < float((got - middle).std()) < 0.2 * float(middle.std())


def test_fewer_blocks_are_the_first_ones():
    state = _facebook()
    got = convert_dinov2(state, replace(CONFIG, depth=2))
    assert not [name for name in got if name.startswith("blocks.2.")]
    assert torch.equal(got["blocks.1.attn.qkv.weight"], state["blocks.1.attn.qkv.weight"])


@pytest.mark.parametrize(
    ("variant", "blocks", "cuts"),
    [("dino6", 6, (1, 3, 4)), ("dino8", 8, (2, 4, 6)), ("dino12", 12, (3, 6, 9))],
)
def test_sizes_made_for_it(variant, blocks, cuts):
    config = evitpose_config(variant, "L2")
    assert (config.dim, config.heads, config.depth, config.plan.blocks) == (384, 6, blocks, cuts)


def _nan(state):
    state["blocks.1.mlp.fc1.bias"][3] = float("nan")


@pytest.mark.parametrize(
    ("spoil", "config", "reason"),
    [
        (_nan, CONFIG, r"not finite, first in 'blocks\.1\.mlp\.fc1\.bias' \(1 of"),
        (lambda s: s.update(_facebook(64)), CONFIG, "3 blocks of 64 channels.* at least 3 of 128"),
        (lambda s: None, replace(CONFIG, depth=4), "3 blocks of 128 channels.* at least 4 of 128"),
        (lambda s: None, replace(CONFIG, heads=4), "has 4 attention heads; DINOv2 of 128 .* has 2"),
        (lambda s: s.pop("pos_embed"), CONFIG, "missing: .*pos_embed"),
        (lambda s: s.pop("blocks.0.ls2.gamma"), CONFIG, "lacks LayerScale"),
        (lambda s: s.update(register_tokens=torch.zeros(1, 4, DIM)), CONFIG, "unexpected: regis"),
        (lambda s: s.update(pos_embed=torch.zeros(1, 40, DIM)), CONFIG, r"\[1, 40, 128\]; exp"),
        (lambda s: s.clear() or s.update(conv=torch.zeros(1)), CONFIG, "no DINOv2; .* conv"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(spoil, config, reason):
    state = _facebook()
    spoil(state)
    with pytest.raises(PrunusError, match=reason):
        convert_dinov2(state, config)


def test_file_to_file(tmp_path, monkeypatch):
    monkeypatch.setattr(dinov2, "evitpose_config", lambda variant, head: CONFIG)
    source, target = tmp_path / "dino.pth", tmp_path / "out.safetensors"
    torch.save(_facebook(), source)
    said = import_model("dinov2", source, target)
    assert "head simple starts fresh" in said[0] and "--variant dino8" in said[1]
    assert load_file(target).keys() == EViTPose(CONFIG).state_dict().keys()


@pytest.mark.parametrize("name", ["cut.onnx", "cut.pth", "cut.safetensors"])
def test_a_truncated_file_leaves_nothing(tmp_path, name):
    whole, cut = tmp_path / f"whole{Path(name).suffix}", tmp_path / name
    if name.endswith("onnx"):
        _write_onnx(_hugging_face(_facebook(), OLD), whole)
    elif name.endswith("pth"):
        torch.save(_facebook(), whole)
    else:
        save_file(_facebook(), whole)
    cut.write_bytes(whole.read_bytes()[:-5000])
    with pytest.raises((ArtifactError, UsageError), match=r"cut\.|no DINOv2"):
        import_model("dinov2", cut, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
