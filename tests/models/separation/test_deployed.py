"""The forms in which Dolphin is exported against the layers as they are written."""

import pytest
import torch

from prunus.models.separation.channels_first import filter_channels
from prunus.models.separation.config import dolphin_config
from prunus.models.separation.deployed import DeployedLips, DeployedVoice, enliven
from prunus.models.separation.dolphin import build_dolphin
from prunus.models.separation.lips.layers import TimeConv, distinct_pairs
from prunus.runtime.tasks.separation.metric import snr_db


@pytest.fixture(scope="module")
def nano():
    network = build_dolphin(dolphin_config("nano"))
    enliven(network)
    return network


def test_lips_by_frames_are_the_lips_of_whole_clips(nano) -> None:
    torch.manual_seed(0)
    mouth = torch.randint(0, 256, (2, 9, 88, 88), dtype=torch.uint8)
    with torch.no_grad():
        expected, codes = DeployedLips(nano, by_frames=False)(mouth)
        found, same = DeployedLips(nano)(mouth)
    assert nano.video_encoder.by_frames
    assert torch.equal(codes, same)
    assert snr_db(expected.numpy(), found.numpy()) > 110
    assert not torch.allclose(found[0], found[1], rtol=0.01)  # and clips are not mixed up


def test_the_voice_in_the_plane_is_the_voice(nano) -> None:
    torch.manual_seed(0)
    mixture, lips = torch.randn(1, 16000), torch.randn(1, nano.config.video_channels, 25)
    with torch.no_grad():
        expected = DeployedVoice(nano, plane=False)(mixture, lips)
        assert not any(getattr(m, "plane", False) for m in nano.modules())
        found = DeployedVoice(nano)(mixture, lips)
    assert sum(getattr(m, "plane", False) for m in nano.modules()) > 20
    assert snr_db(expected.numpy(), found.numpy()) > 85  # float32 ends near 100 dB here


@pytest.mark.parametrize(("taps", "size", "stride"), [(7, 7, 2), (3, 3, 1), (1, 1, 1)])
def test_convolution_over_time_as_frames(taps, size, stride) -> None:
    padding = (taps // 2, size // 2, size // 2)
    layer = TimeConv(3, 5, (taps, size, size), (1, stride, stride), padding)
    clip = torch.randn(1, 3, 6, 9, 9)
    with torch.no_grad():
        found = layer(clip[0].transpose(0, 1))
        torch.testing.assert_close(found.transpose(0, 1)[None], layer(clip), rtol=0, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
def test_filters_in_the_plane(stride) -> None:
    x, weight, bias = torch.randn(2, 4, 50), torch.randn(8, 1, 17), torch.randn(8)
    plain = filter_channels(x, weight, bias, stride, 8)
    torch.testing.assert_close(filter_channels(x, weight, bias, stride, 8, plane=True), plain)


def test_distinct_products_make_the_square_of_a_product() -> None:
    query, key = torch.randn(8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    first, second, weights = distinct_pairs(8)
    products = query[first] * query[second] * key[first] * key[second]
    half = (weights[:, 0] * products).sum()
    torch.testing.assert_close(half, (query @ key) ** 2 / 2)
