"""The multiply-accumulates that the separation benchmark prints, and peers that are missing."""

import sys

import pytest

from prunus.apps.bench import separation as bench_separation
from prunus.runtime.errors import HostError


@pytest.mark.parametrize(("heat", "giga"), [("filter", 0.379), ("dense", 0.841)])
def test_the_transform_counts_among_dolphins_products(heat, giga) -> None:
    found = bench_separation.dolphin_macs("nano", heat, 0.4)
    assert found / 1e9 == pytest.approx(giga, rel=0.01)


def test_peers_that_are_missing_are_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "asteroid", None)
    with pytest.raises(HostError, match="Conv-TasNet needs the package 'asteroid'") as error:
        bench_separation.build_peer("Conv-TasNet")
    assert error.value.hint == "Install the peers with: make peer-deps"
    assert error.value.exit_code == 3


def test_peers_have_the_size_of_their_papers() -> None:
    pytest.importorskip("asteroid")
    from prunus.models.macs import count_parameters

    network = bench_separation.build_peer("Conv-TasNet")
    assert count_parameters(network) == pytest.approx(5.1e6, rel=0.02)  # table 2 of the paper
    per_second = bench_separation.peer_macs("Conv-TasNet", 16000)
    assert per_second == pytest.approx(5.0e9, rel=0.02)
    # LSTMs are counted: without them DPTNet would have a tenth.
    assert bench_separation.peer_macs("DPTNet", 16000) > 1.5e10
