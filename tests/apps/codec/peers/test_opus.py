"""Opus through its library: length, place, rate, band; and the enhancers."""

import numpy as np
import pytest

from prunus.apps.codec.peers import opus as module
from prunus.apps.codec.peers.opus import RATE_HZ, node_modules, opus
from prunus.runtime.audio.resample import resample
from prunus.runtime.errors import HostError

pytest.importorskip("av")


@pytest.fixture(scope="module")
def sound(spoken):
    pytest.importorskip("soxr")
    return resample(spoken, 16000, RATE_HZ)


def test_opus_keeps_length_place_and_roughly_its_rate(sound):
    heard, rate = opus(sound, 24.0)
    assert len(heard) == len(sound) and heard.dtype == np.float32 and 15 < rate < 30
    best = np.argmax(np.correlate(heard[48000:96000], sound[48600:95400], "valid")) - 600
    assert abs(best) <= 240  # 5 ms
    assert opus(sound, 6.0)[1] < rate / 2
    assert module.version().startswith("libopus 1.")


def _band(heard):
    """Return the share of power between 4.5 and 7.5 kHz."""
    power = np.abs(np.fft.rfft(heard)) ** 2
    hertz = np.fft.rfftfreq(len(heard), 1 / RATE_HZ)
    return power[(hertz > 4500) & (hertz < 7500)].sum() / power.sum()


def test_wide_band_is_held_where_the_encoder_would_leave_it(sound):
    rng = np.random.default_rng(0)
    hissing = (sound + 0.05 * rng.standard_normal(len(sound))).astype(np.float32)
    narrow, wide = (_band(opus(hissing, 6.0, wide=wide)[0]) for wide in (False, True))
    assert wide > 20 * narrow


@pytest.mark.parametrize("decoder", ["lace", "nolace"])
def test_enhancers_change_what_is_heard_and_nothing_else(sound, decoder):
    try:
        node_modules()
    except HostError:
        pytest.skip("Node or opus-ml is not installed")
    plain, rate = opus(sound, 6.0, wide=True)
    heard, same = opus(sound, 6.0, wide=True, decoder=decoder)
    assert same == rate and heard.shape == plain.shape
    likeness = np.corrcoef(plain, heard)[0, 1]
    assert 0.5 < likeness < 0.9999


def test_what_is_missing_is_named(sound, monkeypatch, tmp_path):
    monkeypatch.setenv(module.MODULES, str(tmp_path))
    with pytest.raises(HostError, match="LACE and NoLACE need Node") as missing:
        opus(sound[:9600], 6.0, wide=True, decoder="lace")
    assert "npm install" in missing.value.hint
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(module.ctypes.util, "find_library", lambda name: None)
    module._library.cache_clear()
    try:
        with pytest.raises(HostError, match="needs libopus"):
            opus(sound[:9600], 6.0)
    finally:
        module._library.cache_clear()
