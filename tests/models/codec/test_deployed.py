"""Step graphs in PyTorch: any schedule gives what the whole sound gives."""

import pytest
import torch

from prunus.models.codec.deployed import (
    FreeCodecDecoder,
    FreeCodecEncoder,
    SpeechTokenizerEncoder,
    WavTokenizerDecoder,
)
from prunus.models.codec.deployed_seanet import DELAY, DecoderStep, EncoderStep
from prunus.models.codec.freecodec.freecodec import FreeCodec, FreeCodecConfig
from prunus.models.codec.freecodec.supercodec import SuperCodecConfig
from prunus.models.codec.fusecodec.speechtokenizer import SpeechTokenizer, SpeechTokenizerConfig
from prunus.models.codec.layers.weight_norm import fold_weight_norm
from prunus.models.codec.untrained import initialise
from prunus.models.codec.wavtokenizer import WavTokenizer, WavTokenizerConfig
from prunus.runtime.errors import UsageError


def _wavtokenizer(strides):
    config = WavTokenizerConfig("toy", strides, 24000, 64, 24, 4, 64, 96, 2)
    network = WavTokenizer(config)
    initialise(network, 1)
    return fold_weight_norm(network).eval()


def _run(step, pieces):
    states = [torch.zeros(s.shape) for s in step.states()]
    outputs = []
    with torch.no_grad():
        for piece in pieces:
            out, *states = step(piece, *states)
            outputs.append(out)
    return torch.cat(outputs, dim=-1)


@pytest.mark.parametrize("strides", [(2, 4, 5, 8), (4, 5, 5, 6)])
@pytest.mark.parametrize("frames", [5, 6, 13])
def test_encoder_steps_equal_the_offline_encoder(strides, frames):
    network = _wavtokenizer(strides)
    hop = network.config.hop
    step = EncoderStep(network.encoder, network.quantizer, hop, frames)
    length = 31
    audio = torch.randn(1, length * hop) * 0.3
    silence = torch.zeros(1, (2 * frames + 8) * hop)
    with torch.no_grad():
        offline = network.encode(torch.cat((audio, silence), dim=1))[1][..., :length]
    pieces = torch.cat((audio, silence), dim=1).split(frames * hop, dim=1)
    got = _run(step, [p for p in pieces if p.shape[1] == frames * hop])
    assert torch.equal(got[..., DELAY : DELAY + length].permute(1, 0, 2), offline)
    assert len(offline.unique()) > 8


@pytest.mark.parametrize("frames", [5, 7, 16])
def test_decoder_steps_equal_the_offline_decoder(frames):
    config = SpeechTokenizerConfig(stages=3, codes=32, dim=24, base=4, semantic=8)
    network = SpeechTokenizer(config)
    initialise(network, 1)
    fold_weight_norm(network).eval()
    hop, length = config.hop, frames * 5
    codes = torch.randint(32, (3, 1, length))
    step = DecoderStep(network.decoder, network.quantizer, hop, frames)
    got = _run(step, codes.permute(1, 0, 2).split(frames, dim=2))
    with torch.no_grad():
        offline = network.decode(codes).squeeze(1)
    kept = (length - DELAY) * hop
    torch.testing.assert_close(got[:, DELAY * hop :], offline[:, :kept], atol=1e-5, rtol=1e-5)
    assert offline.std() > 1e-3


def test_short_steps_are_refused():
    network = _wavtokenizer((2, 2, 2, 2))
    with pytest.raises(UsageError, match="5 or more"):
        EncoderStep(network.encoder, network.quantizer, 16, 4)


def test_masked_decoder_equals_the_offline_one_on_short_sounds():
    network = _wavtokenizer((2, 4, 5, 8))
    codes = torch.randint(64, (1, 1, 19))
    with torch.no_grad():
        offline = network.decode(network.codes_to_features(codes), 2).clamp(-1, 1)
        decoder = WavTokenizerDecoder(network, 2)
        padded = torch.cat((codes, torch.full((1, 1, 13), 7)), dim=2)
        valid = (torch.arange(32) < 19).float().unsqueeze(0)
        got = decoder(padded, valid)[:, : 19 * 320]
    torch.testing.assert_close(got, offline, atol=2e-6, rtol=1e-5)


def test_window_graphs_compute_what_their_networks_do():
    speech = SpeechTokenizer(SpeechTokenizerConfig(stages=2, codes=16, dim=24, base=4)).eval()
    initialise(speech, 2)
    audio = torch.randn(1, 16 * 320) * 0.2
    with torch.no_grad():
        expected = speech.encode(audio.unsqueeze(1)).permute(1, 0, 2)
        assert torch.equal(SpeechTokenizerEncoder(speech)(audio), expected)
    free = FreeCodec(
        FreeCodecConfig(SuperCodecConfig((2, 4, 5, 8), 1, 32, 16, 4, (1, 2, 2, 2)),
                        speaker_dim=32, timbre_dim=16, width=16, heads=2, blocks=1)
    ).eval()  # fmt: skip
    initialise(free, 3)
    voice = torch.randn(1, 16)
    with torch.no_grad():
        content, prosody = free.encode(audio)
        sound = free.decode(content, prosody, voice).clamp(-1, 1)
        pair = FreeCodecEncoder(free)(audio)
        assert torch.equal(pair[0], content.transpose(1, 2))
        assert torch.equal(pair[1], prosody.transpose(1, 2))
        torch.testing.assert_close(FreeCodecDecoder(free)(*pair, voice), sound)
