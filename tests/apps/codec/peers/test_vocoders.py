"""LPCNet and Codec2: rate, length, and that the voice's loudness comes through."""

import ctypes.util

import numpy as np
import pytest

from prunus.apps.codec.peers import vocoders
from prunus.apps.codec.peers.registry import parse_peer
from prunus.runtime.errors import HostError


@pytest.mark.parametrize(
    ("text", "kilobits"), [("lpcnet", 52 / 30), ("codec2:3200", 3.2), ("codec2:700", 0.7)]
)
def test_vocoders_keep_rate_length_and_loudness(spoken, text, kilobits):
    pytest.importorskip("soxr")
    if ctypes.util.find_library("codec2") is None:
        pytest.skip("libcodec2 is not installed")
    one, other, rate = parse_peer(text).pass_through(spoken[:32000], 16000)
    assert rate == pytest.approx(kilobits) and len(other) == len(one) == 32000
    loudness = [np.sqrt((x.reshape(-1, 800) ** 2).mean(axis=1)) for x in (one, other)]
    assert np.corrcoef(*loudness)[0, 1] > 0.7


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(vocoders.ctypes.util, "find_library", lambda name: None)
    vocoders._library.cache_clear()
    try:
        with pytest.raises(HostError, match="need libcodec2") as missing:
            vocoders.codec2(np.zeros(800, np.float32), 1300)
        assert "libcodec2-1.0" in missing.value.hint
    finally:
        vocoders._library.cache_clear()
