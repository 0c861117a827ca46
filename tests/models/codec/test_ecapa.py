"""The speaker encoder and its features against the numbers of their published code."""

import pytest
import torch

from prunus.models.codec.ecapa import EcapaTdnn
from prunus.models.codec.layers.mel import LogMel, centred

TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def network(filled):
    return filled(EcapaTdnn(), 1.0)


def test_names_and_shapes_are_the_published_ones(network, published_shapes):
    published = published_shapes("freecodec", "state_dict_ecapa.json")
    assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == published


@pytest.mark.parametrize("case", ["ecapa_c0", "ecapa_c1"])
def test_features_and_vector(network, fixtures, gap, digest, case):
    arrays, _ = fixtures("freecodec")
    seen = {}

    def keep(name):
        return lambda module, inputs, output: seen.__setitem__(name, output)

    for k, block in enumerate(network.blocks):
        block.register_forward_hook(keep(f"block{k}"))
    for name in ("mfa", "asp", "asp_bn"):
        getattr(network, name).register_forward_hook(keep(name))
    with torch.no_grad():
        bands = LogMel()(torch.from_numpy(arrays[f"{case}/wav"]))
        entered = centred(bands)
        vector = network(entered)
    assert gap(bands, arrays[f"{case}/fbank"]) <= TOLERANCE
    assert gap(entered, arrays[f"{case}/input"]) <= TOLERANCE
    assert gap(vector, arrays[f"{case}/embedding"]) <= TOLERANCE
    assert gap(seen["asp"], arrays[f"{case}/full_asp"]) <= TOLERANCE
    for name, value in seen.items():
        assert gap(digest(value), arrays[f"{case}/digest_{name}"]) <= 2e-4, name
