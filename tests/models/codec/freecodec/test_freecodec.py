"""FreeCodec's structure: rates, branches that do what they are for, names of published parts."""

import pytest
import torch

from prunus.models.codec.freecodec.ecapa import EcapaTdnn
from prunus.models.codec.freecodec.freecodec import (
    FreeCodec,
    FreeCodecConfig,
    GroupQuantizer,
    positions,
)
from prunus.models.codec.freecodec.supercodec import SuperCodec, SuperCodecConfig
from prunus.runtime.errors import UsageError

SMALL = FreeCodecConfig(
    content=SuperCodecConfig((2, 4, 5, 8), 1, 64, 16, 4, (2, 2, 4, 4)),
    prosody_codes=32, speaker_dim=64, timbre_dim=24, width=16, heads=2, layers=2, blocks=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return FreeCodec(SMALL).eval()


def test_rates_are_the_papers(network):
    audio = torch.randn(2, 16 * 320) * 0.1
    with torch.no_grad():
        content, prosody = network.encode(audio)
        audio_out = network(audio)
    assert content.shape == (2, 16, 1) and prosody.shape == (2, 2, 1)
    assert audio_out.shape == audio.shape
    full = FreeCodecConfig()
    bits = 8 * full.sample_rate_hz / full.hop * (1 + 1 / full.prosody_stride)
    assert (full.content.codes, full.prosody_codes, bits) == (256, 256, 450.0)


def test_branches_carry_the_names_of_their_published_parts():
    with torch.device("meta"):
        names = set(FreeCodec().state_dict())
        content = SuperCodec(FreeCodecConfig().content).state_dict()
        speaker = EcapaTdnn().state_dict()
    parts = {f"content.{n}" for n in content if not n.startswith("decoder.")}
    assert parts | {f"timbre.{n}" for n in speaker} <= names
    assert {f"decoder.upsampler.{n.removeprefix('decoder.')}" for n in content
            if n.startswith("decoder.")} <= names  # fmt: skip


def test_every_input_of_the_decoder_matters(network):
    torch.manual_seed(1)
    content, prosody = torch.randint(64, (1, 16, 1)), torch.randint(32, (1, 2, 1))
    voice = torch.randn(1, 24)
    with torch.no_grad():
        base = network.decode(content, prosody, voice)
        for other in (
            network.decode((content + 1) % 64, prosody, voice),
            network.decode(content, (prosody + 1) % 32, voice),
            network.decode(content, prosody, -voice),
        ):
            assert (other - base).abs().max() > 1e-4


def test_prosody_sees_only_the_lowest_bands(network):
    time = torch.arange(16 * 320) / 16000
    low, high = torch.sin(6.2832 * 200 * time), torch.sin(6.2832 * 5000 * time)
    encoder = network.prosody["encoder"]
    with torch.no_grad():
        base = encoder(low.unsqueeze(0))
        loud_high = encoder((low + 0.5 * high).unsqueeze(0))
        louder_low = encoder(4.0 * low.unsqueeze(0))
    # The onset of the tone is broadband, so the outer codes see a little of it.
    assert (loud_high - base).abs().mean() < 0.3 * (louder_low - base).abs().mean()


def test_group_quantiser_is_exact_on_its_own_entries():
    torch.manual_seed(2)
    quantiser = GroupQuantizer(4, 16, 24)
    codes = torch.randint(16, (5, 4))
    assert torch.equal(quantiser.encode(quantiser.decode(codes)), codes)
    grouped = FreeCodec(
        FreeCodecConfig(content=SMALL.content, speaker_dim=64, timbre_dim=24, timbre_groups=8,
                        timbre_codes=16, width=16, heads=2)
    ).eval()  # fmt: skip
    with torch.no_grad():
        vector = grouped.quantised_speaker(torch.randn(1, 8000))
    parts = vector.view(8, 3)
    for part, table in zip(parts, grouped.timbre_vq.embed, strict=True):
        assert (table - part).abs().sum(dim=-1).min() == 0
    with pytest.raises(UsageError, match="divisor"):
        FreeCodecConfig(timbre_groups=7)


def test_positions_differ():
    table = positions(50, 16)
    assert table.shape == (50, 16)
    assert torch.cdist(table, table).fill_diagonal_(1).min() > 0.01
