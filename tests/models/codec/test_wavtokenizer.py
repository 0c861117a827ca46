"""WavTokenizer against the numbers of its published code, layer by layer."""

import numpy as np
import pytest
import torch

from prunus.models.codec.layers.istft import InverseStft
from prunus.models.codec.layers.vocos import SpectrumHead, VocosBackbone, fold_rows
from prunus.models.codec.layers.weight_norm import fold_weight_norm
from prunus.models.codec.wavtokenizer import CONFIGS, WavTokenizer

EMB, AUDIO, INNER = 1e-5, 5e-6, 3e-5


@pytest.fixture(scope="module", params=["tok75", "tok40"])
def network(request, filled):
    return filled(WavTokenizer(CONFIGS[request.param]), 0.25)


def _hooked(network):
    """Record every inner tensor that the fixtures have a name for."""
    seen = {}

    def keep(name):
        return lambda module, inputs, output: seen.__setitem__(name, output)

    for k, layer in enumerate(network.encoder.model):
        layer.register_forward_hook(keep(f"enc_model{k:02d}"))
    bone = network.backbone
    bone.embed.register_forward_hook(keep("bb_embed"))
    for k, layer in enumerate(bone.pos_net):
        layer.register_forward_hook(keep(f"bb_posnet{k}"))
    bone.norm.register_forward_hook(keep("bb_norm"))
    for k, layer in enumerate(bone.convnext):
        layer.register_forward_hook(keep(f"bb_convnext{k:02d}"))
    bone.final_layer_norm.register_forward_hook(keep("bb_final_norm"))
    network.head.out.register_forward_hook(keep("head_linear"))
    return seen


def test_names_and_shapes_are_the_published_ones(network, published_shapes):
    published = published_shapes("wavtokenizer", f"state_dict_{network.config.name}.json")
    unused = "feature_extractor.encodec.decoder."
    assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == {
        k: s for k, s in published.items() if not k.startswith(unused)
    }


@pytest.mark.parametrize("case", ["c0", "c1"])
def test_whole_network(network, parity, gap, digest, case):
    arrays = parity("wavtokenizer")
    name = f"{network.config.name}_{case}/"
    seen = _hooked(network)
    with torch.no_grad():
        features, codes = network.encode(torch.from_numpy(arrays[name + "wav"]))
        audio = network.decode(features, int(arrays[name + "bandwidth_id"][0]))
    assert np.array_equal(codes.numpy(), arrays[name + "codes"])
    assert gap(seen["enc_model15"], arrays[name + "emb"]) <= EMB
    assert gap(audio, arrays[name + "audio"]) <= AUDIO
    checked = 0
    for entry in (e.removeprefix(name) for e in arrays.files if e.startswith(name)):
        kind, _, inner = entry.partition("_")
        if kind == "full":
            assert gap(seen[inner], arrays[name + entry]) <= INNER, inner
            checked += 1
        elif kind == "digest":
            assert gap(digest(seen[inner]), arrays[name + entry]) <= INNER, inner
            checked += 1
    assert checked > 35


@pytest.mark.parametrize("case", ["d0", "d1"])
def test_decoding_from_codes_in_every_bandwidth(network, parity, gap, case):
    arrays = parity("wavtokenizer")
    name = f"{network.config.name}_{case}/"
    with torch.no_grad():
        features = network.codes_to_features(torch.from_numpy(arrays[name + "codes"]))
        for row in range(4):
            audio = network.decode(features, row)
            assert gap(audio, arrays[f"{name}audio_bw{row}"]) <= AUDIO


def test_single_blocks(network, parity, gap):
    arrays = parity("wavtokenizer")
    name = f"{network.config.name}_blocks0/"
    bone, x = network.backbone, torch.from_numpy(arrays[f"{name}in"])
    with torch.no_grad():
        assert gap(bone.pos_net[0](x), arrays[name + "posnet0"]) <= INNER
        assert gap(bone.pos_net[2](x), arrays[name + "posnet2"]) <= INNER
        assert gap(bone.pos_net[5](x), arrays[name + "posnet5"]) <= INNER
        assert gap(bone.norm(x.transpose(1, 2), 1), arrays[name + "norm_bw1"]) <= INNER
        assert gap(bone.convnext[0](x, 1), arrays[name + "convnext0_bw1"]) <= INNER
        last = bone.final_layer_norm(x.transpose(1, 2))
        assert gap(last, arrays[name + "final_layer_norm"]) <= INNER


def test_head_clips_magnitudes(network, parity, gap):
    arrays = parity("wavtokenizer")
    name = f"{network.config.name}_head0/"
    x = torch.from_numpy(arrays[f"{name}in"])
    with torch.no_grad():
        assert gap(network.head.out(x), arrays[name + "linear"]) <= INNER
        assert gap(network.head(x), arrays[name + "audio"]) <= AUDIO


@pytest.mark.parametrize(("case", "row"), [("tok75_c0", 0), ("tok75_c1", 2)])
def test_folding_changes_nothing(parity, filled, gap, case, row):
    arrays = parity("wavtokenizer")
    folded = filled(WavTokenizer(CONFIGS["tok75"]), 0.25)
    fold_weight_norm(fold_rows(folded, row))
    assert not [k for k in folded.state_dict() if "weight_g" in k or "norm.scale" in k]
    with torch.no_grad():
        features, codes = folded.encode(torch.from_numpy(arrays[f"{case}/wav"]))
        audio = folded.decode(features)
    assert np.array_equal(codes.numpy(), arrays[f"{case}/codes"])
    assert gap(audio, arrays[f"{case}/audio"]) <= AUDIO


def test_masked_frames_do_not_reach_valid_ones():
    torch.manual_seed(0)
    bone, head = VocosBackbone(16, 64, 96, 3, 1).eval(), SpectrumHead(64, 32, 8).eval()
    x = torch.randn(1, 16, 11)
    padded = torch.cat((x, 5.0 * torch.randn(1, 16, 9)), dim=-1)
    valid = (torch.arange(20) < 11).float().view(1, 1, 20)
    with torch.no_grad():
        alone = head(bone(x))
        among = head(bone(padded, 0, valid), valid)[:, : 11 * 8]
        unmasked = head(bone(padded))[:, : 11 * 8]
    torch.testing.assert_close(among, alone, atol=2e-6, rtol=1e-5)
    assert (unmasked - alone).abs().max() > 1e-2


def test_inverse_transform_against_the_fft():
    torch.manual_seed(1)
    size, hop, length = 64, 16, 9
    inverse = InverseStft(size, hop)
    spectrum = torch.randn(1, size + 2, length)
    real, imaginary = spectrum.double().chunk(2, dim=1)
    frames = torch.fft.irfft(torch.complex(real, imaginary), size, dim=1)
    window = torch.hann_window(size, dtype=torch.float64)
    wave, power = (torch.zeros((length - 1) * hop + size, dtype=torch.float64) for _ in range(2))
    for k in range(length):
        wave[k * hop : k * hop + size] += frames[0, :, k] * window
        power[k * hop : k * hop + size] += window**2
    cut = (size - hop) // 2
    expected = (wave / power)[cut : cut + length * hop]
    torch.testing.assert_close(inverse(spectrum)[0].double(), expected, atol=1e-6, rtol=1e-5)
