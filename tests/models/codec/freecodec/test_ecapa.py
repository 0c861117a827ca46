"""The speaker encoder and its features against the numbers of their published code."""

import pytest
import torch

from prunus.models.codec.freecodec.ecapa import EcapaTdnn
from prunus.models.codec.layers.mel import LogMel, centred

TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def network(filled):
    return filled(EcapaTdnn(), 1.0)


def test_names_and_shapes_are_the_published_ones(network, published_shapes):
    published = published_shapes("freecodec", "state_dict_ecapa.json")
    assert {k: tuple(v.shape) for k, v in network.state_dict().items()} == published


@pytest.mark.parametrize("case", ["ecapa_c0", "ecapa_c1"])
def test_features_and_vector(network, parity, gap, digest, case):
    arrays = parity("freecodec")
    seen = {}

    def keep(name):
        return lambda module, inputs, output: seen.__setitem__(name, output)

    for k, block in enumerate(network.blocks):
        block.register_forward_hook(keep(f"block{k}"))
    for name in ("mfa", "asp", "asp_bn"):
        getattr(network, name).register_forward_hook(keep(name))
    with torch.no_grad():
        bands = LogMel()(torch.from_numpy(arrays[f"{case}/wav"]))
        vector = network(centred(torch.from_numpy(arrays[f"{case}/fbank"])))
        inner = dict(seen)
        whole = network(centred(bands))
    expected = torch.from_numpy(arrays[f"{case}/fbank"])
    error = (bands - expected).abs()
    # A band far below its frame's loudest holds what rounding in the transform left of it, on any
    # machine differently: only bands within 30 dB say something to five digits.
    loud = expected > expected.amax(dim=2, keepdim=True) - 30.0
    assert loud.float().mean() > 0.5
    assert error[loud].max() <= TOLERANCE
    assert error.max() <= 5e-3
    assert gap(centred(expected), arrays[f"{case}/input"]) <= TOLERANCE
    assert gap(whole, arrays[f"{case}/embedding"]) <= TOLERANCE
    assert gap(vector, arrays[f"{case}/embedding"]) <= TOLERANCE
    assert gap(inner["asp"], arrays[f"{case}/full_asp"]) <= TOLERANCE
    for name, value in inner.items():
        assert gap(digest(value), arrays[f"{case}/digest_{name}"]) <= 2e-4, name
