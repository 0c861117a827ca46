"""SuperCodec, in its own setting and in FreeCodec's, against the numbers of its published code."""

import numpy as np
import pytest
import torch

from prunus.models.codec.freecodec.supercodec import SuperCodec, SuperCodecConfig
from prunus.models.codec.layers.weight_norm import fold_weight_norm

EMB, AUDIO = 5e-5, 1e-4
CONFIGS = {
    "content": SuperCodecConfig(strides=(2, 4, 5, 8), stages=1, codes=256),
    "supercodec": SuperCodecConfig(),
}


@pytest.fixture(scope="module", params=list(CONFIGS))
def named(request, filled):
    return request.param, filled(SuperCodec(CONFIGS[request.param]), 1.0)


def test_names_and_shapes_are_the_published_ones(named, published_shapes):
    name, network = named
    published = published_shapes("freecodec", f"state_dict_sc_{name}.json")
    assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == published


@pytest.mark.parametrize("case", ["c0", "c1"])
def test_whole_network(named, parity, gap, digest, case):
    name, network = named
    arrays = parity("freecodec")
    prefix = f"sc_{name}_{case}/"
    seen = {}
    for part, short in ((network.encoder, "enc"), (network.decoder, "dec")):
        for k, layer in enumerate(part):
            layer.register_forward_hook(
                lambda module, inputs, output, key=f"{short}{k}": seen.__setitem__(key, output)
            )
    block = network.encoder[1]
    for child, key in ((block.downs_one, "down1"), (block.ups_one, "up1"), (block.skn, "select")):
        child.register_forward_hook(
            lambda module, inputs, output, key=f"enc1_{key}": seen.__setitem__(key, output)
        )
    with torch.no_grad():
        codes = network.encode(torch.from_numpy(arrays[prefix + "wav"]))
        audio = network.decode(codes)
        summed = network.rq.decode(codes)
    assert np.array_equal(codes.numpy(), arrays[prefix + "codes"])
    assert gap(seen["enc5"], arrays[prefix + "emb"]) <= EMB
    assert gap(summed, arrays[prefix + "features"]) <= EMB
    assert gap(audio, arrays[prefix + "audio"]) <= AUDIO
    for entry in (e.removeprefix(prefix) for e in arrays.files if e.startswith(prefix + "digest")):
        inner = entry.removeprefix("digest_")
        assert gap(digest(seen[inner]), arrays[prefix + entry]) <= AUDIO, inner


@pytest.mark.parametrize("case", ["sc_content_c0", "sc_content_c1"])
def test_folding_and_batches(filled, parity, gap, case):
    arrays = parity("freecodec")
    network = fold_weight_norm(filled(SuperCodec(CONFIGS["content"]), 1.0))
    one = torch.from_numpy(arrays[f"{case}/wav"])
    with torch.no_grad():
        both = network.encode(torch.cat((one, 0.5 * one.flip(1))))
    assert np.array_equal(both[:1].numpy(), arrays[f"{case}/codes"])
    with torch.no_grad():
        assert torch.equal(both[1:], network.encode(0.5 * one.flip(1)))


def test_one_frame_keeps_its_axis(filled):
    network = filled(SuperCodec(CONFIGS["content"]), 1.0)
    with torch.no_grad():
        assert network(torch.zeros(1, 320)).shape == (1, 1, 320)
