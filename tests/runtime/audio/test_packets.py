"""Packets of codes: any loss, order or damage gives every frame once, in its place."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prunus.runtime.audio.packets import END, FOREIGN, MOST_MISSING, Packetizer, Receiver
from prunus.runtime.errors import SourceError, UsageError
from prunus.runtime.tasks.codec.card import CodeStream
from prunus.runtime.tasks.codec.codec import CodecFormat

STREAMS = (CodeStream("content", 2, 256), CodeStream("prosody", 1, 200, 4))


def _format(voice=0, identity="ab" * 32):
    return CodecFormat("toy", 16000, 320, STREAMS, voice, identity, True)


def _codes(frames, seed=0):
    rng = np.random.default_rng(seed)
    return {s.name: rng.integers(0, s.size, (s.codebooks, frames // s.stride)) for s in STREAMS}


def _packets(frames=96, size=8, redundancy=1, voice=None):
    codes = _codes(frames)
    sender = Packetizer(_format(0 if voice is None else len(voice)), frames=size,
                        redundancy=redundancy, stream=7, voice=voice)  # fmt: skip
    half = {n: v[:, : v.shape[1] // 2] for n, v in codes.items()}
    rest = {n: v[:, v.shape[1] // 2 :] for n, v in codes.items()}
    return codes, [*sender.push(half), *sender.push(rest), *sender.flush(frames * 320 - 5)]


def _received(receiver, packets):
    groups = [g for p in packets for g in receiver.push(p)]
    return groups + receiver.flush()


def _assert_in_place(groups, codes, frames):
    """Every frame once and in order; what is there equals what was sent."""
    at = 0
    for group in groups:
        assert group.first == at
        at += group.frames
        if group.codes is not None:
            for s in STREAMS:
                part = codes[s.name][:, group.first // s.stride : at // s.stride]
                assert np.array_equal(group.codes[s.name], part)
    assert at == frames


def test_a_packet_waits_for_its_samples():
    sender = Packetizer(_format(), frames=8)
    assert sender.latency == 8 * 320
    codes = _codes(96)
    part = {s.name: codes[s.name][:, : 4 // s.stride] for s in STREAMS}
    assert [len(sender.push(part)) for _ in range(4)] == [0, 1, 0, 1]


@pytest.mark.parametrize("redundancy", [0, 1, 2])
@pytest.mark.parametrize("size", [1, 8, 12])
def test_a_good_network_changes_nothing(size, redundancy):
    codes, packets = _packets(size=size, redundancy=redundancy)
    receiver = Receiver(_format(), depth=0)
    groups = _received(receiver, packets)
    _assert_in_place(groups, codes, 96)
    assert all(g.codes is not None for g in groups)
    assert receiver.ended and receiver.samples == 96 * 320 - 5
    assert receiver.seen.lost == receiver.seen.concealed == receiver.seen.recovered == 0
    assert receiver.seen.bytes == sum(map(len, packets))


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 11)), st.integers(0, 2), st.integers(0, 3), st.integers(0, 10**6))
def test_any_loss_and_any_order_within_the_buffer(gone, redundancy, depth, seed):
    assume(not gone >= set(range(9)))  # that would be joining late
    codes, packets = _packets(redundancy=redundancy)
    rng = np.random.default_rng(seed)
    # A packet moves back by less than the buffer holds.
    places = np.arange(len(packets)) + rng.uniform(0, max(depth, 1e-9), len(packets))
    places[-3:] = len(packets) + 10.0
    receiver = Receiver(_format(), depth)
    order = [int(i) for i in np.argsort(places, kind="stable")]
    groups = _received(receiver, [packets[i] for i in order if i not in gone])
    _assert_in_place(groups, codes, 96)
    expected = set()
    for k in range(12):  # a copy of packet k travels in the next `redundancy` ones
        if all(k + r in gone or k + r > 11 for r in range(redundancy + 1)):
            expected.update(range(8 * k, 8 * k + 8))
    missing = {f for g in groups if g.codes is None for f in range(g.first, g.first + g.frames)}
    assert missing == expected
    seen = receiver.seen
    assert seen.concealed == len(missing) and seen.late == 0
    assert seen.recovered == 8 * len(gone) - len(missing)


def test_a_packet_later_than_the_buffer_is_counted_and_dropped():
    codes, packets = _packets(redundancy=0)
    late = [packets[0], packets[2], packets[3], packets[1], *packets[4:]]
    receiver = Receiver(_format(), depth=1)
    groups = _received(receiver, late)
    _assert_in_place(groups, codes, 96)
    assert (receiver.seen.late, receiver.seen.lost) == (1, 1)
    receiver = Receiver(_format(), depth=2)
    assert all(g.codes is not None for g in _received(receiver, late))
    assert receiver.seen.reordered == 1 and receiver.seen.late == 0


def test_doubled_packets_play_once():
    codes, packets = _packets()
    receiver = Receiver(_format())
    _assert_in_place(_received(receiver, [p for p in packets for _ in range(2)]), codes, 96)
    assert receiver.seen.doubled + receiver.seen.late == 12


def test_voice_travels_and_comes_again():
    voice = np.linspace(-1, 1, 24).astype(np.float32)
    _, packets = _packets(size=4, voice=voice)
    receiver = Receiver(_format(24))
    _received(receiver, packets[1:])  # the first packet is the voice
    assert np.array_equal(receiver.voice, voice)


def test_joining_late_begins_where_the_sender_is():
    codes, packets = _packets()
    receiver = Receiver(_format(), depth=0)
    groups = _received(receiver, packets[10:])
    assert receiver.begin == groups[0].first == 80
    assert receiver.seen.lost == 0
    assert np.array_equal(groups[0].codes["content"], codes["content"][:, 80:88])


def test_a_very_long_gap_is_not_filled():
    _, packets = _packets(frames=8 * (MOST_MISSING + 20))
    receiver = Receiver(_format(), depth=0)
    after = packets[MOST_MISSING + 10 : MOST_MISSING + 12]
    groups = [g for p in (packets[0], *after) for g in receiver.push(p)]
    assert sum(g.frames for g in groups) == 24  # what came; the rest is skipped
    assert receiver.seen.lost == MOST_MISSING + 9


def test_another_codec_is_refused_and_strangers_are_ignored():
    codes, packets = _packets()
    with pytest.raises(SourceError, match="same --model"):
        _received(Receiver(_format(identity="cd" * 32)), packets[:FOREIGN])
    one = Receiver(_format(), depth=0)  # one stray packet of another codec changes nothing
    foreign = Packetizer(_format(identity="cd" * 32), frames=8).push(_codes(8))
    _assert_in_place(_received(one, foreign + packets), codes, 96)
    other = Packetizer(_format(), frames=8, stream=8).push(_codes(8, seed=1))
    receiver = Receiver(_format(), depth=0)
    groups = _received(receiver, [packets[0], other[0], b"", b"noise", *packets[1:]])
    _assert_in_place(groups, codes, 96)
    assert receiver.seen.refused == 3


def test_strangers_neither_end_nor_starve_a_stream():
    """Checksums hold, and the stream's number is right: only the content is impossible."""
    codes, packets = _packets()
    forged = Packetizer(_format(), frames=8, stream=7)
    forged._sequence = 10**6
    stray = [
        forged.push(_codes(8, seed=1))[0],  # a leap that nothing confirms
        forged._sealed(END, b"\0" * 12),  # an end before what has been heard
        forged._sealed(END, b"\1\0\0\0" + b"\xff" * 8),
        forged._sealed(9, b""),
    ]
    receiver = Receiver(_format(), depth=0)
    groups = _received(receiver, [packets[0], *stray, *packets[1:]])
    _assert_in_place(groups, codes, 96)
    assert receiver.samples == 96 * 320 - 5 and receiver.seen.lost == 0
    late = Receiver(_format())
    assert late.push(packets[-1]) == [] and not late.ended  # the end of a sender that had stopped


def test_a_restarted_sender_takes_over_after_silence_alone():
    codes, packets = _packets()
    other = Packetizer(_format(), frames=8, stream=8)
    again = [*other.push(codes), *other.flush(96 * 320 - 5)]
    receiver = Receiver(_format(), depth=2)
    heard = [*packets[:3], packets[4]]  # one is still waited for
    first = [g for p in heard for g in receiver.push(p)]
    assert receiver.push(again[0]) == [] and receiver.seen.refused == 1
    assert receiver.push(again[-1], quiet=True) == [] and not receiver.ended
    second = [g for p in again for g in receiver.push(p, quiet=p is again[0])] + receiver.flush()
    assert sum(g.frames for g in first) == 3 * 8 and receiver.earlier == 5 * 8
    assert [g.first for g in second] == [24, 32, *range(0, 96, 8)]  # the old rest, then the new
    assert all(g.codes is not None for g in second) and receiver.ended


def test_only_the_key_opens_a_stream():
    codes = _codes(96)
    keyed = Packetizer(_format(), frames=8, key=b"long secret")
    packets = keyed.push(codes) + keyed.flush(96 * 320)
    plain = Packetizer(_format(), frames=8).push(codes)
    assert len(packets[0]) == len(plain[0]) + 6
    receiver = Receiver(_format(), depth=0, key=b"long secret")
    _assert_in_place(_received(receiver, [*plain, *packets]), codes, 96)
    assert receiver.seen.refused == len(plain)
    for wrong in (None, b"long secreu"):
        deaf = Receiver(_format(), key=wrong)
        assert _received(deaf, packets) == [] and deaf.seen.refused == len(packets)


@pytest.mark.fuzz
@given(st.integers(0, 10**6), st.integers(1, 255), st.integers(0, 10**6))
def test_a_damaged_packet_is_a_lost_packet(place, change, which):
    codes, packets = _packets(redundancy=0)
    k = which % 12
    spoiled = bytearray(packets[k])
    spoiled[place % len(spoiled)] ^= change
    receiver = Receiver(_format(), depth=0)
    groups = _received(receiver, [*packets[:k], bytes(spoiled), *packets[k + 1 :]])
    _assert_in_place(groups, codes, 96)
    assert receiver.seen.refused == 1 and receiver.seen.concealed == 8


@pytest.mark.fuzz
@given(st.binary(max_size=200))
def test_any_bytes_are_refused_quietly(noise):
    receiver = Receiver(_format())
    assert receiver.push(noise) == [] and receiver.push(b"PU\x01\x01" + noise) == []
    assert receiver.seen.refused == 2


def test_packets_stay_within_what_networks_pass():
    with pytest.raises(UsageError, match="at most 1200"):
        Packetizer(_format(), frames=400, redundancy=2)
    with pytest.raises(UsageError, match="expected 1 or more"):
        Packetizer(_format(), frames=0)
    with pytest.raises(UsageError, match="0 or more"):
        Receiver(_format(), depth=-1)


@pytest.mark.fuzz
@given(
    st.lists(
        st.tuples(st.integers(0, 255), st.integers(0, 3), st.integers(0, 2**32 - 1),
                  st.binary(max_size=90)),
        max_size=12,
    ),
    st.booleans(),
)  # fmt: skip
def test_forged_packets_with_good_checksums_are_bounded(forged, quiet):
    """Whatever they say, no error, no more frames than packets and gaps can bring."""
    receiver = Receiver(_format(24), depth=1)
    groups = []
    for kind, stream, sequence, body in forged:
        forger = Packetizer(_format(24), frames=8, stream=stream, voice=np.zeros(24, np.float32))
        forger._sequence = sequence
        groups += receiver.push(forger._sealed(kind % 5, body), quiet=quiet)
    groups += receiver.flush()
    assert sum(g.frames for g in groups if g.codes is None) <= MOST_MISSING * 256 * len(forged)
    for group in groups:
        if group.codes is not None:
            assert group.codes["content"].shape == (2, group.frames)
