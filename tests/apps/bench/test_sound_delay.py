"""Microphone to loudspeaker: the delay that was there is the one that is found."""

import json

import numpy as np
import pytest

from prunus.apps.bench.clicks import clicks, delays
from prunus.apps.bench.loopback import Track
from prunus.apps.bench.sound_delay import measure_delay
from prunus.apps.common.options import BackendChoice
from prunus.runtime.errors import CheckFailedError

RATE = 16_000


def _tracks(delay, seconds=8.0, late=0.3, noise=1e-3):
    """Return what was said, and heard so many seconds later by a recorder that began `late`."""
    sound, places = clicks(seconds, RATE)
    moved = np.concatenate((np.zeros(round(delay * RATE), np.float32), sound))
    moved = moved[round(late * RATE) :] * np.float32(0.3)
    moved += noise * np.random.default_rng(0).standard_normal(len(moved)).astype(np.float32)
    return Track(RATE, 100.0, [sound]), Track(RATE, 100.0 + late, [moved]), places


@pytest.mark.parametrize("late", [-0.0, 0.3])
@pytest.mark.parametrize("delay", [0.0, 0.06, 0.72, 2.9])
def test_a_known_delay_is_found_to_two_milliseconds(delay, late):
    said, heard, places = _tracks(delay, late=late)
    found = delays(said, heard, places)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found, delay, atol=0.002)


def test_another_rate_and_uneven_delays_are_seen_click_by_click():
    said, _, places = _tracks(0.0)
    sound = np.zeros(48_000 * 9, np.float32)
    one, _ = clicks(2.0, 48_000)
    burst, shifts = one[round(0.8 * 48_000) : round(0.9 * 48_000)], []
    for k, place in enumerate(places):
        shifts.append(0.2 + 0.03 * (k % 4))
        at = round((place + shifts[-1]) * 48_000)
        sound[at : at + len(burst)] = burst
    found = delays(said, Track(48_000, said.begun, [sound]), places)
    np.testing.assert_allclose(found, shifts, atol=0.002)


def test_clicks_that_were_lost_are_not_found_elsewhere():
    said, heard, places = _tracks(0.25, late=0.0)
    first = round((places[3] + 0.2) * RATE)
    heard.blocks[0][first : first + RATE // 5] = 0.0
    found = delays(said, heard, places)
    assert np.isnan(found[3]) and np.isfinite(np.delete(found, 3)).all()


def test_silence_and_noise_are_no_answer():
    said, heard, places = _tracks(0.1)
    for sound in (np.zeros(8 * RATE), np.random.default_rng(0).standard_normal(8 * RATE)):
        with pytest.raises(CheckFailedError, match="heard"):
            delays(said, Track(RATE, heard.begun, [sound.astype(np.float32)]), places)


def test_a_codec_in_memory_is_as_late_as_it_declares(pcm_codec):
    compute = BackendChoice("onnxruntime", threads=1)
    result = measure_delay(str(pcm_codec), compute, 6.0)
    # 20 ms of a block, 60 that wait, 20 in the loudspeaker.
    assert result.declared_ms == pytest.approx(100.0, abs=0.1)
    assert result.missed <= 1 and result.clicks > 7
    # The machine of a test may be busy: what it could not do in time, it has to tell.
    lag = result.devices["speaker_silence_ms"] + 40
    assert -10 < result.p50_ms - result.declared_ms < lag, result.to_text()


@pytest.mark.slow
def test_the_voice_picker_in_memory_is_as_late_as_it_declares():
    result = measure_delay("dolphin_nano", BackendChoice("onnxruntime", threads=1), 8.0)
    # Its windows look ahead by 800 ms; then 60 that wait, 20 in the loudspeaker.
    assert result.declared_ms == pytest.approx(880.0, abs=0.1)
    assert result.missed <= 3 and result.clicks > 10
    # What a busy machine does not do in time waits before the network, where nothing counts it.
    lag = result.devices["speaker_silence_ms"] + 1000
    assert -60 < result.p50_ms - result.declared_ms < lag, result.to_text()


def test_between_sinks_only_codecs_are_measured(prunus):
    wrong = prunus("bench", "dolphin_nano", "--boundary", "mic_to_speaker", "--through", "a:b")
    assert wrong.code == 2 and "which separates" in wrong.err


def test_the_verb_measures_and_writes(prunus, pcm_codec, tmp_path):
    out = tmp_path / "delay.json"
    words = ("bench", f"{pcm_codec}-encoder.onnx", "--boundary", "mic_to_speaker", "--seconds", 2)
    ran = prunus(*words, "--rounds", 2, "--backend", "onnxruntime", "-o", out)
    assert ran.code == 0, ran.err
    assert "declared 100 ms" in ran.out and "clicks heard" in ran.out
    (one,) = json.loads(out.read_text())
    assert one["through"] == "memory" and one["p99_ms"] >= one["p50_ms"] > 50
    wrong = prunus("bench", "selfie", "--through", "hole:voice")
    assert wrong.code == 2 and "without --boundary mic_to_speaker" in wrong.err
    assert prunus(*words, "--shape", "x:1").code == 2


def test_between_two_null_sinks(sound_server, pcm_codec):
    words = sound_server.prunus("bench", pcm_codec, "--boundary", "mic_to_speaker", "--seconds", 6,
                                "--rounds", 1, "--through", "hole:voice", "--json", "--quiet",
                                "--backend", "onnxruntime")  # fmt: skip
    ran = sound_server.ask(*words)
    assert ran.returncode == 0, ran.stderr
    (one,) = json.loads(ran.stdout)
    assert one["clicks"] - one["missed"] >= 6
    devices = one["devices"]
    device = devices["microphone_device_ms"] + devices["speaker_device_ms"]
    assert one["declared_ms"] == pytest.approx(80 + device, abs=0.2)
    assert 60 < one["p50_ms"] < one["declared_ms"] + devices["speaker_silence_ms"] + 500
    absent = sound_server.ask(*words[:-6], "--through", "hole:mouth", "--backend", "onnxruntime")
    assert absent.returncode == 3 and "no sink 'mouth'" in absent.stderr
