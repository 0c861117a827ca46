"""Codes over UDP: who is heard, who is not, and when a receiver stops to listen."""

import contextlib
import socket
import threading
import time

import numpy as np
import pytest

from prunus.apps.io.sound import udp
from prunus.apps.io.sound.udp import UdpReceiver, packet_key
from prunus.runtime.audio.packets import Packetizer, Receiver
from prunus.runtime.errors import SourceError, UsageError
from prunus.runtime.tasks.codec.card import CodeStream
from prunus.runtime.tasks.codec.codec import CodecFormat

FORM = CodecFormat("toy", 16000, 320, (CodeStream("codes", 1, 64),), 0, "ab" * 32, True)


def _sent(frames, stream, key=None, end=True):
    codes = {"codes": np.random.default_rng(stream).integers(0, 64, (1, frames))}
    packetizer = Packetizer(FORM, frames=4, stream=stream, key=key)
    packets = packetizer.push(codes)
    return packets + packetizer.flush(frames * 320) if end else packets


@contextlib.contextmanager
def _listening(key=None, **options):
    end = UdpReceiver(("127.0.0.1", 0), Receiver(FORM, depth=0, key=key), **options)
    with contextlib.closing(end), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        yield end, lambda packet: out.sendto(packet, ("127.0.0.1", end.port))


def test_a_restarted_sender_is_heard_after_a_short_silence(monkeypatch):
    monkeypatch.setattr(udp, "TAKEOVER_SECONDS", 0.0)
    with _listening(idle_seconds=20.0) as (end, send):
        groups = end.groups()
        for packet in _sent(8, 1, end=False):
            send(packet)
        heard = next(groups).frames + next(groups).frames
        for packet in _sent(12, 2):
            send(packet)
        heard += sum(group.frames for group in groups)
    assert heard == 8 + 12 and end.receiver.ended and not end.silent
    assert end.receiver.earlier == 8


def test_junk_and_repeats_do_not_keep_a_receiver_awake():
    """Idle time counts what is new: a flood of anything else would hold the port for ever."""
    packets = _sent(8, 1, end=False)
    with _listening(idle_seconds=0.3) as (end, send):
        stop = threading.Event()

        def flood():
            while not stop.wait(0.01):
                send(b"noise")
                send(packets[0])

        send(packets[0])
        sender = threading.Thread(target=flood)
        sender.start()
        begun = time.monotonic()
        try:
            assert sum(group.frames for group in end.groups()) == 4
        finally:
            stop.set()
            sender.join()
    assert end.silent and time.monotonic() - begun < 10.0


@pytest.mark.parametrize(("noise", "said"), [(b"", "nothing came"), (b"noise", "1 packets came")])
def test_waiting_for_the_first_packet_has_a_limit(noise, said):
    with _listening(wait_seconds=0.2) as (end, send):
        if noise:
            send(noise)
        with pytest.raises(SourceError, match=said):
            list(end.groups())


def test_strangers_without_the_key_are_not_heard():
    key = b"long secret"
    with _listening(key, idle_seconds=20.0) as (end, send):
        for packet in (*_sent(400, 9), *_sent(40, 1, key)):
            send(packet)
        assert sum(group.frames for group in end.groups()) == 40
    assert end.receiver.seen.refused == 103


@pytest.mark.parametrize("host", ["192.168.1.5", "0.0.0.0", "camera.local", "::"])
def test_packets_beyond_this_machine_need_a_key(host, tmp_path):
    with pytest.raises(UsageError, match="need a --key"):
        packet_key(None, host)
    assert packet_key("none", host) is None
    assert packet_key("long secret", host) == b"long secret"
    (tmp_path / "key").write_text("0123456789abcdef\n")
    assert packet_key(f"@{tmp_path / 'key'}", host) == b"0123456789abcdef"


def test_keys_are_optional_on_this_machine_and_never_short():
    assert packet_key(None, "127.0.0.1") is packet_key(None, "localhost") is None
    with pytest.raises(UsageError, match="3 bytes; expected 8 or more"):
        packet_key("abc", "127.0.0.1")
    with pytest.raises(SourceError, match="Cannot read the key"):
        packet_key("@/nonexistent/key", "127.0.0.1")
