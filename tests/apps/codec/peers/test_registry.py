"""Peers by name, and where what they say is looked for."""

import numpy as np
import pytest

from prunus.apps.codec.peers.registry import PEERS, Peer, lateness, parse_peer
from prunus.runtime.errors import UsageError


def test_peers_have_a_name_and_a_rate():
    names = [parse_peer(text).name for text in ("opus:9.5", "opus-nolace:6", "codec2:1300")]
    assert names == ["Opus 9.5", "Opus wide + NoLACE 6", "Codec2 1300"]
    assert {parse_peer(f"opus-{k}:9").code.keywords["wide"] for k in ("wide", "lace")} == {True}
    assert not parse_peer("opus:9").code.keywords["wide"]
    for wrong in ("opus", "opus:2", "opus-lace:x", "lpcnet:2", "codec2:1301"):
        with pytest.raises(UsageError, match="Got the peer") as refused:
            parse_peer(wrong)
        assert wrong.partition(":")[0] in refused.value.message
    with pytest.raises(UsageError, match="did you mean 'opus-lace'"):
        parse_peer("opus-lac:6")
    assert "lpcnet" in PEERS


def test_what_comes_late_is_put_back(spoken):
    late = np.concatenate((np.zeros(640, np.float32), -spoken, np.zeros(900, np.float32)))
    assert lateness(spoken, late, 16000) == 640
    assert lateness(spoken, spoken, 16000) == 0
    for vocoder in (True, False):
        out = late if vocoder else -late  # a vocoder may turn the wave over
        peer = Peer("late", 16000, lambda x, out=out: (out, 1.5), vocoder, 20.0)
        one, other, rate = peer.pass_through(spoken, 16000)
        assert rate == 1.5 and len(one) == len(other)
        np.testing.assert_array_equal(-one if vocoder else one, other)
