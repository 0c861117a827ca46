"""NsfCodec: a stream gives what the whole gives; source and filter do what their formulas say."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from prunus.models.codec.layers.source_filter import (
    NOISE_FRAMES,
    Source,
    SourceFilter,
    band_spread,
    minimum_phase,
)
from prunus.models.codec.layers.speech_features import Autocorrelation, MelLevels
from prunus.models.codec.nsfcodec.nsfcodec import NsfCodec, NsfCodecConfig, zero_past
from prunus.models.codec.nsfcodec.pitch_grid import PITCHES, pitch_hertz
from prunus.models.codec.nsfcodec.weights import load_nsf, on_grid, rounded, save_nsf, untrained_nsf
from prunus.runtime.errors import ArtifactError, UsageError

SMALL = NsfCodecConfig(
    width=32, hidden=48, encoder_blocks=2, decoder_blocks=2, pitch_width=24, stages=2, codes=32,
    dim=8, mel_bands=20, bands=16,
)  # fmt: skip
PROPERTY = settings(max_examples=15, deadline=None)


@pytest.fixture(scope="module")
def network():
    return untrained_nsf(3, SMALL)


def _sound(count, seed=0):
    """Noise that is louder and duller from frame to frame, as features should notice."""
    rng = np.random.default_rng(seed)
    frames = -(-count // 320)
    noise = rng.standard_normal((frames, 320))
    dull = np.cumsum(noise, axis=1) * 0.1
    share, level = rng.random((2, frames, 1))
    sound = (share * noise + (1 - share) * dull) * 10.0 ** (-2.5 * level)
    return torch.from_numpy(0.2 * sound.reshape(1, -1)[:, :count].astype(np.float32))


def _source(pitch):
    zero = torch.zeros(1, 1)
    both, *_ = Source(16000, 320)(torch.tensor([pitch]), zero, zero, zero)
    return both


@PROPERTY
@given(st.lists(st.integers(1, 5), min_size=1, max_size=10), st.integers(0, 99))
def test_any_schedule_of_steps_gives_the_whole(network, sizes, seed):
    frames = sum(sizes)
    sound = _sound(320 * frames, seed)
    rng = np.random.default_rng(seed)
    pitch = torch.from_numpy(rng.integers(0, 1 + PITCHES, (1, frames)))
    vectors = torch.from_numpy(rng.standard_normal((1, frames, 8)).astype(np.float32))
    encoder, decoder = network.encoder, network.decoder
    heard, spoken = zero_past(encoder.states(), 1), zero_past(decoder.states(), 1)
    parts, at = [], 0
    with torch.no_grad():
        whole = encoder(sound, zero_past(encoder.states(), 1))
        said, _ = decoder(pitch, vectors, zero_past(decoder.states(), 1))
        for size in sizes:
            logits, features, heard = encoder(sound[:, at * 320 : (at + size) * 320], heard)
            out, spoken = decoder(pitch[:, at : at + size], vectors[:, at : at + size], spoken)
            parts.append((logits, features, out))
            at += size
    logits, features, out = (torch.cat(p, dim=1) for p in zip(*parts, strict=True))
    torch.testing.assert_close(logits, whole[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features, whole[1], atol=1e-5, rtol=1e-5)
    assert torch.equal(logits.argmax(2), whole[0].argmax(2))
    torch.testing.assert_close(out, said, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 319, 320, 321, 5000])
def test_lengths_are_whole_frames(network, count):
    with torch.no_grad():
        pitch, codes = network.encode(_sound(count))
        frames = -(-count // 320)
        assert pitch.shape == (1, frames) and codes.shape == (2, 1, frames)
        assert network(_sound(count)).shape == (1, frames * 320)


def test_look_ahead_is_forty_milliseconds_in_all(network):
    sound = _sound(320 * 20)
    changed = sound.clone()
    changed[:, 320 * 10 :] = _sound(320 * 10, seed=1)
    with torch.no_grad():
        one, two = network.encode(sound), network.encode(changed)
        # Frame k is coded when frame k + 1 has been heard.
        assert torch.equal(one[1][..., :9], two[1][..., :9])
        assert not torch.equal(one[1][..., 9:], two[1][..., 9:])
        pitch, codes = one
        other = codes.clone()
        other[..., 12:] = (other[..., 12:] + 7) % 32
        a, b = network.decode(pitch, codes), network.decode(pitch, other)
    # Codes of frame k + 1 complete the sound of frame k.
    assert torch.equal(a[:, : 320 * 11], b[:, : 320 * 11])
    assert not torch.equal(a[:, 320 * 11 : 320 * 12], b[:, 320 * 11 : 320 * 12])


def test_pulses_have_the_pitch_that_was_asked_for_and_unit_power():
    for code in (20, 128, 220):
        pulses = _source([code] * 30)[0].numpy()[3200:]
        spectrum = np.abs(np.fft.rfft(pulses * np.hanning(len(pulses))))
        hertz = pitch_hertz()[code - 1]
        expected = [round(k * hertz * len(pulses) / 16000) for k in (1, 2, 5, 10)]
        for place in expected:
            around = spectrum[place - 3 : place + 4]
            assert around.max() > 20 * np.median(spectrum)
        assert 0.7 < pulses.std() < 1.3


def test_pulses_equal_the_sum_of_their_cosines():
    """The closed form against the definition, harmonic by harmonic, in float64."""
    pulses = _source([100] * 8)[0].numpy()[320 * 2 :]
    hertz = float(np.float32(pitch_hertz()[99]))
    time = np.arange(1, 320 * 8 + 1)[320 * 2 :] / 16000
    phase = 2 * np.pi * hertz * time
    harmonics = np.arange(1, int(7600 // hertz) + 1)
    exact = np.cos(harmonics[:, None] * phase).sum(axis=0) * np.sqrt(2 * hertz / 8000)
    # The voice begins within the first frame, at its pitch.
    assert np.abs(pulses - exact).max() < 2e-3 * np.abs(exact).max()


def test_no_voice_is_silence_and_noise_is_white_and_repeats_late():
    pulses, noise = _source([0] * (NOISE_FRAMES + 2)).numpy()
    assert not pulses.any()
    assert abs(noise.std() - 1) < 0.02 and abs(noise.mean()) < 0.02
    level = np.abs(np.fft.rfft(noise[: 320 * 128].reshape(-1, 128))).mean(axis=0)
    assert level[2:-2].max() < 1.25 * level[2:-2].min()
    np.testing.assert_array_equal(noise[:640], noise[-640:])


def test_a_flat_filter_is_a_delay():
    shaper = SourceFilter(16000, 480, 160, 16)
    sound = _sound(6400)
    levels = torch.zeros(1, 40, 2, 16)
    levels[:, :, 1] = -40.0
    both = torch.cat((sound, _sound(6400, seed=1)), dim=0)
    out, *_ = shaper(both, levels, torch.zeros(2, 320), torch.zeros(1, 320))
    torch.testing.assert_close(out[:, 640:], sound[:, 320:-320], atol=1e-5, rtol=0)


def test_minimum_phase_of_a_pole_is_its_phase():
    size, pole = 480, 0.8
    response = 1 / (1 - pole * np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size))
    got = np.log(np.abs(response)) @ minimum_phase(size).numpy()
    np.testing.assert_allclose(got, np.angle(response), atol=1e-6)


def test_band_levels_are_interpolated():
    spread = band_spread(16000, 480, 16)
    torch.testing.assert_close(spread.sum(dim=0), torch.ones(241, dtype=torch.float64))
    assert (spread >= 0).all() and (spread.max(dim=1).values > 0.5).all()


def test_features_show_level_and_period():
    time = torch.arange(1024) / 16000
    periods = torch.tensor([16000 / f for f in (80.0, 100.0, 125.0, 160.0, 210.0)])
    pulses = sum(torch.cos(2 * torch.pi * 125 * k * time) for k in range(1, 30))[None] * 0.05
    read = Autocorrelation(1024, 320, periods)(pulses)[0, :, 0]
    assert int(read.argmax()) == 2 and read.max() <= 1
    mel = MelLevels(16000, 480, 160, 80)
    quiet, loud = mel(0.01 * pulses), mel(pulses)
    assert torch.isfinite(mel(torch.zeros(1, 640))).all()
    assert (loud >= quiet).all() and (loud - quiet).max() > 1


def test_weights_are_rounded_without_loss_to_come(tmp_path):
    weight = torch.from_numpy(np.random.default_rng(0).standard_normal((64, 48)).astype("f"))
    weight[5] = 0
    fine = on_grid(weight)
    torch.testing.assert_close(fine, weight, atol=float(weight.abs().max()) / 250, rtol=0)
    assert torch.equal(on_grid(fine), fine)
    scale = (fine.abs().amax(dim=1) / 127).clamp(min=1e-9)
    steps = (fine / scale[:, None]).round()
    assert torch.equal(steps * scale[:, None], fine)

    network = untrained_nsf(1, SMALL)
    save_nsf(network.state_dict(), SMALL, {"origin": "here"}, tmp_path / "a.safetensors")
    again, about = load_nsf(tmp_path / "a.safetensors")
    assert about["origin"] == "here" and again.config == SMALL
    for name, value in rounded(network.state_dict()).items():
        assert torch.equal(again.state_dict()[name], value), name


def test_other_weights_are_refused(tmp_path):
    save_file({"a": torch.zeros(2)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(ArtifactError, match="something else"):
        load_nsf(tmp_path / "other.safetensors")
    with pytest.raises(ArtifactError, match="no weights"):
        load_nsf(tmp_path / "none.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"rubbish")
    with pytest.raises(ArtifactError, match="cannot be read"):
        load_nsf(tmp_path / "bad.safetensors")
    with pytest.raises(UsageError, match="seed"):
        untrained_nsf(-1)


def test_the_shipped_size_is_in_its_range():
    network = NsfCodec(NsfCodecConfig())
    codebooks = sum(book.embed.numel() for book in network.quantizer.codebooks)
    assert 4e6 < sum(p.numel() for p in network.parameters()) + codebooks < 6e6
