"""Trained networks found in packages are read rightly, and their plain rivals are what they say."""

import struct
from dataclasses import replace

import numpy as np
import pytest
import torch

from benchmarks.reduction.networks import DinoTrunk, Joints, WhisperTrunk, read_ctranslate2
from prunus.models.pose.deployed import DeployedPose
from prunus.models.pose.evitpose import EViTPose, evitpose_config
from prunus.models.tokens.prune import prune
from prunus.runtime.errors import ArtifactError

transformers = pytest.importorskip("transformers")
OLD = (("attention.q_proj", "attention.attention.query"),
       ("attention.k_proj", "attention.attention.key"),
       ("attention.v_proj", "attention.attention.value"),
       ("attention.o_proj", "attention.output.dense"))  # fmt: skip


def _random(network):
    torch.manual_seed(0)
    for value in network.state_dict().values():
        value.copy_(0.3 * torch.randn_like(value))
    return network.eval()


@pytest.fixture(scope="module")
def dino():
    config = transformers.Dinov2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=1, image_size=56
    )
    return _random(transformers.Dinov2Model(config))


def _older(peer):
    tensors = {}
    for name, value in peer.state_dict().items():
        older = name
        for new, old in OLD:
            older = older.replace(new, old)
        tensors[older] = value
    return tensors


@torch.no_grad()
def test_the_trunk_gives_the_tokens_of_the_published_port(dino):
    pixels = torch.randn(2, 3, 56, 56)
    trunk = DinoTrunk(_older(dino), (56, 56)).eval()
    torch.testing.assert_close(trunk(pixels), dino(pixels).last_hidden_state, atol=1e-5, rtol=1e-4)
    halved = prune(trunk, "evit:0.5@0", example=pixels[:1])
    assert halved(pixels).shape == (2, 9, 64)


@torch.no_grad()
def test_a_crop_is_cut_out_of_the_middle_and_a_smaller_input_is_scaled(dino):
    pixels = torch.randn(1, 3, 56, 56)
    crop = DinoTrunk(_older(dino), (56, 28), crop=True).eval()
    middle = DinoTrunk(_older(dino), (56, 28)).eval()
    torch.testing.assert_close(crop(pixels), middle(pixels[:, :, :, 14:42]))
    assert DinoTrunk(_older(dino), (28, 28)).eval()(pixels).shape == (1, 5, 64)


def _write(path, tensors, version=6):
    def text(word):
        return struct.pack("<H", len(word) + 1) + word.encode() + b"\0"

    kinds = {np.dtype(np.float32): 0, np.dtype(np.float16): 4, np.dtype(np.int16): 2}
    data = struct.pack("<I", version) + text("WhisperSpec") + struct.pack("<II", 3, len(tensors))
    for name, value in tensors.items():
        data += text(name) + struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)
        data += struct.pack("<BI", kinds[value.dtype], value.nbytes) + value.tobytes()
    path.write_bytes(data)


def _ctranslate2(peer, heads):
    state = {n: v.numpy() for n, v in peer.state_dict().items()}
    found = {"encoder/num_heads": np.array(heads, np.int16),
             "encoder/position_encodings/encodings": state["embed_positions.weight"]}  # fmt: skip
    for conv in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            found[f"encoder/{conv}/{part}"] = state[f"{conv}.{part}"]
    norms = [("encoder/layer_norm", "layer_norm")]
    for k in range(2):
        own, new = f"layers.{k}", f"encoder/layer_{k}"
        attention = f"{own}.self_attn"
        norms += [(f"{new}/self_attention/layer_norm", f"{own}.self_attn_layer_norm"),
                  (f"{new}/ffn/layer_norm", f"{own}.final_layer_norm")]  # fmt: skip
        state[f"{attention}.k_proj.bias"] = np.zeros(16, np.float32)
        for part in ("weight", "bias"):
            fused = [state[f"{attention}.{n}_proj.{part}"] for n in "qkv"]
            found[f"{new}/self_attention/linear_0/{part}"] = np.concatenate(fused)
            found[f"{new}/self_attention/linear_1/{part}"] = state[f"{attention}.out_proj.{part}"]
            for layer in (0, 1):
                found[f"{new}/ffn/linear_{layer}/{part}"] = state[f"{own}.fc{layer + 1}.{part}"]
    for old, new in norms:
        found |= {f"{old}/gamma": state[f"{new}.weight"], f"{old}/beta": state[f"{new}.bias"]}
    return found


@torch.no_grad()
def test_an_encoder_of_ctranslate2_becomes_that_of_transformers(tmp_path):
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = transformers.WhisperConfig(
        d_model=16, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=32,
        num_mel_bins=8, max_source_positions=20,
    )  # fmt: skip
    peer = _random(WhisperEncoder(config))
    _write(tmp_path / "model.bin", _ctranslate2(peer, 2))
    tensors = read_ctranslate2(tmp_path / "model.bin")
    mel = torch.randn(1, 8, 40)
    trunk = WhisperTrunk(tensors, 20).eval()
    torch.testing.assert_close(trunk(mel), peer(mel).last_hidden_state)
    short = WhisperTrunk(tensors, 10).eval()
    changed = mel.clone()
    changed[:, :, 20:] = 7
    assert short(mel).shape == (1, 10, 16)
    torch.testing.assert_close(short(changed), short(mel))


def test_other_versions_and_cut_off_files_are_refused(tmp_path):
    path = tmp_path / "model.bin"
    _write(path, {"a": np.ones((2, 3), np.float16)})
    np.testing.assert_array_equal(read_ctranslate2(path)["a"], np.ones((2, 3), np.float32))
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    with pytest.raises(ArtifactError, match="Cannot read"):
        read_ctranslate2(path)
    _write(path, {}, version=9)
    with pytest.raises(ArtifactError, match="format 9; expected 6"):
        read_ctranslate2(path)


@torch.no_grad()
def test_joints_of_a_crop_and_of_a_smaller_input_are_in_pixels_of_the_picture():
    torch.manual_seed(0)
    config = replace(evitpose_config("tiny"), depth=1)
    state = EViTPose(config).state_dict()
    image = torch.randint(0, 256, (1, 256, 192, 3), dtype=torch.uint8)
    whole = Joints(config, state, (256, 192)).eval()
    network = EViTPose(config)
    network.load_state_dict(state)
    torch.testing.assert_close(whole(image), DeployedPose(network.eval())(image))
    narrow = Joints(replace(config, width=96), state, (256, 192), crop=True).eval()
    inner = narrow.deployed(image[:, :, 48:144])
    torch.testing.assert_close(narrow(image) - inner, torch.tensor([48.0, 0, 0]).expand(1, 17, 3))
    small = Joints(replace(config, height=128, width=96), state, (256, 192)).eval()
    inner = small.deployed(
        torch.nn.functional.interpolate(
            image.permute(0, 3, 1, 2).float(), (128, 96), mode="bilinear", antialias=True
        ).permute(0, 2, 3, 1)
    )
    torch.testing.assert_close(small(image)[..., :2], 2 * inner[..., :2] + 0.5)
    torch.testing.assert_close(small(image)[..., 2], inner[..., 2])
