"""SpeechTokenizer against the numbers of its published code."""

import numpy as np
import pytest
import torch

from prunus.models.codec.fusecodec.speechtokenizer import SpeechTokenizer
from prunus.models.codec.layers.weight_norm import fold_weight_norm

EMB, AUDIO = 1e-5, 1e-5


@pytest.fixture(scope="module")
def network(filled):
    return filled(SpeechTokenizer(), 0.25)


def test_names_and_shapes_are_the_published_ones(network, published_shapes):
    published = published_shapes("speechtokenizer", "state_dict.json")
    assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == published


@pytest.mark.slow
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_whole_network(network, parity, gap, digest, case):
    arrays = parity("speechtokenizer")
    seen, handles = {}, []

    def keep(name):
        return lambda module, inputs, output: seen.__setitem__(name, output)

    for part, prefix in ((network.encoder, "enc"), (network.decoder, "dec")):
        for k, layer in enumerate(part.model):
            handles.append(layer.register_forward_hook(keep(f"{prefix}{k:02d}")))
    with torch.no_grad():
        codes = network.encode(torch.from_numpy(arrays[f"{case}/wav"]))
        audio, three = network.decode(codes), network.decode(codes[:3])
        one = network.decode(codes[:1])  # the last call: its inner tensors are the stored ones
        for handle in handles:
            handle.remove()
        semantic = network.semantic(codes)
    assert np.array_equal(codes.numpy(), arrays[f"{case}/codes"])
    assert gap(seen["enc15"], arrays[f"{case}/emb"]) <= EMB
    if f"{case}/full_enc13_lstm" in arrays.files:
        assert gap(seen["enc13"], arrays[f"{case}/full_enc13_lstm"]) <= EMB
    for got, entry in ((audio, "audio"), (three, "audio_3q"), (one, "audio_1q")):
        assert gap(got, arrays[f"{case}/{entry}"]) <= AUDIO, entry
    assert gap(audio, arrays[f"{case}/audio_from_codes"]) <= AUDIO
    assert gap(digest(semantic), arrays[f"{case}/digest_semantic_feature"]) <= EMB
    for name, value in seen.items():
        assert gap(digest(value), arrays[f"{case}/digest_{name}"]) <= 3e-5, name


@pytest.mark.slow
@pytest.mark.parametrize("case", ["c0", "c1"])
def test_folding_keeps_codes_and_fewer_stages_are_a_prefix(filled, parity, gap, case):
    arrays = parity("speechtokenizer")
    network = fold_weight_norm(filled(SpeechTokenizer(), 0.25))
    with torch.no_grad():
        codes = network.encode(torch.from_numpy(arrays[f"{case}/wav"]), stages=3)
        audio = network.decode(codes)
    assert np.array_equal(codes.numpy(), arrays[f"{case}/codes"][:3])
    assert gap(audio, arrays[f"{case}/audio_3q"]) <= AUDIO
